//! Where a client's settings come from, resolved as every AWS tool does it: arguments, environment
//! variables, then the profile in the shared config and credentials files.
//!
//! Nothing is dialled and no command is run here; credentials that have to be fetched are only
//! described (see [`crate::CredentialSource`]).

use std::path::{Path, PathBuf};

use sortie_types::{Region, Secret, Timestamp};
use sortie_wire::{Service, sigv4::Credentials};

use crate::{
    Environment, assume_role,
    credentials::{AssumeRole, CredentialSource},
    credentials_file::{self, SignInPlace},
    ini::{Document, Section},
};

/// Where the credentials of assumed roles are kept, below the home folder. AWS's own folder is not good
/// for it: there a file is found by the role alone.
const ROLE_CACHE: &str = ".sortie/cache";

/// The region of an installation that was given none.
const OUR_REGION: &str = "local-1";

/// Settings given on the command line or by a program; each wins over what files and environment
/// say.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Name of the profile. A profile named here also wins over keys in the environment.
    pub profile: Option<String>,
    /// Region to sign for.
    pub region: Option<String>,
    /// URL of every service.
    pub endpoint: Option<String>,
    /// PEM file with further certificate authorities to trust.
    pub ca_bundle: Option<PathBuf>,
    /// Whether a profile that is named need not exist yet: signing in makes it.
    pub may_be_new: bool,
}

/// Resolved settings of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    region: Region,
    has_region: bool,
    is_overruled: bool,
    endpoints: Endpoints,
    credentials: CredentialSource,
    origin: String,
    place: SignInPlace,
    profile: Section,
    ca_bundle: Option<PathBuf>,
    max_attempts: u32,
}

/// Why settings could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A profile was named that neither file has.
    #[error("the profile `{profile}` is in neither {} nor {}", config.display(), credentials.display())]
    ProfileNotFound {
        /// The name.
        profile: String,
        /// The config file looked at.
        config: PathBuf,
        /// The credentials file looked at.
        credentials: PathBuf,
    },
    /// A file exists but cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No region anywhere.
    #[error("no region: give --region, set AWS_REGION, or put `region` into the profile")]
    NoRegion,
    /// The region's name is malformed.
    #[error("`{0}` is not the name of a region")]
    BadRegion(String),
    /// An endpoint is not an absolute http or https URL.
    #[error("the endpoint `{0}` is not an http:// or https:// URL")]
    BadEndpoint(String),
    /// One half of a key pair is missing.
    #[error("{place} has {present} but no {missing}")]
    PartialCredentials {
        /// Where.
        place: String,
        /// What is there.
        present: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// A profile that assumes a role is not complete or not usable.
    #[error("profile `{profile}`: {reason}")]
    BadRole {
        /// The profile.
        profile: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Signing in cannot write into this profile.
    #[error("cannot sign in with the profile `{profile}`: {reason}")]
    NoSignIn {
        /// The profile.
        profile: String,
        /// What stands in the way.
        reason: String,
    },
}

/// The endpoints by service, as configured.
#[derive(Clone, Debug, Default)]
struct Endpoints {
    everywhere: Option<String>,
    sortie: Option<String>,
    ssm: Option<String>,
    sts: Option<String>,
    cloudtrail: Option<String>,
}

impl ClientConfig {
    /// Resolves from this process's environment.
    ///
    /// # Errors
    /// When what is configured is contradictory or incomplete. Missing credentials are not an
    /// error yet: a call that needs them says so.
    pub fn from_environment(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::resolve(&Environment::of_process(), overrides)
    }

    /// Resolves from the given environment.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn resolve(environment: &Environment, overrides: &Overrides) -> Result<Self, ConfigError> {
        let files = Files::read(environment)?;
        let named = named_profile(environment, overrides);
        let profile_name = named.unwrap_or("default");
        let profile = match (files.profile(profile_name), named) {
            (Some(profile), _) => profile,
            (None, None) => Section::default(),
            (None, Some(_)) if overrides.may_be_new => Section::default(),
            (None, Some(_)) => return Err(files.not_found(profile_name)),
        };
        // A profile that only the AWS CLI can use must not keep our plugin, which may never
        // need keys of its own, from starting: the error comes when keys are needed.
        let (credentials, origin) = credentials(environment, overrides, &files, profile_name)
            .unwrap_or_else(|error| {
                let reason = error.to_string();
                (CredentialSource::Unusable { reason }, String::new())
            });
        let region = match region(environment, overrides, &profile) {
            Err(ConfigError::NoRegion) if overrides.may_be_new => None,
            other => Some(other?),
        };
        Ok(Self {
            has_region: region.is_some(),
            // Nothing is signed with it: signing in learns the region from the server.
            region: region
                .map_or_else(|| OUR_REGION.parse(), Ok)
                .map_err(|_| ConfigError::NoRegion)?,
            is_overruled: !is_explicit(overrides) && environment.get("AWS_ACCESS_KEY_ID").is_some(),
            endpoints: Endpoints::resolve(environment, overrides, &files, &profile),
            credentials,
            origin,
            place: SignInPlace {
                profile: profile_name.to_owned(),
                file: files.credentials_path.clone(),
                role_cache: environment.home().map(|home| home.join(ROLE_CACHE)),
            },
            ca_bundle: ca_bundle(environment, overrides, &profile),
            max_attempts: environment
                .get("AWS_MAX_ATTEMPTS")
                .or_else(|| profile.text("max_attempts"))
                .and_then(|text| text.parse().ok())
                .filter(|attempts| *attempts > 0)
                .unwrap_or(3),
            profile,
        })
    }

    /// The region requests are signed for.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Where the credentials come from.
    #[must_use]
    pub fn credentials(&self) -> &CredentialSource {
        &self.credentials
    }

    /// Where the credentials come from, for people; empty when there are none.
    #[must_use]
    pub fn credentials_origin(&self) -> &str {
        &self.origin
    }

    /// Where signing in writes its keys, and signing out takes them from.
    ///
    /// # Errors
    /// [`ConfigError::NoSignIn`] when what is written there would never be used, or would take the
    /// place of a long-lived key.
    pub fn sign_in_place(&self) -> Result<&SignInPlace, ConfigError> {
        let refused = |reason: String| {
            Err(ConfigError::NoSignIn {
                profile: self.place.profile.clone(),
                reason,
            })
        };
        if self.place.profile.contains(['[', ']']) || self.place.profile.contains(char::is_control)
        {
            return refused("its name cannot stand in a file".to_owned());
        }
        if self.profile.text("role_arn").is_some() {
            return refused("it assumes a role; sign in with its source_profile".to_owned());
        }
        match (
            self.profile.text("aws_access_key_id"),
            self.profile.text("aws_session_token"),
        ) {
            (Some(key), None) => refused(format!(
                "it holds the long-lived key {key}; choose another one with --profile"
            )),
            _ => Ok(&self.place),
        }
    }

    /// Where signing out takes keys from. Needs no other setting than the profile's name.
    ///
    /// # Errors
    /// When the profile does not exist, or holds a long-lived key.
    pub fn sign_out_place(
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<SignInPlace, ConfigError> {
        let with_region = Overrides {
            region: Some(OUR_REGION.to_owned()),
            ..overrides.clone()
        };
        let config = Self::resolve(environment, &with_region)?;
        config.sign_in_place().cloned()
    }

    /// Whether a region was configured anywhere.
    #[must_use]
    pub fn has_region(&self) -> bool {
        self.has_region
    }

    /// Whether keys in the environment win over those of the profile.
    #[must_use]
    pub fn is_overruled_by_environment(&self) -> bool {
        self.is_overruled
    }

    /// When the keys that signing in left in the profile are over.
    #[must_use]
    pub fn sign_in_expires(&self) -> Option<Timestamp> {
        self.profile.text(credentials_file::EXPIRES)?.parse().ok()
    }

    /// Who signed in with the profile, by ARN.
    #[must_use]
    pub fn signed_in_principal(&self) -> Option<&str> {
        self.profile.text(credentials_file::PRINCIPAL)
    }

    /// Whether the profile itself has a value for this key, such as `region`.
    #[must_use]
    pub fn profile_has(&self, key: &str) -> bool {
        self.profile.text(key).is_some()
    }

    /// The file for the credentials of a role.
    pub(crate) fn role_file(&self, role: &AssumeRole) -> Option<PathBuf> {
        let endpoint = self.endpoint(Service::Sts).ok()?.to_string();
        let folder = self.place.role_cache.as_deref()?;
        Some(assume_role::file_of(folder, &endpoint, role))
    }

    /// Whether a URL was configured for the service, so that it is not AWS's own.
    #[must_use]
    pub fn has_endpoint(&self, service: Service) -> bool {
        self.endpoints.of(service).is_some()
    }

    /// PEM file with further certificate authorities.
    #[must_use]
    pub fn ca_bundle(&self) -> Option<&Path> {
        self.ca_bundle.as_deref()
    }

    /// How often a call is tried in all.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The URL of a service: as configured, else the one that AWS has for the region.
    ///
    /// # Errors
    /// [`ConfigError::BadEndpoint`] when it is not an http or https URL.
    pub fn endpoint(&self, service: Service) -> Result<http::Uri, ConfigError> {
        let text = self
            .endpoints
            .of(service)
            .map_or_else(|| aws_endpoint(service, &self.region), str::to_owned);
        let uri: http::Uri = text
            .parse()
            .map_err(|_| ConfigError::BadEndpoint(text.clone()))?;
        let usable = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty());
        usable.then_some(uri).ok_or(ConfigError::BadEndpoint(text))
    }
}

impl Endpoints {
    fn resolve(
        environment: &Environment,
        overrides: &Overrides,
        files: &Files,
        profile: &Section,
    ) -> Self {
        if let Some(endpoint) = overrides.endpoint.as_deref().filter(|url| !url.is_empty()) {
            return Self {
                everywhere: Some(endpoint.to_owned()),
                ..Self::default()
            };
        }
        let ignored = environment
            .get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
            .or_else(|| profile.text("ignore_configured_endpoint_urls"));
        if ignored.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::default();
        }
        let services = profile
            .text("services")
            .and_then(|name| files.config.named("services", name));
        // The order is botocore's: the environment, even its general variable, goes before files.
        let of = |service: &str, variable: &str| {
            environment
                .first(&[variable, "AWS_ENDPOINT_URL"])
                .or_else(|| services.and_then(|section| section.nested(service, "endpoint_url")))
                .or_else(|| profile.text("endpoint_url"))
                .map(str::to_owned)
        };
        Self {
            everywhere: None,
            // Ours is where ssm is, unless it has a place of its own.
            sortie: of("sortie", "AWS_ENDPOINT_URL_SORTIE")
                .or_else(|| of("ssm", "AWS_ENDPOINT_URL_SSM")),
            ssm: of("ssm", "AWS_ENDPOINT_URL_SSM"),
            sts: of("sts", "AWS_ENDPOINT_URL_STS"),
            cloudtrail: of("cloudtrail", "AWS_ENDPOINT_URL_CLOUDTRAIL"),
        }
    }

    fn of(&self, service: Service) -> Option<&str> {
        let own = match service {
            Service::Sortie => &self.sortie,
            Service::Ssm => &self.ssm,
            Service::Sts => &self.sts,
            Service::CloudTrail => &self.cloudtrail,
            _ => &None,
        };
        self.everywhere.as_deref().or(own.as_deref())
    }
}

/// The two shared files; a missing one is an empty one.
struct Files {
    config_path: PathBuf,
    credentials_path: PathBuf,
    config: Document,
    credentials: Document,
}

impl Files {
    fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let path =
            |variable, default| environment.expand(environment.get(variable).unwrap_or(default));
        let config_path = path("AWS_CONFIG_FILE", "~/.aws/config");
        let credentials_path = path("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials");
        Ok(Self {
            config: read_document(&config_path)?,
            credentials: read_document(&credentials_path)?,
            config_path,
            credentials_path,
        })
    }

    /// A profile's keys from both files; those of the credentials file win.
    fn profile(&self, name: &str) -> Option<Section> {
        let config = self.config.named("profile", name).or_else(|| {
            (name == "default")
                .then(|| self.config.section("default"))
                .flatten()
        });
        match (config, self.credentials.section(name)) {
            (None, None) => None,
            (config, credentials) => {
                let mut merged = config.cloned().unwrap_or_default();
                if let Some(credentials) = credentials {
                    merged.merge(credentials);
                }
                Some(merged)
            }
        }
    }

    /// Where the credentials of a profile come from, for people.
    fn origin(&self, profile: &str, source: &CredentialSource) -> String {
        match source {
            CredentialSource::Static(_) => {
                let section = self.credentials.section(profile);
                let is_there =
                    section.is_some_and(|section| section.text("aws_access_key_id").is_some());
                let file = if is_there {
                    &self.credentials_path
                } else {
                    &self.config_path
                };
                format!("profile `{profile}` of {}", file.display())
            }
            CredentialSource::Process { .. } => {
                format!("credential_process of profile `{profile}`")
            }
            CredentialSource::AssumeRole(role) => {
                format!("the role {} of profile `{profile}`", role.role_arn)
            }
            CredentialSource::Missing | CredentialSource::Unusable { .. } => String::new(),
        }
    }

    fn not_found(&self, profile: &str) -> ConfigError {
        ConfigError::ProfileNotFound {
            profile: profile.to_owned(),
            config: self.config_path.clone(),
            credentials: self.credentials_path.clone(),
        }
    }
}

fn read_document(path: &Path) -> Result<Document, ConfigError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Document::parse(&String::from_utf8_lossy(&bytes))),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Document::default())
        }
        Err(source) => Err(ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

fn region(
    environment: &Environment,
    overrides: &Overrides,
    profile: &Section,
) -> Result<Region, ConfigError> {
    let text = overrides
        .region
        .as_deref()
        .filter(|region| !region.is_empty())
        .or_else(|| environment.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]))
        .or_else(|| profile.text("region"))
        .ok_or(ConfigError::NoRegion)?;
    text.parse()
        .map_err(|_| ConfigError::BadRegion(text.to_owned()))
}

fn ca_bundle(
    environment: &Environment,
    overrides: &Overrides,
    profile: &Section,
) -> Option<PathBuf> {
    overrides.ca_bundle.clone().or_else(|| {
        environment
            .get("AWS_CA_BUNDLE")
            .or_else(|| profile.text("ca_bundle"))
            .map(|path| environment.expand(path))
    })
}

fn credentials(
    environment: &Environment,
    overrides: &Overrides,
    files: &Files,
    profile: &str,
) -> Result<(CredentialSource, String), ConfigError> {
    // As in botocore, keys in the environment win over AWS_PROFILE but not over --profile.
    if !is_explicit(overrides)
        && let Some(found) = environment_credentials(environment)?
    {
        return Ok((
            CredentialSource::Static(found),
            "the environment".to_owned(),
        ));
    }
    let source = profile_credentials(environment, files, profile, &mut Vec::new())?;
    let origin = files.origin(profile, &source);
    Ok((source, origin))
}

/// Whether the profile was named by hand.
fn is_explicit(overrides: &Overrides) -> bool {
    overrides
        .profile
        .as_deref()
        .is_some_and(|name| !name.is_empty())
}

fn named_profile<'a>(environment: &'a Environment, overrides: &'a Overrides) -> Option<&'a str> {
    overrides
        .profile
        .as_deref()
        .filter(|name| !name.is_empty())
        .or_else(|| environment.first(&["AWS_DEFAULT_PROFILE", "AWS_PROFILE"]))
}

fn environment_credentials(environment: &Environment) -> Result<Option<Credentials>, ConfigError> {
    static_credentials(
        "the environment",
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
        environment.get("AWS_ACCESS_KEY_ID"),
        environment.get("AWS_SECRET_ACCESS_KEY"),
        environment.first(&["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]),
    )
}

fn static_credentials(
    place: &str,
    names: [&'static str; 2],
    access_key: Option<&str>,
    secret: Option<&str>,
    token: Option<&str>,
) -> Result<Option<Credentials>, ConfigError> {
    let partial = |present, missing| ConfigError::PartialCredentials {
        place: place.to_owned(),
        present,
        missing,
    };
    match (access_key, secret) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(partial(names[0], names[1])),
        (None, Some(_)) => Err(partial(names[1], names[0])),
        (Some(access_key), Some(secret)) => Ok(Some(Credentials {
            access_key_id: access_key.to_owned(),
            secret_access_key: Secret::new(secret),
            session_token: token.filter(|token| !token.is_empty()).map(Secret::new),
        })),
    }
}

/// The credentials of a profile. `visited` holds the profiles already on the way, so that a chain
/// of roles that comes back to itself is found.
fn profile_credentials(
    environment: &Environment,
    files: &Files,
    name: &str,
    visited: &mut Vec<String>,
) -> Result<CredentialSource, ConfigError> {
    let Some(profile) = files.profile(name) else {
        return Ok(CredentialSource::Missing);
    };
    let of_profile = || {
        static_credentials(
            &format!("profile `{name}`"),
            ["aws_access_key_id", "aws_secret_access_key"],
            profile.text("aws_access_key_id"),
            profile.text("aws_secret_access_key"),
            profile.text("aws_session_token"),
        )
    };
    let role_first = profile.text("role_arn").is_some();
    if role_first && visited.last().is_none_or(|last| last != name) {
        return role(environment, files, name, &profile, visited);
    }
    if let Some(found) = of_profile()? {
        return Ok(CredentialSource::Static(found));
    }
    if let Some(command) = profile.text("credential_process") {
        return Ok(CredentialSource::Process {
            command: command.to_owned(),
        });
    }
    for key in ["sso_session", "sso_start_url", "web_identity_token_file"] {
        if profile.text(key).is_some() {
            return Err(bad_role(
                name,
                format!("`{key}` is not supported; use keys, a role or credential_process"),
            ));
        }
    }
    Ok(CredentialSource::Missing)
}

/// The role of a profile and what it is assumed with.
fn role(
    environment: &Environment,
    files: &Files,
    name: &str,
    profile: &Section,
    visited: &mut Vec<String>,
) -> Result<CredentialSource, ConfigError> {
    if visited.iter().any(|seen| seen == name) {
        return Err(bad_role(name, "its source_profile leads back to itself"));
    }
    visited.push(name.to_owned());
    let source = match (
        profile.text("source_profile"),
        profile.text("credential_source"),
    ) {
        (Some(source), None) => {
            if files.profile(source).is_none() {
                return Err(bad_role(
                    name,
                    format!("its source_profile `{source}` does not exist"),
                ));
            }
            profile_credentials(environment, files, source, visited)?
        }
        (None, Some("Environment")) => environment_credentials(environment)?
            .map_or(CredentialSource::Missing, CredentialSource::Static),
        (None, Some(other)) => {
            return Err(bad_role(
                name,
                format!("credential_source `{other}` is not supported"),
            ));
        }
        (Some(_), Some(_)) => {
            return Err(bad_role(
                name,
                "has both source_profile and credential_source",
            ));
        }
        (None, None) => {
            return Err(bad_role(
                name,
                "has role_arn but neither source_profile nor credential_source",
            ));
        }
    };
    let text = |key| profile.text(key).map(str::to_owned);
    Ok(CredentialSource::AssumeRole(Box::new(AssumeRole {
        role_arn: text("role_arn").unwrap_or_default(),
        source,
        session_name: text("role_session_name"),
        external_id: text("external_id"),
        mfa_serial: text("mfa_serial"),
        duration_seconds: profile
            .text("duration_seconds")
            .and_then(|seconds| seconds.parse().ok()),
    })))
}

fn bad_role(profile: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::BadRole {
        profile: profile.to_owned(),
        reason: reason.into(),
    }
}

fn aws_endpoint(service: Service, region: &Region) -> String {
    let suffix = if region.as_str().starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    format!(
        "https://{}.{}.{suffix}",
        service.signing_name(),
        region.as_str()
    )
}
