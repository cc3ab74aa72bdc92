//! The keys that requests are signed with: where they come from and, for those with an expiry, how
//! they are fetched again. Which source a profile names is decided in `config`; how a role is assumed
//! is in `assume_role`.

use std::{
    pin::Pin,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use sortie_types::{Secret, Timestamp};
use sortie_wire::sigv4::Credentials;
use tokio::process::Command;

use crate::{CallError, assume_role, transport::Transport};

/// How long before their expiry fetched credentials are fetched anew.
pub(crate) const EXPIRY_MARGIN: Duration = Duration::from_secs(120);

/// How long a `credential_process` may take.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);

/// Where credentials come from.
#[derive(Clone)]
pub enum CredentialSource {
    /// Keys that were configured.
    Static(Credentials),
    /// The standard output of a program.
    Process {
        /// The command line, quoted as for a shell.
        command: String,
    },
    /// A role, assumed with other credentials.
    AssumeRole(Box<AssumeRole>),
    /// Nothing is configured.
    Missing,
    /// Something is configured that cannot be used.
    Unusable {
        /// Why, for people.
        reason: String,
    },
}

/// A role that a profile names.
#[derive(Clone, Debug)]
pub struct AssumeRole {
    /// The role's ARN.
    pub role_arn: String,
    /// What signs the AssumeRole call.
    pub source: CredentialSource,
    /// Name of the role's session.
    pub session_name: Option<String>,
    /// A secret that a third party asks for.
    pub external_id: Option<String>,
    /// The MFA device whose code has to be given.
    pub mfa_serial: Option<String>,
    /// How long the credentials shall live, in seconds.
    pub duration_seconds: Option<u32>,
}

/// Shows the kind and no key.
impl std::fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Static(keys) => write!(f, "Static({})", keys.access_key_id),
            Self::Process { .. } => f.write_str("Process"),
            Self::AssumeRole(role) => write!(f, "AssumeRole({})", role.role_arn),
            Self::Missing => f.write_str("Missing"),
            Self::Unusable { reason } => write!(f, "Unusable({reason})"),
        }
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// None are configured.
    #[error(
        "no credentials: sign in with `sortie login`, set AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY, or choose a profile with --profile or AWS_PROFILE"
    )]
    Missing,
    /// What is configured cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The role of the profile could not be assumed.
    #[error("cannot assume {role_arn}")]
    AssumeRole {
        /// The role.
        role_arn: String,
        /// Why.
        #[source]
        source: Box<CallError>,
    },
    /// The profile names an MFA device, and there is no code.
    #[error("the role {role_arn} needs a code of {serial}: {reason}")]
    NoMfaCode {
        /// The role.
        role_arn: String,
        /// The device.
        serial: String,
        /// Why there is no code.
        reason: String,
    },
    /// A `credential_process` gave none.
    #[error("credential_process: {0}")]
    Process(String),
}

/// Asks a person for the code that an MFA device shows.
pub trait MfaPrompt: Send + Sync {
    /// The code of the device with this serial number, or why there is none.
    fn ask(&self, serial: &str) -> Pin<Box<dyn Future<Output = Result<Secret, String>> + Send>>;
}

/// Credentials that were fetched, with their expiry.
pub(crate) struct Fetched {
    pub(crate) credentials: Credentials,
    pub(crate) expires: Option<Timestamp>,
}

/// Fetches credentials when they are needed and keeps them until shortly before they expire.
pub(crate) struct CredentialCache {
    source: CredentialSource,
    transport: Transport,
    prompt: Option<Arc<dyn MfaPrompt>>,
    fetched: Mutex<Option<Fetched>>,
    /// A server refused what was kept, so what is left in files is not believed either.
    is_stale: AtomicBool,
}

impl CredentialCache {
    pub(crate) fn new(
        source: CredentialSource,
        transport: Transport,
        prompt: Option<Arc<dyn MfaPrompt>>,
    ) -> Self {
        Self {
            source,
            transport,
            prompt,
            fetched: Mutex::new(None),
            is_stale: AtomicBool::new(false),
        }
    }

    /// Credentials that are good at `now`.
    pub(crate) async fn credentials(
        &self,
        now: Timestamp,
    ) -> Result<Credentials, CredentialsError> {
        if let Some(kept) = self.kept(now) {
            return Ok(kept);
        }
        let fetched = self.fetch(&self.source, now).await?;
        let credentials = fetched.credentials.clone();
        *self.lock() = Some(fetched);
        Ok(credentials)
    }

    /// Boxed because a role may be assumed with another role's credentials.
    fn fetch<'a>(
        &'a self,
        source: &'a CredentialSource,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<Fetched, CredentialsError>> + Send + 'a>> {
        Box::pin(async move {
            match source {
                CredentialSource::Static(credentials) => Ok(Fetched {
                    credentials: credentials.clone(),
                    expires: None,
                }),
                CredentialSource::Missing => Err(CredentialsError::Missing),
                CredentialSource::Unusable { reason } => {
                    Err(CredentialsError::Unusable(reason.clone()))
                }
                CredentialSource::Process { command } => run_process(command).await,
                CredentialSource::AssumeRole(role) => self.assume(role, now).await,
            }
        })
    }

    async fn assume(&self, role: &AssumeRole, now: Timestamp) -> Result<Fetched, CredentialsError> {
        let file = self.transport.config().role_file(role);
        if !self.is_stale.load(Ordering::Relaxed)
            && let Some(kept) = file
                .as_deref()
                .and_then(|file| assume_role::load(file, now))
        {
            return Ok(kept);
        }
        // The source first: without it nobody needs to be asked for a code.
        let source = self.fetch(&role.source, now).await?;
        let prompt = self.prompt.as_deref();
        let assumed =
            assume_role::assume(&self.transport, role, &source.credentials, prompt, now).await?;
        if let Some(file) = file {
            assume_role::store(&file, &assumed);
        }
        Ok(assumed)
    }

    /// Forgets what was fetched, because a server refused it.
    pub(crate) fn forget(&self) {
        self.is_stale.store(true, Ordering::Relaxed);
        *self.lock() = None;
    }

    fn kept(&self, now: Timestamp) -> Option<Credentials> {
        self.lock()
            .as_ref()
            .filter(|kept| {
                kept.expires
                    .is_none_or(|expires| expires > now.plus(EXPIRY_MARGIN))
            })
            .map(|kept| kept.credentials.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Fetched>> {
        self.fetched
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a `credential_process` prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessOutput {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

async fn run_process(command: &str) -> Result<Fetched, CredentialsError> {
    let failed = |reason: String| CredentialsError::Process(reason);
    let words = split_words(command).ok_or_else(|| failed("unbalanced quotes".to_owned()))?;
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| failed("empty command".to_owned()))?;
    let running = Command::new(program)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot run `{program}`: {error}")))?;
    let output = tokio::time::timeout(PROCESS_TIMEOUT, running.wait_with_output())
        .await
        .map_err(|_| failed(format!("`{program}` did not finish in a minute")))?
        .map_err(|error| failed(format!("cannot read from `{program}`: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("`{program}` ended with {}", output.status)));
    }
    read_process_output(&output.stdout)
}

/// Says what is wrong without showing any of the output, which holds keys.
fn read_process_output(output: &[u8]) -> Result<Fetched, CredentialsError> {
    let failed = |reason: &str| CredentialsError::Process(reason.to_owned());
    let output: ProcessOutput = serde_json::from_slice(output).map_err(|_| {
        failed("the output is not JSON with Version, AccessKeyId and SecretAccessKey")
    })?;
    if output.version != 1 {
        return Err(failed("the output's Version is not 1"));
    }
    let expires = output
        .expiration
        .map(|text| text.parse::<Timestamp>())
        .transpose()
        .map_err(|_| failed("the output's Expiration is not an ISO 8601 time"))?;
    Ok(Fetched {
        credentials: Credentials {
            access_key_id: output.access_key_id,
            secret_access_key: Secret::new(output.secret_access_key),
            session_token: output.session_token.map(Secret::new),
        },
        expires,
    })
}

/// Splits a command line into words as a shell does, with quotes and backslashes and nothing else.
/// `None` when a quote is not closed.
fn split_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().push(characters.next()?);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_777_881_600_000)
    }

    fn cache(command: String) -> CredentialCache {
        let environment = crate::Environment::new([("AWS_REGION", "local-1")], None);
        let config = crate::ClientConfig::resolve(&environment, &crate::Overrides::default());
        let config = config.unwrap();
        let tls = crate::Tls::new(None).unwrap();
        let transport = Transport::new(&config, &tls).unwrap();
        CredentialCache::new(CredentialSource::Process { command }, transport, None)
    }

    #[test]
    fn words_are_split_as_by_a_shell() {
        let cases: [(&str, Option<&[&str]>); 5] = [
            ("a  b\tc", Some(&["a", "b", "c"])),
            (r#"a "b c" 'd "e'"#, Some(&["a", "b c", "d \"e"])),
            (r#"a\ b "\"" ''"#, Some(&["a b", "\"", ""])),
            ("", Some(&[])),
            ("a 'b", None),
        ];
        for (line, expected) in cases {
            assert_eq!(
                split_words(line).as_deref(),
                expected
                    .map(|words| words.iter().map(ToString::to_string).collect::<Vec<_>>())
                    .as_deref(),
                "{line}"
            );
        }
    }

    #[tokio::test]
    async fn a_process_is_asked_once_and_again_when_its_keys_expire() {
        let folder = tempfile::tempdir().unwrap();
        let counter = folder.path().join("count");
        let script = folder.path().join("keys.sh");
        std::fs::write(
            &script,
            format!(
                "echo x >> {}\necho '{{\"Version\":1,\"AccessKeyId\":\"AKIA1\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\",\"Expiration\":\"2026-05-04T09:00:00Z\"}}'\n",
                counter.display()
            ),
        )
        .unwrap();
        let cache = cache(format!("sh '{}'", script.display()));
        for later in [0, 60, 3600] {
            let keys = cache
                .credentials(now().plus(Duration::from_secs(later)))
                .await
                .unwrap();
            assert_eq!(keys.access_key_id, "AKIA1");
            assert_eq!(keys.session_token.unwrap().expose(), "t");
        }
        assert_eq!(std::fs::read_to_string(counter).unwrap(), "x\nx\n");
    }

    #[tokio::test]
    async fn a_process_that_fails_or_talks_nonsense_is_an_error_that_shows_no_output() {
        for (command, expected) in [
            ("false", "ended with"),
            ("echo topsecret", "not JSON"),
            (
                "echo '{\"Version\":2,\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"topsecret\"}'",
                "Version",
            ),
            ("/nowhere/at/all", "cannot run"),
        ] {
            let error = cache(command.to_owned())
                .credentials(now())
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{command}: {error}");
            assert!(!error.contains("topsecret"), "{error}");
        }
    }
}
