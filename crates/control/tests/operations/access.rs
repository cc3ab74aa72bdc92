//! What policies decide about calls: on which resources, with which keys, by whose policies, and how
//! refusals are told.

use serde_json::{Value, json};
use sortie_control::{
    AddTagsToResourceInput, Call, Caller, CreateActivationError, CreateActivationInput,
    CreateGroupInput, CreateRoleInput, CreateUserInput, DescribeSessionsInput,
    GetConnectionStatusInput, Holder, ResumeSessionInput, SessionList, StartSessionError,
    TerminateSessionError, TerminateSessionInput, UpdateInstanceInformationError,
    UpdateInstanceInformationInput,
};
use sortie_ports::NodeInfo;
use sortie_types::{NodeId, SessionId};

use crate::world::{NODE_ROLE, START, World, call, role_of, start};

/// A policy of these statements.
pub(crate) fn policy(statements: &[Value]) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

pub(crate) fn allow(action: &str, resource: &str) -> Value {
    json!({"Effect": "Allow", "Action": action, "Resource": resource})
}

pub(crate) fn deny(action: &str, resource: &str) -> Value {
    json!({"Effect": "Deny", "Action": action, "Resource": resource})
}

/// Both that starting a session needs.
pub(crate) fn may_start() -> [Value; 1] {
    [allow("ssm:StartSession", "*")]
}

/// Gives a holder this inline policy, in place of the one of this name.
pub(crate) async fn grant(world: &World, holder: &Holder, name: &str, statements: &[Value]) {
    let call = world.admin("PutUserPolicy");
    let document = policy(statements);
    let put = world
        .control
        .put_inline_policy(&call, holder, name, &document);
    put.await.unwrap();
}

pub(crate) fn user(name: &str) -> Holder {
    Holder::User(name.to_owned())
}

/// A user with one access key and this policy, as the door finds it.
pub(crate) async fn person(world: &World, name: &str, statements: &[Value]) -> Caller {
    let input = CreateUserInput {
        name: name.into(),
        ..CreateUserInput::default()
    };
    let made = world.admin("CreateUser");
    world.control.create_user(&made, input).await.unwrap();
    if !statements.is_empty() {
        grant(world, &user(name), "own", statements).await;
    }
    let call = world.admin("CreateAccessKey");
    let key = world
        .control
        .create_access_key(&call, Some(name.to_owned()));
    let key = key.await.unwrap().into_inner();
    let known = world.control.look_up_key(key.id.as_str(), None, START);
    known.await.unwrap().caller
}

pub(crate) async fn node(world: &World, key: usize) -> NodeId {
    let node_id = world.enrol(key).await;
    world.connect(&node_id, START).await;
    node_id
}

async fn starts(world: &World, caller: &Caller, node_id: &NodeId) -> Result<SessionId, String> {
    let call = call(caller.clone(), "StartSession", START);
    let started = world.control.start_session(&call, start(node_id.as_str()));
    match started.await {
        Ok(started) => Ok(started.into_inner().session_id),
        Err(StartSessionError::Denied(denied)) => Err(denied.message),
        Err(other) => panic!("{other}"),
    }
}

async fn terminates(world: &World, caller: &Caller, session_id: &str) -> bool {
    let call = call(caller.clone(), "TerminateSession", START);
    let input = TerminateSessionInput {
        session_id: session_id.to_owned(),
    };
    match world.control.terminate_session(&call, input).await {
        Ok(_) => true,
        Err(TerminateSessionError::Denied(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

async fn tag(world: &World, node_id: &NodeId, key: &str, value: &str) {
    let call = world.admin("AddTagsToResource");
    let input = AddTagsToResourceInput {
        resource_type: "ManagedInstance".into(),
        resource_id: node_id.to_string(),
        tags: vec![(key.into(), value.into())],
    };
    let tagged = world.control.add_tags_to_resource(&call, input).await;
    tagged.unwrap();
}

#[tokio::test]
async fn a_session_needs_its_node_and_its_document() {
    let world = World::start().await;
    let (one, two) = (node(&world, 0).await, node(&world, 1).await);
    let account = world.control.account_id().to_string();
    let arn = |node: &NodeId| format!("arn:aws:ssm:local-1:{account}:managed-instance/{node}");
    let document = format!("arn:aws:ssm:local-1:{account}:document/SSM-SessionManagerRunShell");
    let refusal = |resource: &str| {
        format!(
            "User: arn:aws:iam::{account}:user/alice is not authorized to perform: \
             ssm:StartSession on resource: {resource} because no identity-based policy allows the \
             ssm:StartSession action"
        )
    };
    let on_node = allow("ssm:StartSession", &arn(&one));
    let alice = person(&world, "alice", std::slice::from_ref(&on_node)).await;
    assert_eq!(starts(&world, &alice, &one).await, Err(refusal(&document)));
    let checked = json!({
        "Effect": "Allow", "Action": "ssm:StartSession", "Resource": document,
        "Condition": {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}},
    });
    grant(&world, &user("alice"), "document", &[checked]).await;
    assert!(starts(&world, &alice, &one).await.is_ok());
    assert_eq!(starts(&world, &alice, &two).await, Err(refusal(&arn(&two))));
    let denied = deny("ssm:StartSession", &arn(&one));
    grant(&world, &user("alice"), "never", &[denied]).await;
    let message = starts(&world, &alice, &one).await.unwrap_err();
    assert!(message.ends_with(&format!(
        "on resource: {} with an explicit deny in an identity-based policy",
        arn(&one)
    )));
}

#[tokio::test]
async fn nodes_are_allowed_by_their_tags_of_now() {
    let world = World::start().await;
    let (one, two) = (node(&world, 0).await, node(&world, 1).await);
    let document = "arn:aws:ssm:*:*:document/SSM-SessionManagerRunShell";
    for family in ["ssm:resourceTag", "aws:ResourceTag"] {
        let name = family.replace(':', "-");
        let key = format!("{family}/Team");
        let tagged = json!({
            "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "arn:aws:ssm:*:*:managed-instance/*",
            "Condition": {"StringEquals": {key: "${aws:PrincipalTag/Team}"}},
        });
        let statements = [tagged, allow("ssm:StartSession", document)];
        let caller = person(&world, &name, &statements).await;
        let Caller::User(before) = &caller else {
            panic!()
        };
        let team = vec![("Team".to_owned(), "red".to_owned())];
        let tag_user = world.admin("TagUser");
        let done = world.control.tag_user(&tag_user, &name, &team).await;
        done.unwrap();
        let key = before.access_key_id.as_str();
        let caller = world
            .control
            .look_up_key(key, None, START)
            .await
            .unwrap()
            .caller;
        tag(&world, &one, "Team", "red").await;
        tag(&world, &two, "Team", "blue").await;
        assert!(starts(&world, &caller, &one).await.is_ok(), "{family}");
        assert!(starts(&world, &caller, &two).await.is_err(), "{family}");
        tag(&world, &one, "Team", "Red").await;
        assert!(starts(&world, &caller, &one).await.is_err(), "{family}");
    }
}

#[tokio::test]
async fn own_sessions_are_known_by_name_by_userid_and_by_tag() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let own = |resource: &str| {
        let pattern = format!("arn:aws:ssm:*:*:session/{resource}");
        [
            allow("ssm:StartSession", "*"),
            allow("ssm:TerminateSession", &pattern),
        ]
    };
    let by_tag = [
        allow("ssm:StartSession", "*"),
        json!({
            "Effect": "Allow", "Action": "ssm:TerminateSession", "Resource": "arn:aws:ssm:*:*:session/*",
            "Condition": {"StringLike": {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}"}},
        }),
    ];
    let callers = [
        person(&world, "name", &own("${aws:username}-*")).await,
        person(&world, "userid", &own("${aws:userid}-*")).await,
        person(&world, "tag+1", &by_tag).await,
        person(&world, "odd+name", &own("${aws:username}-*")).await,
    ];
    let mut sessions = Vec::new();
    for caller in &callers {
        sessions.push(starts(&world, caller, &node_id).await.unwrap());
    }
    for (whose, session) in sessions.iter().enumerate() {
        for (who, caller) in callers.iter().enumerate() {
            if who != whose {
                assert!(
                    !terminates(&world, caller, session.as_str()).await,
                    "{who} {session}"
                );
            }
        }
        assert!(
            terminates(&world, &callers[whose], session.as_str()).await,
            "{session}"
        );
    }
    let record = world.record("TerminateSession");
    assert_eq!(
        record["resources"][0]["ARN"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next(),
        Some(sessions[3].as_str())
    );
}

#[tokio::test]
async fn whoever_may_not_does_not_learn_what_exists() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let session = world.session(&node_id).await.session_id;
    let nobody = person(&world, "nobody", &[]).await;
    let absent = "admin-00000000000000000";
    let resume = async |caller: &Caller, session_id: &str| {
        let call = call(caller.clone(), "ResumeSession", START);
        let input = ResumeSessionInput {
            session_id: session_id.into(),
            stream_base: "wss://x".into(),
        };
        let outcome = world.control.resume_session(&call, input).await;
        outcome.unwrap_err().to_string().replace(session_id, "…")
    };
    let told = resume(&nobody, session.as_str()).await;
    assert_eq!(told, resume(&nobody, absent).await);
    assert!(
        told.contains("is not authorized to perform: ssm:ResumeSession"),
        "{told}"
    );
    let may = [allow("ssm:*", "*")];
    grant(&world, &user("nobody"), "all", &may).await;
    assert_eq!(resume(&nobody, absent).await, "session … does not exist");
    // The same for a node.
    let other = person(&world, "other", &[]).await;
    let start_on = async |target: &str| {
        let call = call(other.clone(), "StartSession", START);
        let outcome = world.control.start_session(&call, start(target)).await;
        outcome.unwrap_err().to_string().replace(target, "…")
    };
    assert_eq!(
        start_on(node_id.as_str()).await,
        start_on("mi-00000000000000000").await
    );
}

#[tokio::test]
async fn groups_and_boundaries_take_part_and_are_named() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let alice = person(&world, "alice", &[]).await;
    let input = CreateGroupInput {
        name: "operators".into(),
        ..CreateGroupInput::default()
    };
    let make = world.admin("CreateGroup");
    world.control.create_group(&make, input).await.unwrap();
    grant(
        &world,
        &Holder::Group("operators".into()),
        "start",
        &may_start(),
    )
    .await;
    assert!(starts(&world, &alice, &node_id).await.is_err());
    let add = world.admin("AddUserToGroup");
    let added = world
        .control
        .add_user_to_group(&add, "operators", "alice")
        .await;
    added.unwrap();
    assert!(starts(&world, &alice, &node_id).await.is_ok());
    let bound = world.admin("PutUserPermissionsBoundary");
    let read_only = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
    let control = &world.control;
    control
        .put_permissions_boundary(&bound, &user("alice"), read_only)
        .await
        .unwrap();
    let message = starts(&world, &alice, &node_id).await.unwrap_err();
    assert!(
        message.ends_with("because no permissions boundary allows the ssm:StartSession action"),
        "{message}"
    );
}

#[tokio::test]
async fn the_circumstances_of_a_call_are_condition_keys() {
    let world = World::start().await;
    let conditions = [
        (json!({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}), true),
        (
            json!({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}),
            false,
        ),
        (json!({"Bool": {"aws:SecureTransport": "true"}}), true),
        (json!({"Bool": {"aws:SecureTransport": "false"}}), false),
        (json!({"StringEquals": {"aws:UserAgent": "test"}}), true),
        (
            json!({"StringEquals": {"aws:RequestedRegion": "local-1"}}),
            true,
        ),
        (
            json!({"DateEquals": {"aws:CurrentTime": "2026-05-04T08:00:00Z"}}),
            true,
        ),
        (
            json!({"DateGreaterThan": {"aws:CurrentTime": "2026-05-04T08:00:00Z"}}),
            false,
        ),
        (
            json!({"NumericEquals": {"aws:EpochTime": "1777881600"}}),
            true,
        ),
        (json!({"StringEquals": {"aws:PrincipalType": "User"}}), true),
        (json!({"StringEquals": {"aws:username": "alice"}}), true),
        (json!({"StringLike": {"aws:userid": "AIDA*"}}), true),
        (
            json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/alice"}}),
            true,
        ),
        (
            json!({"StringEquals": {"aws:PrincipalAccount": "${aws:ResourceAccount}"}}),
            true,
        ),
        (json!({"Bool": {"aws:ViaAWSService": "false"}}), true),
        (
            json!({"Null": {"aws:MultiFactorAuthPresent": "true"}}),
            true,
        ),
        (json!({"Null": {"aws:TokenIssueTime": "true"}}), true),
        (json!({"Null": {"aws:SourceIdentity": "true"}}), true),
        (json!({"Null": {"aws:Referer": "true"}}), true),
    ];
    let alice = person(&world, "alice", &[]).await;
    for (condition, allowed) in conditions {
        let statement = json!({
            "Effect": "Allow", "Action": "ssm:GetConnectionStatus", "Resource": "*",
            "Condition": condition,
        });
        grant(&world, &user("alice"), "one", &[statement]).await;
        let call = call(alice.clone(), "GetConnectionStatus", START);
        let input = GetConnectionStatusInput {
            target: "mi-00000000000000000".into(),
        };
        let outcome = world.control.get_connection_status(&call, input).await;
        assert_eq!(outcome.is_ok(), allowed, "{condition}");
    }
}

#[tokio::test]
async fn a_node_does_what_its_role_allows_and_nothing_for_others() {
    let world = World::start().await;
    let (one, two) = (node(&world, 0).await, node(&world, 1).await);
    let reports = async |caller: Caller, about: &NodeId| {
        let call = call(caller, "UpdateInstanceInformation", START);
        let input = UpdateInstanceInformationInput {
            instance_id: about.to_string(),
            info: NodeInfo::default(),
        };
        match world
            .control
            .update_instance_information(&call, input)
            .await
        {
            Ok(_) => Ok(()),
            Err(UpdateInstanceInformationError::Denied(denied)) => Err(denied.message),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(reports(world.node_caller(&one), &one).await, Ok(()));
    assert!(reports(world.node_caller(&one), &two).await.is_err());
    // What a node may beyond being one is said by its role, too.
    let lists = async |caller: Caller| {
        let call = call(caller, "DescribeSessions", START);
        let input = DescribeSessionsInput {
            state: SessionList::Active,
            filters: Vec::new(),
            max_results: None,
            next_token: None,
        };
        world.control.describe_sessions(&call, input).await.is_ok()
    };
    assert!(!lists(world.node_caller(&one)).await);
    let role = Holder::Role(NODE_ROLE.into());
    grant(&world, &role, "more", &[allow("ssm:DescribeSessions", "*")]).await;
    assert!(lists(world.node_caller(&one)).await);
    assert!(!lists(world.node_key_caller(&one)).await);
    let only = json!({
        "Effect": "Deny", "Action": "ssm:UpdateInstanceInformation", "Resource": "*",
        "Condition": {"ArnNotEquals": {"ssm:SourceInstanceARN": "arn:aws:ssm:*:*:managed-instance/mi-other*"}},
    });
    grant(&world, &role, "more", &[only]).await;
    let message = reports(world.node_caller(&one), &one).await.unwrap_err();
    assert!(message.contains(&format!("assumed-role/{NODE_ROLE}/{one} is not authorized")));
    assert!(message.ends_with("with an explicit deny in an identity-based policy"));
}

#[tokio::test]
async fn a_node_whose_role_is_gone_is_refused_and_a_new_role_of_the_name_does_not_help() {
    let world = World::start().await;
    role_of(&world, "Passing", "ssm.amazonaws.com").await;
    let holder = Holder::Role("Passing".into());
    grant(&world, &holder, "all", &[allow("*", "*")]).await;
    let input = CreateActivationInput {
        iam_role: "Passing".into(),
        ..CreateActivationInput::default()
    };
    let create = world.admin("CreateActivation");
    let activation = world.control.create_activation(&create, input).await;
    let activation = activation.unwrap().into_inner();
    let node_id = world
        .register(crate::world::registration(&activation, 0), START)
        .await
        .unwrap();
    let credentials = async || {
        let keys = world
            .control
            .node_public_keys(node_id.as_str())
            .await
            .unwrap();
        let call = call(keys.caller, "RequestManagedInstanceRoleToken", START);
        let input = sortie_control::RequestManagedInstanceRoleTokenInput {
            fingerprint: crate::world::FINGERPRINT.into(),
        };
        let control = &world.control;
        control
            .request_managed_instance_role_token(&call, input)
            .await
    };
    let given = credentials().await.unwrap().into_inner();
    let key = given.access_key_id.to_string();
    let heartbeat = async || {
        let known = world
            .control
            .look_up_key(&key, Some(&given.session_token), START);
        let call = call(
            known.await.unwrap().caller,
            "UpdateInstanceInformation",
            START,
        );
        let input = UpdateInstanceInformationInput {
            instance_id: node_id.to_string(),
            info: NodeInfo::default(),
        };
        world
            .control
            .update_instance_information(&call, input)
            .await
            .is_ok()
    };
    assert!(heartbeat().await);
    let call = world.admin("DeleteRole");
    let remove = world
        .control
        .delete_inline_policy(&call, &holder, "all")
        .await;
    remove.unwrap();
    assert!(!heartbeat().await);
    world.control.delete_role(&call, "Passing").await.unwrap();
    assert!(!heartbeat().await);
    assert!(credentials().await.is_err());
    role_of(&world, "Passing", "ssm.amazonaws.com").await;
    grant(&world, &holder, "all", &[allow("*", "*")]).await;
    assert!(!heartbeat().await);
    // What the node asks for now is the new role's.
    assert!(credentials().await.is_ok());
}

#[tokio::test]
async fn giving_a_role_to_nodes_needs_leave_to_pass_it() {
    let world = World::start().await;
    let account = world.control.account_id().to_string();
    let input = CreateRoleInput {
        path: Some("/service-role/".into()),
        name: "Edge".into(),
        trust_policy: json!({
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow", "Principal": {"Service": "ssm.amazonaws.com"},
                "Action": "sts:AssumeRole",
            },
        })
        .to_string(),
        ..CreateRoleInput::default()
    };
    let make = world.admin("CreateRole");
    world.control.create_role(&make, input).await.unwrap();
    let alice = person(&world, "alice", &[allow("ssm:CreateActivation", "*")]).await;
    let activates = async |role: &str, tags: bool| {
        let call = call(alice.clone(), "CreateActivation", START);
        let input = CreateActivationInput {
            iam_role: role.into(),
            tags: if tags {
                vec![("Env".into(), "dev".into())]
            } else {
                Vec::new()
            },
            ..CreateActivationInput::default()
        };
        world
            .control
            .create_activation(&call, input)
            .await
            .map(|_| ())
    };
    let refused = activates("service-role/Edge", false).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "User: arn:aws:iam::{account}:user/alice is not authorized to perform: iam:PassRole \
             on resource: arn:aws:iam::{account}:role/service-role/Edge because no identity-based \
             policy allows the iam:PassRole action"
        )
    );
    let pass = json!({
        "Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::*:role/service-role/*",
        "Condition": {"StringEquals": {"iam:PassedToService": "ssm.amazonaws.com"}},
    });
    grant(&world, &user("alice"), "pass", &[pass]).await;
    activates("service-role/Edge", false).await.unwrap();
    activates("Edge", false).await.unwrap();
    assert!(matches!(
        activates(NODE_ROLE, false).await,
        Err(CreateActivationError::Denied(_))
    ));
    let absent = activates("service-role/None", false).await;
    assert!(matches!(absent, Err(CreateActivationError::InvalidRole(_))));
    let elsewhere = activates("elsewhere/Edge", false).await;
    assert!(matches!(elsewhere, Err(CreateActivationError::Denied(_))));
    // With tags it is tagging as well.
    let tagging = activates("Edge", true).await.unwrap_err().to_string();
    assert!(
        tagging.contains("perform: ssm:AddTagsToResource"),
        "{tagging}"
    );
}

#[tokio::test]
async fn tags_may_be_limited_by_what_a_request_carries() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let limited = json!({
        "Effect": "Allow", "Action": "ssm:AddTagsToResource", "Resource": "*",
        "Condition": {
            "ForAllValues:StringEquals": {"aws:TagKeys": ["Team", "Env"]},
            "StringNotEqualsIfExists": {"aws:RequestTag/Env": "prod"},
        },
    });
    let alice = person(&world, "alice", &[limited]).await;
    let adds = async |tags: &[(&str, &str)]| {
        let call: Call = call(alice.clone(), "AddTagsToResource", START);
        let input = AddTagsToResourceInput {
            resource_type: "ManagedInstance".into(),
            resource_id: node_id.to_string(),
            tags: tags
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        };
        world
            .control
            .add_tags_to_resource(&call, input)
            .await
            .is_ok()
    };
    assert!(adds(&[("Team", "red")]).await);
    assert!(adds(&[("Team", "red"), ("Env", "dev")]).await);
    assert!(!adds(&[("Env", "prod")]).await);
    assert!(!adds(&[("Team", "red"), ("CostCenter", "1")]).await);
}
