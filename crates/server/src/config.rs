//! Configuration, read whole and judged whole before anything is opened. Layers, strongest first:
//! flag, variable, file, the annotated defaults. [`Settings`] is what was written, [`Config`] what
//! it means. Opens no socket and makes no file.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sortie_doors::Network;
use sortie_types::{Region, Secret, UserName};

/// The annotated defaults: also what `serve --print-config` shows.
pub const DEFAULT_CONFIG: &str = include_str!("config.default.toml");

/// The variable that may hold the root key in place of a file.
pub const ROOT_KEY_VARIABLE: &str = "SORTIE_ROOT_KEY";

/// Declares [`Settings`] once, so that a key cannot be forgotten in one of the layers.
macro_rules! settings {
    ($($(#[$doc:meta])* $key:ident : $type:ty, $variable:literal $(, $arg:ident = $value:expr)*;)*) => {
        /// Every key, as written in one layer; absent keys are left to the layer below.
        #[derive(Clone, Debug, Default, clap::Args, Deserialize)]
        #[serde(default)]
        pub struct Settings {
            $($(#[$doc])* #[arg(long, env = $variable $(, $arg = $value)*)] pub $key: Option<$type>,)*
        }

        impl Settings {
            /// Every key, in the order of the default file.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// This layer laid over `below`.
            #[must_use]
            pub fn over(self, below: Self) -> Self {
                Self { $($key: self.$key.or(below.$key),)* }
            }
        }
    };
}

settings! {
    /// Where everything is kept
    data_dir: PathBuf, "SORTIE_DATA_DIR", value_name = "DIR";
    /// Address and port of HTTPS and wss
    listen_tls: SocketAddr, "SORTIE_LISTEN_TLS", value_name = "ADDR";
    /// Names and addresses in the server's certificate
    tls_names: Vec<String>, "SORTIE_TLS_NAMES", value_delimiter = ',';
    /// Certificate chain of your own, PEM
    tls_certificate_file: PathBuf, "SORTIE_TLS_CERTIFICATE_FILE", value_name = "PEM";
    /// Its key, PEM
    tls_key_file: PathBuf, "SORTIE_TLS_KEY_FILE", value_name = "PEM";
    /// What stands in stream URLs
    public_url: String, "SORTIE_PUBLIC_URL", value_name = "URL";
    /// Domain under which services have hosts of their own
    service_domain: String, "SORTIE_SERVICE_DOMAIN", value_name = "DOMAIN";
    /// The region of this installation
    region: String, "SORTIE_REGION";
    /// Further regions that callers may sign for
    accepted_regions: Vec<String>, "SORTIE_ACCEPTED_REGIONS", value_delimiter = ',';
    /// Proxies that are believed where a request comes from
    trusted_proxies: Vec<String>, "SORTIE_TRUSTED_PROXIES", value_delimiter = ',', value_name = "CIDR";
    /// File of the root key
    root_key_file: PathBuf, "SORTIE_ROOT_KEY_FILE", value_name = "FILE";
    /// Name of the user made at the first start
    administrator_name: String, "SORTIE_ADMINISTRATOR_NAME", value_name = "NAME";
    /// Where that user's access key is written
    administrator_file: PathBuf, "SORTIE_ADMINISTRATOR_FILE", value_name = "FILE";
    /// A session ends after this long without input
    idle_timeout: Span, "SORTIE_IDLE_TIMEOUT", value_name = "TIME";
    /// A session ends this long after its start
    max_duration: Span, "SORTIE_MAX_DURATION", value_name = "TIME";
    /// Whether taking access away ends the sessions it allowed
    end_disallowed_sessions: bool, "SORTIE_END_DISALLOWED_SESSIONS", value_name = "BOOL";
    /// How long ended sessions and the trail are kept
    retention: Span, "SORTIE_RETENTION", value_name = "TIME";
    /// Whether node traffic is written to the trail
    data_events: bool, "SORTIE_DATA_EVENTS", value_name = "BOOL";
    /// How long the credentials of a node are good
    credential_lifetime: Span, "SORTIE_CREDENTIAL_LIFETIME", value_name = "TIME";
    /// How many connections may be open at once
    max_connections: usize, "SORTIE_MAX_CONNECTIONS", value_name = "N";
    /// Largest request body
    max_body_bytes: usize, "SORTIE_MAX_BODY_BYTES", value_name = "BYTES";
    /// How long a TLS handshake may take
    handshake_timeout: Span, "SORTIE_HANDSHAKE_TIMEOUT", value_name = "TIME";
    /// How long the head of a request may take
    header_timeout: Span, "SORTIE_HEADER_TIMEOUT", value_name = "TIME";
    /// How long to wait for what is under way when told to stop
    drain_timeout: Span, "SORTIE_DRAIN_TIMEOUT", value_name = "TIME";
    /// `text` or `json`
    log_format: LogFormat, "SORTIE_LOG_FORMAT", value_name = "FORMAT";
    /// What is logged
    log: String, "SORTIE_LOG", value_name = "FILTER";
}

/// A length of time as people write it: `90s`, `20m`, `8h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a length of time such as 90s, 20m, 8h or 7d");
        let unit = text.chars().last().ok_or_else(refused)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(refused()),
        };
        let number = text.strip_suffix(unit).unwrap_or_default();
        let count: u32 = number.parse().map_err(|_| refused())?;
        Ok(Self(Duration::from_secs(u64::from(count) * seconds)))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where the server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSource {
    /// Files of the operator's.
    Files {
        /// Chain, PEM, the server's own first.
        certificate: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
    /// The installation's own authority, for these names and addresses besides loopback.
    Own {
        /// DNS names and IP addresses.
        names: Vec<String>,
    },
}

/// Where the root key comes from.
#[derive(Clone, Debug)]
pub enum RootKeySource {
    /// A file, made at the first start.
    File(PathBuf),
    /// Given in the environment: base64 or hex of 32 bytes.
    Given(Secret),
}

/// Bounds on what strangers can hold or delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, channels included.
    pub connections: usize,
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, and for a kept connection to send the next one.
    pub header: Duration,
    /// For what is under way at a stop.
    pub drain: Duration,
}

/// A whole, judged configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// HTTPS and wss; port 0 takes any.
    pub listen_tls: SocketAddr,
    /// Plain HTTP and ws. Always loopback, and only ever set by `dev` and by tests.
    pub listen_http: Option<SocketAddr>,
    /// Scheme and host that stand in stream URLs, without a slash at the end.
    pub public_url: Option<String>,
    /// Domain under which services have hosts of their own.
    pub service_domain: Option<String>,
    /// The region, for the first start.
    pub region: Region,
    /// Further regions that callers may sign for.
    pub accepted_regions: Vec<Region>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<Network>,
    /// The server's certificate.
    pub tls: TlsSource,
    /// The root key.
    pub root_key: RootKeySource,
    /// The user made at the first start.
    pub administrator_name: UserName,
    /// Where its access key goes; `None`: the caller of [`crate::start`] shows it.
    pub administrator_file: Option<PathBuf>,
    /// Default idle timeout of sessions.
    pub idle_timeout: Duration,
    /// Default maximum duration of sessions.
    pub max_duration: Option<Duration>,
    /// Whether sessions end when what allowed them is taken away.
    pub end_disallowed_sessions: bool,
    /// How long ended sessions and lines of the trail are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// Whether data events are recorded.
    pub data_events: bool,
    /// Life of node credentials.
    pub credential_lifetime: Duration,
    /// Whether a stop ends the sessions, rather than leaving them to be taken up by the next start.
    /// Only ever set by `dev`.
    pub end_sessions_on_stop: bool,
    /// Bounds.
    pub limits: Limits,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log: String,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be; the text names line and column.
    #[error("`{path}`: {message}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// Keys that do not exist, each with its line.
    #[error("`{path}`: unknown {}", .keys.join(", "))]
    UnknownKeys {
        /// Which file.
        path: PathBuf,
        /// `line N: key`.
        keys: Vec<String>,
    },
    /// Values that are missing or make no sense, all of them.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
}

impl Settings {
    /// The defaults.
    ///
    /// # Errors
    /// Never in a released program: a test reads the same text.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::from_text(Path::new("config.default.toml"), DEFAULT_CONFIG)
    }

    /// One file's layer.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or holds keys or types that do not exist.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_text(path, &text)
    }

    fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let parse_error = |error: toml::de::Error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let deserializer = toml::Deserializer::parse(text).map_err(parse_error)?;
        let mut unknown = Vec::new();
        let settings = serde_ignored::deserialize(deserializer, |key| {
            let key = key.to_string();
            unknown.push(match line_of(text, &key) {
                Some(line) => format!("key `{key}` in line {line}"),
                None => format!("key `{key}`"),
            });
        })
        .map_err(parse_error)?;
        if unknown.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError::UnknownKeys {
                path: path.to_owned(),
                keys: unknown,
            })
        }
    }
}

/// The line, from 1, where the outermost part of `key` is written.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let first = key.split('.').next()?;
    let start = table
        .get_ref()
        .iter()
        .find(|(name, _)| name.get_ref() == first)
        .map(|(name, _)| name.span().start)?;
    Some(text.get(..start)?.matches('\n').count() + 1)
}

impl Config {
    /// Judges settings laid over the defaults. `root_key` is the value of
    /// [`ROOT_KEY_VARIABLE`], if it is set.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] with everything that is wrong, not the first thing only.
    pub fn judge(settings: Settings, root_key: Option<Secret>) -> Result<Self, ConfigError> {
        let settings = settings.over(Settings::defaults()?);
        let mut refused = Refused(Vec::new());
        let tls = refused.tls(&settings);
        let config = refused.build(settings, tls, root_key);
        match config {
            Some(config) if refused.0.is_empty() => Ok(config),
            _ => Err(ConfigError::Refused(refused.0)),
        }
    }
}

/// Gathers every objection while a configuration is built.
struct Refused(Vec<String>);

impl Refused {
    fn required<T>(&mut self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.0.push(format!("`{key}` must be set"));
        }
        value
    }

    fn parsed<T: std::str::FromStr>(&mut self, key: &str, text: Option<String>) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.required(key, text)?;
        text.parse()
            .map_err(|error| self.0.push(format!("`{key}`: {error}")))
            .ok()
    }

    fn span(
        &mut self,
        key: &str,
        span: Option<Span>,
        seconds: std::ops::RangeInclusive<u64>,
    ) -> Option<Duration> {
        let Span(span) = self.required(key, span)?;
        if !seconds.contains(&span.as_secs()) {
            self.0.push(format!(
                "`{key}` must be between {} and {} seconds",
                seconds.start(),
                seconds.end()
            ));
        }
        Some(span)
    }

    fn tls(&mut self, settings: &Settings) -> Option<TlsSource> {
        let mut names = settings.tls_names.clone().unwrap_or_default();
        for name in &names {
            if !is_tls_name(name) {
                self.0.push(format!(
                    "`tls_names`: `{name}` is neither a DNS name nor an address"
                ));
            }
        }
        match (&settings.tls_certificate_file, &settings.tls_key_file) {
            (Some(certificate), Some(key)) => Some(TlsSource::Files {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            (None, None) => {
                let public = settings
                    .listen_tls
                    .is_some_and(|address| !address.ip().is_loopback());
                if public && names.is_empty() {
                    self.0.push(
                        "`tls_names` must be set (or a certificate of your own): clients check \
                         the name by which they reach this server"
                            .to_owned(),
                    );
                }
                // Whoever can connect to an address can name it.
                let address = settings.listen_tls.map(|address| address.ip());
                let address = address.filter(|ip| !ip.is_unspecified());
                names.extend(address.map(|ip| ip.to_string()));
                Some(TlsSource::Own { names })
            }
            _ => {
                self.0.push(
                    "`tls_certificate_file` and `tls_key_file` must be set together".to_owned(),
                );
                None
            }
        }
    }

    fn public_url(&mut self, url: Option<String>) -> Option<String> {
        let url = url?;
        let host = url
            .strip_prefix("https://")
            .map(|rest| rest.trim_end_matches('/'));
        match host {
            Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => {
                Some(format!("https://{host}"))
            }
            _ => {
                self.0.push(format!(
                    "`public_url`: `{url}` must be `https://` and a host, without a path"
                ));
                None
            }
        }
    }

    fn regions(&mut self, texts: Option<Vec<String>>) -> Vec<Region> {
        let texts = texts.unwrap_or_default();
        let regions = texts.into_iter();
        regions
            .filter_map(|text| self.parsed("accepted_regions", Some(text)))
            .collect()
    }

    fn limits(&mut self, settings: &Settings) -> Option<Limits> {
        let connections = self.required("max_connections", settings.max_connections);
        let body_bytes = self.required("max_body_bytes", settings.max_body_bytes);
        if connections == Some(0) {
            self.0
                .push("`max_connections` must be at least 1".to_owned());
        }
        if body_bytes.is_some_and(|bytes| bytes < 65_536) {
            self.0.push(
                "`max_body_bytes` must be at least 65536: session documents need it".to_owned(),
            );
        }
        Some(Limits {
            connections: connections?,
            body_bytes: body_bytes?,
            handshake: self.span("handshake_timeout", settings.handshake_timeout, 1..=300)?,
            header: self.span("header_timeout", settings.header_timeout, 1..=3_600)?,
            drain: self.span("drain_timeout", settings.drain_timeout, 0..=3_600)?,
        })
    }

    fn build(
        &mut self,
        settings: Settings,
        tls: Option<TlsSource>,
        root_key: Option<Secret>,
    ) -> Option<Config> {
        // Everything is looked at before the first `?`, so that all objections are told at once.
        let data_dir = self.required("data_dir", settings.data_dir.clone());
        let listen_tls = self.required("listen_tls", settings.listen_tls);
        let limits = self.limits(&settings);
        let region = self.parsed("region", settings.region);
        let accepted_regions = self.regions(settings.accepted_regions);
        let trusted_proxies = settings.trusted_proxies.unwrap_or_default().into_iter();
        let trusted_proxies = trusted_proxies
            .filter_map(|text| self.parsed("trusted_proxies", Some(text)))
            .collect();
        let administrator_name = self.parsed("administrator_name", settings.administrator_name);
        let public_url = self.public_url(settings.public_url);
        let idle_timeout = self.span("idle_timeout", settings.idle_timeout, 60..=3_600);
        let max_duration = settings
            .max_duration
            .and_then(|span| self.span("max_duration", Some(span), 60..=86_400));
        // The history goes back 30 days and look-ups of the trail 90.
        let retention = settings
            .retention
            .and_then(|span| self.span("retention", Some(span), 90 * 86_400..=36_500 * 86_400));
        let credential_lifetime = self.span(
            "credential_lifetime",
            settings.credential_lifetime,
            900..=43_200,
        );
        let data_dir = data_dir?;
        let key_file = settings
            .root_key_file
            .unwrap_or_else(|| data_dir.join("root.key"));
        Some(Config {
            root_key: root_key.map_or(RootKeySource::File(key_file), RootKeySource::Given),
            data_dir,
            listen_tls: listen_tls?,
            listen_http: None,
            public_url,
            service_domain: settings.service_domain,
            region: region?,
            accepted_regions,
            trusted_proxies,
            tls: tls?,
            administrator_name: administrator_name?,
            administrator_file: settings.administrator_file,
            idle_timeout: idle_timeout?,
            max_duration,
            end_disallowed_sessions: settings.end_disallowed_sessions?,
            retention,
            data_events: settings.data_events?,
            credential_lifetime: credential_lifetime?,
            end_sessions_on_stop: false,
            limits: limits?,
            log_format: settings.log_format?,
            log: settings.log?,
        })
    }
}

pub(crate) fn is_tls_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || rustls_pki_types::DnsName::try_from(name.trim_start_matches("*.")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Settings {
        Settings {
            data_dir: Some("/nonexistent".into()),
            listen_tls: Some("127.0.0.1:0".parse().unwrap()),
            ..Settings::default()
        }
    }

    fn file(text: &str) -> Result<Settings, ConfigError> {
        Settings::from_text(Path::new("sortie.toml"), text)
    }

    /// The default file with its commented-out keys switched on.
    fn everything() -> String {
        let lines = DEFAULT_CONFIG.lines();
        lines
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn the_default_file_shows_every_key_in_order_and_no_other() {
        let text = everything();
        file(&text).unwrap();
        let shown: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" = "))
            .map(|(key, _)| key)
            .collect();
        assert_eq!(shown, Settings::KEYS);
    }

    #[test]
    fn every_key_has_a_flag_and_a_variable_of_its_name() {
        let command = <Settings as clap::Args>::augment_args(clap::Command::new("serve"));
        for key in Settings::KEYS {
            let argument = command
                .get_arguments()
                .find(|argument| argument.get_id() == key)
                .unwrap();
            assert_eq!(argument.get_long().unwrap(), key.replace('_', "-"));
            assert_eq!(
                argument.get_env().unwrap().to_str().unwrap(),
                format!("SORTIE_{}", key.to_uppercase())
            );
        }
    }

    #[test]
    fn the_smallest_configuration_is_a_directory_and_a_loopback_address() {
        let config = Config::judge(minimal(), None).unwrap();
        assert_eq!(config.region.as_str(), "local-1");
        assert_eq!(config.idle_timeout, Duration::from_secs(1200));
        assert!(matches!(config.root_key, RootKeySource::File(path) if path.ends_with("root.key")));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let settings = Settings {
            region: Some("no region".into()),
            public_url: Some("http://plain.example".into()),
            tls_key_file: Some("key.pem".into()),
            idle_timeout: Some(Span(Duration::from_secs(5))),
            ..Settings::default()
        };
        let message = Config::judge(settings, None).unwrap_err().to_string();
        for key in [
            "`data_dir` must be set",
            "`listen_tls` must be set",
            "`region`",
            "`public_url`",
            "`tls_certificate_file` and `tls_key_file`",
            "`idle_timeout`",
        ] {
            assert!(message.contains(key), "{key} in {message}");
        }
    }

    #[test]
    fn a_public_address_needs_names() {
        let settings = Settings {
            listen_tls: Some("0.0.0.0:443".parse().unwrap()),
            ..minimal()
        };
        let message = Config::judge(settings.clone(), None)
            .unwrap_err()
            .to_string();
        assert!(message.contains("tls_names"), "{message}");
        let named = Settings {
            tls_names: Some(vec!["sortie.example.org".into(), "192.0.2.7".into()]),
            ..settings
        };
        assert!(Config::judge(named, None).is_ok());
    }

    #[test]
    fn the_address_listened_on_is_always_in_the_certificate() {
        let settings = Settings {
            listen_tls: Some("127.0.0.2:0".parse().unwrap()),
            ..minimal()
        };
        let config = Config::judge(settings, None).unwrap();
        let names = vec!["127.0.0.2".to_owned()];
        assert_eq!(config.tls, TlsSource::Own { names });
    }

    #[test]
    fn unknown_keys_are_reported_with_their_line() {
        let message = file("data_dir = \"/x\"\n\nlisten_tsl = \"[::]:443\"\n[tls]\nname = 1\n")
            .unwrap_err()
            .to_string();
        assert!(message.contains("`listen_tsl` in line 3"), "{message}");
        assert!(message.contains("`tls` in line 4"), "{message}");
    }

    #[test]
    fn wrong_types_are_reported_with_their_line() {
        let message = file("data_dir = \"/x\"\nidle_timeout = \"soon\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("line 2") && message.contains("soon"),
            "{message}"
        );
    }

    #[test]
    fn a_stronger_layer_wins_key_by_key() {
        let flags = Settings {
            region: Some("flag-1".into()),
            ..Settings::default()
        };
        let below = file("region = \"file-1\"\nlog = \"debug\"\n").unwrap();
        let settings = flags.over(below);
        assert_eq!(settings.region.as_deref(), Some("flag-1"));
        assert_eq!(settings.log.as_deref(), Some("debug"));
    }

    #[test]
    fn lengths_of_time_are_a_number_and_a_unit() {
        assert_eq!("8h".parse(), Ok(Span(Duration::from_secs(28_800))));
        for text in ["", "m", "20", "-1m", "1.5h", "99999999999s", "20M", "5é"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
