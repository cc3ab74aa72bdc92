//! Activations, and machines that become nodes with them.

use std::time::Duration;

use sortie_control::{
    ActivationFilter, CreateActivationError, CreateActivationInput, CreateUserInput,
    DeleteActivationError, DeleteActivationInput, DescribeActivationsError,
    DescribeActivationsInput, RegisterManagedInstanceError, UpdateManagedInstanceRoleError,
    UpdateManagedInstanceRoleInput,
};
use sortie_ports::{Identity, State as _};
use sortie_types::Timestamp;

use crate::world::{
    NODE_ROLE, START, World, call, public_key, registration, role_of, secret, trusting,
};

/// RSA of 1024 bits.
const SHORT_KEY: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC8mwGofLk5kHyjN/df2Hmdn/ebjPf3pWRF1/5mTA7AWIBMWCXdj5v0yzEfLrHYn73eJEV1UqwhgJsOlqDejVw7rr4rNgqbrfDrJ6A6Up5AsuH8IP2G40usETY8f54h3SeF0RRjShjN/F+uNqVSOYk4en600msJ839YsIK54MDtGQIDAQAB";

async fn create(
    world: &World,
    change: impl FnOnce(&mut CreateActivationInput),
) -> Result<sortie_control::CreateActivationOutput, CreateActivationError> {
    let mut input = CreateActivationInput {
        iam_role: NODE_ROLE.into(),
        ..CreateActivationInput::default()
    };
    change(&mut input);
    let call = world.admin("CreateActivation");
    let outcome = world.control.create_activation(&call, input).await;
    outcome.map(sortie_control::Recorded::into_inner)
}

async fn describe(world: &World, now: Timestamp) -> Vec<sortie_control::ActivationView> {
    let call = world.admin_at("DescribeActivations", now);
    let input = DescribeActivationsInput::default();
    let outcome = world.control.describe_activations(&call, input).await;
    outcome.unwrap().into_inner().activations
}

#[tokio::test]
async fn an_activation_has_awss_defaults_and_its_code_is_never_written() {
    let world = World::start().await;
    let made = create(&world, |_| ()).await.unwrap();
    assert_eq!(made.activation_code.expose().len(), 20);
    let listed = describe(&world, START).await;
    assert_eq!(listed.len(), 1);
    let activation = &listed[0].activation;
    assert_eq!(activation.id, made.activation_id);
    assert_eq!(activation.registration_limit, 1);
    assert_eq!(activation.expires, START.plus(Duration::from_hours(24)));
    assert!(!listed[0].expired);
    assert!(describe(&world, activation.expires).await[0].expired);

    let record = world.record("CreateActivation");
    assert_eq!(
        record["responseElements"]["activationId"],
        made.activation_id.to_string()
    );
    assert_eq!(
        record["responseElements"]["activationCode"],
        sortie_evidence::HIDDEN
    );
    assert!(!format!("{:?}", world.records()).contains(made.activation_code.expose()));
}

#[tokio::test]
async fn activations_outside_the_limits_are_refused() {
    let world = World::start().await;
    let changes: [fn(&mut CreateActivationInput); 8] = [
        |input| input.iam_role = String::new(),
        |input| input.iam_role = "a role".into(),
        |input| input.registration_limit = Some(0),
        |input| input.registration_limit = Some(1001),
        |input| input.expiration = Some(START),
        |input| input.expiration = Some(START.plus(Duration::from_hours(30 * 24 + 1))),
        |input| input.tags = vec![("aws:x".into(), "y".into())],
        |input| input.tags = vec![("k".into(), "1".into()), ("k".into(), "2".into())],
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let error = create(&world, change).await;
        assert!(
            matches!(error, Err(CreateActivationError::InvalidParameters(_))),
            "{index}"
        );
    }
    assert!(describe(&world, START).await.is_empty());
    let mallory = call(world.mallory().await, "CreateActivation", START);
    let input = CreateActivationInput {
        iam_role: NODE_ROLE.into(),
        ..CreateActivationInput::default()
    };
    let error = world.control.create_activation(&mallory, input).await;
    assert!(matches!(error, Err(CreateActivationError::Denied(_))));
}

#[tokio::test]
async fn activations_are_found_page_by_page_and_by_filter() {
    let world = World::start().await;
    let mut made = Vec::new();
    for index in 0..5 {
        let name = (index % 2 == 0).then(|| "even".to_owned());
        let change = |input: &mut CreateActivationInput| input.default_instance_name = name;
        made.push(create(&world, change).await.unwrap().activation_id);
    }
    let page = async |filters: &[(&str, &str)], next_token: Option<String>| {
        let filter = |(key, value): &(&str, &str)| ActivationFilter {
            key: (*key).into(),
            values: vec![(*value).into(), "another".into()],
        };
        let input = DescribeActivationsInput {
            filters: filters.iter().map(filter).collect(),
            max_results: Some(2),
            next_token,
        };
        let call = world.admin("DescribeActivations");
        let outcome = world.control.describe_activations(&call, input).await;
        outcome.map(sortie_control::Recorded::into_inner)
    };
    let even = [("DefaultInstanceName", "even")];
    let first = page(&even, None).await.unwrap();
    assert_eq!(first.activations.len(), 2);
    let second = page(&even, first.next_token).await.unwrap();
    assert_eq!((second.activations.len(), second.next_token), (1, None));
    let id = made[3].to_string();
    let one = page(&[("ActivationIds", &id)], None).await.unwrap();
    assert_eq!(one.activations[0].activation.id, made[3]);
    assert_eq!((one.activations.len(), one.next_token), (1, None));
    let error = page(&[("Color", "red")], None).await;
    assert!(matches!(
        error,
        Err(DescribeActivationsError::InvalidFilter { .. })
    ));
    let error = page(&[], Some("x".into())).await;
    assert!(matches!(
        error,
        Err(DescribeActivationsError::InvalidNextToken)
    ));
}

#[tokio::test]
async fn a_machine_enrols_with_what_its_activation_gives() {
    let world = World::start().await;
    let activation = world.activation(1).await;
    let node_id = world
        .register(registration(&activation, 0), START)
        .await
        .unwrap();
    let node = sortie_ports::State::node(&*world.state, &node_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(node.name.as_deref(), Some("web"));
    assert_eq!(node.iam_role, NODE_ROLE);
    assert_eq!(node.tags.len(), 1);
    assert_eq!(node.source_ip.as_deref(), Some("192.0.2.1"));
    assert!(!node.connected);
    assert_eq!(
        describe(&world, START).await[0]
            .activation
            .registrations_count,
        1
    );
    let record = world.record("RegisterManagedInstance");
    assert_eq!(record["userIdentity"]["accountId"], "ANONYMOUS_PRINCIPAL");
    assert_eq!(record["responseElements"]["instanceId"], node_id.as_str());
    assert_eq!(record["managementEvent"], true);
}

#[tokio::test]
async fn a_machine_may_name_itself_but_not_choose_its_tags() {
    let world = World::start().await;
    let activation = world.activation(1).await;
    let mut input = registration(&activation, 0);
    input.tags = vec![("Env".into(), "dev".into()), ("Name".into(), "db".into())];
    let node_id = world.register(input, START).await.unwrap();
    let node = sortie_ports::State::node(&*world.state, &node_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(node.name.as_deref(), Some("db"));
    assert_eq!(node.tags.len(), 1);
    assert_eq!(node.tags[0].value, "prod");
}

#[tokio::test]
async fn whoever_may_not_enrol_gets_the_code_that_fits_and_uses_nothing_up() {
    use RegisterManagedInstanceError as Error;
    let world = World::start().await;
    let activation = world.activation(1).await;

    let mut input = registration(&activation, 0);
    input.activation_id = "not-a-uuid".into();
    assert!(matches!(
        world.register(input, START).await,
        Err(Error::InvalidActivationId)
    ));
    let mut input = registration(&activation, 0);
    input.activation_id = "00000000-0000-4000-8000-000000000000".into();
    assert!(matches!(
        world.register(input, START).await,
        Err(Error::InvalidActivation)
    ));
    let mut input = registration(&activation, 0);
    input.activation_code = secret("wrongwrongwrongwrong");
    assert!(matches!(
        world.register(input, START).await,
        Err(Error::InvalidActivation)
    ));
    let expired = START.plus(Duration::from_hours(24));
    let outcome = world.register(registration(&activation, 0), expired).await;
    assert!(matches!(outcome, Err(Error::ActivationExpired)));
    for (key, kind) in [
        ("", "Rsa"),
        ("AAAA", "Rsa"),
        (SHORT_KEY, "Rsa"),
        (&public_key(0), "Ecc"),
    ] {
        let mut input = registration(&activation, 0);
        (input.public_key, input.public_key_type) = (key.into(), kind.into());
        assert!(matches!(
            world.register(input, START).await,
            Err(Error::InvalidPublicKey)
        ));
    }
    let mut input = registration(&activation, 0);
    input.fingerprint = String::new();
    assert!(matches!(
        world.register(input, START).await,
        Err(Error::InvalidParameters(_))
    ));
    assert_eq!(
        describe(&world, START).await[0]
            .activation
            .registrations_count,
        0
    );

    world
        .register(registration(&activation, 0), START)
        .await
        .unwrap();
    let outcome = world.register(registration(&activation, 1), START).await;
    assert!(matches!(outcome, Err(Error::RegistrationLimitExceeded)));
    assert_eq!(world.count("RegisterManagedInstance"), 1);
}

#[tokio::test]
async fn a_key_enrols_once_and_the_refusal_uses_nothing_up() {
    let world = World::start().await;
    let activation = world.activation(2).await;
    world
        .register(registration(&activation, 0), START)
        .await
        .unwrap();
    let outcome = world.register(registration(&activation, 0), START).await;
    let error = outcome.unwrap_err();
    assert!(matches!(
        error,
        RegisterManagedInstanceError::PublicKeyAlreadyRegistered
    ));
    assert_eq!(
        describe(&world, START).await[0]
            .activation
            .registrations_count,
        1
    );
    world
        .register(registration(&activation, 1), START)
        .await
        .unwrap();
}

#[tokio::test]
async fn deleting_an_activation_stops_enrolment_and_keeps_nodes() {
    let world = World::start().await;
    let activation = world.activation(2).await;
    let node_id = world
        .register(registration(&activation, 0), START)
        .await
        .unwrap();
    let delete = async |id: &str| {
        let call = world.admin("DeleteActivation");
        let input = DeleteActivationInput {
            activation_id: id.into(),
        };
        world.control.delete_activation(&call, input).await
    };
    let id = activation.activation_id.to_string();
    delete(&id).await.unwrap();
    let outcome = world.register(registration(&activation, 1), START).await;
    assert!(matches!(
        outcome,
        Err(RegisterManagedInstanceError::InvalidActivation)
    ));
    assert!(world.control.node_is_active(&node_id).await.unwrap());
    assert!(matches!(
        delete(&id).await,
        Err(DeleteActivationError::InvalidActivation)
    ));
    assert!(matches!(
        delete("x").await,
        Err(DeleteActivationError::InvalidActivationId)
    ));
    assert_eq!(world.count("DeleteActivation"), 1);
}

#[tokio::test]
async fn a_role_that_is_changed_while_it_is_given_to_nodes_is_judged_as_it_is_now() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let mut role = role_of(&world, "Others", "ssm.amazonaws.com").await;
    let usable = role.clone();
    role.trust_policy = trusting("ec2.amazonaws.com");
    world.overtake(Identity::Role(role.clone())).await;
    let call = world.admin("CreateActivation");
    let input = CreateActivationInput {
        iam_role: "Others".into(),
        ..CreateActivationInput::default()
    };
    let created = world.control.create_activation(&call, input.clone()).await;
    assert!(matches!(
        created,
        Err(CreateActivationError::InvalidRole(_))
    ));
    // And the other way: what stands in the way is taken out of it.
    world.overtake(Identity::Role(usable)).await;
    let call = world.admin("CreateUser");
    let user = CreateUserInput {
        name: "carol".into(),
        ..CreateUserInput::default()
    };
    world.control.create_user(&call, user).await.unwrap();
    world.overtake(Identity::Role(role)).await;
    let call = world.admin("UpdateManagedInstanceRole");
    let input = UpdateManagedInstanceRoleInput {
        instance_id: node_id.to_string(),
        iam_role: "Others".into(),
    };
    let updated = world.control.update_managed_instance_role(&call, input);
    assert!(matches!(
        updated.await,
        Err(UpdateManagedInstanceRoleError::InvalidRole(_))
    ));
}

#[tokio::test]
async fn a_role_stands_by_its_own_spelling() {
    let world = World::start().await;
    role_of(&world, "Others", "ssm.amazonaws.com").await;
    let created = create(&world, |input| input.iam_role = "oTHERS".into()).await;
    let row = world
        .state
        .activation(&created.unwrap().activation_id)
        .await;
    assert_eq!(row.unwrap().unwrap().iam_role, "Others");
    let node_id = world.enrol(0).await;
    let call = world.admin("UpdateManagedInstanceRole");
    let input = UpdateManagedInstanceRoleInput {
        instance_id: node_id.to_string(),
        iam_role: "OTHERS".into(),
    };
    let updated = world.control.update_managed_instance_role(&call, input);
    updated.await.unwrap();
    let row = world.state.node(&node_id).await;
    assert_eq!(row.unwrap().unwrap().iam_role, "Others");
}
