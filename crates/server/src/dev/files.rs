//! What `dev` writes for scripts and shells: `dev.json`, `dev.env`, and a directory of commands to
//! put first in PATH.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sortie_types::NodeId;

use super::DevError;
use crate::{
    Administrator, FileError, Running,
    files::{private_dir, read_private, write_private},
};

/// The names under which our client program answers.
const COMMANDS: [&str; 2] = ["sortie", "session-manager-plugin"];

/// `dev.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    /// Where clients should go: plain HTTP when it is served.
    pub(super) endpoint: String,
    pub(super) https_endpoint: String,
    /// The own authority alone; `null` with certificates of the operator's.
    pub(super) ca_file: Option<PathBuf>,
    /// The system's roots and the own authority.
    pub(super) ca_bundle_file: Option<PathBuf>,
    /// `null` while there is no console.
    pub(super) console_url: Option<String>,
    pub(super) region: String,
    pub(super) account_id: String,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) node_id: Option<String>,
    pub(super) pid: u32,
}

impl Facts {
    pub(super) fn of(
        running: &Running,
        administrator: &Administrator,
        node_id: Option<&NodeId>,
        bundle: &Path,
    ) -> Self {
        let https_endpoint = https_endpoint(running);
        let http_endpoint = running.http.map(|address| format!("http://{address}"));
        let ca_file = running.ca_file.clone();
        Self {
            endpoint: http_endpoint.unwrap_or_else(|| https_endpoint.clone()),
            https_endpoint,
            ca_bundle_file: ca_file.is_some().then(|| bundle.to_owned()),
            ca_file,
            console_url: None,
            region: running.control.region().to_string(),
            account_id: running.control.account_id().to_string(),
            access_key_id: administrator.access_key_id.clone(),
            secret_access_key: administrator.secret_access_key.expose().to_owned(),
            node_id: node_id.map(NodeId::to_string),
            pid: std::process::id(),
        }
    }

    /// What an earlier start wrote, if it can be read.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let text = read_private(&directory.join("dev.json")).ok()??;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), FileError> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        write_private(&directory.join("dev.json"), &text)
    }
}

/// HTTPS as this machine reaches it: an unspecified address is every address, so loopback too.
pub(super) fn https_endpoint(running: &Running) -> String {
    let ip = match running.https.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, running.https.port()))
}

/// Makes the directory of commands. Answers whether our client program was found beside this one.
pub(super) fn link_commands(directory: &Path) -> Result<bool, DevError> {
    private_dir(directory)?;
    let refused = |source| DevError::Directory {
        path: directory.to_owned(),
        source,
    };
    let beside = std::env::current_exe()
        .map_err(refused)?
        .with_file_name("sortie");
    for command in COMMANDS {
        let link = directory.join(command);
        match fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
        if beside.exists() {
            symlink(&beside, &link).map_err(refused)?;
        }
    }
    Ok(beside.exists())
}

/// Writes `dev.env`.
pub(super) fn write_environment(facts: &Facts, directory: &Path) -> Result<(), DevError> {
    let text = environment(facts, &directory.join("bin"));
    Ok(write_private(&directory.join("dev.env"), text.as_bytes())?)
}

fn environment(facts: &Facts, commands: &Path) -> String {
    let mut lines = vec![
        "# To be sourced. Written by `sortie-server dev`.".to_owned(),
        "unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL_SSM".to_owned(),
    ];
    let mut export =
        |name: &str, value: &str| lines.push(format!("export {name}={}", quoted(value)));
    export("AWS_ENDPOINT_URL", &facts.endpoint);
    export("AWS_REGION", &facts.region);
    export("AWS_DEFAULT_REGION", &facts.region);
    export("AWS_ACCESS_KEY_ID", &facts.access_key_id);
    export("AWS_SECRET_ACCESS_KEY", &facts.secret_access_key);
    if let Some(bundle) = &facts.ca_bundle_file
        && facts.endpoint == facts.https_endpoint
    {
        // The CLI reads the first, plugins the second.
        let bundle = bundle.display().to_string();
        export("AWS_CA_BUNDLE", &bundle);
        export("SSL_CERT_FILE", &bundle);
    }
    let commands = quoted(&commands.display().to_string());
    // Sourced twice it must not grow.
    lines.push(format!(
        "case \":$PATH:\" in *:{commands}:*) ;; *) export PATH={commands}:\"$PATH\" ;; esac"
    ));
    lines.join("\n") + "\n"
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn facts(endpoint: &str) -> Facts {
        Facts {
            endpoint: endpoint.to_owned(),
            https_endpoint: "https://127.0.0.1:7443".to_owned(),
            ca_bundle_file: Some("/x/it's/ca bundle.pem".into()),
            region: "local-1".to_owned(),
            access_key_id: "AKIA".to_owned(),
            secret_access_key: "a/+'$(touch x)\"b".to_owned(),
            ..Facts::default()
        }
    }

    /// What a shell's variable is after the file was sourced twice.
    fn sourced(facts: &Facts, variable: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        write_environment(facts, directory.path()).unwrap();
        let script = format!(". ./dev.env; . ./dev.env; printf %s \"${{{variable}-unset}}\"");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).current_dir(directory.path());
        shell
            .env("PATH", "/usr/bin")
            .env("AWS_PROFILE", "old")
            .env_remove("SSL_CERT_FILE");
        let output = shell.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.replace(&directory.path().display().to_string(), "DIR")
    }

    #[test]
    fn a_shell_reads_the_values_unchanged_and_old_ones_are_gone() {
        let facts = facts("http://127.0.0.1:7070");
        assert_eq!(
            sourced(&facts, "AWS_SECRET_ACCESS_KEY"),
            facts.secret_access_key
        );
        assert_eq!(sourced(&facts, "AWS_ENDPOINT_URL"), "http://127.0.0.1:7070");
        assert_eq!(sourced(&facts, "AWS_PROFILE"), "unset");
        assert_eq!(
            sourced(&facts, "SSL_CERT_FILE"),
            "unset",
            "plain HTTP needs no bundle"
        );
        assert_eq!(sourced(&facts, "PATH"), "DIR/bin:/usr/bin");
    }

    #[test]
    fn over_https_alone_both_kinds_of_tools_are_told_the_bundle() {
        let facts = facts("https://127.0.0.1:7443");
        for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
            assert_eq!(
                sourced(&facts, variable),
                "/x/it's/ca bundle.pem",
                "{variable}"
            );
        }
    }
}
