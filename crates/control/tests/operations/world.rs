//! What the tests stand on: control on a real SQLite state in a temporary directory, an
//! administrator, and nodes that enrol with real keys. The state is watched, so that a test sees
//! every record that was committed, and can make a commit fail.

use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa::{KeySize, PrivateDecryptingKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sortie_control::{
    Authorized, Call, Caller, Control, CreateActivationInput, CreateActivationOutput,
    CreateUserInput, NewAdministrator, NodeCaller, RegisterManagedInstanceError,
    RegisterManagedInstanceInput, RootKey, Settings, StartSessionInput, StartSessionOutput,
    UserCaller,
};
use sortie_evidence::AuditRecord;
use sortie_ports::{
    Activation, Change, Commit, Document, DocumentVersion, DocumentVersionKey, Identities,
    Identity, IdentityKind, IdentityUse, Installation, LocalSignals, Node, NodeInfo, Role,
    ServiceSetting, Session, SessionQuery, State, StoreError, TrailEntry, TrailQuery,
};
use sortie_store::SqliteState;
use sortie_types::{AccessKeyId, ActivationId, NodeId, Secret, SessionId, Timestamp};
use tempfile::TempDir;
use uuid::Uuid;

/// When every test begins.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_777_881_600_000);

/// The role that a fresh installation has for nodes.
pub(crate) const NODE_ROLE: &str = "SortieNode";

/// The fingerprint that nodes enrol with.
pub(crate) const FINGERPRINT: &str = "11111111-2222-4333-8444-555555555555";

/// The real state, observed.
pub(crate) struct Watched {
    inner: SqliteState,
    records: Mutex<Vec<AuditRecord>>,
    failing: AtomicBool,
    overtaking: Mutex<Option<Commit>>,
}

#[async_trait]
impl State for Watched {
    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::Closed);
        }
        let overtaking = self.overtaking.lock().unwrap().take();
        if let Some(overtaking) = overtaking {
            self.inner.commit(overtaking).await?;
        }
        let records = commit.trail.clone();
        self.inner.commit(commit).await?;
        self.records.lock().unwrap().extend(records);
        Ok(())
    }

    async fn installation(&self) -> Result<Option<Installation>, StoreError> {
        self.inner.installation().await
    }

    async fn administrator_made(&self, name: &str) -> Result<bool, StoreError> {
        self.inner.administrator_made(name).await
    }

    async fn identity_revision(&self) -> Result<i64, StoreError> {
        self.inner.identity_revision().await
    }

    async fn identities(&self, known: Option<i64>) -> Result<Option<Identities>, StoreError> {
        self.inner.identities(known).await
    }

    async fn identity_use(
        &self,
        kind: IdentityKind,
        key: &str,
    ) -> Result<Option<IdentityUse>, StoreError> {
        self.inner.identity_use(kind, key).await
    }

    async fn activation(&self, id: &ActivationId) -> Result<Option<Activation>, StoreError> {
        self.inner.activation(id).await
    }

    async fn activations(
        &self,
        after: Option<(Timestamp, ActivationId)>,
        limit: usize,
    ) -> Result<Vec<Activation>, StoreError> {
        self.inner.activations(after, limit).await
    }

    async fn document(
        &self,
        name: &str,
    ) -> Result<Option<(Document, DocumentVersion)>, StoreError> {
        self.inner.document(name).await
    }

    async fn documents(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(Document, DocumentVersion)>, StoreError> {
        self.inner.documents(after, limit).await
    }

    async fn document_version(
        &self,
        name: &str,
        key: DocumentVersionKey<'_>,
    ) -> Result<Option<DocumentVersion>, StoreError> {
        self.inner.document_version(name, key).await
    }

    async fn document_versions(
        &self,
        name: &str,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<DocumentVersion>, StoreError> {
        self.inner.document_versions(name, before, limit).await
    }

    async fn service_setting(&self, id: &str) -> Result<Option<ServiceSetting>, StoreError> {
        self.inner.service_setting(id).await
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        self.inner.node(id).await
    }

    async fn nodes(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<Node>, StoreError> {
        self.inner.nodes(after, limit).await
    }

    async fn session(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        self.inner.session(id).await
    }

    async fn sessions(&self, query: SessionQuery) -> Result<Vec<Session>, StoreError> {
        self.inner.sessions(query).await
    }

    async fn trail(&self, query: TrailQuery) -> Result<Vec<(i64, TrailEntry)>, StoreError> {
        self.inner.trail(query).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

pub(crate) struct World {
    pub(crate) control: Control,
    pub(crate) state: Arc<Watched>,
    pub(crate) signals: Arc<LocalSignals>,
    pub(crate) administrator: NewAdministrator,
    pub(crate) root_key: RootKey,
    /// The role that nodes act with.
    pub(crate) node_role: Role,
    directory: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = TempDir::new().unwrap();
        let state = open_state(&directory).await;
        let signals = Arc::new(LocalSignals::default());
        let root_key = RootKey::generate().unwrap();
        let mut settings = Settings::new("local-1".parse().unwrap());
        change(&mut settings);
        let control = Control::open(
            state.clone(),
            signals.clone(),
            root_key.clone(),
            settings,
            START,
        )
        .await
        .unwrap();
        let name = "admin".parse().unwrap();
        let made = control.create_administrator(&name, START).await.unwrap();
        let node_role = node_role(state.as_ref()).await;
        Self {
            control,
            state,
            signals,
            administrator: made.unwrap(),
            root_key,
            node_role,
            directory,
        }
    }

    /// The same installation after a restart of the server.
    pub(crate) async fn restart(mut self, now: Timestamp) -> Self {
        self.state.close().await;
        let Self { control, state, .. } = self;
        let settings = control.settings().clone();
        drop((control, state));
        self.state = open_state(&self.directory).await;
        self.control = Control::open(
            self.state.clone(),
            self.signals.clone(),
            self.root_key.clone(),
            settings,
            now,
        )
        .await
        .unwrap();
        self
    }

    /// Whether commits fail from now on.
    pub(crate) fn fail_commits(&self, failing: bool) {
        self.state.failing.store(failing, Ordering::SeqCst);
    }

    /// Changes identities as another server would, just before the next commit from here.
    pub(crate) async fn overtake(&self, identity: Identity) {
        let revision = self.state.identity_revision().await.unwrap();
        let commit = Commit {
            changes: vec![
                Change::RequireIdentities { revision },
                Change::PutIdentity(Box::new(identity)),
            ],
            trail: Vec::new(),
        };
        *self.state.overtaking.lock().unwrap() = Some(commit);
    }

    /// Every record committed since the start, as written.
    pub(crate) fn records(&self) -> Vec<Value> {
        let records = self.state.records.lock().unwrap();
        records.iter().map(AuditRecord::to_json).collect()
    }

    /// The newest record of a name.
    pub(crate) fn record(&self, name: &str) -> Value {
        let found = self.records().into_iter().rev();
        let mut found = found.filter(|record| record["eventName"] == name);
        found
            .next()
            .unwrap_or_else(|| panic!("no record of {name}"))
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        let records = self.records().into_iter();
        records.filter(|record| record["eventName"] == name).count()
    }

    pub(crate) fn admin(&self, name: &'static str) -> Call {
        call(self.admin_caller(), name, START)
    }

    pub(crate) fn admin_at(&self, name: &'static str, now: Timestamp) -> Call {
        call(self.admin_caller(), name, now)
    }

    pub(crate) fn admin_caller(&self) -> Caller {
        Caller::User(Box::new(UserCaller {
            user: self.administrator.user.clone(),
            access_key_id: self.administrator.access_key_id.clone(),
            session: None,
        }))
    }

    /// Another user, who may do nothing.
    pub(crate) async fn mallory(&self) -> Caller {
        let input = CreateUserInput {
            name: "mallory".into(),
            ..CreateUserInput::default()
        };
        let call = self.admin("CreateUser");
        let made = self.control.create_user(&call, input).await;
        Caller::User(Box::new(UserCaller {
            user: made.unwrap().into_inner().user,
            access_key_id: AccessKeyId::long_lived([77; 16]),
            session: None,
        }))
    }

    pub(crate) async fn activation(&self, limit: i64) -> CreateActivationOutput {
        let input = CreateActivationInput {
            iam_role: NODE_ROLE.into(),
            default_instance_name: Some("web".into()),
            registration_limit: Some(limit),
            tags: vec![("Env".into(), "prod".into())],
            ..CreateActivationInput::default()
        };
        let call = self.admin("CreateActivation");
        let made = self.control.create_activation(&call, input).await;
        made.unwrap().into_inner()
    }

    /// A node with the key of this number.
    pub(crate) async fn enrol(&self, key: usize) -> NodeId {
        let activation = self.activation(1).await;
        let input = registration(&activation, key);
        self.register(input, START).await.unwrap()
    }

    pub(crate) async fn register(
        &self,
        input: RegisterManagedInstanceInput,
        now: Timestamp,
    ) -> Result<NodeId, RegisterManagedInstanceError> {
        let call = call(nobody(), "RegisterManagedInstance", now);
        let outcome = self.control.register_managed_instance(&call, input).await;
        outcome.map(|recorded| recorded.into_inner().node_id)
    }

    /// The node as it calls with temporary credentials.
    pub(crate) fn node_caller(&self, node_id: &NodeId) -> Caller {
        Caller::Node(Box::new(NodeCaller {
            node_id: node_id.clone(),
            iam_role: NODE_ROLE.into(),
            role: Some(self.node_role.clone()),
            access_key_id: Some(AccessKeyId::temporary([9; 16])),
            issued: Some(START),
        }))
    }

    /// The node as it calls with its own key.
    pub(crate) fn node_key_caller(&self, node_id: &NodeId) -> Caller {
        Caller::Node(Box::new(NodeCaller {
            node_id: node_id.clone(),
            iam_role: NODE_ROLE.into(),
            role: Some(self.node_role.clone()),
            access_key_id: None,
            issued: None,
        }))
    }

    /// Opens the node's control channel as the gateway does.
    pub(crate) async fn connect(&self, node_id: &NodeId, now: Timestamp) -> Authorized<NodeId> {
        let caller = self.node_caller(node_id);
        let create = call(caller.clone(), "CreateControlChannel", now);
        let input = sortie_control::CreateControlChannelInput {
            node_id: node_id.to_string(),
        };
        let answer = self.control.create_control_channel(&create, input).await;
        let token = answer.unwrap().into_inner().token_value;
        let open = call(caller, "OpenControlChannel", now);
        let node = self
            .control
            .accept_control_channel(&open, node_id.as_str(), &token)
            .await
            .unwrap();
        let info = NodeInfo {
            agent_version: Some("3.3.9999.0".into()),
            platform_type: Some("Linux".into()),
            ..NodeInfo::default()
        };
        let address = "192.0.2.7".to_owned();
        self.control
            .node_online(&node, info, address, now)
            .await
            .unwrap();
        node
    }

    /// A session on a connected node.
    pub(crate) async fn session(&self, node_id: &NodeId) -> StartSessionOutput {
        let call = self.admin("StartSession");
        let outcome = self
            .control
            .start_session(&call, start(node_id.as_str()))
            .await;
        outcome.unwrap().into_inner()
    }

    pub(crate) async fn session_row(&self, id: &SessionId) -> Session {
        self.control.session(id).await.unwrap().unwrap()
    }
}

async fn node_role(state: &dyn State) -> Role {
    let identities = state.identities(None).await.unwrap().unwrap();
    let roles = identities.rows.into_iter().filter_map(|row| match row {
        Identity::Role(role) => Some(role),
        _ => None,
    });
    let mut roles = roles.filter(|role| role.name == NODE_ROLE);
    roles.next().unwrap()
}

async fn open_state(directory: &TempDir) -> Arc<Watched> {
    let inner = SqliteState::open(&directory.path().join("state.db")).await;
    Arc::new(Watched {
        inner: inner.unwrap(),
        records: Mutex::default(),
        failing: AtomicBool::new(false),
        overtaking: Mutex::default(),
    })
}

pub(crate) fn nobody() -> Caller {
    Caller::Anonymous { access_key: None }
}

pub(crate) fn call(caller: Caller, name: &'static str, now: Timestamp) -> Call {
    let rule = sortie_control::OPERATIONS
        .iter()
        .find(|rule| rule.name == name);
    let event_source = match rule.map(|rule| rule.service) {
        Some("iam") => "iam.amazonaws.com",
        Some("sts") => "sts.amazonaws.com",
        Some("cloudtrail") => "cloudtrail.amazonaws.com",
        Some("ssmmessages") => "ssmmessages.amazonaws.com",
        Some("ec2messages") => "ec2messages.amazonaws.com",
        _ => "ssm.amazonaws.com",
    };
    Call {
        request_id: Uuid::new_v4(),
        caller,
        source_ip: "192.0.2.1".into(),
        user_agent: Some("test".into()),
        referer: None,
        secure_transport: true,
        event_source,
        event_name: name,
        read_only: ["Describe", "Get", "List", "Lookup"]
            .iter()
            .any(|verb| name.starts_with(verb)),
        request_parameters: json!({"given": name}),
        now,
    }
}

pub(crate) fn start(target: &str) -> StartSessionInput {
    StartSessionInput {
        target: target.into(),
        document_name: None,
        parameters: std::collections::BTreeMap::new(),
        reason: Some("to look".into()),
        stream_base: "wss://sortie.example:7443".into(),
    }
}

pub(crate) fn registration(
    activation: &CreateActivationOutput,
    key: usize,
) -> RegisterManagedInstanceInput {
    RegisterManagedInstanceInput {
        activation_id: activation.activation_id.to_string(),
        activation_code: activation.activation_code.clone(),
        public_key: public_key(key),
        public_key_type: "Rsa".into(),
        fingerprint: FINGERPRINT.into(),
        tags: Vec::new(),
    }
}

/// A real public key, base64 of its DER; the same for the same number within a run.
pub(crate) fn public_key(number: usize) -> String {
    static KEYS: [OnceLock<String>; 4] = [const { OnceLock::new() }; 4];
    let make = || {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        STANDARD.encode(der.as_ref())
    };
    KEYS[number].get_or_init(make).clone()
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text)
}

/// A trust policy of a service.
pub(crate) fn trusting(service: &str) -> String {
    let trust = json!({
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole",
        },
    });
    trust.to_string()
}

/// A new role that a service may assume, without policies.
pub(crate) async fn role_of(world: &World, name: &str, service: &str) -> Role {
    let input = sortie_control::CreateRoleInput {
        name: name.into(),
        trust_policy: trusting(service),
        ..sortie_control::CreateRoleInput::default()
    };
    let call = world.admin("CreateRole");
    let made = world.control.create_role(&call, input).await;
    made.unwrap().into_inner().role
}
