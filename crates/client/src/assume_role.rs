//! Assuming the role that a profile names, and the files in which such credentials are kept. A file is
//! found by the server, by who assumed the role, and by the role: the same role of another server, or
//! assumed by somebody else, is another one.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sortie_types::{Secret, Timestamp};
use sortie_wire::{call::encode_request, shapes::sts, sigv4::Credentials};

use crate::{
    AssumeRole, CredentialSource, CredentialsError,
    credentials::{EXPIRY_MARGIN, Fetched, MfaPrompt},
    private_file,
    transport::Transport,
};

/// Assumes `role` with the credentials `source`, asking for a code where the profile names a device.
pub(crate) async fn assume(
    transport: &Transport,
    role: &AssumeRole,
    source: &Credentials,
    prompt: Option<&dyn MfaPrompt>,
    now: Timestamp,
) -> Result<Fetched, CredentialsError> {
    let token_code = match &role.mfa_serial {
        Some(serial) => Some(ask(prompt, role, serial).await?),
        None => None,
    };
    let request = sts::AssumeRoleRequest {
        role_arn: role.role_arn.clone(),
        role_session_name: session_name(role, now),
        duration_seconds: role.duration_seconds.and_then(|s| i32::try_from(s).ok()),
        external_id: role.external_id.clone(),
        serial_number: role.mfa_serial.clone(),
        token_code,
        ..sts::AssumeRoleRequest::default()
    };
    let message = encode_request::<sts::AssumeRole>(&request);
    let answer = transport
        .send::<sts::AssumeRole>(&message, source)
        .await
        .map_err(|error| CredentialsError::AssumeRole {
            role_arn: role.role_arn.clone(),
            source: Box::new(error),
        })?;
    let credentials = answer.credentials.ok_or_else(|| {
        CredentialsError::Unusable(format!(
            "the answer to AssumeRole of {} has no credentials",
            role.role_arn
        ))
    })?;
    Ok(Fetched {
        credentials: Credentials {
            access_key_id: credentials.access_key_id,
            secret_access_key: credentials.secret_access_key,
            session_token: Some(credentials.session_token),
        },
        expires: Some(credentials.expiration),
    })
}

async fn ask(
    prompt: Option<&dyn MfaPrompt>,
    role: &AssumeRole,
    serial: &str,
) -> Result<Secret, CredentialsError> {
    let answer = match prompt {
        Some(prompt) => prompt.ask(serial).await,
        None => Err("there is nobody to ask".to_owned()),
    };
    answer.map_err(|reason| CredentialsError::NoMfaCode {
        role_arn: role.role_arn.clone(),
        serial: serial.to_owned(),
        reason,
    })
}

/// As configured, else one that differs from session to session, so that two people who share a role
/// are not taken for each other.
fn session_name(role: &AssumeRole, now: Timestamp) -> String {
    role.session_name
        .clone()
        .unwrap_or_else(|| format!("sortie-session-{}", now.millis() / 1000))
}

/// What such a file holds of the answer to AssumeRole, as AWS's command line writes it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    credentials: KeptCredentials,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeptCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

/// The credentials of a role in its file, if they are good for a while yet.
pub(crate) fn load(file: &Path, now: Timestamp) -> Option<Fetched> {
    let text = std::fs::read(file).ok()?;
    let kept = serde_json::from_slice::<Kept>(&text).ok()?.credentials;
    let expires: Timestamp = kept.expiration.parse().ok()?;
    (expires > now.plus(EXPIRY_MARGIN)).then(|| Fetched {
        credentials: Credentials {
            access_key_id: kept.access_key_id,
            secret_access_key: Secret::new(kept.secret_access_key),
            session_token: Some(Secret::new(kept.session_token)),
        },
        expires: Some(expires),
    })
}

/// Keeps the credentials of a role. One who may not write there asks again next time.
pub(crate) fn store(file: &Path, assumed: &Fetched) {
    let (Some(token), Some(expires)) = (&assumed.credentials.session_token, assumed.expires) else {
        return;
    };
    let kept = Kept {
        credentials: KeptCredentials {
            access_key_id: assumed.credentials.access_key_id.clone(),
            secret_access_key: assumed.credentials.secret_access_key.expose().to_owned(),
            session_token: token.expose().to_owned(),
            expiration: expires.iso_seconds(),
        },
    };
    let written = serde_json::to_vec(&kept)
        .map_err(std::io::Error::from)
        .and_then(|text| private_file::replace(file, &text));
    if let Err(error) = written {
        tracing::debug!(%error, "the credentials of the role are not kept");
    }
}

/// The file of a role that is assumed with these very settings at a server.
pub(crate) fn file_of(folder: &Path, endpoint: &str, role: &AssumeRole) -> PathBuf {
    let text = json!([endpoint, members(role)]).to_string();
    let beginning = name_of_source(&role.source);
    folder.join(format!("{beginning}-{}.json", hash(&text)))
}

/// Removes what was assumed with an access key, directly or through other roles.
pub(crate) fn forget(folder: &Path, access_key_id: &str) -> std::io::Result<()> {
    let beginning = format!("{}-", name_of_key(access_key_id));
    let files = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with(&beginning) {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// Everything that tells one call from another, down to whose keys sign the first.
fn members(role: &AssumeRole) -> Value {
    json!({
        "DurationSeconds": role.duration_seconds,
        "ExternalId": role.external_id,
        "RoleArn": role.role_arn,
        "RoleSessionName": role.session_name,
        "SerialNumber": role.mfa_serial,
        "Source": match &role.source {
            CredentialSource::AssumeRole(source) => members(source),
            source => json!(name_of_source(source)),
        },
    })
}

/// Who is at the beginning, as part of a file's name.
fn name_of_source(source: &CredentialSource) -> String {
    match source {
        CredentialSource::Static(credentials) => name_of_key(&credentials.access_key_id),
        CredentialSource::Process { command } => hash(&format!("process {command}")),
        CredentialSource::AssumeRole(role) => name_of_source(&role.source),
        CredentialSource::Missing | CredentialSource::Unusable { .. } => hash("nobody"),
    }
}

fn name_of_key(access_key_id: &str) -> String {
    hash(&format!("key {access_key_id}"))
}

fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let bytes = digest.as_ref().iter().take(16);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "https://sortie.example/";

    fn keys(access_key_id: &str) -> CredentialSource {
        CredentialSource::Static(Credentials {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Secret::new("s"),
            session_token: None,
        })
    }

    fn role(source: CredentialSource) -> AssumeRole {
        AssumeRole {
            role_arn: "arn:aws:iam::111122223333:role/Ops".to_owned(),
            source,
            session_name: None,
            external_id: None,
            mfa_serial: None,
            duration_seconds: None,
        }
    }

    fn assumed(expires: Timestamp) -> Fetched {
        Fetched {
            credentials: Credentials {
                access_key_id: "ASIA1".to_owned(),
                secret_access_key: Secret::new("s"),
                session_token: Some(Secret::new("t")),
            },
            expires: Some(expires),
        }
    }

    const EXPIRES: Timestamp = Timestamp::from_millis(1_777_881_600_000);

    #[test]
    fn whatever_differs_is_another_file() {
        let folder = Path::new("/f");
        let alice = || role(keys("AKIAALICE"));
        let chained = |source| role(CredentialSource::AssumeRole(Box::new(source)));
        let mut files = vec![
            file_of(folder, SERVER, &alice()),
            file_of(folder, "https://other.example/", &alice()),
            file_of(folder, SERVER, &role(keys("AKIABOB"))),
            file_of(folder, SERVER, &chained(alice())),
            file_of(folder, SERVER, &chained(chained(alice()))),
        ];
        let process = CredentialSource::Process {
            command: "keys".to_owned(),
        };
        files.push(file_of(folder, SERVER, &role(process)));
        let settings: [fn(&mut AssumeRole); 5] = [
            |role| role.role_arn.push('2'),
            |role| role.session_name = Some("me".to_owned()),
            |role| role.external_id = Some("me".to_owned()),
            |role| role.mfa_serial = Some("me".to_owned()),
            |role| role.duration_seconds = Some(900),
        ];
        for set in settings {
            let mut other = alice();
            set(&mut other);
            files.push(file_of(folder, SERVER, &other));
        }
        assert_eq!(files[0], file_of(folder, SERVER, &alice()));
        let count = files.len();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), count);
    }

    #[test]
    fn what_is_kept_is_found_until_shortly_before_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_of(&folder.path().join("cache"), SERVER, &role(keys("AKIA1")));
        let early = EXPIRES.minus(std::time::Duration::from_secs(600));
        assert!(load(&file, early).is_none());
        store(&file, &assumed(EXPIRES));
        let found = load(&file, early).unwrap();
        assert_eq!(found.credentials.access_key_id, "ASIA1");
        assert_eq!(found.expires, Some(EXPIRES));
        assert!(load(&file, EXPIRES).is_none());
        for nonsense in ["", "{}", "{\"Credentials\": 7}", "\u{0}"] {
            std::fs::write(&file, nonsense).unwrap();
            assert!(load(&file, early).is_none(), "{nonsense}");
        }
    }

    #[test]
    fn what_was_assumed_with_a_key_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        forget(&cache, "ASIAALICE").unwrap();
        let direct = role(keys("ASIAALICE"));
        let chained = role(CredentialSource::AssumeRole(Box::new(direct.clone())));
        let others = file_of(&cache, SERVER, &role(keys("ASIABOB")));
        let files = [&direct, &chained].map(|role| file_of(&cache, SERVER, role));
        for file in files.iter().chain([&others]) {
            store(file, &assumed(EXPIRES));
            assert!(file.exists());
        }
        forget(&cache, "ASIAALICE").unwrap();
        assert!(files.iter().all(|file| !file.exists()));
        assert!(others.exists());
    }
}
