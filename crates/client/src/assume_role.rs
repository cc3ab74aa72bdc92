//! Assuming the role that a profile names, and the files in which AWS's command line keeps such
//! credentials: the same names and the same content, so that a code typed for one tool serves both.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sortie_types::{Secret, Timestamp};
use sortie_wire::{call::encode_request, shapes::sts, sigv4::Credentials};

use crate::{
    AssumeRole, CredentialsError,
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

/// What such a file holds of the answer to AssumeRole.
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

/// The credentials of a role in the folder of such files, if they are good for a while yet.
pub(crate) fn load(folder: &Path, role: &AssumeRole, now: Timestamp) -> Option<Fetched> {
    let text = std::fs::read(file_of(folder, role)).ok()?;
    let kept = serde_json::from_slice::<Kept>(&text).ok()?.credentials;
    // AWS's tools write the name of the zone.
    let expiration = kept.expiration.replace("UTC", "Z");
    let expires: Timestamp = expiration.parse().ok()?;
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
pub(crate) fn store(folder: &Path, role: &AssumeRole, assumed: &Fetched) {
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
        .and_then(|text| private_file::replace(&file_of(folder, role), &text));
    if let Err(error) = written {
        tracing::debug!(%error, "the credentials of the role are not kept");
    }
}

fn file_of(folder: &Path, role: &AssumeRole) -> PathBuf {
    folder.join(format!("{}.json", cache_key(role)))
}

/// botocore's name for the call: the hash of its members as Python writes them as JSON, without the
/// session name unless the profile gives one.
fn cache_key(role: &AssumeRole) -> String {
    let members = [
        ("DurationSeconds", role.duration_seconds.map(|s| json!(s))),
        ("ExternalId", role.external_id.as_ref().map(|s| json!(s))),
        ("RoleArn", Some(json!(role.role_arn))),
        (
            "RoleSessionName",
            role.session_name.as_ref().map(|s| json!(s)),
        ),
        ("SerialNumber", role.mfa_serial.as_ref().map(|s| json!(s))),
    ];
    let members: Vec<String> = members
        .into_iter()
        .filter_map(|(name, value)| Some(format!("\"{name}\": {}", ascii(&value?.to_string()))))
        .collect();
    let text = format!("{{{}}}", members.join(", "));
    digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Python escapes what is not ASCII.
fn ascii(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CredentialSource;

    fn role() -> AssumeRole {
        AssumeRole {
            role_arn: "arn:aws:iam::111122223333:role/Ops".to_owned(),
            source: CredentialSource::Missing,
            session_name: None,
            external_id: None,
            mfa_serial: None,
            duration_seconds: None,
        }
    }

    #[test]
    fn files_have_the_names_that_botocore_gives_them() {
        let full = AssumeRole {
            session_name: Some("me".to_owned()),
            external_id: Some("a\"ß\u{1f600}".to_owned()),
            mfa_serial: Some("arn:aws:iam::111122223333:mfa/me".to_owned()),
            duration_seconds: Some(900),
            ..role()
        };
        // Computed with botocore 1.43.11.
        assert_eq!(
            cache_key(&role()),
            "d0ede4819d1faaa23980aff2e5a04b71c759f79f"
        );
        assert_eq!(cache_key(&full), "0c6cd193174cd7b80ef99f8e27774caf257067db");
    }

    #[test]
    fn what_is_kept_is_found_until_shortly_before_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("cli/cache");
        let expires = Timestamp::from_millis(1_777_881_600_000);
        let early = expires.minus(std::time::Duration::from_secs(600));
        let assumed = Fetched {
            credentials: Credentials {
                access_key_id: "ASIA1".to_owned(),
                secret_access_key: Secret::new("s"),
                session_token: Some(Secret::new("t")),
            },
            expires: Some(expires),
        };
        assert!(load(&folder, &role(), early).is_none());
        store(&folder, &role(), &assumed);
        let found = load(&folder, &role(), early).unwrap();
        assert_eq!(found.credentials.access_key_id, "ASIA1");
        assert_eq!(found.expires, Some(expires));
        assert!(load(&folder, &role(), expires).is_none());
        let other = AssumeRole {
            external_id: Some("x".to_owned()),
            ..role()
        };
        assert!(load(&folder, &other, early).is_none());
    }

    #[test]
    fn what_aws_tools_wrote_is_read_and_nonsense_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_of(folder.path(), &role());
        let now = Timestamp::from_millis(1_777_881_600_000);
        std::fs::write(
            &file,
            r#"{"Credentials": {"AccessKeyId": "ASIA2", "SecretAccessKey": "s", "SessionToken": "t",
                "Expiration": "2026-05-04T09:00:00UTC", "AccountId": "111122223333"},
                "AssumedRoleUser": {"AssumedRoleId": "AROA:x", "Arn": "a"}, "ResponseMetadata": {}}"#,
        )
        .unwrap();
        let found = load(folder.path(), &role(), now).unwrap();
        assert_eq!(found.credentials.access_key_id, "ASIA2");
        for nonsense in ["", "{}", "{\"Credentials\": 7}", "\u{0}"] {
            std::fs::write(&file, nonsense).unwrap();
            assert!(load(folder.path(), &role(), now).is_none(), "{nonsense}");
        }
    }
}
