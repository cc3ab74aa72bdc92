//! Where the workspace is, and how chores run their steps.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// The repository's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The cargo that runs us, in the repository's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(program());
    command.current_dir(root());
    command
}

/// `cargo test`, for tests that send signals. What a shell runs in the background ignores some, as does
/// what `nohup` runs, and our programs go on ignoring what they are started to ignore.
pub(crate) fn cargo_test() -> Command {
    let mut command = Command::new("env");
    command
        .arg("--default-signal=HUP,INT,QUIT")
        .arg(program())
        .arg("test")
        .current_dir(root());
    command
}

fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let folder = metadata["target_directory"]
        .as_str()
        .context("cargo names no target folder")?;
    Ok(folder.into())
}

/// Runs one step, says how long it took, and fails with its name.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{name}: cannot run {command:?}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    if started.elapsed().as_secs() >= 5 {
        note(&format!("{name}: {} s", started.elapsed().as_secs()));
    }
    Ok(())
}

/// A line for the person who waits.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "xtask: {text}");
}
