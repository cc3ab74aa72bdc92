//! Roles, managed and inline policies on a real state: who may change them under which conditions, and
//! what the trail shows.

use sortie_control::{
    CreatePolicyInput, CreateRoleInput, Holder, IamError, ListPoliciesInput, Outcome, PolicyScope,
    SimulateInput, UserView,
};

use super::{by, code, first, next, refused, user};
use crate::world::World;

const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow",
    "Principal": {"Service": "ssm.amazonaws.com"}, "Action": "sts:AssumeRole"}}"#;
const CORE: &str = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";

fn allow(action: &str, resource: &str, condition: &str) -> String {
    format!(
        r#"{{"Version": "2012-10-17", "Statement": {{"Effect": "Allow", "Action": {action},
            "Resource": "{resource}", "Condition": {condition}}}}}"#
    )
}

/// A user whom one inline policy allows one thing.
async fn may(world: &World, name: &str, policy: &str) -> UserView {
    let made = user(world, name).await;
    let holder = Holder::User(name.to_owned());
    let call = world.admin("PutUserPolicy");
    let put = world
        .control
        .put_inline_policy(&call, &holder, "only", policy);
    put.await.unwrap();
    made
}

fn role(name: &str) -> CreateRoleInput {
    CreateRoleInput {
        name: name.into(),
        trust_policy: TRUST.into(),
        ..CreateRoleInput::default()
    }
}

async fn create_role(world: &World, input: CreateRoleInput) {
    let call = world.admin("CreateRole");
    world.control.create_role(&call, input).await.unwrap();
}

async fn create_policy(world: &World, name: &str) -> String {
    let input = CreatePolicyInput {
        name: name.into(),
        document: allow("\"ssm:*\"", "*", "{}"),
        ..CreatePolicyInput::default()
    };
    let call = world.admin("CreatePolicy");
    let made = world.control.create_policy(&call, input).await.unwrap();
    made.into_inner().arn.to_string()
}

#[tokio::test]
async fn only_the_policy_that_a_condition_names_can_be_attached() {
    let world = World::start().await;
    create_role(&world, role("Dev")).await;
    let condition = format!(r#"{{"ArnEquals": {{"iam:PolicyARN": "{CORE}"}}}}"#);
    let policy = allow(
        r#"["iam:AttachRolePolicy", "iam:DetachRolePolicy"]"#,
        "*",
        &condition,
    );
    let alice = may(&world, "alice", &policy).await;
    let dev = Holder::Role("Dev".into());
    let attach = async |arn: &str| {
        let call = by(&alice, "AttachRolePolicy");
        world.control.attach_policy(&call, &dev, arn).await
    };
    attach(CORE).await.unwrap();
    let (code, said) = refused(attach("arn:aws:iam::aws:policy/AdministratorAccess").await);
    assert_eq!(code, "AccessDenied");
    let account = world.control.account_id();
    assert_eq!(
        said,
        format!(
            "User: arn:aws:iam::{account}:user/alice is not authorized to perform: \
             iam:AttachRolePolicy on resource: arn:aws:iam::{account}:role/Dev because no \
             identity-based policy allows the iam:AttachRolePolicy action"
        )
    );
    let call = by(&alice, "DetachRolePolicy");
    world
        .control
        .detach_policy(&call, &dev, CORE)
        .await
        .unwrap();
    let call = world.admin("ListAttachedRolePolicies");
    let left = world
        .control
        .list_attached_policies(&call, &dev, None, &first(10))
        .await;
    assert!(left.unwrap().into_inner().items.is_empty());
}

#[tokio::test]
async fn a_boundary_can_be_demanded_and_tagging_a_new_role_is_an_action_of_its_own() {
    let world = World::start().await;
    let condition = format!(r#"{{"StringEquals": {{"iam:PermissionsBoundary": "{CORE}"}}}}"#);
    let alice = may(
        &world,
        "alice",
        &allow(r#""iam:CreateRole""#, "*", &condition),
    )
    .await;
    let create = async |input: CreateRoleInput| {
        let call = by(&alice, "CreateRole");
        world.control.create_role(&call, input).await
    };
    assert_eq!(code(create(role("Free")).await), "AccessDenied");
    let bounded = CreateRoleInput {
        permissions_boundary: Some(CORE.into()),
        ..role("Bounded")
    };
    create(bounded.clone()).await.unwrap();
    let tagged = CreateRoleInput {
        name: "Tagged".into(),
        tags: vec![("Team".into(), "blue".into())],
        ..bounded
    };
    let (code, said) = refused(create(tagged).await);
    assert_eq!(code, "AccessDenied");
    assert!(said.contains("perform: iam:TagRole on resource"), "{said}");
}

#[tokio::test]
async fn tags_of_roles_and_of_requests_decide() {
    let world = World::start().await;
    let tagged = |name: &str, team: &str| CreateRoleInput {
        tags: vec![("Team".into(), team.into())],
        ..role(name)
    };
    create_role(&world, tagged("Blue", "blue")).await;
    create_role(&world, tagged("Red", "red")).await;
    let condition = r#"{"StringEquals": {"iam:ResourceTag/Team": "blue"},
        "ForAllValues:StringEquals": {"aws:TagKeys": ["Env"]}}"#;
    let actions = r#"["iam:TagRole", "iam:UntagRole"]"#;
    let alice = may(&world, "alice", &allow(actions, "*", condition)).await;
    let tag = async |name: &str, key: &str| {
        let tags = [(key.to_owned(), "test".to_owned())];
        let call = by(&alice, "TagRole");
        world.control.tag_role(&call, name, &tags).await
    };
    tag("Blue", "Env").await.unwrap();
    assert_eq!(code(tag("Blue", "Team").await), "AccessDenied");
    assert_eq!(code(tag("Red", "Env").await), "AccessDenied");
    // Whether there is such a role is not said to those who may not know.
    assert_eq!(code(tag("None", "Env").await), "AccessDenied");
    let call = by(&alice, "UntagRole");
    let keys = ["Env".to_owned()];
    world
        .control
        .untag_role(&call, "Blue", &keys)
        .await
        .unwrap();
    let call = world.admin("ListRoleTags");
    let tags = world
        .control
        .list_role_tags(&call, "Blue", &first(10))
        .await;
    assert_eq!(tags.unwrap().into_inner().items.len(), 1);
}

#[tokio::test]
async fn arns_are_judged_with_their_paths() {
    let world = World::start().await;
    let with_path = |name: &str, path: &str| CreateRoleInput {
        path: Some(path.into()),
        ..role(name)
    };
    create_role(&world, with_path("One", "/team/")).await;
    create_role(&world, role("Two")).await;
    let resource = "arn:aws:iam::*:role/team/*";
    let alice = may(
        &world,
        "alice",
        &allow(r#""iam:DeleteRole""#, resource, "{}"),
    )
    .await;
    let delete = async |name: &str| {
        let call = by(&alice, "DeleteRole");
        world.control.delete_role(&call, name).await
    };
    assert_eq!(code(delete("two").await), "AccessDenied");
    delete("ONE").await.unwrap();
    let record = world.record("DeleteRole");
    let account = world.control.account_id();
    let arn = format!("arn:aws:iam::{account}:role/team/One");
    assert_eq!(record["resources"][0]["ARN"], arn);
    assert_eq!(record["resources"][0]["type"], "AWS::IAM::Role");
}

#[tokio::test]
async fn what_is_awss_is_denied_even_to_the_administrator() {
    let world = World::start().await;
    let call = world.admin("DeletePolicy");
    let (code, said) = refused(world.control.delete_policy(&call, CORE).await);
    let account = world.control.account_id();
    assert_eq!(code, "AccessDenied");
    assert_eq!(
        said,
        format!(
            "User: arn:aws:iam::{account}:user/admin is not authorized to perform: \
             iam:DeletePolicy on resource: policy {CORE}"
        )
    );
}

#[tokio::test]
async fn a_new_role_and_a_new_policy_are_shown_in_the_trail() {
    let world = World::start().await;
    create_role(&world, role("Dev")).await;
    let shown = &world.record("CreateRole")["responseElements"]["role"];
    assert_eq!(shown["roleName"], "Dev");
    assert!(shown["roleId"].as_str().unwrap().starts_with("AROA"));
    let arn = create_policy(&world, "Start").await;
    let record = world.record("CreatePolicy");
    assert_eq!(record["responseElements"]["policy"]["arn"], arn);
    assert_eq!(record["resources"][0]["type"], "AWS::IAM::Policy");
    let call = world.admin("CreatePolicyVersion");
    let document = allow("\"iam:*\"", "*", "{}");
    let made = world
        .control
        .create_policy_version(&call, &arn, &document, true);
    assert_eq!(made.await.unwrap().into_inner().id, "v2");
    let shown = &world.record("CreatePolicyVersion")["responseElements"]["policyVersion"];
    assert_eq!(shown["versionId"], "v2");
    assert_eq!(shown["isDefaultVersion"], true);
}

#[tokio::test]
async fn a_default_version_is_in_force_at_the_next_call() {
    let world = World::start().await;
    let alice = user(&world, "alice").await;
    let arn = create_policy(&world, "Mine").await;
    let holder = Holder::User("alice".into());
    let call = world.admin("AttachUserPolicy");
    world
        .control
        .attach_policy(&call, &holder, &arn)
        .await
        .unwrap();
    let list = async || {
        let call = by(&alice, "ListRoles");
        world.control.list_roles(&call, None, &first(10)).await
    };
    assert_eq!(code(list().await), "AccessDenied");
    let call = world.admin("CreatePolicyVersion");
    let document = allow("\"iam:List*\"", "*", "{}");
    let made = world
        .control
        .create_policy_version(&call, &arn, &document, false);
    made.await.unwrap();
    assert_eq!(code(list().await), "AccessDenied");
    let call = world.admin("SetDefaultPolicyVersion");
    let set = world.control.set_default_policy_version(&call, &arn, "v2");
    set.await.unwrap();
    list().await.unwrap();
    let call = world.admin("DetachUserPolicy");
    world
        .control
        .detach_policy(&call, &holder, &arn)
        .await
        .unwrap();
    assert_eq!(code(list().await), "AccessDenied");
}

#[tokio::test]
async fn a_listing_goes_on_behind_what_was_removed_meanwhile() {
    let world = World::start().await;
    for name in ["A", "b", "C", "d"] {
        create_policy(&world, name).await;
    }
    let list = async |page| {
        let input = ListPoliciesInput {
            scope: PolicyScope::Local,
            page,
            ..ListPoliciesInput::default()
        };
        let call = world.admin("ListPolicies");
        let listed = world.control.list_policies(&call, input).await;
        listed.map(|page| {
            let page = page.into_inner();
            let names: Vec<String> = page.items.into_iter().map(|view| view.name).collect();
            (names, page.marker)
        })
    };
    let (names, marker) = list(first(2)).await.unwrap();
    assert_eq!(names, ["A", "b"]);
    let account = world.control.account_id();
    let gone = format!("arn:aws:iam::{account}:policy/b");
    let call = world.admin("DeletePolicy");
    world.control.delete_policy(&call, &gone).await.unwrap();
    let (names, marker) = list(next(marker, 2)).await.unwrap();
    assert_eq!((names, marker), (vec!["C".into(), "d".into()], None));
    let strange = list(next(Some("made up".into()), 2)).await;
    assert_eq!(code(strange), "ValidationError");
}

#[tokio::test]
async fn simulating_needs_leave_on_whom_it_is_about() {
    let world = World::start().await;
    let account = world.control.account_id();
    let arn = |name: &str| format!("arn:aws:iam::{account}:user/{name}");
    let policy = allow(r#""iam:SimulatePrincipalPolicy""#, &arn("alice"), "{}");
    let alice = may(&world, "alice", &policy).await;
    user(&world, "bob").await;
    let simulate = async |name: &str| {
        let input = SimulateInput {
            principal: Some(arn(name)),
            actions: vec!["iam:SimulatePrincipalPolicy".into()],
            resources: vec![arn("alice")],
            ..SimulateInput::default()
        };
        let call = by(&alice, "SimulatePrincipalPolicy");
        let simulated = world.control.simulate_policy(&call, input).await?;
        Ok::<_, IamError>(simulated.into_inner().items)
    };
    let results = simulate("alice").await.unwrap();
    assert_eq!(results[0].outcome, Outcome::Allowed);
    assert_eq!(results[0].matched[0].policy, "user_alice_only");
    assert_eq!(code(simulate("bob").await), "AccessDenied");
}

#[tokio::test]
async fn simulating_on_behalf_of_somebody_takes_permission_on_them() {
    let world = World::start().await;
    let account = world.control.account_id();
    let arn = |name: &str| format!("arn:aws:iam::{account}:user/{name}");
    let policy = allow(r#""iam:SimulateCustomPolicy""#, "*", "{}");
    let alice = may(&world, "alice", &policy).await;
    let policy = allow(
        r#"["iam:SimulateCustomPolicy", "iam:SimulatePrincipalPolicy"]"#,
        "*",
        "{}",
    );
    let carol = may(&world, "carol", &policy).await;
    user(&world, "bob").await;
    let simulate = async |asker: &UserView, caller: String| {
        let input = SimulateInput {
            policies: vec![allow(r#""ssm:StartSession""#, "*", "{}")],
            caller: Some(caller),
            actions: vec!["ssm:StartSession".into()],
            ..SimulateInput::default()
        };
        let call = by(asker, "SimulateCustomPolicy");
        let simulated = world.control.simulate_policy(&call, input).await?;
        Ok::<_, IamError>(simulated.into_inner().items.len())
    };
    assert_eq!(code(simulate(&alice, arn("bob")).await), "AccessDenied");
    // Nobody learns who is there.
    assert_eq!(code(simulate(&alice, arn("nobody")).await), "AccessDenied");
    assert_eq!(simulate(&alice, arn("alice")).await.unwrap(), 1);
    assert_eq!(simulate(&carol, arn("bob")).await.unwrap(), 1);
    assert_eq!(
        code(simulate(&alice, "bob".to_owned()).await),
        "InvalidInput"
    );
}

#[tokio::test]
async fn edits_at_the_same_time_all_count() {
    let world = World::start().await;
    create_role(&world, role("Dev")).await;
    let dev = Holder::Role("Dev".into());
    let document = allow("\"ssm:*\"", "*", "{}");
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (control, dev, document) = (world.control.clone(), dev.clone(), document.clone());
        let call = world.admin("PutRolePolicy");
        puts.spawn(async move {
            let name = format!("p{number}");
            control
                .put_inline_policy(&call, &dev, &name, &document)
                .await
        });
    }
    while let Some(put) = puts.join_next().await {
        put.unwrap().unwrap();
    }
    let call = world.admin("ListRolePolicies");
    let listed = world
        .control
        .list_inline_policies(&call, &dev, &first(100))
        .await;
    assert_eq!(listed.unwrap().into_inner().items.len(), 8);
}
