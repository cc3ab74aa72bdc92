//! Calls against a scripted server: what is signed, what is tried again, what an error becomes.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use serde_json::json;
use sortie_client::{Api, CallError, ClientConfig, Environment, Overrides};
use sortie_types::{Secret, Timestamp};
use sortie_wire::{
    shapes::{
        ssm::{TerminateSession, TerminateSessionRequest},
        sts::{GetCallerIdentity, GetCallerIdentityRequest},
    },
    sigv4::{self, Presented, RequestParts, Scope},
};
use support::{Call, Server, scripted};

fn api(server: &Server, keys: &[(&str, &str)]) -> Api {
    let files = [
        ("AWS_REGION", "local-1"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ];
    let environment = Environment::new(files.iter().chain(keys).copied(), None);
    let overrides = Overrides {
        endpoint: Some(format!("http://{}", server.address)),
        ..Overrides::default()
    };
    Api::new(&ClientConfig::resolve(&environment, &overrides).unwrap()).unwrap()
}

const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_SESSION_TOKEN", "token"),
];

fn request() -> TerminateSessionRequest {
    TerminateSessionRequest {
        session_id: "someone-0123456789abcdef0".to_owned(),
    }
}

/// Judges a call's signature as a server does.
fn verify(call: &Call, service: &str) {
    let headers: Vec<(&str, &[u8])> = call
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let parts = RequestParts {
        method: &call.method,
        path: &call.path,
        query: "",
        headers: &headers,
    };
    let Presented::Header(authorization) = sigv4::parse(&parts).unwrap() else {
        panic!("no Authorization header");
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap());
    let scope = Scope {
        service,
        regions: &["local-1"],
    };
    authorization
        .verify(&parts, &call.body, &Secret::new("secret"), now, &scope)
        .unwrap();
    assert_eq!(call.header("x-amz-security-token"), Some("token"));
}

#[tokio::test]
async fn calls_of_both_protocols_are_signed_so_that_a_server_accepts_them() {
    let server = Server::start(|call| match call.operation().as_str() {
        "GetCallerIdentity" => (
            200,
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <GetCallerIdentityResult><Arn>arn:aws:iam::1:user/a</Arn></GetCallerIdentityResult>\
             </GetCallerIdentityResponse>"
                .to_owned(),
        ),
        _ => (200, json!({"SessionId": "s"}).to_string()),
    })
    .await;
    let api = api(&server, &KEYS);
    let output = api.call::<TerminateSession>(&request()).await.unwrap();
    assert_eq!(output.session_id.as_deref(), Some("s"));
    let identity = api
        .call::<GetCallerIdentity>(&GetCallerIdentityRequest {})
        .await
        .unwrap();
    assert_eq!(identity.arn.as_deref(), Some("arn:aws:iam::1:user/a"));

    let calls = server.calls.lock().unwrap();
    assert_eq!(calls.len(), 2);
    verify(&calls[0], "ssm");
    verify(&calls[1], "sts");
    assert_eq!(
        calls[0].json(),
        json!({"SessionId": "someone-0123456789abcdef0"})
    );
}

#[tokio::test]
async fn trouble_of_the_server_is_tried_again_and_a_refusal_is_not() {
    let trouble = (500, json!({"__type": "InternalFailure", "message": "oops"}));
    let throttled = (
        400,
        json!({"__type": "ThrottlingException", "message": "slow"}),
    );
    let server = Server::start(scripted([
        trouble.clone(),
        throttled,
        (200, json!({"SessionId": "s"})),
        (
            400,
            json!({"__type": "AccessDeniedException", "message": "not you"}),
        ),
        trouble.clone(),
        trouble.clone(),
        trouble,
    ]))
    .await;
    let api = api(&server, &KEYS);
    api.call::<TerminateSession>(&request()).await.unwrap();
    assert_eq!(server.count("TerminateSession"), 3);

    let refused = api.call::<TerminateSession>(&request()).await.unwrap_err();
    assert_eq!(refused.code(), Some("AccessDeniedException"));
    assert!(refused.to_string().contains("not you"), "{refused}");
    assert_eq!(server.count("TerminateSession"), 4);

    let given_up = api.call::<TerminateSession>(&request()).await.unwrap_err();
    assert_eq!(given_up.code(), Some("InternalFailure"));
    assert_eq!(server.count("TerminateSession"), 7);
}

#[tokio::test]
async fn without_credentials_nothing_is_sent() {
    let server = Server::start(scripted([])).await;
    let error = api(&server, &[])
        .call::<TerminateSession>(&request())
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Credentials(_)), "{error}");
    assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
    assert!(server.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_no_answer_is_an_error_and_not_a_panic() {
    let server = Server::start(|_| (200, "<html>a proxy's page</html>".to_owned())).await;
    let error = api(&server, &KEYS)
        .call::<TerminateSession>(&request())
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Unreadable { .. }), "{error}");
}
