//! `cargo xtask fuzz`: builds the fuzz targets with coverage feedback on the stable compiler and
//! runs each for a few seconds from its committed corpus.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::workspace;

/// What libFuzzer needs from the compiler. All of it is accepted by the stable compiler; only the
/// sanitizers are not, and Rust's own checks stand in for them.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1 -Cdebug-assertions \
    -Coverflow-checks --cfg fuzzing";

/// Runs one target, or all, for `seconds` each.
///
/// # Errors
/// When a target does not build or finds something.
pub(crate) fn run(target: Option<&str>, seconds: u32) -> Result<()> {
    let fuzz = workspace::root().join("fuzz");
    let out = workspace::target_dir()?.join("fuzz");
    let mut build = workspace::cargo();
    build.args([
        "build",
        "--release",
        "--quiet",
        "--locked",
        "--target",
        &host()?,
    ]);
    build
        .arg("--target-dir")
        .arg(&out)
        .env("RUSTFLAGS", FLAGS)
        .current_dir(&fuzz);
    workspace::run("fuzz targets", &mut build)?;
    for name in targets(&fuzz)? {
        if target.is_none_or(|wanted| wanted == name) {
            run_one(
                &out.join(host()?).join("release").join(&name),
                &fuzz,
                &name,
                seconds,
            )?;
        }
    }
    Ok(())
}

fn run_one(program: &Path, fuzz: &Path, name: &str, seconds: u32) -> Result<()> {
    let found = workspace::target_dir()?.join("fuzz-found").join(name);
    fs::create_dir_all(&found)?;
    let corpus = fuzz.join("corpus").join(name);
    fs::create_dir_all(&corpus)?;
    let mut command = Command::new(program);
    // The first folder takes new inputs, so the committed one stays as it is.
    command
        .arg(&found)
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"));
    command.args([
        "-verbosity=0",
        "-print_final_stats=0",
        "-max_len=65536",
        "-timeout=5",
    ]);
    command.arg(format!("-artifact_prefix={}/", found.display()));
    workspace::run(&format!("fuzz {name}"), &mut command)
}

/// The targets, by their files.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(fuzz.join("fuzz_targets"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .context("odd file name")?;
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The triple we run on. A target is named so that the flags reach no build script.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("rustc names no host")
}
