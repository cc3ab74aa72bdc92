//! House rules that a compiler does not check: files say what they are, nothing names a machine, and
//! nothing that a rule forbids is left in the tree.

#![expect(
    clippy::expect_used,
    reason = "a rule that cannot be looked at must fail the test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every tracked file, and every new one that is not ignored.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "these tests need a git checkout");
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    text.lines()
        .map(str::to_owned)
        .filter(|file| root().join(file).is_file())
        .collect()
}

fn texts() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter_map(|file| {
        let text = fs::read_to_string(root().join(&file)).ok()?;
        Some((file, text))
    })
}

#[test]
fn rust_files_open_by_saying_what_they_are() {
    let silent: Vec<_> = texts()
        .filter(|(file, text)| file.ends_with(".rs") && !text.starts_with("//!"))
        .map(|(file, _)| file)
        .collect();
    assert!(
        silent.is_empty(),
        "files that do not open with `//!`: {silent:#?}"
    );
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    // Spelled in two halves, so that this file does not find itself.
    let forbidden = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/."),
        concat!("bash_", "jobs"),
        concat!("index", "-url"),
        concat!("\"resolved\": \"", "http"),
        concat!("registry.", "npmjs"),
        concat!("files.python", "hosted"),
    ];
    let mut found = Vec::new();
    for (file, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            if forbidden.iter().any(|words| line.contains(words)) {
                found.push(format!("{file}:{}", number + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "machine paths or registry addresses: {found:#?}"
    );
}

#[test]
fn nothing_is_left_to_do_in_the_tree() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let found: Vec<_> = texts()
        .filter(|(file, _)| {
            file.ends_with(".rs") || file.ends_with(".sql") || file.ends_with(".py")
        })
        .filter(|(_, text)| words.iter().any(|word| text.contains(word)))
        .map(|(file, _)| file)
        .collect();
    assert!(found.is_empty(), "work left as a note: {found:#?}");
}

#[test]
fn tests_wait_for_states_and_not_for_time() {
    let sleeping = concat!("thread::", "sleep");
    let found: Vec<_> = texts()
        .filter(|(file, _)| file.ends_with(".rs") && file.contains("/tests/"))
        .filter(|(_, text)| text.contains(sleeping))
        .map(|(file, _)| file)
        .collect();
    assert!(
        found.is_empty(),
        "tests that sleep instead of waiting for a state: {found:#?}"
    );
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let ci = root().join(".ci/run");
    let mode = fs::metadata(&ci)
        .expect(".ci/run exists")
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0o111, ".ci/run needs its run bits");
}
