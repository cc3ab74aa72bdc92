//! Temporary credentials: who may assume which role, what goes along, how long they are good, and
//! what ends them.

use std::time::Duration;

use serde_json::{Value, json};
use sortie_control::{
    AssumeRoleError, AssumeRoleInput, AssumeRoleOutput, AuthenticationError, Caller, Control,
    CreateRoleInput, GetSessionTokenError, GetSessionTokenInput, Holder, IamError,
    IssuedCredentials, PageRequest, RootKey,
};
use sortie_types::{Secret, Timestamp};

use crate::{
    access::{allow, deny, grant, person, policy, user},
    iam::mfa::{App, STEP, device},
    world::{START, World, call, nobody, secret},
};

/// A role that this principal may assume under these conditions.
async fn trusting(
    world: &World,
    name: &str,
    principal: &Value,
    actions: &[&str],
    condition: Value,
) {
    let trust = json!({
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow", "Principal": principal, "Action": actions, "Condition": condition,
        },
    });
    let input = CreateRoleInput {
        name: name.into(),
        trust_policy: trust.to_string(),
        max_session_seconds: Some(7200),
        ..CreateRoleInput::default()
    };
    let call = world.admin("CreateRole");
    world.control.create_role(&call, input).await.unwrap();
}

fn account(world: &World) -> Value {
    json!({"AWS": world.control.account_id()})
}

/// A role that everybody in the account may assume who may assume roles.
pub(crate) async fn trusting_account(world: &World, name: &str) {
    let actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"];
    trusting(world, name, &account(world), &actions, json!({})).await;
}

fn assume(world: &World, role: &str, session: &str) -> AssumeRoleInput {
    AssumeRoleInput {
        role_arn: format!("arn:aws:iam::{}:role/{role}", world.control.account_id()),
        role_session_name: session.into(),
        ..AssumeRoleInput::default()
    }
}

async fn assumes_at(
    world: &World,
    caller: &Caller,
    input: AssumeRoleInput,
    now: Timestamp,
) -> Result<AssumeRoleOutput, AssumeRoleError> {
    let call = call(caller.clone(), "AssumeRole", now);
    let outcome = world.control.assume_role(&call, input).await;
    outcome.map(sortie_control::Recorded::into_inner)
}

async fn assumes(
    world: &World,
    caller: &Caller,
    input: AssumeRoleInput,
) -> Result<AssumeRoleOutput, AssumeRoleError> {
    assumes_at(world, caller, input, START).await
}

async fn looked_up(
    control: &Control,
    credentials: &IssuedCredentials,
    now: Timestamp,
) -> Result<Caller, AuthenticationError> {
    let token = Some(&credentials.session_token);
    let known = control.look_up_key(credentials.access_key_id.as_str(), token, now);
    known.await.map(|known| known.caller)
}

/// The credentials of somebody who has assumed a role.
pub(crate) async fn issued(
    world: &World,
    caller: &Caller,
    role: &str,
    session: &str,
) -> IssuedCredentials {
    let assumed = assumes(world, caller, assume(world, role, session)).await;
    assumed.unwrap().credentials
}

/// Somebody who has assumed a role, as the door finds them.
pub(crate) async fn assumed(world: &World, caller: &Caller, role: &str, session: &str) -> Caller {
    let credentials = issued(world, caller, role, session).await;
    looked_up(&world.control, &credentials, START)
        .await
        .unwrap()
}

fn denied(outcome: Result<AssumeRoleOutput, AssumeRoleError>) -> String {
    match outcome {
        Err(AssumeRoleError::Denied(denied)) => denied.message,
        other => panic!("{other:?}"),
    }
}

fn invalid(outcome: Result<AssumeRoleOutput, AssumeRoleError>) -> String {
    match outcome {
        Err(AssumeRoleError::InvalidInput(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_role_is_assumed_by_whom_it_trusts() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[]).await;
    let bob = person(&world, "bob", &[allow("sts:*", "*")]).await;
    let arn = format!("arn:aws:iam::{}:user/alice", world.control.account_id());
    trusting(
        &world,
        "Hers",
        &json!({"AWS": arn}),
        &["sts:AssumeRole"],
        json!({}),
    )
    .await;
    trusting_account(&world, "Ours").await;

    // Named: nothing else is needed.
    let hers = assumes(&world, &alice, assume(&world, "Hers", "a1"))
        .await
        .unwrap();
    let id = world.control.account_id();
    assert_eq!(
        hers.arn.as_str(),
        format!("arn:aws:sts::{id}:assumed-role/Hers/a1")
    );
    assert!(hers.assumed_role_id.starts_with("AROA") && hers.assumed_role_id.ends_with(":a1"));
    assert_eq!(
        hers.credentials.expiration,
        START.plus(Duration::from_hours(1))
    );
    assert_eq!(hers.packed_policy_size, None);
    let record = world.record("AssumeRole");
    assert_eq!(record["resources"][0]["type"], "AWS::IAM::Role");
    let shown = &record["responseElements"];
    assert_eq!(
        shown["credentials"]["expiration"],
        "May 4, 2026, 9:00:00 AM"
    );
    assert_eq!(shown["assumedRoleUser"]["arn"], hers.arn.as_str());
    let text = record.to_string();
    assert!(!text.contains(hers.credentials.session_token.expose()));
    assert!(!text.contains(hers.credentials.secret_access_key.expose()));
    assert!(
        denied(assumes(&world, &bob, assume(&world, "Hers", "b1")).await)
            .ends_with("role/Hers because no role trust policy allows the sts:AssumeRole action")
    );
    // By account: the caller's own policies must allow as well.
    assert!(
        denied(assumes(&world, &alice, assume(&world, "Ours", "a1")).await).ends_with(
            "role/Ours because no identity-based policy allows the sts:AssumeRole action"
        )
    );
    assert!(
        assumes(&world, &bob, assume(&world, "Ours", "b1"))
            .await
            .is_ok()
    );
    // An explicit deny wins over being named.
    grant(&world, &user("alice"), "no", &[deny("sts:AssumeRole", "*")]).await;
    let told = denied(assumes(&world, &alice, assume(&world, "Hers", "a1")).await);
    assert!(told.ends_with("with an explicit deny in an identity-based policy"));
    // What is not there is refused in the words of what may not be.
    let absent = denied(assumes(&world, &bob, assume(&world, "None", "b1")).await);
    assert!(
        absent.contains("perform: sts:AssumeRole on resource: arn:aws:iam::"),
        "{absent}"
    );
    assert!(matches!(
        assumes(&world, &nobody(), assume(&world, "Ours", "x1")).await,
        Err(AssumeRoleError::Denied(_))
    ));
}

#[tokio::test]
async fn a_user_made_anew_under_an_old_name_is_not_trusted() {
    let world = World::start().await;
    person(&world, "alice", &[]).await;
    let arn = format!("arn:aws:iam::{}:user/alice", world.control.account_id());
    trusting(
        &world,
        "Hers",
        &json!({"AWS": arn}),
        &["sts:AssumeRole"],
        json!({}),
    )
    .await;
    let call = world.admin("DeleteUser");
    let control = &world.control;
    let page = PageRequest {
        marker: None,
        max_items: None,
    };
    let keys = control
        .list_access_keys(&call, Some("alice".into()), &page)
        .await;
    for key in keys.unwrap().into_inner().items {
        let name = Some("alice".to_owned());
        control
            .delete_access_key(&call, name, key.id.as_str())
            .await
            .unwrap();
    }
    control.delete_user(&call, "alice").await.unwrap();
    let again = person(&world, "alice", &[allow("sts:*", "*")]).await;
    let told = denied(assumes(&world, &again, assume(&world, "Hers", "a1")).await);
    assert!(told.contains("no role trust policy allows"), "{told}");
}

#[tokio::test]
async fn external_ids_and_session_names_can_be_demanded() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[allow("sts:AssumeRole", "*")]).await;
    let condition = json!({"StringEquals": {"sts:ExternalId": "42"}});
    trusting(
        &world,
        "Vendor",
        &account(&world),
        &["sts:AssumeRole"],
        condition,
    )
    .await;
    let with = |external_id: Option<&str>| AssumeRoleInput {
        external_id: external_id.map(Into::into),
        ..assume(&world, "Vendor", "a1")
    };
    assert!(assumes(&world, &alice, with(Some("42"))).await.is_ok());
    denied(assumes(&world, &alice, with(Some("43"))).await);
    denied(assumes(&world, &alice, with(None)).await);
    let condition = json!({"StringEquals": {"sts:RoleSessionName": "${aws:username}"}});
    trusting(
        &world,
        "Named",
        &account(&world),
        &["sts:AssumeRole"],
        condition,
    )
    .await;
    assert!(
        assumes(&world, &alice, assume(&world, "Named", "alice"))
            .await
            .is_ok()
    );
    denied(assumes(&world, &alice, assume(&world, "Named", "bob")).await);
    // Nobody takes the id of another for a name.
    let id = "AIDAAAAAAAAAAAAAAAAAA";
    invalid(assumes(&world, &alice, assume(&world, "Vendor", id)).await);
    let not_an_arn = AssumeRoleInput {
        role_arn: "Vendor-Vendor-Vendor".into(),
        ..assume(&world, "Vendor", "a1")
    };
    assert_eq!(
        invalid(assumes(&world, &alice, not_an_arn).await),
        "Vendor-Vendor-Vendor is invalid"
    );
}

#[tokio::test]
async fn mfa_is_checked_once_and_carried() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[allow("sts:AssumeRole", "*")]).await;
    let phone = device(&world, "phone").await;
    let app = App::of(&phone);
    let enable = world.admin("EnableMFADevice");
    let enabled = world
        .control
        .enable_mfa_device(&enable, app.two("alice", &phone, START));
    enabled.await.unwrap();
    let condition = json!({"Bool": {"aws:MultiFactorAuthPresent": "true"}});
    trusting(
        &world,
        "Careful",
        &account(&world),
        &["sts:AssumeRole"],
        condition,
    )
    .await;
    let careful = Holder::Role("Careful".into());
    let fresh = json!({
        "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*",
        "Condition": {"NumericLessThan": {"aws:MultiFactorAuthAge": "60"}},
    });
    grant(&world, &careful, "fresh", &[fresh]).await;
    let with = |code: Option<&str>| AssumeRoleInput {
        serial_number: Some(phone.serial_number.to_string()),
        token_code: code.map(secret),
        ..assume(&world, "Careful", "alice")
    };
    let now = START.plus(STEP * 4);
    let wrong = "MultiFactorAuthentication failed with invalid MFA one time pass code.";
    denied(assumes_at(&world, &alice, assume(&world, "Careful", "alice"), now).await);
    assert!(
        denied(assumes_at(&world, &alice, with(None), now).await).contains("must provide both")
    );
    let right = app.code(now);
    let guess = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    assert_eq!(
        denied(assumes_at(&world, &alice, with(Some(guess)), now).await),
        wrong
    );
    let foreign = AssumeRoleInput {
        serial_number: Some(format!("{}x", phone.serial_number)),
        ..with(Some(&right))
    };
    assert_eq!(
        denied(assumes_at(&world, &alice, foreign, now).await),
        wrong
    );
    let assumed = assumes_at(&world, &alice, with(Some(&right)), now)
        .await
        .unwrap();
    // A code is good once, whatever for.
    assert_eq!(
        denied(assumes_at(&world, &alice, with(Some(&right)), now).await),
        wrong
    );
    let token = |code: &str| GetSessionTokenInput {
        serial_number: Some(phone.serial_number.to_string()),
        token_code: Some(secret(code)),
        duration_seconds: None,
    };
    let get = call(alice.clone(), "GetSessionToken", now);
    let used = world.control.get_session_token(&get, token(&right)).await;
    assert!(matches!(used, Err(GetSessionTokenError::Denied(denied)) if denied.message == wrong));

    let carol = looked_up(&world.control, &assumed.credentials, now)
        .await
        .unwrap();
    let who = call(carol.clone(), "GetCallerIdentity", now);
    world.control.get_caller_identity(&who).await.unwrap();
    let context = &world.record("GetCallerIdentity")["userIdentity"]["sessionContext"];
    assert_eq!(context["attributes"]["mfaAuthenticated"], "true");
    trusting_account(&world, "Next").await;
    assert!(
        assumes_at(&world, &carol, assume(&world, "Next", "n1"), now)
            .await
            .is_ok()
    );
    let later = now.plus(Duration::from_secs(60));
    denied(assumes_at(&world, &carol, assume(&world, "Next", "n1"), later).await);

    // A user's own token with MFA does as well.
    let code = app.code(later);
    let get = call(alice.clone(), "GetSessionToken", later);
    let issued = world.control.get_session_token(&get, token(&code)).await;
    let issued = issued.unwrap().into_inner();
    assert_eq!(issued.expiration, later.plus(Duration::from_hours(12)));
    let with_mfa = looked_up(&world.control, &issued, later).await.unwrap();
    let outcome = assumes_at(&world, &with_mfa, assume(&world, "Careful", "alice"), later).await;
    outcome.unwrap();
    // Guessing is cut short, and then not even the right one is looked at.
    let mut outcome = Ok(());
    for _ in 0..50 {
        let get = call(alice.clone(), "GetSessionToken", later);
        let tried = world.control.get_session_token(&get, token(guess)).await;
        outcome = tried.map(|_| ());
        if matches!(outcome, Err(GetSessionTokenError::Throttled)) {
            break;
        }
    }
    assert!(
        matches!(outcome, Err(GetSessionTokenError::Throttled)),
        "{outcome:?}"
    );
    let much_later = later.plus(STEP);
    let get = call(alice.clone(), "GetSessionToken", much_later);
    let right = app.code(much_later);
    let refused = world.control.get_session_token(&get, token(&right)).await;
    assert!(matches!(refused, Err(GetSessionTokenError::Throttled)));
}

#[tokio::test]
async fn a_code_and_the_source_identity_count_for_all_that_is_asked() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[allow("sts:*", "*")]).await;
    let phone = device(&world, "phone").await;
    let app = App::of(&phone);
    let enable = world.admin("EnableMFADevice");
    let enabled = world
        .control
        .enable_mfa_device(&enable, app.two("alice", &phone, START));
    enabled.await.unwrap();
    let actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"];
    let with_mfa = json!({"Bool": {"aws:MultiFactorAuthPresent": "true"}});
    trusting(&world, "Careful", &account(&world), &actions, with_mfa).await;
    let hers = json!({"StringEquals": {"sts:SourceIdentity": "alice"}});
    trusting(&world, "Next", &account(&world), &actions, hers).await;
    let careful = Holder::Role("Careful".into());
    grant(&world, &careful, "next", &[allow("sts:*", "*")]).await;
    let now = START.plus(STEP * 4);
    let input = AssumeRoleInput {
        serial_number: Some(phone.serial_number.to_string()),
        token_code: Some(secret(&app.code(now))),
        tags: vec![("team".into(), "blue".into())],
        source_identity: Some("alice".into()),
        ..assume(&world, "Careful", "a1")
    };
    let assumed = assumes_at(&world, &alice, input, now).await.unwrap();
    let session = looked_up(&world.control, &assumed.credentials, now)
        .await
        .unwrap();
    // The identity goes along, and so it need not be said again.
    let next = assumes_at(&world, &session, assume(&world, "Next", "a2"), now).await;
    assert_eq!(next.unwrap().source_identity.as_deref(), Some("alice"));
}

#[tokio::test]
async fn session_policies_limit_and_never_grant() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[allow("sts:*", "*")]).await;
    trusting_account(&world, "Ops").await;
    grant(
        &world,
        &Holder::Role("Ops".into()),
        "ssm",
        &[allow("ssm:*", "*")],
    )
    .await;
    let control = &world.control;
    let may = async |caller: &Caller| {
        let listed = call(caller.clone(), "LookupEvents", START);
        let input = sortie_control::LookupEventsInput::default();
        let looks = control.lookup_events(&listed, input).await.is_ok();
        let status = call(caller.clone(), "GetConnectionStatus", START);
        let input = sortie_control::GetConnectionStatusInput { target: "x".into() };
        let status = control.get_connection_status(&status, input).await;
        let told = status.err().map(|error| error.to_string());
        (looks, told)
    };
    let limited = async |input: AssumeRoleInput| {
        let assumed = assumes(&world, &alice, input).await.unwrap();
        assert!(
            assumed
                .packed_policy_size
                .is_some_and(|percent| (1..=100).contains(&percent))
        );
        looked_up(control, &assumed.credentials, START)
            .await
            .unwrap()
    };
    let wide = limited(AssumeRoleInput {
        policy: Some(policy(&[allow("*", "*")])),
        ..assume(&world, "Ops", "s1")
    });
    assert_eq!(may(&wide.await).await, (false, None));
    let narrow = limited(AssumeRoleInput {
        policy: Some(policy(&[allow("ssm:StartSession", "*")])),
        ..assume(&world, "Ops", "s2")
    });
    let (_, told) = may(&narrow.await).await;
    assert!(
        told.unwrap()
            .ends_with("because no session policy allows the ssm:GetConnectionStatus action")
    );
    // A managed one counts with its text of now, and when it is gone nothing is allowed.
    let input = sortie_control::CreatePolicyInput {
        name: "Narrow".into(),
        document: policy(&[allow("ssm:GetConnectionStatus", "*")]),
        ..sortie_control::CreatePolicyInput::default()
    };
    let make = world.admin("CreatePolicy");
    let made = control
        .create_policy(&make, input)
        .await
        .unwrap()
        .into_inner();
    let by_arn = AssumeRoleInput {
        policy_arns: vec![made.arn.to_string()],
        ..assume(&world, "Ops", "s3")
    };
    let managed = limited(by_arn.clone()).await;
    assert_eq!(may(&managed).await, (false, None));
    control
        .delete_policy(&make, made.arn.as_str())
        .await
        .unwrap();
    assert!(may(&managed).await.1.is_some());
    assert!(invalid(assumes(&world, &alice, by_arn).await).contains("does not exist"));
    let broken = AssumeRoleInput {
        policy: Some("{}".into()),
        ..assume(&world, "Ops", "s4")
    };
    let refused = assumes(&world, &alice, broken).await;
    assert!(matches!(
        refused,
        Err(AssumeRoleError::MalformedPolicyDocument(_))
    ));
    let tags = (0..50).map(|index| (format!("key{index}"), "v".repeat(200)));
    let large = AssumeRoleInput {
        tags: tags.collect(),
        ..assume(&world, "Ops", "s5")
    };
    let refused = assumes(&world, &alice, large).await;
    assert!(
        matches!(refused, Err(AssumeRoleError::PackedPolicyTooLarge { percent }) if percent > 100)
    );
}

#[tokio::test]
async fn tags_and_source_identity_go_along_when_they_may() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[allow("sts:*", "*")]).await;
    trusting(
        &world,
        "Plain",
        &account(&world),
        &["sts:AssumeRole"],
        json!({}),
    )
    .await;
    trusting_account(&world, "First").await;
    trusting_account(&world, "Second").await;
    grant(
        &world,
        &Holder::Role("First".into()),
        "sts",
        &[allow("sts:*", "*")],
    )
    .await;
    let tagged = |role: &str| AssumeRoleInput {
        tags: vec![("Team".into(), "red".into()), ("Here".into(), "1".into())],
        transitive_tag_keys: vec!["Team".into()],
        ..assume(&world, role, "s1")
    };
    let told = denied(assumes(&world, &alice, tagged("Plain")).await);
    assert!(
        told.contains("perform: sts:TagSession") && told.contains("no role trust policy"),
        "{told}"
    );
    let identified = |role: &str, identity: &str| AssumeRoleInput {
        source_identity: Some(identity.into()),
        ..assume(&world, role, "s1")
    };
    let told = denied(assumes(&world, &alice, identified("Plain", "alice")).await);
    assert!(told.contains("perform: sts:SetSourceIdentity"), "{told}");

    let both = AssumeRoleInput {
        source_identity: Some("alice@example".into()),
        ..tagged("First")
    };
    let first = assumes(&world, &alice, both).await.unwrap();
    assert_eq!(first.source_identity.as_deref(), Some("alice@example"));
    let first = looked_up(&world.control, &first.credentials, START)
        .await
        .unwrap();
    let second = assumes(&world, &first, assume(&world, "Second", "s2"))
        .await
        .unwrap();
    assert_eq!(second.source_identity.as_deref(), Some("alice@example"));
    let second = looked_up(&world.control, &second.credentials, START)
        .await
        .unwrap();
    let Caller::Role(role) = &second else {
        panic!()
    };
    assert_eq!(role.session.tags.len(), 1, "only the transitive one");
    // What was said once stays.
    invalid(assumes(&world, &first, identified("Second", "bob")).await);
    let other = AssumeRoleInput {
        tags: vec![("team".into(), "blue".into())],
        ..assume(&world, "Second", "s3")
    };
    assert!(invalid(assumes(&world, &first, other).await).contains("cannot be overridden"));
    let keys = json!({
        "Effect": "Allow", "Action": "ssm:GetConnectionStatus", "Resource": "*",
        "Condition": {"StringEquals": {
            "aws:PrincipalTag/Team": "red", "aws:SourceIdentity": "alice@example",
            "aws:PrincipalType": "AssumedRole",
        }, "Null": {"aws:PrincipalTag/Here": "true", "aws:username": "true"},
        "ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/Second"},
        "StringLike": {"aws:userid": "AROA*:s2"}},
    });
    grant(&world, &Holder::Role("Second".into()), "keys", &[keys]).await;
    let status = call(second.clone(), "GetConnectionStatus", START);
    let input = sortie_control::GetConnectionStatusInput { target: "x".into() };
    world
        .control
        .get_connection_status(&status, input)
        .await
        .unwrap();
    let context = &world.record("GetConnectionStatus")["userIdentity"]["sessionContext"];
    assert_eq!(context["sourceIdentity"], "alice@example");
    assert_eq!(context["sessionIssuer"]["userName"], "Second");
    assert_eq!(context["attributes"]["mfaAuthenticated"], "false");
}

#[tokio::test]
async fn credentials_last_as_long_as_they_may() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[allow("sts:*", "*")]).await;
    trusting_account(&world, "Ops").await;
    grant(
        &world,
        &Holder::Role("Ops".into()),
        "sts",
        &[allow("sts:*", "*")],
    )
    .await;
    let lasting = |seconds: i64| AssumeRoleInput {
        duration_seconds: Some(seconds),
        ..assume(&world, "Ops", "s1")
    };
    let long = assumes(&world, &alice, lasting(7200)).await.unwrap();
    assert!(invalid(assumes(&world, &alice, lasting(7201)).await).contains("MaxSessionDuration"));
    let end = START.plus(Duration::from_secs(7200));
    assert_eq!(long.credentials.expiration, end);
    let just = looked_up(
        &world.control,
        &long.credentials,
        end.minus(Duration::from_millis(1)),
    );
    let ops = just.await.unwrap();
    let over = looked_up(&world.control, &long.credentials, end).await;
    assert!(matches!(over, Err(AuthenticationError::Expired)));
    // A role session does not get longer by assuming the role again.
    assert!(assumes(&world, &ops, lasting(3600)).await.is_ok());
    assert!(invalid(assumes(&world, &ops, lasting(3601)).await).contains("1 hour session limit"));
}

#[tokio::test]
async fn a_users_session_token_is_good_for_little_of_iam_and_sts() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[allow("*", "*")]).await;
    trusting_account(&world, "Ops").await;
    let control = &world.control;
    let get = |caller: &Caller| call(caller.clone(), "GetSessionToken", START);
    let input = GetSessionTokenInput {
        duration_seconds: Some(900),
        ..Default::default()
    };
    let issued = control.get_session_token(&get(&alice), input.clone()).await;
    let issued = issued.unwrap().into_inner();
    assert_eq!(issued.expiration, START.plus(Duration::from_mins(15)));
    let session = looked_up(control, &issued, START).await.unwrap();
    let again = control
        .get_session_token(&get(&session), input.clone())
        .await;
    assert!(matches!(again, Err(GetSessionTokenError::Denied(_))));
    let identity = call(session.clone(), "GetUser", START);
    let refused = control.get_user(&identity, Some("alice".into())).await;
    assert!(
        matches!(refused, Err(IamError::Denied(denied)) if denied.message.contains("multi-factor"))
    );
    let ops = assumes(&world, &session, assume(&world, "Ops", "s1"))
        .await
        .unwrap();
    let who = call(session.clone(), "GetCallerIdentity", START);
    let known = control
        .get_caller_identity(&who)
        .await
        .unwrap()
        .into_inner();
    assert!(known.arn.as_str().ends_with("user/alice") && known.user_id.starts_with("AIDA"));
    let record = world.record("GetCallerIdentity");
    assert_eq!(record["userIdentity"]["type"], "IAMUser");
    assert_eq!(
        record["userIdentity"]["accessKeyId"],
        issued.access_key_id.as_str()
    );
    let attributes = &record["userIdentity"]["sessionContext"]["attributes"];
    assert_eq!(attributes["creationDate"], "2026-05-04T08:00:00Z");
    assert_eq!(attributes["mfaAuthenticated"], "false");
    let ops = looked_up(control, &ops.credentials, START).await.unwrap();
    let refused = control.get_session_token(&get(&ops), input).await;
    assert!(matches!(refused, Err(GetSessionTokenError::Denied(_))));
    let who = call(ops, "GetCallerIdentity", START);
    let known = control
        .get_caller_identity(&who)
        .await
        .unwrap()
        .into_inner();
    assert!(known.arn.as_str().ends_with("assumed-role/Ops/s1") && known.user_id.ends_with(":s1"));
}

#[tokio::test]
async fn tokens_die_with_those_they_were_issued_to_and_with_the_key_behind_them() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[allow("*", "*")]).await;
    let Caller::User(caller) = &alice else {
        panic!()
    };
    let key = caller.access_key_id.to_string();
    trusting_account(&world, "Ops").await;
    let control = &world.control;
    let get = call(alice.clone(), "GetSessionToken", START);
    let issued = control
        .get_session_token(&get, GetSessionTokenInput::default())
        .await;
    let issued = issued.unwrap().into_inner();
    let ops = assumes(&world, &alice, assume(&world, "Ops", "s1"))
        .await
        .unwrap()
        .credentials;
    let good = async |credentials: &IssuedCredentials| looked_up(control, credentials, START).await;
    assert!(good(&issued).await.is_ok() && good(&ops).await.is_ok());
    let call = world.admin("UpdateAccessKey");
    let name = || Some("alice".to_owned());
    control
        .update_access_key(&call, name(), &key, false)
        .await
        .unwrap();
    for credentials in [&issued, &ops] {
        assert!(matches!(
            good(credentials).await,
            Err(AuthenticationError::Inactive)
        ));
    }
    control
        .update_access_key(&call, name(), &key, true)
        .await
        .unwrap();
    assert!(good(&issued).await.is_ok() && good(&ops).await.is_ok());
    control.delete_role(&call, "Ops").await.unwrap();
    trusting_account(&world, "Ops").await;
    assert!(good(&ops).await.is_err());
    control
        .delete_access_key(&call, name(), &key)
        .await
        .unwrap();
    control
        .delete_inline_policy(&call, &user("alice"), "own")
        .await
        .unwrap();
    control.delete_user(&call, "alice").await.unwrap();
    assert!(good(&issued).await.is_err());
}

#[tokio::test]
async fn tokens_that_were_changed_or_come_from_elsewhere_do_not_open() {
    let world = World::start().await;
    let alice = person(&world, "alice", &[]).await;
    let get = call(alice, "GetSessionToken", START);
    let issued = world
        .control
        .get_session_token(&get, GetSessionTokenInput::default());
    let issued = issued.await.unwrap().into_inner();
    let bad = async |control: &Control, token: String| {
        let changed = IssuedCredentials {
            session_token: Secret::new(token),
            ..issued.clone()
        };
        matches!(
            looked_up(control, &changed, START).await,
            Err(AuthenticationError::BadToken)
        )
    };
    let token = issued.session_token.expose();
    for place in [0, token.len() / 2, token.len() - 2] {
        let mut changed = token.as_bytes().to_vec();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        assert!(
            bad(&world.control, String::from_utf8(changed).unwrap()).await,
            "{place}"
        );
    }
    assert!(bad(&world.control, token[..token.len() - 4].to_owned()).await);
    assert!(bad(&world.control, String::new()).await);
    let elsewhere = Control::open(
        world.state.clone(),
        world.signals.clone(),
        RootKey::generate().unwrap(),
        world.control.settings().clone(),
        START,
    );
    assert!(bad(&elsewhere.await.unwrap(), token.to_owned()).await);
}
