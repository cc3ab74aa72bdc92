//! `sortie-server dev`: everything on this machine, from nothing. A server with plain HTTP on
//! loopback besides HTTPS, an administrator, and this machine enrolled as a node over the real
//! HTTPS endpoint with a real activation. What is made is kept in one directory and found again by
//! the next start.
//!
//! ```text
//! DIR/dev.json            facts for scripts, written when everything is ready
//! DIR/dev.env             the same for a shell
//! DIR/administrator.json  the administrator's access key
//! DIR/ports.json          ports chosen for port 0
//! DIR/bin/                `sortie` and `session-manager-plugin`
//! DIR/server/             the server's data directory
//! DIR/node/               the agent's data directory
//! ```

mod files;
mod node;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use sortie_types::NodeId;

use self::{files::Facts, node::DevNode};
use crate::{
    Administrator, FileError, Running, StartError, TlsError,
    config::{Config, ConfigError, ROOT_KEY_VARIABLE, Settings, is_tls_name},
    files::{private_dir, read_public, write_public},
    log, tls,
};

pub use self::node::NodeError;

const DEFAULT_DIR: &str = ".sortie";
const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);
const DEFAULT_HTTPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443);

/// Flags of `dev`: those of `serve`, and its own.
#[derive(Clone, Debug, clap::Args)]
pub struct DevOptions {
    /// Where plain HTTP is served, on loopback only; `off` for not at all
    #[arg(long, env = "SORTIE_LISTEN", value_name = "ADDR", default_value_t = Plain::At(DEFAULT_HTTP))]
    pub listen: Plain,
    /// Do not enrol this machine
    #[arg(long)]
    pub no_node: bool,
    /// Everything that `serve` takes
    #[command(flatten)]
    pub settings: Settings,
}

/// Whether plain HTTP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// At this address.
    At(SocketAddr),
    /// Not at all.
    Off,
}

impl FromStr for Plain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("`{text}` is neither `off` nor an address with a port"))?;
        if address.ip().is_loopback() {
            Ok(Self::At(address))
        } else {
            Err("plain HTTP is served on loopback addresses only".to_owned())
        }
    }
}

impl std::fmt::Display for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Why `dev` did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The settings make no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory cannot be used.
    #[error("cannot use `{path}`")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another server uses the directory.
    #[error("another `sortie-server dev`{} uses `{path}`", .pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other's process, as it said itself.
        pid: Option<u64>,
    },
    /// The installation has an administrator whose key is nowhere.
    #[error("`{0}` is missing, and with it the administrator's key; start in another directory")]
    NoAdministrator(PathBuf),
    /// This machine could not be enrolled.
    #[error("cannot enrol this machine as a node")]
    Node(#[from] NodeError),
    /// The server did not start.
    #[error("cannot start the server")]
    Start(#[source] StartError),
    /// The certificates could not be bundled.
    #[error("cannot write the bundle of certificates")]
    Tls(#[from] TlsError),
}

impl DevOptions {
    /// Sends the log to standard error: only warnings unless asked otherwise.
    ///
    /// # Errors
    /// The filter of `--log` is not one.
    pub fn start_log(&self) -> Result<(), tracing_subscriber::filter::ParseError> {
        let filter = self.log();
        let format = self
            .settings
            .log_format
            .unwrap_or(crate::config::LogFormat::Text);
        log::start(format, filter)
    }

    fn log(&self) -> &str {
        self.settings.log.as_deref().unwrap_or("warn")
    }
}

/// A running development installation.
pub struct Dev {
    running: Running,
    node: Option<DevNode>,
    facts: Facts,
    directory: PathBuf,
    /// Whether the commands of `DIR/bin` were found.
    has_commands: bool,
}

/// Ports that were asked for as 0, and what they became.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ports {
    http: Option<u16>,
    https: Option<u16>,
}

impl Ports {
    fn read(path: &Path) -> Result<Self, FileError> {
        let text = read_public(path)?.unwrap_or_default();
        // Unreadable means chosen again: nothing else depends on it.
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    }

    fn write(&self, path: &Path) -> Result<(), FileError> {
        write_public(path, &serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Starts, and returns when everything is ready and written down.
///
/// # Errors
/// Whatever keeps it from being ready; what had been started is stopped then.
pub async fn start(options: DevOptions) -> Result<Dev, DevError> {
    let directory = prepared_directory(&options)?;
    let (running, administrator) = start_server(&options, &directory).await?;
    let node = match options.no_node {
        true => None,
        false => match DevNode::start(&running, &administrator, &directory, options.log()).await {
            Ok(node) => Some(node),
            Err(error) => {
                running.stop().await;
                return Err(error.into());
            }
        },
    };
    let written = write_files(&running, &administrator, node.as_ref(), &directory);
    let dev = |facts, has_commands| Dev {
        running,
        node,
        facts,
        directory,
        has_commands,
    };
    match written {
        Ok((facts, has_commands)) => Ok(dev(facts, has_commands)),
        Err(error) => {
            dev(Facts::default(), false).stop().await;
            Err(error)
        }
    }
}

fn prepared_directory(options: &DevOptions) -> Result<PathBuf, DevError> {
    let given = options.settings.data_dir.clone();
    let given = given.unwrap_or_else(|| DEFAULT_DIR.into());
    private_dir(&given)?;
    fs::canonicalize(&given).map_err(|source| DevError::Directory {
        path: given,
        source,
    })
}

async fn start_server(
    options: &DevOptions,
    directory: &Path,
) -> Result<(Running, Administrator), DevError> {
    let ports_file = directory.join("ports.json");
    let known = Ports::read(&ports_file)?;
    let administrator_file = directory.join("administrator.json");
    let config = config(options, directory, &administrator_file)?;
    let running = match crate::start(with_ports(config.clone(), &known)).await {
        // A port that was chosen once may have been taken since; any other will do.
        Err(StartError::Bind { .. }) if known != Ports::default() => {
            crate::start(config.clone()).await
        }
        started => started,
    };
    let running = running.map_err(|error| start_error(error, directory))?;
    let chosen = Ports {
        http: running.http.map(|address| address.port()),
        https: Some(running.https.port()),
    };
    chosen.write(&ports_file)?;
    match Administrator::read(&administrator_file)? {
        Some(administrator) => Ok((running, administrator)),
        None => {
            running.stop().await;
            Err(DevError::NoAdministrator(administrator_file))
        }
    }
}

fn config(
    options: &DevOptions,
    directory: &Path,
    administrator_file: &Path,
) -> Result<Config, DevError> {
    let mut settings = options.settings.clone();
    let listen_tls = *settings.listen_tls.get_or_insert(DEFAULT_HTTPS);
    let names = settings.tls_names.get_or_insert_default();
    if !listen_tls.ip().is_loopback() {
        names.extend(node::host_name().filter(|name| is_tls_name(name)));
    }
    if listen_tls.ip().is_unspecified() {
        names.extend(outward_address());
    }
    settings.data_dir = Some(directory.join("server"));
    settings.administrator_file = Some(administrator_file.to_owned());
    let root_key = std::env::var(ROOT_KEY_VARIABLE).ok().map(Into::into);
    let mut config = Config::judge(settings, root_key)?;
    config.end_sessions_on_stop = true;
    config.listen_http = match options.listen {
        Plain::At(address) => Some(address),
        Plain::Off => None,
    };
    Ok(config)
}

/// The address by which this machine is reached from elsewhere when it listens on all.
fn outward_address() -> Option<String> {
    // Connecting a datagram socket sends nothing; it only picks the address that would be used.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

fn with_ports(mut config: Config, known: &Ports) -> Config {
    let fill = |address: &mut SocketAddr, port: Option<u16>| {
        if address.port() == 0 {
            address.set_port(port.unwrap_or(0));
        }
    };
    fill(&mut config.listen_tls, known.https);
    if let Some(address) = &mut config.listen_http {
        fill(address, known.http);
    }
    config
}

fn start_error(error: StartError, directory: &Path) -> DevError {
    match error {
        StartError::File(FileError::InUse(_)) => DevError::InUse {
            path: directory.to_owned(),
            pid: Facts::read(directory).map(|facts| u64::from(facts.pid)),
        },
        error => DevError::Start(error),
    }
}

fn write_files(
    running: &Running,
    administrator: &Administrator,
    node: Option<&DevNode>,
    directory: &Path,
) -> Result<(Facts, bool), DevError> {
    let ca_bundle_file = directory.join("ca-bundle.pem");
    if let Some(ca_file) = &running.ca_file {
        tls::write_bundle(ca_file, &ca_bundle_file)?;
    }
    let has_commands = files::link_commands(&directory.join("bin"))?;
    let facts = Facts::of(
        running,
        administrator,
        node.map(DevNode::id),
        &ca_bundle_file,
    );
    files::write_environment(&facts, directory)?;
    // Last: whoever waits for this file finds everything else.
    facts.write(directory)?;
    Ok((facts, has_commands))
}

impl Dev {
    /// The node that is this machine.
    #[must_use]
    pub fn node_id(&self) -> Option<&NodeId> {
        self.node.as_ref().map(DevNode::id)
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Running {
        &self.running
    }

    /// What to type next.
    #[must_use]
    pub fn welcome(&self) -> String {
        let Facts {
            region, account_id, ..
        } = &self.facts;
        let mut text = format!("Sortie is ready: region {region}, account {account_id}.\n");
        if let Some(node) = &self.node {
            text += &format!(
                "This machine is the node {} ({}).\n",
                node.id(),
                node.name()
            );
        }
        text += &format!(
            "\nIn another terminal:\n\n  source {}\n  aws ssm describe-instance-information\n",
            self.directory.join("dev.env").display()
        );
        if let Some(node) = &self.node {
            text += &format!("  aws ssm start-session --target {}\n", node.id());
            if self.has_commands {
                text += &format!("  sortie start {}\n", node.name());
            }
        }
        if !self.has_commands {
            text += "\nThe program `sortie` is not beside sortie-server: build it to have a \
                     session-manager-plugin.\n";
        }
        text + "\nCtrl-C stops it.\n"
    }

    /// Stops the server, which ends the sessions and tells both sides why, and then the node.
    pub async fn stop(self) {
        self.running.stop().await;
        if let Some(node) = self.node {
            node.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_off_or_on_loopback() {
        assert_eq!("off".parse(), Ok(Plain::Off));
        assert_eq!(
            "127.0.0.1:0".parse(),
            Ok(Plain::At("127.0.0.1:0".parse().unwrap()))
        );
        assert!("[::1]:7070".parse::<Plain>().is_ok());
        for text in ["0.0.0.0:7070", "192.0.2.1:80", "7070", ""] {
            assert!(text.parse::<Plain>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_ports_asked_for_as_any_are_filled_from_the_last_start() {
        let settings = Settings {
            data_dir: Some("/nonexistent".into()),
            listen_tls: Some("127.0.0.1:7443".parse().unwrap()),
            ..Settings::default()
        };
        let mut config = Config::judge(settings, None).unwrap();
        config.listen_http = Some("127.0.0.1:0".parse().unwrap());
        let known = Ports {
            http: Some(40_001),
            https: Some(40_002),
        };
        let config = with_ports(config, &known);
        assert_eq!(config.listen_http.unwrap().port(), 40_001);
        assert_eq!(config.listen_tls.port(), 7443);
    }
}
