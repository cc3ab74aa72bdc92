//! A machine of its own for a node, made of Linux namespaces: what an agent writes below `/etc`,
//! `/var/lib`, `/var/log`, `/home` and `/root` stays there, and every process it leaves behind ends
//! with it. The network is the one of the test. Needs root.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

/// Lays throw-away layers over the machine's folders, then becomes the program. `$1`: a folder of
/// the machine; `$2`: the folder with an official agent's programs, or nothing.
const MAKE: &str = r#"
set -e
base=$1 programs=$2
shift 2
mount -t tmpfs none "$base/layers"
for folder in etc home root var/lib var/log; do
    upper=$base/layers/$folder
    mkdir -p "$upper/upper" "$upper/work"
    mount -t overlay none -o "lowerdir=/$folder,upperdir=$upper/upper,workdir=$upper/work" "/$folder"
done
cp -r "$base/etc/." /etc
cat "$base/hosts" >> /etc/hosts
mkdir -p /var/log/amazon
mount --bind "$base/log" /var/log/amazon
if [ -n "$programs" ]; then
    mount -t overlay none -o "lowerdir=$base/beside:$programs" "$base/bin"
fi
exec "$@"
"#;

/// What is on such a machine before its program starts.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Folder with an official agent's programs, shown as [`Machine::programs`] there.
    pub programs: Option<PathBuf>,
    /// The official agent's settings file.
    pub settings: Option<String>,
    /// Lines for `/etc/hosts`.
    pub hosts: String,
    /// The environment; nothing else is in it but a `PATH`.
    pub variables: Vec<(String, String)>,
}

/// A running machine.
pub struct Machine {
    child: Child,
    folder: PathBuf,
}

/// Whether this process may make machines.
#[must_use]
pub fn can_make_machines() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--pid", "--fork", "true"]);
    probe.stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

impl Machine {
    /// The folder in which a machine that lives in `folder` finds its official agent.
    #[must_use]
    pub fn programs(folder: &Path) -> PathBuf {
        folder.join("bin")
    }

    /// Starts a machine that lives in `folder`, which is made, and runs `command` there; shell words.
    ///
    /// # Errors
    /// When the folder cannot be made, or `unshare` is missing.
    pub fn start(folder: &Path, setup: &Setup, command: &str) -> Result<Self> {
        for part in ["layers", "log", "bin", "etc/amazon/ssm", "beside"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("hosts"), &setup.hosts)?;
        if let Some(settings) = &setup.settings {
            let name = "amazon-ssm-agent.json";
            fs::write(folder.join("etc/amazon/ssm").join(name), settings)?;
            // Relocated programs look for it beside themselves.
            let beside = folder.join("beside");
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o755))?;
            fs::create_dir_all(beside.join("configuration"))?;
            fs::write(beside.join("configuration").join(name), settings)?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("output"))?;
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", MAKE, "sh"])
            .arg(folder)
            .arg(setup.programs.as_deref().unwrap_or(Path::new("")))
            .args(["sh", "-c", command])
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .envs(setup.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run unshare")?;
        Ok(Self {
            child,
            folder: folder.to_owned(),
        })
    }

    /// The process here that everything on the machine descends from.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What its program has written, and the official agent's own log.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |path: &str| fs::read_to_string(self.folder.join(path)).unwrap_or_default();
        format!(
            "{}\n{}",
            read("output"),
            read("log/ssm/amazon-ssm-agent.log")
        )
    }

    /// The command lines of all its processes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processes(&self) -> Result<Vec<String>> {
        Ok(self.running()?.into_values().collect())
    }

    /// Its processes by their numbers here, with their command lines.
    ///
    /// # Errors
    /// When it has ended.
    pub fn running(&self) -> Result<BTreeMap<u32, String>> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let first = children.split(' ').next().unwrap_or_default();
        let namespace = fs::read_link(format!("/proc/{first}/ns/pid"))?;
        let running = fs::read_dir("/proc")?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| fs::read_link(path.join("ns/pid")).is_ok_and(|own| own == namespace))
            .filter_map(|path| {
                let line = fs::read_to_string(path.join("cmdline")).ok()?;
                let number = path.file_name()?.to_str()?.parse().ok()?;
                Some((number, line.replace('\0', " ").trim().to_owned()))
            });
        Ok(running.collect())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process of the machine dies with its parent, and all others with the first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
