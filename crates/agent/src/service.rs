//! The systemd unit of the agent: written and enabled, stopped and removed.
//!
//! Sessions are children of the service and inherit its restrictions, so only what no session can miss
//! is restricted: no read-only file systems, no private `/tmp`, no capability bounds, and above all no
//! `NoNewPrivileges`, which would break sudo. `KillMode=process` lets sessions outlive a restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The unit's name.
pub const UNIT: &str = "sortie-agent.service";
/// The exit status of an agent that is not registered (`EX_CONFIG` of sysexits): starting it again
/// would not help.
pub const UNREGISTERED: u8 = 78;
const DIRECTORY: &str = "etc/systemd/system";

/// What to install where.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// The root of the file system to install into. Anything but `/` is only written to.
    pub root: PathBuf,
    /// The program to run.
    pub program: PathBuf,
    /// The agent's directory.
    pub data_dir: PathBuf,
}

/// Why the unit was not installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A path that a unit file cannot hold.
    #[error("the path {0} cannot stand in a unit file")]
    Path(PathBuf),
    /// A file could not be written or removed.
    #[error("cannot change {0}")]
    File(PathBuf, #[source] io::Error),
    /// systemctl could not be run.
    #[error("cannot run systemctl")]
    Systemctl(#[source] io::Error),
    /// systemctl failed.
    #[error("systemctl {0} failed: {1}")]
    Failed(String, String),
}

/// Writes the unit, and where `root` is `/` enables and starts it. Says what was done, a line each.
///
/// # Errors
/// See [`ServiceError`].
pub fn install(options: &ServiceOptions) -> Result<Vec<String>, ServiceError> {
    let path = unit_path(&options.root);
    let text = unit(&options.program, &options.data_dir)?;
    let file = |error| ServiceError::File(path.clone(), error);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(file)?;
    }
    fs::write(&path, text).map_err(file)?;
    let mut done = vec![format!("wrote {}", path.display())];
    if is_live(&options.root) {
        for arguments in [&["daemon-reload"][..], &["enable", "--now", UNIT]] {
            done.push(systemctl(arguments)?);
        }
        // An agent that was running keeps the old unit and program otherwise.
        done.push(systemctl(&["restart", UNIT])?);
    }
    Ok(done)
}

/// Stops and removes the unit. Sessions go on, the agent's directory stays. Says what was done.
///
/// # Errors
/// See [`ServiceError`].
pub fn uninstall(root: &Path) -> Result<Vec<String>, ServiceError> {
    let path = unit_path(root);
    let mut done = Vec::new();
    if !path.exists() {
        return Ok(vec![format!("{} is not there", path.display())]);
    }
    if is_live(root) {
        done.push(systemctl(&["disable", "--now", UNIT])?);
    }
    fs::remove_file(&path).map_err(|error| ServiceError::File(path.clone(), error))?;
    done.push(format!("removed {}", path.display()));
    if is_live(root) {
        done.push(systemctl(&["daemon-reload"])?);
    }
    Ok(done)
}

fn unit_path(root: &Path) -> PathBuf {
    root.join(DIRECTORY).join(UNIT)
}

fn is_live(root: &Path) -> bool {
    root == Path::new("/")
}

fn systemctl(arguments: &[&str]) -> Result<String, ServiceError> {
    let shown = arguments.join(" ");
    let ran = Command::new("systemctl")
        .args(arguments)
        .output()
        .map_err(ServiceError::Systemctl)?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        return Err(ServiceError::Failed(shown, said));
    }
    Ok(format!("systemctl {shown}"))
}

fn unit(program: &Path, data_dir: &Path) -> Result<String, ServiceError> {
    let (program, data_dir) = (quoted(program)?, quoted(data_dir)?);
    Ok(format!(
        "[Unit]
Description=Sortie node agent
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} run --data-dir {data_dir}
Restart=always
RestartSec=1
RestartPreventExitStatus={UNREGISTERED}
KillMode=process
TimeoutStopSec=15
OOMPolicy=continue
TasksMax=infinity
LimitCORE=0
UMask=0022
KeyringMode=private
StandardInput=null

[Install]
WantedBy=multi-user.target
"
    ))
}

/// A path as one word of a unit file.
fn quoted(path: &Path) -> Result<String, ServiceError> {
    let refused = || ServiceError::Path(path.to_owned());
    let text = path.to_str().ok_or_else(refused)?;
    if !path.is_absolute() || text.chars().any(char::is_control) {
        return Err(refused());
    }
    let text = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    Ok(format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_written_below_the_root_and_removed_again() {
        let root = tempfile::tempdir().unwrap();
        let options = ServiceOptions {
            root: root.path().to_owned(),
            program: "/usr/bin/sortie-agent".into(),
            data_dir: "/var/lib/sor \"tie%".into(),
        };
        let done = install(&options).unwrap();
        let path = unit_path(root.path());
        assert_eq!(done, [format!("wrote {}", path.display())]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("KillMode=process\n") && text.contains("Restart=always\n"));
        let command = r#"ExecStart="/usr/bin/sortie-agent" run --data-dir "/var/lib/sor \"tie%%""#;
        assert!(text.contains(command), "{text}");
        assert_eq!(
            uninstall(root.path()).unwrap(),
            [format!("removed {}", path.display())]
        );
        assert!(!path.exists());
        assert_eq!(
            uninstall(root.path()).unwrap(),
            [format!("{} is not there", path.display())]
        );
    }

    #[test]
    fn paths_that_would_add_lines_to_the_unit_are_refused() {
        for path in ["/a\nExecStartPre=/bin/x", "relative"] {
            assert!(matches!(
                quoted(Path::new(path)),
                Err(ServiceError::Path(_))
            ));
        }
    }
}
