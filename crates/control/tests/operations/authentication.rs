//! Keys, temporary credentials of nodes, and who the caller is.

use std::time::Duration;

use sortie_control::{
    AuthenticationError, Caller, CreateAdministratorError, CreateRoleInput, GetCallerIdentityError,
    NewAdministrator, RequestManagedInstanceRoleTokenError, RequestManagedInstanceRoleTokenInput,
    RequestManagedInstanceRoleTokenOutput, UpdateManagedInstancePublicKeyError,
    UpdateManagedInstancePublicKeyInput, UpdateManagedInstanceRoleInput,
};
use sortie_types::{NodeId, Secret, Timestamp};

use crate::world::{
    FINGERPRINT, NODE_ROLE, START, World, call, nobody, public_key, role_of, secret, trusting,
};

async fn credentials(
    world: &World,
    node_id: &NodeId,
    fingerprint: &str,
) -> Result<RequestManagedInstanceRoleTokenOutput, RequestManagedInstanceRoleTokenError> {
    let caller = world.node_key_caller(node_id);
    let call = call(caller, "RequestManagedInstanceRoleToken", START);
    let input = RequestManagedInstanceRoleTokenInput {
        fingerprint: fingerprint.into(),
    };
    let outcome = world
        .control
        .request_managed_instance_role_token(&call, input)
        .await;
    outcome.map(sortie_control::Recorded::into_inner)
}

async fn throw_out(world: &World, node_id: &NodeId) {
    let call = world.admin("DeregisterManagedInstance");
    let input = sortie_control::DeregisterManagedInstanceInput {
        instance_id: node_id.to_string(),
    };
    world
        .control
        .deregister_managed_instance(&call, input)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_administrators_key_is_found_and_kept_sealed() {
    let world = World::start().await;
    let key = world.administrator.access_key_id.clone();
    let known = world
        .control
        .look_up_key(key.as_str(), None, START)
        .await
        .unwrap();
    assert_eq!(known.caller, world.admin_caller());
    assert_eq!(known.secret.expose(), world.administrator.secret.expose());
    let identities = sortie_ports::State::identities(&*world.state, None).await;
    let rows = identities.unwrap().unwrap().rows.into_iter();
    let mut rows = rows.filter_map(|row| match row {
        sortie_ports::Identity::AccessKey(row) if row.id == key => Some(row),
        _ => None,
    });
    let row = rows.next().unwrap();
    let secret = world.administrator.secret.expose().as_bytes();
    assert!(
        !row.sealed_secret
            .windows(secret.len())
            .any(|part| part == secret)
    );
    let again = world
        .control
        .create_administrator(&world.administrator.user.name, START)
        .await;
    assert!(again.unwrap().is_none());
    assert_eq!(world.count("AdministratorCreated"), 1);
}

#[tokio::test]
async fn keys_that_are_not_known_are_refused() {
    use AuthenticationError as Error;
    let world = World::start().await;
    let look = async |key: &str, token: Option<&str>| {
        let token = token.map(Secret::new);
        world
            .control
            .look_up_key(key, token.as_ref(), START)
            .await
            .unwrap_err()
    };
    let admin = world.administrator.access_key_id.to_string();
    assert!(matches!(
        look("AKIAAAAAAAAAAAAAAAAA", None).await,
        Error::UnknownKey
    ));
    assert!(matches!(look("nonsense", None).await, Error::UnknownKey));
    assert!(matches!(
        look("ASIAAAAAAAAAAAAAAAAA", None).await,
        Error::BadToken
    ));
    assert!(matches!(
        look("ASIAAAAAAAAAAAAAAAAA", Some("garbage")).await,
        Error::BadToken
    ));
    assert!(matches!(
        look(&admin, Some("garbage")).await,
        Error::BadToken
    ));
    let nodes = world.control.node_public_keys("mi-00000000000000000").await;
    assert!(matches!(nodes, Err(Error::UnknownKey)));
    assert!(matches!(
        world.control.node_public_keys("x").await,
        Err(Error::UnknownKey)
    ));
}

#[tokio::test]
async fn node_credentials_work_until_they_expire_and_across_a_restart() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let given = credentials(&world, &node_id, FINGERPRINT).await.unwrap();
    assert_eq!(given.expiration, START.plus(Duration::from_hours(1)));
    let world = world.restart(START).await;
    let look = async |token: &Secret, now: Timestamp| {
        let key = given.access_key_id.as_str();
        world.control.look_up_key(key, Some(token), now).await
    };
    let known = look(&given.session_token, START).await.unwrap();
    assert_eq!(known.secret.expose(), given.secret_access_key.expose());
    let Caller::Node(node) = known.caller else {
        panic!("not a node")
    };
    assert_eq!((node.node_id, node.issued), (node_id.clone(), Some(START)));
    assert_eq!(node.access_key_id.as_ref(), Some(&given.access_key_id));

    let expired = look(&given.session_token, given.expiration).await;
    assert!(matches!(expired, Err(AuthenticationError::Expired)));
    let mut text = given.session_token.expose().to_owned();
    let last = text.pop().unwrap();
    text.push(if last == 'A' { 'Q' } else { 'A' });
    let changed = look(&secret(&text), START).await;
    assert!(matches!(changed, Err(AuthenticationError::BadToken)));
    let other =
        world
            .control
            .look_up_key("ASIAAAAAAAAAAAAAAAAA", Some(&given.session_token), START);
    assert!(matches!(other.await, Err(AuthenticationError::BadToken)));

    throw_out(&world, &node_id).await;
    let gone = look(&given.session_token, START).await;
    assert!(matches!(gone, Err(AuthenticationError::NodeGone)));
    let gone = world.control.node_public_keys(node_id.as_str()).await;
    assert!(matches!(gone, Err(AuthenticationError::NodeGone)));
    let refused = credentials(&world, &node_id, FINGERPRINT).await;
    assert!(matches!(
        refused,
        Err(RequestManagedInstanceRoleTokenError::Denied(_))
    ));
}

#[tokio::test]
async fn only_the_machine_itself_gets_credentials_and_only_with_its_key() {
    use RequestManagedInstanceRoleTokenError as Error;
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let clone = credentials(&world, &node_id, "another machine").await;
    assert!(matches!(clone, Err(Error::FingerprintDoesNotMatch)));
    for caller in [world.node_caller(&node_id), world.admin_caller(), nobody()] {
        let call = call(caller, "RequestManagedInstanceRoleToken", START);
        let input = RequestManagedInstanceRoleTokenInput {
            fingerprint: FINGERPRINT.into(),
        };
        let outcome = world
            .control
            .request_managed_instance_role_token(&call, input)
            .await;
        assert!(matches!(outcome, Err(Error::Denied(_))));
    }
}

#[tokio::test]
async fn a_rotated_key_keeps_the_one_before_until_it_is_used() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let rotate = async |key: usize| {
        let caller = world.node_key_caller(&node_id);
        let call = call(caller, "UpdateManagedInstancePublicKey", START);
        let input = UpdateManagedInstancePublicKeyInput {
            new_public_key: public_key(key),
            new_public_key_type: "Rsa".into(),
        };
        world
            .control
            .update_managed_instance_public_key(&call, input)
            .await
    };
    let keys = async || {
        world
            .control
            .node_public_keys(node_id.as_str())
            .await
            .unwrap()
    };
    let first = keys().await.current;
    rotate(1).await.unwrap();
    let rotated = keys().await;
    assert_eq!(rotated.previous.as_ref(), Some(&first));
    assert_ne!(rotated.current, first);

    // The answer was lost: the node still signs with its first key, and rotates again.
    world.control.node_key_used(&node_id, &first).await.unwrap();
    rotate(2).await.unwrap();
    let again = keys().await;
    assert_eq!(again.previous.as_ref(), Some(&first));
    // A call that was verified before that rotation says nothing about the key of now.
    world
        .control
        .node_key_used(&node_id, &rotated.current)
        .await
        .unwrap();
    assert_eq!(keys().await.previous.as_ref(), Some(&first));
    world
        .control
        .node_key_used(&node_id, &again.current)
        .await
        .unwrap();
    assert_eq!(keys().await.previous, None);
    assert_eq!(keys().await.current, again.current);
    assert_eq!(world.count("UpdateManagedInstancePublicKey"), 2);
}

#[tokio::test]
async fn keys_that_are_not_the_nodes_own_are_not_taken() {
    use UpdateManagedInstancePublicKeyError as Error;
    let world = World::start().await;
    let (one, _two) = (world.enrol(0).await, world.enrol(1).await);
    let update = async |caller: Caller, key: String| {
        let call = call(caller, "UpdateManagedInstancePublicKey", START);
        let input = UpdateManagedInstancePublicKeyInput {
            new_public_key: key,
            new_public_key_type: "Rsa".into(),
        };
        world
            .control
            .update_managed_instance_public_key(&call, input)
            .await
            .unwrap_err()
    };
    let own = world.node_key_caller(&one);
    assert!(matches!(
        update(own.clone(), "AAAA".into()).await,
        Error::InvalidPublicKey
    ));
    assert!(matches!(
        update(own, public_key(1)).await,
        Error::InvalidPublicKey
    ));
    let stolen = world.node_caller(&one);
    assert!(matches!(
        update(stolen, public_key(2)).await,
        Error::Denied(_)
    ));
}

#[tokio::test]
async fn everyone_known_learns_who_they_are() {
    let world = World::start().await;
    let account = world.control.account_id().clone();
    let who = async |caller: Caller| {
        let call = call(caller, "GetCallerIdentity", START);
        let outcome = world.control.get_caller_identity(&call).await;
        outcome.map(sortie_control::Recorded::into_inner)
    };
    let admin = who(world.admin_caller()).await.unwrap();
    assert_eq!(admin.user_id, world.administrator.user.unique_id.as_str());
    assert_eq!(
        admin.arn.as_str(),
        format!("arn:aws:iam::{account}:user/admin")
    );
    assert_eq!(admin.account, account);
    assert!(who(world.mallory().await).await.is_ok());
    let node_id = world.enrol(0).await;
    let node = who(world.node_caller(&node_id)).await.unwrap();
    assert_eq!(
        node.arn.as_str(),
        format!("arn:aws:sts::{account}:assumed-role/SortieNode/{node_id}")
    );
    assert!(node.user_id.starts_with("AROA") && node.user_id.ends_with(node_id.as_str()));
    let record = world.record("GetCallerIdentity");
    assert_eq!(record["userIdentity"]["type"], "AssumedRole");
    assert_eq!(record["userIdentity"]["arn"], node.arn.as_str());
    assert!(matches!(
        who(nobody()).await,
        Err(GetCallerIdentityError::NotAuthenticated)
    ));
}

#[tokio::test]
async fn a_changed_role_shows_in_the_next_credentials() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    role_of(&world, "Others", "ssm.amazonaws.com").await;
    let call = world.admin("UpdateManagedInstanceRole");
    let input = UpdateManagedInstanceRoleInput {
        instance_id: node_id.to_string(),
        iam_role: "Others".into(),
    };
    world
        .control
        .update_managed_instance_role(&call, input)
        .await
        .unwrap();
    let given = credentials(&world, &node_id, FINGERPRINT).await.unwrap();
    let key = given.access_key_id.as_str();
    let known = world
        .control
        .look_up_key(key, Some(&given.session_token), START)
        .await
        .unwrap();
    assert!(matches!(known.caller, Caller::Node(node) if node.iam_role == "Others"));
}

#[tokio::test]
async fn a_role_that_trusts_the_service_no_more_gives_nodes_nothing() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let given = credentials(&world, &node_id, FINGERPRINT).await.unwrap();
    let roles = async || {
        let by_key = world.control.node_public_keys(node_id.as_str()).await;
        let key = given.access_key_id.as_str();
        let by_token = world
            .control
            .look_up_key(key, Some(&given.session_token), START);
        let callers = [by_key.unwrap().caller, by_token.await.unwrap().caller];
        callers.map(|caller| match caller {
            Caller::Node(node) => node.role.map(|role| role.name),
            other => panic!("{other:?}"),
        })
    };
    let named = Some(NODE_ROLE.to_owned());
    assert_eq!(roles().await, [named.clone(), named]);
    let call = world.admin("UpdateAssumeRolePolicy");
    let trust = trusting("ec2.amazonaws.com");
    let updated = world
        .control
        .update_assume_role_policy(&call, NODE_ROLE, &trust);
    updated.await.unwrap();
    assert_eq!(roles().await, [None, None]);
    let caller = world
        .control
        .node_public_keys(node_id.as_str())
        .await
        .unwrap()
        .caller;
    let call = self::call(caller, "RequestManagedInstanceRoleToken", START);
    let input = RequestManagedInstanceRoleTokenInput {
        fingerprint: FINGERPRINT.into(),
    };
    let refused = world
        .control
        .request_managed_instance_role_token(&call, input)
        .await;
    assert!(matches!(
        refused,
        Err(RequestManagedInstanceRoleTokenError::Denied(_))
    ));
}

#[tokio::test]
async fn a_role_of_the_same_name_on_another_path_is_not_the_nodes() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let make = async |path: &str| {
        let input = CreateRoleInput {
            name: "Deep".into(),
            path: Some(path.into()),
            trust_policy: trusting("ssm.amazonaws.com"),
            ..CreateRoleInput::default()
        };
        let call = world.admin("CreateRole");
        world.control.create_role(&call, input).await.unwrap();
    };
    let role = async || {
        let keys = world.control.node_public_keys(node_id.as_str()).await;
        match keys.unwrap().caller {
            Caller::Node(node) => node.role.map(|role| role.path),
            other => panic!("{other:?}"),
        }
    };
    make("/a/").await;
    let call = world.admin("UpdateManagedInstanceRole");
    let input = UpdateManagedInstanceRoleInput {
        instance_id: node_id.to_string(),
        iam_role: "a/Deep".into(),
    };
    let updated = world.control.update_managed_instance_role(&call, input);
    updated.await.unwrap();
    assert_eq!(role().await.as_deref(), Some("/a/"));
    let call = world.admin("DeleteRole");
    world.control.delete_role(&call, "Deep").await.unwrap();
    make("/b/").await;
    assert_eq!(role().await, None);
}

#[tokio::test]
async fn there_is_no_administrator_whose_key_was_not_kept() {
    #[derive(Debug)]
    enum NotMade {
        Control,
        Disk,
    }
    impl From<CreateAdministratorError> for NotMade {
        fn from(_: CreateAdministratorError) -> Self {
            Self::Control
        }
    }
    let world = World::start().await;
    let name = "bob".parse().unwrap();
    let full = |_: &NewAdministrator| Err(NotMade::Disk);
    let outcome = world
        .control
        .create_administrator_keeping(&name, START, full)
        .await;
    assert!(matches!(outcome, Err(NotMade::Disk)));
    let mut kept = None;
    let made = world
        .control
        .create_administrator_keeping(&name, START, |made| {
            kept = Some(made.access_key_id.clone());
            Ok::<(), NotMade>(())
        })
        .await
        .unwrap();
    assert_eq!(kept, made.map(|made| made.access_key_id));
}
