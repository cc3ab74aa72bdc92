//! `cargo xtask dev`: builds the three programs and becomes `sortie-server dev`.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The programs that a developer's installation consists of.
const PACKAGES: [&str; 3] = ["sortie-server", "sortie-agent", "sortie-cli"];

/// Builds, then replaces this process by the server, so that signals and the exit status are its
/// own. `arguments` go to `sortie-server dev` as they are.
///
/// # Errors
/// When the build fails or the server cannot be started.
pub(crate) fn run(release: bool, arguments: &[String]) -> Result<()> {
    let mut build = workspace::cargo();
    // Cargo shows its progress on a terminal; the person waits for minutes the first time.
    build.arg("build");
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    if release {
        build.arg("--release");
    }
    workspace::run("build", &mut build)?;
    let profile = if release { "release" } else { "debug" };
    let server = workspace::target_dir()?.join(profile).join("sortie-server");
    let error = Command::new(&server).arg("dev").args(arguments).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!("{} was not built", server.display());
    }
    Err(error).with_context(|| format!("cannot run {}", server.display()))
}
