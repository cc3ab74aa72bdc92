//! The other judge: botocore signs, sends and parses, and its models accept every answer. Where no
//! Python has botocore (it comes with the AWS CLI) there is nothing to ask.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod common;

use std::process::Command;

use common::World;
use serde_json::Value;

fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let check = Command::new(python)
            .args(["-c", "import botocore"])
            .output();
        check.is_ok_and(|output| output.status.success())
    };
    ["python3", "python"].into_iter().find(has)
}

#[tokio::test(flavor = "multi_thread")]
async fn botocore_takes_every_answer_for_its_models_own() {
    let Some(python) = python() else { return };
    let world = World::start().await;
    let node = world.node().await;
    let mut command = Command::new(python);
    command
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/call_everything.py"
        ))
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SESSION_TOKEN")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_ENDPOINT_URL", format!("http://{}", world.address))
        .env("AWS_DEFAULT_REGION", common::REGION)
        .env("AWS_ACCESS_KEY_ID", &world.admin.access_key_id)
        .env(
            "AWS_SECRET_ACCESS_KEY",
            world.admin.secret_access_key.expose(),
        )
        .env("NODE", &node.id);
    let ran = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let calls: Vec<Value> = String::from_utf8(ran.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for call in &calls {
        assert_eq!(call["problem"], Value::Null, "{call}");
    }
    let failed: Vec<&str> = calls
        .iter()
        .filter(|call| call["error"] != Value::Null)
        .map(|call| call["error"].as_str().unwrap())
        .collect();
    let expected = [
        "InvalidFilterKey",
        "InvalidActivation",
        "TargetNotConnected",
        "TargetNotConnected",
        "InvalidDocument",
        "DoesNotExistException",
        "DoesNotExistException",
        "DocumentAlreadyExists",
        "ValidationException",
        "InvalidDocumentSchemaVersion",
        "DuplicateDocumentContent",
        "InvalidDocumentOperation",
        "InvalidDocumentVersion",
        "InvalidDocument",
        "InvalidDocument",
        "InvalidFilterKey",
        "InvalidDocumentOperation",
        "TargetNotConnected",
        "InvalidParameters",
        "ServiceSettingNotFound",
    ];
    assert_eq!(failed, expected, "{calls:#?}");
    // Each of them is in the trail, once.
    assert!(world.records().await.len() > calls.len());
}
