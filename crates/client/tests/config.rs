//! Settings as AWS's tools resolve them, case by case.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::path::Path;

use sortie_client::{ClientConfig, ConfigError, CredentialSource, Environment, Overrides};
use sortie_wire::Service;

const CONFIG: &str = "
[default]
region = default-region
endpoint_url = http://default.example

[profile work]
region = work-region
ca_bundle = ~/work.pem
services = local
max_attempts = 5
credential_process = /opt/keys --account \"a b\"

[profile both]
role_arn = arn:aws:iam::1:role/r
source_profile = default
mfa_serial = arn:aws:iam::1:mfa/me
external_id = x
duration_seconds = 900

[profile loop-a]
role_arn = arn:aws:iam::1:role/r
source_profile = loop-b
[profile loop-b]
role_arn = arn:aws:iam::1:role/r
source_profile = loop-a

[profile self]
role_arn = arn:aws:iam::1:role/r
source_profile = self
aws_access_key_id = AKIASELF
aws_secret_access_key = s

[profile sso]
region = r
sso_session = corp

[profile half]
aws_access_key_id = AKIAHALF

[profile empty]

[services local]
ssm =
  endpoint_url = http://ssm.example:1
";

const CREDENTIALS: &str = "
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = s
aws_session_token = t
[stored]
aws_access_key_id = AKIASTORED
aws_secret_access_key = s
";

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let aws = folder.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        std::fs::write(aws.join("config"), CONFIG).unwrap();
        std::fs::write(aws.join("credentials"), CREDENTIALS).unwrap();
        Self { folder }
    }

    fn home(&self) -> &Path {
        self.folder.path()
    }

    fn resolve(
        &self,
        variables: &[(&str, &str)],
        overrides: &Overrides,
    ) -> Result<ClientConfig, ConfigError> {
        let environment = Environment::new(variables.iter().copied(), Some(self.home().to_owned()));
        ClientConfig::resolve(&environment, overrides)
    }

    fn variables(&self, variables: &[(&str, &str)]) -> ClientConfig {
        self.resolve(variables, &Overrides::default()).unwrap()
    }
}

fn profile(name: &str) -> Overrides {
    Overrides {
        profile: Some(name.to_owned()),
        region: Some("r".to_owned()),
        ..Overrides::default()
    }
}

fn access_key(config: &ClientConfig) -> String {
    match config.credentials() {
        CredentialSource::Static(keys) => keys.access_key_id.clone(),
        other => format!("{other:?}"),
    }
}

fn endpoint(config: &ClientConfig, service: Service) -> String {
    config.endpoint(service).unwrap().to_string()
}

#[test]
fn the_region_comes_from_the_first_place_that_has_one() {
    let case = Case::new();
    let all = [
        ("AWS_REGION", "a"),
        ("AWS_DEFAULT_REGION", "b"),
        ("AWS_PROFILE", "work"),
    ];
    let overrides = Overrides {
        region: Some("o".to_owned()),
        ..Overrides::default()
    };
    assert_eq!(
        case.resolve(&all, &overrides).unwrap().region().as_str(),
        "o"
    );
    assert_eq!(case.variables(&all).region().as_str(), "a");
    assert_eq!(case.variables(&all[1..]).region().as_str(), "b");
    assert_eq!(case.variables(&all[2..]).region().as_str(), "work-region");
    assert_eq!(case.variables(&[]).region().as_str(), "default-region");
    let empty = case.resolve(&[("AWS_PROFILE", "empty")], &Overrides::default());
    assert!(matches!(empty, Err(ConfigError::NoRegion)));
}

#[test]
fn keys_in_the_environment_win_over_its_profile_and_lose_to_a_named_one() {
    let case = Case::new();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIAENV"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_PROFILE", "stored"),
        ("AWS_REGION", "r"),
    ];
    assert_eq!(access_key(&case.variables(&keys)), "AKIAENV");
    assert_eq!(access_key(&case.variables(&keys[2..])), "AKIASTORED");
    assert_eq!(access_key(&case.variables(&[])), "AKIADEFAULT");
    let named = case.resolve(&keys, &profile("default")).unwrap();
    assert_eq!(access_key(&named), "AKIADEFAULT");
}

#[test]
fn a_profile_that_nobody_has_is_an_error_that_names_the_files() {
    let case = Case::new();
    for result in [
        case.resolve(&[], &profile("nobody")),
        case.resolve(
            &[("AWS_PROFILE", "nobody"), ("AWS_REGION", "r")],
            &Overrides::default(),
        ),
    ] {
        let text = result.unwrap_err().to_string();
        assert!(
            text.contains("nobody") && text.contains(".aws/config"),
            "{text}"
        );
    }
}

#[test]
fn endpoints_follow_botocores_order() {
    let case = Case::new();
    let all = [
        ("AWS_ENDPOINT_URL_SSM", "http://env-ssm"),
        ("AWS_ENDPOINT_URL", "http://env"),
        ("AWS_PROFILE", "work"),
    ];
    let config = case.variables(&all);
    assert_eq!(endpoint(&config, Service::Ssm), "http://env-ssm/");
    assert_eq!(endpoint(&config, Service::Sts), "http://env/");
    let config = case.variables(&all[2..]);
    assert_eq!(endpoint(&config, Service::Ssm), "http://ssm.example:1/");
    assert_eq!(
        endpoint(&config, Service::Sts),
        "https://sts.work-region.amazonaws.com/"
    );
    assert_eq!(
        endpoint(&case.variables(&[]), Service::CloudTrail),
        "http://default.example/"
    );
    let overrides = Overrides {
        endpoint: Some("https://o/base".to_owned()),
        ..Overrides::default()
    };
    let config = case.resolve(&all, &overrides).unwrap();
    assert_eq!(endpoint(&config, Service::Sts), "https://o/base");
    let ignoring = [
        all[0],
        all[1],
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
        ("AWS_REGION", "cn-north-1"),
    ];
    assert_eq!(
        endpoint(&case.variables(&ignoring), Service::Ssm),
        "https://ssm.cn-north-1.amazonaws.com.cn/"
    );
    for bad in ["ftp://x", "sortie.example", "http://", "not a url"] {
        let config = case.variables(&[("AWS_ENDPOINT_URL", bad)]);
        assert!(
            matches!(
                config.endpoint(Service::Ssm),
                Err(ConfigError::BadEndpoint(_))
            ),
            "{bad}"
        );
    }
}

#[test]
fn other_settings_of_a_profile_are_taken() {
    let case = Case::new();
    let config = case.resolve(&[], &profile("work")).unwrap();
    assert_eq!(
        config.ca_bundle(),
        Some(case.home().join("work.pem").as_path())
    );
    assert_eq!(config.max_attempts(), 5);
    assert!(
        matches!(config.credentials(), CredentialSource::Process { command } if command == "/opt/keys --account \"a b\"")
    );
    let variables = [("AWS_CA_BUNDLE", "/env.pem"), ("AWS_MAX_ATTEMPTS", "2")];
    let config = case.resolve(&variables, &profile("work")).unwrap();
    assert_eq!(config.ca_bundle(), Some(Path::new("/env.pem")));
    assert_eq!(config.max_attempts(), 2);
}

#[test]
fn a_role_is_described_with_its_source() {
    let case = Case::new();
    let config = case.resolve(&[], &profile("both")).unwrap();
    let CredentialSource::AssumeRole(role) = config.credentials() else {
        panic!("{:?}", config.credentials());
    };
    assert_eq!(role.role_arn, "arn:aws:iam::1:role/r");
    assert_eq!(role.mfa_serial.as_deref(), Some("arn:aws:iam::1:mfa/me"));
    assert_eq!(role.external_id.as_deref(), Some("x"));
    assert_eq!(role.duration_seconds, Some(900));
    assert!(
        matches!(&role.source, CredentialSource::Static(keys) if keys.access_key_id == "AKIADEFAULT")
    );

    let own = case.resolve(&[], &profile("self")).unwrap();
    let CredentialSource::AssumeRole(role) = own.credentials() else {
        panic!("{:?}", own.credentials());
    };
    assert!(
        matches!(&role.source, CredentialSource::Static(keys) if keys.access_key_id == "AKIASELF")
    );
}

#[test]
fn what_cannot_be_used_says_so_when_keys_are_needed_and_not_before() {
    let case = Case::new();
    for (name, expected) in [
        ("loop-a", "leads back"),
        ("sso", "sso_session"),
        ("half", "aws_secret_access_key"),
    ] {
        let config = case.resolve(&[], &profile(name)).unwrap();
        match config.credentials() {
            CredentialSource::Unusable { reason } => {
                assert!(reason.contains(expected), "{name}: {reason}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let config = case.resolve(&[], &profile("empty")).unwrap();
    assert!(matches!(config.credentials(), CredentialSource::Missing));
}

#[test]
fn missing_files_are_empty_ones_and_paths_can_be_given() {
    let case = Case::new();
    let other = case.home().join("other");
    std::fs::write(
        &other,
        "[default]\naws_access_key_id=AKIAOTHER\naws_secret_access_key=s\n",
    )
    .unwrap();
    let config = case.variables(&[
        ("AWS_CONFIG_FILE", "~/nowhere"),
        ("AWS_SHARED_CREDENTIALS_FILE", other.to_str().unwrap()),
        ("AWS_REGION", "r"),
    ]);
    assert_eq!(access_key(&config), "AKIAOTHER");
}
