//! Other people's programs, where they are installed. `cargo xtask test` installs them and says so
//! in the environment; without it a test that needs one is skipped visibly.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// A program of somebody else.
pub type Peer = PathBuf;

/// Says that a test is skipped, and why. Fails instead where every peer must be present, as in CI.
///
/// # Errors
/// When `SORTIE_REQUIRE_PEERS` is set.
pub fn skip(what: &str) -> Result<()> {
    if env::var_os("SORTIE_REQUIRE_PEERS").is_some() {
        bail!("{what} is missing, and SORTIE_REQUIRE_PEERS demands it");
    }
    announce(what);
    Ok(())
}

/// Says that a test is skipped for want of something that not every machine can have: never an error.
pub fn announce(what: &str) {
    // Past the capture of the test harness, so that a person sees it.
    let _ = writeln!(std::io::stderr(), "skipped: {what}");
}

/// The AWS CLI.
#[must_use]
pub fn aws() -> Option<Peer> {
    named("SORTIE_AWS").or_else(|| on_path("aws"))
}

/// A Python that has boto3.
#[must_use]
pub fn python() -> Option<Peer> {
    named("SORTIE_PYTHON")
}

/// Ansible, as its `ansible-playbook`.
#[must_use]
pub fn ansible_playbook() -> Option<Peer> {
    named("SORTIE_ANSIBLE").or_else(|| on_path("ansible-playbook"))
}

/// A Python that has `pyssm-client`. It needs 3.12, which not every machine has: its absence is
/// announced but never an error.
#[must_use]
pub fn pyssm_python() -> Option<Peer> {
    let found = named("SORTIE_PYSSM_PYTHON");
    if found.is_none() {
        announce("pyssm-client is not installed (it needs Python 3.12 or newer)");
    }
    found
}

/// The folder with packages from the npm registry.
#[must_use]
pub fn node_modules() -> Option<PathBuf> {
    named("SORTIE_NODE_MODULES")
}

/// The official `session-manager-plugin`, which cannot be installed from a package registry: its
/// absence is announced but never an error.
#[must_use]
pub fn official_plugin() -> Option<Peer> {
    official("session-manager-plugin")
}

/// The official `amazon-ssm-agent`, which has its workers beside it. Its absence is announced but
/// never an error.
#[must_use]
pub fn official_agent() -> Option<Peer> {
    official("amazon-ssm-agent")
}

fn official(name: &str) -> Option<Peer> {
    let found = env::var_os("SORTIE_PEERS")
        .map(|folder| Path::new(&folder).join(name))
        .filter(|path| path.is_file())
        .or_else(|| on_path(name));
    if found.is_none() {
        announce(&format!(
            "the official {name} is neither in SORTIE_PEERS nor on PATH"
        ));
    }
    found
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.exists())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
