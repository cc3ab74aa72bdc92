//! `cargo xtask test`: everything that must hold before a change lands, in the order that finds a
//! mistake soonest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{codegen, fuzz, workspace};

/// What other people's programs come from the Python registry, and in which versions.
const PYTHON_PEERS: &[&str] = &["awscli==1.45.11", "boto3==1.43.11", "botocore==1.43.11"];
/// In an environment of its own, so that neither holds back the other's dependencies.
const ANSIBLE: &str = "ansible-core==2.19.14";
/// And those from the npm registry.
const NODE_PEERS: &[&str] = &["ssm-session@1.0.6", "ws@8.23.0"];
/// Needs Python 3.12 and is left out where there is none.
const PYSSM_CLIENT: &str = "pyssm-client==0.2.0";

/// Runs every check. With `quick`, those that need other people's programs or minutes are left out.
///
/// # Errors
/// At the first step that fails, by its name.
pub(crate) fn run(quick: bool) -> Result<()> {
    workspace::run(
        "format",
        workspace::cargo().args(["fmt", "--all", "--check"]),
    )?;
    workspace::run(
        "clippy",
        workspace::cargo()
            .args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--quiet",
                "--",
            ])
            .args(["--deny", "warnings"]),
    )?;
    let mut docs = workspace::cargo();
    docs.args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"]);
    docs.env("RUSTDOCFLAGS", "--deny warnings");
    workspace::run("documentation", &mut docs)?;
    // The programs first: tests run them as a person would.
    workspace::run(
        "build",
        workspace::cargo().args([
            "build",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
        ]),
    )?;
    let mut tests = workspace::cargo_test();
    tests.args(["--workspace", "--locked", "--quiet", "--no-fail-fast"]);
    if quick {
        workspace::run("tests", &mut tests)?;
        workspace::note("quick run: other people's clients, generated code and fuzzing left out");
        return Ok(());
    }
    let peers = install_peers()?;
    tests.envs(peers.variables());
    workspace::run("tests", &mut tests)?;
    let models = peers.python_packages()?.join("botocore/data");
    codegen::run(&codegen::Options {
        check: true,
        models: Some(models),
    })?;
    fuzz::run(None, 5)?;
    workspace::note("all green");
    Ok(())
}

/// Other people's programs, installed under the target folder.
pub(crate) struct Peers {
    python: PathBuf,
    ansible: PathBuf,
    pyssm: Option<PathBuf>,
    node_modules: PathBuf,
}

impl Peers {
    /// How tests find them.
    pub(crate) fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        let mut variables = vec![
            ("SORTIE_PYTHON", self.python.join("bin/python")),
            ("SORTIE_AWS", self.python.join("bin/aws")),
            ("SORTIE_ANSIBLE", self.ansible.join("bin/ansible-playbook")),
            ("SORTIE_NODE_MODULES", self.node_modules.clone()),
            ("SORTIE_REQUIRE_PEERS", "1".into()),
        ];
        if let Some(pyssm) = &self.pyssm {
            variables.push(("SORTIE_PYSSM_PYTHON", pyssm.join("bin/python")));
        }
        variables
    }

    fn python_packages(&self) -> Result<PathBuf> {
        let lib = fs::read_dir(self.python.join("lib"))?;
        let version = lib
            .filter_map(Result::ok)
            .next()
            .context("the Python environment is empty")?;
        Ok(version.path().join("site-packages"))
    }
}

pub(crate) fn install_peers() -> Result<Peers> {
    let folder = workspace::target_dir()?.join("peers");
    fs::create_dir_all(&folder)?;
    let python = folder.join("python");
    install_python(Path::new("python3"), &python, PYTHON_PEERS)?;
    let ansible = folder.join("ansible");
    install_python(Path::new("python3"), &ansible, &[ANSIBLE])?;
    let pyssm = match newest_python() {
        Some(interpreter) => {
            let place = folder.join("pyssm");
            install_python(&interpreter, &place, &[PYSSM_CLIENT])?;
            Some(place)
        }
        None => {
            workspace::note("skipped: pyssm-client needs Python 3.12 or newer");
            None
        }
    };
    let node = folder.join("node");
    install_node(&node)?;
    Ok(Peers {
        python,
        ansible,
        pyssm,
        node_modules: node.join("node_modules"),
    })
}

/// A virtual environment with exactly these packages; made again when the list changes.
fn install_python(interpreter: &Path, place: &Path, packages: &[&str]) -> Result<()> {
    let wanted = packages.join("\n");
    let stamp = place.join("sortie-packages");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let mut venv = Command::new(interpreter);
    workspace::run(
        "python environment",
        venv.args(["-m", "venv", "--clear"]).arg(place),
    )?;
    let mut pip = Command::new(place.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args(packages);
    workspace::run("python packages", &mut pip)?;
    fs::write(stamp, wanted)?;
    Ok(())
}

/// A Python of 3.12 or newer, where one is installed.
fn newest_python() -> Option<PathBuf> {
    ["python3.14", "python3.13", "python3.12", "python3"]
        .into_iter()
        .find_map(|name| {
            let check = "import sys; raise SystemExit(sys.version_info < (3, 12))";
            let output = Command::new(name).args(["-c", check]).output().ok()?;
            output.status.success().then(|| name.into())
        })
}

fn install_node(place: &Path) -> Result<()> {
    let wanted = NODE_PEERS.join("\n");
    let stamp = place.join("sortie-packages");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    fs::create_dir_all(place)?;
    fs::write(place.join("package.json"), "{\"private\": true}\n")?;
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--no-save",
    ])
    .args(NODE_PEERS);
    workspace::run("npm packages", npm.current_dir(place))?;
    if !place.join("node_modules").is_dir() {
        bail!("npm installed nothing");
    }
    fs::write(stamp, wanted)?;
    Ok(())
}
