//! The table of operations, walked: each one is done by a caller who may, and leaves exactly one
//! record in its category; callers who may not change nothing and leave no success behind.
//!
//! Those of `iam` and `sortie` are walked at the doors, where one table of inputs does for all of them;
//! what they have in common is tested with the directory.

use sortie_control::{
    Access, AddTagsToResourceInput, AssumeRoleInput, Call, Caller, CreateActivationInput,
    CreateActivationOutput, CreateControlChannelInput, CreateDataChannelInput, CreateDocumentInput,
    DataOpen, DeleteActivationInput, DeregisterManagedInstanceInput, DescribeActivationsInput,
    DescribeDocumentPermissionInput, DescribeInstanceInformationInput,
    DescribeInstancePropertiesInput, DescribeSessionsInput, DocumentInput,
    GetConnectionStatusInput, GetSessionTokenInput, Holder, ListDocumentVersionsInput,
    ListDocumentsInput, ListTagsForResourceInput, LookupEventsInput, ModifyDocumentPermissionInput,
    NodeInfo, OPERATIONS, OperationRule, RemoveTagsFromResourceInput,
    RequestManagedInstanceRoleTokenInput, ResumeSessionInput, ServiceSettingInput, SessionList,
    TerminateSessionInput, UpdateDocumentInput, UpdateInstanceInformationInput,
    UpdateManagedInstancePublicKeyInput, UpdateManagedInstanceRoleInput, UpdateServiceSettingInput,
};
use sortie_evidence::Category;
use sortie_types::{NodeId, Secret, SessionId};

use crate::{
    access::{allow, deny, grant},
    sts::trusting_account,
    world::{
        FINGERPRINT, NODE_ROLE, START, World, call, nobody, public_key, registration, role_of,
        start,
    },
};

/// A document that says nothing of its own.
const SHELL: &str = r#"{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{}}"#;

/// A world in which every operation has something to act on.
struct Stage {
    world: World,
    node_id: NodeId,
    session_id: SessionId,
    client_token: Secret,
    activation: CreateActivationOutput,
    control_token: Secret,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start_with(|settings| settings.data_events = true).await;
        role_of(&world, "Others", "ssm.amazonaws.com").await;
        trusting_account(&world, "Assumed").await;
        let node_id = world.enrol(0).await;
        world.connect(&node_id, START).await;
        let session = world.session(&node_id).await;
        let create = call(world.admin_caller(), "CreateDocument", START);
        let input = CreateDocumentInput {
            name: "Staged".into(),
            content: SHELL.into(),
            document_type: Some("Session".into()),
            ..CreateDocumentInput::default()
        };
        world.control.create_document(&create, input).await.unwrap();
        let activation = world.activation(1).await;
        let create = call(world.node_caller(&node_id), "CreateControlChannel", START);
        let input = CreateControlChannelInput {
            node_id: node_id.to_string(),
        };
        let created = world.control.create_control_channel(&create, input).await;
        Self {
            node_id,
            session_id: session.session_id,
            client_token: session.token_value,
            activation,
            control_token: created.unwrap().into_inner().token_value,
            world,
        }
    }

    /// Everyone who may call an operation of this access.
    fn welcome(&self, access: Access) -> Caller {
        match access {
            Access::Anyone => nobody(),
            Access::Authenticated | Access::User => self.world.admin_caller(),
            Access::Node => self.world.node_caller(&self.node_id),
            Access::NodeKey => self.world.node_key_caller(&self.node_id),
        }
    }

    /// Some who may not.
    async fn unwelcome(&self, access: Access) -> Vec<Caller> {
        let mallory = self.world.mallory().await;
        let stranger = self.world.node_caller(&NodeId::from_random([0xee; 9]));
        match access {
            Access::Anyone => Vec::new(),
            Access::Authenticated => vec![nobody()],
            Access::User => vec![
                nobody(),
                mallory,
                self.world.node_caller(&self.node_id),
                self.world.node_key_caller(&self.node_id),
            ],
            Access::Node => vec![nobody(), mallory, self.world.admin_caller(), stranger],
            Access::NodeKey => vec![
                nobody(),
                mallory,
                self.world.admin_caller(),
                self.world.node_caller(&self.node_id),
            ],
        }
    }

    async fn perform(&self, rule: &OperationRule, caller: Caller) -> Result<(), String> {
        let call = call(caller, rule.name, START);
        match rule.access {
            Access::Anyone | Access::Node | Access::NodeKey => {
                self.node_operation(rule, &call).await
            }
            Access::Authenticated | Access::User => self.user_operation(rule, &call).await,
        }
    }

    async fn user_operation(&self, rule: &OperationRule, call: &Call) -> Result<(), String> {
        let control = &self.world.control;
        let node = self.node_id.to_string();
        let session_id = self.session_id.to_string();
        match rule.name {
            "AddTagsToResource" => {
                let tags = vec![("Team".into(), "a".into())];
                let resource_type = "ManagedInstance".into();
                let input = AddTagsToResourceInput {
                    resource_type,
                    resource_id: node,
                    tags,
                };
                done(control.add_tags_to_resource(call, input).await)
            }
            "AssumeRole" => {
                let account = control.account_id();
                let input = AssumeRoleInput {
                    role_arn: format!("arn:aws:iam::{account}:role/Assumed"),
                    role_session_name: "walked".into(),
                    ..AssumeRoleInput::default()
                };
                done(control.assume_role(call, input).await)
            }
            "CreateActivation" => {
                let iam_role = NODE_ROLE.into();
                let input = CreateActivationInput {
                    iam_role,
                    ..Default::default()
                };
                done(control.create_activation(call, input).await)
            }
            "CreateDocument" => {
                let input = CreateDocumentInput {
                    name: "Walked".into(),
                    content: SHELL.into(),
                    document_type: Some("Session".into()),
                    ..CreateDocumentInput::default()
                };
                done(control.create_document(call, input).await)
            }
            "UpdateDocument" => {
                let input = UpdateDocumentInput {
                    name: "Staged".into(),
                    content: format!("{SHELL} "),
                    ..UpdateDocumentInput::default()
                };
                done(control.update_document(call, input).await)
            }
            "UpdateDocumentDefaultVersion" => {
                let input = DocumentInput {
                    version: Some("1".into()),
                    ..staged()
                };
                done(control.update_document_default_version(call, input).await)
            }
            "DeleteDocument" => done(control.delete_document(call, staged()).await),
            "GetDocument" => done(control.get_document(call, staged(), None).await),
            "DescribeDocument" => done(control.describe_document(call, staged()).await),
            "ListDocuments" => {
                let input = ListDocumentsInput::default();
                done(control.list_documents(call, input).await)
            }
            "ListDocumentVersions" => {
                let input = ListDocumentVersionsInput {
                    name: "Staged".into(),
                    ..ListDocumentVersionsInput::default()
                };
                done(control.list_document_versions(call, input).await)
            }
            "DescribeDocumentPermission" => {
                let input = DescribeDocumentPermissionInput {
                    name: "Staged".into(),
                    ..DescribeDocumentPermissionInput::default()
                };
                done(control.describe_document_permission(call, input).await)
            }
            "ModifyDocumentPermission" => {
                let input = ModifyDocumentPermissionInput {
                    name: "Staged".into(),
                    add: vec!["444455556666".into()],
                    ..ModifyDocumentPermissionInput::default()
                };
                done(control.modify_document_permission(call, input).await)
            }
            "GetServiceSetting" => done(control.get_service_setting(call, tier()).await),
            "ResetServiceSetting" => done(control.reset_service_setting(call, tier()).await),
            "UpdateServiceSetting" => {
                let input = UpdateServiceSettingInput {
                    setting_id: tier().setting_id,
                    setting_value: "standard".into(),
                };
                done(control.update_service_setting(call, input).await)
            }
            "DeleteActivation" => {
                let activation_id = self.activation.activation_id.to_string();
                done(
                    control
                        .delete_activation(call, DeleteActivationInput { activation_id })
                        .await,
                )
            }
            "DeregisterManagedInstance" => {
                let input = DeregisterManagedInstanceInput { instance_id: node };
                done(control.deregister_managed_instance(call, input).await)
            }
            "DescribeActivations" => done(
                control
                    .describe_activations(call, DescribeActivationsInput::default())
                    .await,
            ),
            "DescribeInstanceInformation" => {
                let input = DescribeInstanceInformationInput::default();
                done(control.describe_instance_information(call, input).await)
            }
            "DescribeInstanceProperties" => {
                let input = DescribeInstancePropertiesInput::default();
                done(control.describe_instance_properties(call, input).await)
            }
            "DescribeSessions" => {
                let input = DescribeSessionsInput {
                    state: SessionList::Active,
                    filters: Vec::new(),
                    max_results: None,
                    next_token: None,
                };
                done(control.describe_sessions(call, input).await)
            }
            "GetCallerIdentity" => done(control.get_caller_identity(call).await),
            "GetConnectionStatus" => {
                let input = GetConnectionStatusInput { target: node };
                done(control.get_connection_status(call, input).await)
            }
            "GetSessionToken" => {
                let input = GetSessionTokenInput::default();
                done(control.get_session_token(call, input).await)
            }
            "ListTagsForResource" => {
                let resource_type = "ManagedInstance".into();
                let input = ListTagsForResourceInput {
                    resource_type,
                    resource_id: node,
                };
                done(control.list_tags_for_resource(call, input).await)
            }
            "LookupEvents" => done(
                control
                    .lookup_events(call, LookupEventsInput::default())
                    .await,
            ),
            "RemoveTagsFromResource" => {
                let input = RemoveTagsFromResourceInput {
                    resource_type: "ManagedInstance".into(),
                    resource_id: node,
                    tag_keys: vec!["Env".into()],
                };
                done(control.remove_tags_from_resource(call, input).await)
            }
            "ResumeSession" => {
                let stream_base = "wss://x".into();
                let input = ResumeSessionInput {
                    session_id,
                    stream_base,
                };
                done(control.resume_session(call, input).await)
            }
            "StartSession" => done(control.start_session(call, start(&node)).await),
            "TerminateSession" => done(
                control
                    .terminate_session(call, TerminateSessionInput { session_id })
                    .await,
            ),
            "UpdateManagedInstanceRole" => {
                let iam_role = "Others".into();
                let input = UpdateManagedInstanceRoleInput {
                    instance_id: node,
                    iam_role,
                };
                done(control.update_managed_instance_role(call, input).await)
            }
            other => panic!("{other} is in the table and not walked"),
        }
    }

    async fn node_operation(&self, rule: &OperationRule, call: &Call) -> Result<(), String> {
        let control = &self.world.control;
        let node = self.node_id.to_string();
        match rule.name {
            "CreateControlChannel" => {
                let input = CreateControlChannelInput { node_id: node };
                done(control.create_control_channel(call, input).await)
            }
            "CreateDataChannel" => {
                let session_id = self.session_id.to_string();
                let input = CreateDataChannelInput { session_id };
                done(control.create_data_channel(call, input).await)
            }
            "OpenControlChannel" => {
                let token = &self.control_token;
                done(control.accept_control_channel(call, &node, token).await)
            }
            // Judged by its token alone: whoever has none is refused.
            "OpenDataChannel" => {
                let welcome =
                    matches!(&call.caller, Caller::Node(node) if node.node_id == self.node_id);
                let token = if welcome {
                    self.client_token.clone()
                } else {
                    Secret::new("SRT1.x")
                };
                let open = DataOpen {
                    secure_transport: true,
                    token,
                    client_id: "c".into(),
                    node_id: None,
                    source_ip: "192.0.2.9".into(),
                    user_agent: None,
                    signed_by: None,
                };
                done(
                    control
                        .accept_data_channel(self.session_id.as_str(), open, START)
                        .await,
                )
            }
            "RegisterManagedInstance" => {
                let input = registration(&self.activation, 1);
                done(control.register_managed_instance(call, input).await)
            }
            "RequestManagedInstanceRoleToken" => {
                let fingerprint = FINGERPRINT.into();
                let input = RequestManagedInstanceRoleTokenInput { fingerprint };
                done(
                    control
                        .request_managed_instance_role_token(call, input)
                        .await,
                )
            }
            "UpdateInstanceInformation" => {
                let info = NodeInfo::default();
                let input = UpdateInstanceInformationInput {
                    instance_id: node,
                    info,
                };
                done(control.update_instance_information(call, input).await)
            }
            "UpdateManagedInstancePublicKey" => {
                let input = UpdateManagedInstancePublicKeyInput {
                    new_public_key: public_key(2),
                    new_public_key_type: "Rsa".into(),
                };
                done(
                    control
                        .update_managed_instance_public_key(call, input)
                        .await,
                )
            }
            _ => done(control.quiet(call, Some(&node)).await),
        }
    }
}

fn staged() -> DocumentInput {
    DocumentInput {
        name: "Staged".into(),
        ..DocumentInput::default()
    }
}

fn tier() -> ServiceSettingInput {
    ServiceSettingInput {
        setting_id: "/ssm/managed-instance/activation-tier".into(),
    }
}

fn done<T, E: std::fmt::Display>(outcome: Result<T, E>) -> Result<(), String> {
    outcome.map(|_| ()).map_err(|error| error.to_string())
}

fn walked() -> impl Iterator<Item = &'static OperationRule> {
    let elsewhere = ["iam", "sortie"];
    OPERATIONS
        .iter()
        .filter(move |rule| !elsewhere.contains(&rule.service))
}

#[tokio::test]
async fn every_operation_leaves_one_record_of_its_category() {
    for rule in walked() {
        let stage = Stage::set().await;
        let before = stage.world.count(rule.name);
        let outcome = stage.perform(rule, stage.welcome(rule.access)).await;
        outcome.unwrap_or_else(|error| panic!("{}: {error}", rule.name));
        assert_eq!(stage.world.count(rule.name), before + 1, "{}", rule.name);
        let record = stage.world.record(rule.name);
        assert!(record.get("errorCode").is_none(), "{}", rule.name);
        let category = match rule.category {
            Category::Data => "Data",
            Category::Management => "Management",
        };
        assert_eq!(record["eventCategory"], category, "{}", rule.name);
        assert_eq!(record["awsRegion"], "local-1");
        if rule.service == "ssmmessages" {
            assert_eq!(record["eventSource"], "ssm.amazonaws.com");
        }
        assert!(
            !stage.world.record(rule.name).to_string().contains("SRT1."),
            "{}",
            rule.name
        );
    }
}

#[tokio::test]
async fn no_operation_is_done_for_those_who_may_not() {
    for rule in walked() {
        let stage = Stage::set().await;
        let node = async || {
            let node = sortie_ports::State::node(&*stage.world.state, &stage.node_id).await;
            node.unwrap()
        };
        let (node_before, session_before) = (
            node().await,
            stage.world.session_row(&stage.session_id).await,
        );
        let succeeded = |name: &str| {
            let records = stage.world.records().into_iter();
            let of_name = records.filter(|record| record["eventName"] == name);
            of_name
                .filter(|record| record.get("errorCode").is_none())
                .count()
        };
        let before = succeeded(rule.name);
        for caller in stage.unwelcome(rule.access).await {
            // AWS's policy for nodes lets them read documents.
            let reads = matches!(rule.name, "DescribeDocument" | "GetDocument");
            if reads && matches!(&caller, Caller::Node(node) if node.access_key_id.is_some()) {
                continue;
            }
            let outcome = stage.perform(rule, caller.clone()).await;
            assert!(outcome.is_err(), "{} as {caller:?}", rule.name);
        }
        assert_eq!(succeeded(rule.name), before, "{}", rule.name);
        assert_eq!(node().await, node_before, "{}", rule.name);
        let session = stage.world.session_row(&stage.session_id).await;
        assert_eq!(session, session_before, "{}", rule.name);
    }
}

/// A node's operations without a policy of its role, with exactly the documented action, and with that
/// action denied. The opening of a data channel is judged by its token alone.
#[tokio::test]
async fn a_node_needs_exactly_the_documented_action_for_each_of_its_operations() {
    let of_nodes =
        |rule: &&OperationRule| rule.access == Access::Node && rule.name != "OpenDataChannel";
    for rule in walked().filter(of_nodes) {
        let stage = Stage::set().await;
        let role = role_of(&stage.world, "Walked", "ssm.amazonaws.com").await;
        let mut caller = stage.world.node_caller(&stage.node_id);
        if let Caller::Node(node) = &mut caller {
            node.iam_role = role.name.clone();
            node.role = Some(role.clone());
        }
        let refused = async |why: &str| {
            let outcome = stage.perform(rule, caller.clone()).await;
            let said = outcome.expect_err(rule.name);
            let who = format!(
                "assumed-role/Walked/{} is not authorized to perform: {} ",
                stage.node_id, rule.action
            );
            assert!(said.contains(&who), "{}: {said}", rule.name);
            assert!(said.ends_with(why), "{}: {said}", rule.name);
        };
        let allows = format!(
            "because no identity-based policy allows the {} action",
            rule.action
        );
        refused(&allows).await;
        let holder = Holder::Role("Walked".into());
        grant(&stage.world, &holder, "own", &[allow(rule.action, "*")]).await;
        let outcome = stage.perform(rule, caller.clone()).await;
        assert_eq!(outcome, Ok(()), "{}", rule.name);
        let denied = [allow("*", "*"), deny(rule.action, "*")];
        grant(&stage.world, &holder, "own", &denied).await;
        refused("with an explicit deny in an identity-based policy").await;
    }
}

#[tokio::test]
async fn no_operation_changes_anything_when_its_record_cannot_be_written() {
    for rule in walked() {
        let stage = Stage::set().await;
        let node = async || {
            let node = sortie_ports::State::node(&*stage.world.state, &stage.node_id).await;
            node.unwrap()
        };
        let before = (
            node().await,
            stage.world.session_row(&stage.session_id).await,
        );
        stage.world.fail_commits(true);
        let outcome = stage.perform(rule, stage.welcome(rule.access)).await;
        assert!(
            outcome.is_err(),
            "{} answered without its record",
            rule.name
        );
        stage.world.fail_commits(false);
        let after = (
            node().await,
            stage.world.session_row(&stage.session_id).await,
        );
        assert_eq!(after, before, "{}", rule.name);
    }
}
