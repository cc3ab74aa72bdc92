//! Explanations: what they say, that they agree with the calls that they explain, and what they keep
//! to themselves.

use serde_json::json;
use sortie_control::{
    Call, CreateRoleInput, ExplainError, ExplainInput, ExplainOutput, ExplainedPrincipal, Holder,
    Outcome, UserView,
};

use crate::{
    iam::{by, user},
    world::{START, World, call, nobody, start},
};

async fn allow(world: &World, name: &str, statements: serde_json::Value) {
    let document = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let call = world.admin("PutUserPolicy");
    let holder = Holder::User(name.into());
    let put = world
        .control
        .put_inline_policy(&call, &holder, "shell", &document);
    put.await.unwrap();
}

async fn explain(
    world: &World,
    call: &Call,
    input: ExplainInput,
) -> Result<ExplainOutput, ExplainError> {
    let explained = world.control.explain(call, &input).await;
    explained.map(sortie_control::Recorded::into_inner)
}

fn about(action: &str, resource: &str) -> ExplainInput {
    ExplainInput {
        action: action.into(),
        resource: Some(resource.into()),
        ..ExplainInput::default()
    }
}

fn supposing(mut input: ExplainInput, key: &str, value: &str) -> ExplainInput {
    input.context.push((key.into(), vec![value.into()]));
    input
}

fn of(mut input: ExplainInput, name: &str) -> ExplainInput {
    input.principal = Some(ExplainedPrincipal::User(name.into()));
    input
}

/// A node with the tag `Env` of `prod`, and a user who may start sessions on nodes of an environment.
async fn scene(world: &World, environment: &str) -> (String, UserView) {
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let bob = user(world, "bob").await;
    let on_nodes = json!({
        "Sid": "Nodes", "Effect": "Allow", "Action": "ssm:StartSession",
        "Resource": "arn:aws:ssm:*:*:managed-instance/*",
        "Condition": {"StringEquals": {"ssm:resourceTag/Env": environment}},
    });
    let on_document = json!({
        "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "arn:aws:ssm:*:*:document/*",
    });
    allow(world, "bob", json!([on_nodes, on_document])).await;
    (node_id.to_string(), bob)
}

#[tokio::test]
async fn an_explanation_and_the_call_agree_and_name_the_statement() {
    for (environment, expected) in [
        ("prod", Outcome::Allowed),
        ("dev", Outcome::ImplicitlyDenied),
    ] {
        let world = World::start().await;
        let (node_id, bob) = scene(&world, environment).await;
        let asked = about("ssm:startsession", &node_id);
        let told = explain(&world, &world.admin("Explain"), of(asked, "bob")).await;
        let told = told.unwrap();
        assert_eq!(told.outcome, expected);
        let text = told.sentences.join("\n");
        assert!(
            text.contains("tatement 1 (Nodes) of the inline policy `shell`"),
            "{text}"
        );
        assert_eq!(
            told.resources.len(),
            2,
            "the node and the document: {told:?}"
        );

        let own = by(&bob, "StartSession");
        let started = world.control.start_session(&own, start(&node_id)).await;
        assert_eq!(started.is_ok(), expected == Outcome::Allowed, "{started:?}");
        if expected != Outcome::Allowed {
            let by_id = about("ssm:StartSession", &node_id);
            let told = explain(&world, &world.admin("Explain"), of(by_id, "bob")).await;
            let refusal = started.unwrap_err().to_string();
            assert_eq!(told.unwrap().message, Some(refusal));
            assert!(
                text.contains("wants `dev`, and the request has `prod`"),
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn context_can_be_supposed_in_place_of_what_is() {
    let world = World::start().await;
    let (node_id, _) = scene(&world, "dev").await;
    let asked = of(about("ssm:StartSession", &node_id), "bob");
    let asked = supposing(asked, "ssm:resourceTag/Env", "dev");
    let told = explain(&world, &world.admin("Explain"), asked)
        .await
        .unwrap();
    assert_eq!(told.outcome, Outcome::Allowed, "{told:?}");

    let only_mfa = json!({
        "Effect": "Allow", "Action": "iam:ListUsers", "Resource": "*",
        "Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}},
    });
    allow(&world, "bob", only_mfa).await;
    let asked = || of(about("iam:ListUsers", "*"), "bob");
    let told = explain(&world, &world.admin("Explain"), asked())
        .await
        .unwrap();
    assert_eq!(told.outcome, Outcome::ImplicitlyDenied);
    let text = told.sentences.join("\n");
    assert!(text.contains("aws:MultiFactorAuthPresent"), "{text}");
    assert!(text.contains("Supposed are"), "{text}");
    let with_mfa = supposing(asked(), "aws:multifactorauthpresent", "true");
    let told = explain(&world, &world.admin("Explain"), with_mfa)
        .await
        .unwrap();
    assert_eq!(told.outcome, Outcome::Allowed);
}

#[tokio::test]
async fn others_are_explained_to_those_who_may_simulate() {
    let world = World::start().await;
    let (node_id, bob) = scene(&world, "dev").await;
    let asked = of(about("ssm:StartSession", &node_id), "admin");
    let refused = explain(&world, &by(&bob, "Explain"), asked).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("iam:SimulatePrincipalPolicy"), "{text}");
    let missing = of(about("ssm:StartSession", &node_id), "nobody");
    let refused = explain(&world, &by(&bob, "Explain"), missing).await;
    assert!(
        matches!(refused, Err(ExplainError::Denied(_))),
        "{refused:?}"
    );
    let missing = of(about("ssm:StartSession", &node_id), "nobody");
    let refused = explain(&world, &world.admin("Explain"), missing).await;
    assert!(
        matches!(refused, Err(ExplainError::NoSuchPrincipal(_))),
        "{refused:?}"
    );
    let unknown = call(nobody(), "Explain", START);
    let refused = explain(&world, &unknown, about("ssm:StartSession", "*")).await;
    assert!(matches!(refused, Err(ExplainError::Denied(_))));
}

#[tokio::test]
async fn oneself_is_explained_without_other_peoples_tags_and_trust() {
    let world = World::start().await;
    let (node_id, bob) = scene(&world, "dev").await;
    let told = explain(
        &world,
        &by(&bob, "Explain"),
        about("ssm:StartSession", &node_id),
    )
    .await;
    let text = told.unwrap().sentences.join("\n");
    assert!(text.contains("wants `dev`"), "{text}");
    assert!(!text.contains("prod"), "{text}");

    let trust = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"},
        "Condition": {"StringEquals": {"sts:ExternalId": "shared-with-few"}},
    }});
    let input = CreateRoleInput {
        name: "Partner".into(),
        trust_policy: trust.to_string(),
        ..CreateRoleInput::default()
    };
    let made = world
        .control
        .create_role(&world.admin("CreateRole"), input)
        .await;
    made.unwrap();
    let account = world.control.account_id();
    let role = format!("arn:aws:iam::{account}:role/Partner");
    let told = explain(&world, &by(&bob, "Explain"), about("sts:AssumeRole", &role)).await;
    let told = told.unwrap();
    assert_eq!(told.outcome, Outcome::ImplicitlyDenied);
    let text = told.sentences.join("\n");
    assert!(!text.contains("shared-with-few"), "{text}");
    let asked = of(about("sts:AssumeRole", &role), "bob");
    let told = explain(&world, &world.admin("Explain"), asked)
        .await
        .unwrap();
    let text = told.sentences.join("\n");
    assert!(text.contains("shared-with-few"), "{text}");

    let missing = format!("arn:aws:iam::{account}:role/Nobodys");
    allow(
        &world,
        "bob",
        json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}),
    )
    .await;
    let told = explain(
        &world,
        &by(&bob, "Explain"),
        about("sts:AssumeRole", &missing),
    )
    .await;
    assert_eq!(told.unwrap().outcome, Outcome::ImplicitlyDenied);
}

#[tokio::test]
async fn what_is_no_action_and_no_resource_is_said_to_be_none() {
    let world = World::start().await;
    for action in ["ssm", "ssm:*", "", "ssm:Start Session"] {
        let refused = explain(&world, &world.admin("Explain"), about(action, "*")).await;
        assert!(
            matches!(refused, Err(ExplainError::InvalidAction(_))),
            "{action}"
        );
    }
    for resource in ["web", "arn:", "arn:aws", ""] {
        let asked = about("ssm:StartSession", resource);
        let refused = explain(&world, &world.admin("Explain"), asked).await;
        assert!(
            matches!(refused, Err(ExplainError::InvalidResource(_))),
            "{resource}"
        );
    }
    let elsewhere = about("s3:GetObject", "arn:aws:s3:::bucket/key");
    let told = explain(&world, &world.admin("Explain"), elsewhere).await;
    assert_eq!(told.unwrap().outcome, Outcome::Allowed);
}

#[tokio::test]
async fn operations_of_nodes_are_barred_for_people() {
    let world = World::start().await;
    let asked = about("ssm:UpdateInstanceInformation", "*");
    let told = explain(&world, &world.admin("Explain"), asked)
        .await
        .unwrap();
    assert_eq!(told.outcome, Outcome::ImplicitlyDenied);
    assert!(
        told.sentences[1].contains("nodes that act as themselves"),
        "{told:?}"
    );
}
