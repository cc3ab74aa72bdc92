//! `sortie whoami`: the principal that the server sees behind the keys in use, how it signed in, and
//! where the keys came from.

use serde_json::{Value, json};
use sortie_client::Api;
use sortie_types::Timestamp;
use sortie_wire::{
    Service, Shape,
    shapes::{
        sortie::{GetCaller, GetCallerRequest, GetCallerResponse, SignedInWith},
        sts::{GetCallerIdentity, GetCallerIdentityRequest},
    },
};

use crate::{arguments::Whoami, error::CommandError, output};

pub(crate) async fn run(api: &Api, arguments: &Whoami) -> Result<(), CommandError> {
    let identity = api
        .call::<GetCallerIdentity>(&GetCallerIdentityRequest {})
        .await?;
    let caller = caller(api).await;
    let server = api.config().endpoint(Service::Ssm)?.to_string();
    let region = api.config().region().to_string();
    let origin = api.config().credentials_origin();
    if arguments.json {
        let mut value = identity.to_json();
        let more = caller.as_ref().map_or(Value::Null, Shape::to_json);
        let ours = json!({"CredentialsFrom": origin, "Region": region, "Server": server});
        if let (Some(members), Some(ours)) = (value.as_object_mut(), ours.as_object()) {
            members.extend(more.as_object().cloned().unwrap_or_default());
            members.extend(ours.clone());
        }
        return output::print_json(&value);
    }
    let text = |text: Option<String>| output::plain(&text.unwrap_or_default());
    output::print(&format!(
        "{}\naccount {}, id {}, region {region}, server {server}\n{}keys from {origin}\n",
        text(identity.arn),
        text(identity.account),
        text(identity.user_id),
        caller.as_ref().map(how).unwrap_or_default(),
    ))
}

/// What only our servers tell. Another server does not know the operation, and its identity stands.
async fn caller(api: &Api) -> Option<GetCallerResponse> {
    if !api.config().has_endpoint(Service::Sortie) {
        return None;
    }
    match api.call::<GetCaller>(&GetCallerRequest {}).await {
        Ok(caller) if !caller.arn.is_empty() => Some(caller),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "the server does not say how the caller signed in");
            None
        }
    }
}

/// How the caller signed in, with or without MFA, and until when that holds.
fn how(caller: &GetCallerResponse) -> String {
    let with = match caller.signed_in_with.as_str() {
        with if with == SignedInWith::ACCESS_KEY.as_str() => "a long-lived access key",
        with if with == SignedInWith::ASSUME_ROLE.as_str() => "a role that was assumed",
        with if with == SignedInWith::GET_SESSION_TOKEN.as_str() => {
            "temporary keys of GetSessionToken"
        }
        with if with == SignedInWith::NODE_KEY.as_str() => "the key of a node",
        with if with == SignedInWith::PASSWORD.as_str() => "a password",
        other => other,
    };
    let at = |time: Option<Timestamp>| time.map(Timestamp::iso_seconds);
    let mut text = format!("signed in with {}", output::plain(with));
    text.push_str(&match at(caller.mfa_authenticated) {
        Some(time) => format!(", MFA at {time}"),
        None => ", no MFA".to_owned(),
    });
    if let Some(time) = at(caller.expires) {
        text.push_str(&format!(", until {time}"));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_with_what_and_until_when() {
        let time = |seconds: i64| Some(Timestamp::from_millis(seconds * 1000));
        let mut caller = GetCallerResponse {
            signed_in_with: SignedInWith::PASSWORD,
            mfa_authenticated: time(1_777_881_600),
            expires: time(1_777_885_200),
            ..GetCallerResponse::default()
        };
        assert_eq!(
            how(&caller),
            "signed in with a password, MFA at 2026-05-04T08:00:00Z, until 2026-05-04T09:00:00Z\n"
        );
        (caller.mfa_authenticated, caller.expires) = (None, None);
        caller.signed_in_with = SignedInWith::ACCESS_KEY;
        assert_eq!(
            how(&caller),
            "signed in with a long-lived access key, no MFA\n"
        );
    }
}
