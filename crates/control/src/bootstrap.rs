//! What an installation begins with: an administrator, the role that nodes may be given, and
//! roles in place of the names that older installations knew.

use std::collections::BTreeMap;

use serde_json::json;
use sortie_evidence::Resource;
use sortie_ports::{
    AccessKey, Change, Commit, Conflict, Grants, Identity, Role, Signal, StoreError, User,
};
use sortie_types::{AccessKeyId, Arn, NodeId, Secret, Timestamp, UserName};

use crate::{
    Control,
    arns::role_name,
    call::InternalError,
    mint::{self, RandomError},
    seal,
};

/// The role for nodes that every installation begins with.
pub const NODE_ROLE: &str = "SortieNode";
const NODE_ROLE_DESCRIPTION: &str = "For managed nodes of Session Manager.";
/// The role of a name from before roles could be made.
const OLD_ROLE_DESCRIPTION: &str = "Made for the activations and nodes that name it.";
/// Whom a node's role trusts.
const TRUST_SSM: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ssm.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
/// What roles allow for an hour, unless asked otherwise.
const MAX_SESSION_SECONDS: i64 = 3600;
/// Rows that are read at once.
const PAGE: usize = 1000;

/// The ARN of a policy that AWS manages.
fn aws_policy(name: &str) -> Arn {
    Arn::new("iam", "", "aws", &format!("policy/{name}"))
}

fn attached(name: &str) -> Grants {
    Grants {
        attached: vec![aws_policy(name)],
        ..Grants::default()
    }
}

/// Why no administrator was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateAdministratorError {
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
}

crate::call::internal!(CreateAdministratorError);

/// The administrator that was made, with the only copy of its secret.
#[derive(Clone, Debug)]
pub struct NewAdministrator {
    /// The user.
    pub user: User,
    /// Its access key.
    pub access_key_id: AccessKeyId,
    /// The key's secret.
    pub secret: Secret,
}

impl Control {
    /// Makes an administrator, a user with leave for everything and one access key. `None` when there
    /// is a user of this name, or was an administrator of it: one that was deleted does not come back.
    /// The secret is not kept in the clear: this is the only time it can be seen.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn create_administrator(
        &self,
        name: &UserName,
        now: Timestamp,
    ) -> Result<Option<NewAdministrator>, CreateAdministratorError> {
        self.create_administrator_keeping(name, now, |_| Ok(()))
            .await
    }

    /// The same, when `keep` has put the secret where it stays: were it put there afterwards, a crash in
    /// between would leave an installation that nobody can use.
    ///
    /// # Errors
    /// When the state or `keep` fails. There is no administrator then.
    pub async fn create_administrator_keeping<E: From<CreateAdministratorError>>(
        &self,
        name: &UserName,
        now: Timestamp,
        keep: impl FnOnce(&NewAdministrator) -> Result<(), E>,
    ) -> Result<Option<NewAdministrator>, E> {
        let directory = self.directory().await;
        let directory = directory.map_err(CreateAdministratorError::from)?;
        if directory.user(name.as_str()).is_some() || self.was_made(name).await? {
            return Ok(None);
        }
        let (made, key) = self
            .new_administrator(name, now)
            .map_err(CreateAdministratorError::from)?;
        keep(&made)?;
        let revision = directory.revision();
        Ok(self.commit_administrator(made, key, revision, now).await?)
    }

    async fn was_made(&self, name: &UserName) -> Result<bool, CreateAdministratorError> {
        let name = name.as_str().to_lowercase();
        Ok(self.inner.state.administrator_made(&name).await?)
    }

    async fn commit_administrator(
        &self,
        made: NewAdministrator,
        key: AccessKey,
        revision: i64,
        now: Timestamp,
    ) -> Result<Option<NewAdministrator>, CreateAdministratorError> {
        let details = json!({
            "userName": made.user.name,
            "arn": self.inner.names.user(&made.user),
            "accessKeyId": made.access_key_id,
        });
        let commit = Commit {
            changes: vec![
                Change::RequireIdentities { revision },
                Change::InsertAdministrator {
                    name: made.user.name.as_str().to_lowercase(),
                },
                Change::PutIdentity(Box::new(Identity::User(made.user.clone()))),
                Change::PutIdentity(Box::new(Identity::AccessKey(key))),
            ],
            trail: vec![self.service_event("AdministratorCreated", details, Vec::new(), now)?],
        };
        match self.inner.state.commit(commit).await {
            Ok(()) => {
                self.inner.signals.publish(Signal::Identities);
                Ok(Some(made))
            }
            // Another server of this installation was faster.
            Err(StoreError::Conflict(Conflict::Revision)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn new_administrator(
        &self,
        name: &UserName,
        now: Timestamp,
    ) -> Result<(NewAdministrator, AccessKey), RandomError> {
        let user = User {
            unique_id: mint::user_unique_id()?,
            name: name.clone(),
            path: "/".to_owned(),
            created: now,
            grants: attached("AdministratorAccess"),
            groups: Vec::new(),
            permissions_boundary: None,
            tags: Vec::new(),
            login_profile: None,
        };
        let (access_key_id, secret) = (mint::long_lived_key()?, mint::secret_access_key()?);
        let sealer = &self.inner.access_key_sealer;
        let key = AccessKey {
            id: access_key_id.clone(),
            user: user.unique_id.clone(),
            sealed_secret: seal::seal_access_key(sealer, access_key_id.as_str(), &secret)?,
            active: true,
            created: now,
        };
        let made = NewAdministrator {
            user,
            access_key_id,
            secret,
        };
        Ok((made, key))
    }

    /// Makes the role for nodes, and one of each role that activations and nodes name, as long as
    /// nobody has changed identities: whoever deletes them later does so for good.
    pub(crate) async fn make_first_roles(&self, now: Timestamp) -> Result<(), InternalError> {
        let revision = self.inner.state.identity_revision().await?;
        if revision != 0 {
            return Ok(());
        }
        let mut roles = self.old_roles(now).await?;
        let first = || self.node_role(NODE_ROLE, NODE_ROLE_DESCRIPTION, now);
        roles.entry(NODE_ROLE.to_lowercase()).or_insert_with(first);
        let names: Vec<&str> = roles.values().map(|role| role.name.as_str()).collect();
        let details = json!({ "roleNames": names });
        let resources = roles
            .values()
            .map(|role| self.role_resource(role))
            .collect();
        let record = self.service_event("RolesCreated", details, resources, now)?;
        let require = Change::RequireIdentities { revision };
        let roles = roles
            .into_values()
            .map(|role| Change::PutIdentity(Box::new(Identity::Role(role))));
        let commit = Commit {
            changes: [require].into_iter().chain(roles).collect(),
            trail: vec![record],
        };
        match self.inner.state.commit(commit).await {
            // Another server of this installation was faster.
            Err(StoreError::Conflict(Conflict::Revision)) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// A role for each name that an activation or node has, by the name without regard to case.
    async fn old_roles(&self, now: Timestamp) -> Result<BTreeMap<String, Role>, InternalError> {
        let mut roles = BTreeMap::new();
        let mut add = |iam_role: &str| {
            let role = || self.node_role(iam_role, OLD_ROLE_DESCRIPTION, now);
            let key = role_name(iam_role).to_lowercase();
            roles.entry(key).or_insert_with(role);
        };
        // Nodes first: where two names differ by case only, what nodes act with stays.
        let mut after: Option<NodeId> = None;
        loop {
            let page = self.inner.state.nodes(after, PAGE).await?;
            page.iter().for_each(|node| add(&node.iam_role));
            match page.last() {
                Some(last) => after = Some(last.id.clone()),
                None => break,
            }
        }
        let mut after = None;
        loop {
            let page = self.inner.state.activations(after, PAGE).await?;
            page.iter().for_each(|activation| add(&activation.iam_role));
            match page.last() {
                Some(last) => after = Some((last.created, last.id)),
                None => break,
            }
        }
        Ok(roles)
    }

    /// A role that nodes may act with. Its unique id is the one that nodes of this name had before, so
    /// that what was recorded of them still fits.
    fn node_role(&self, iam_role: &str, description: &str, now: Timestamp) -> Role {
        let name = role_name(iam_role);
        let path = iam_role.strip_suffix(name).unwrap_or_default();
        let path = match path.is_empty() || path.contains(':') {
            true => "/".to_owned(),
            false => format!("/{}", path.trim_start_matches('/')),
        };
        Role {
            unique_id: self.inner.names.role_unique_id(iam_role),
            name: name.to_owned(),
            path,
            created: now,
            description: Some(description.to_owned()),
            grants: attached("AmazonSSMManagedInstanceCore"),
            trust_policy: TRUST_SSM.to_owned(),
            max_session_seconds: MAX_SESSION_SECONDS,
            permissions_boundary: None,
            tags: Vec::new(),
        }
    }

    fn role_resource(&self, role: &Role) -> Resource {
        Resource {
            kind: "AWS::IAM::Role",
            arn: self.inner.names.role_arn(role),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sortie_ports::{
        Activation, IdentityKind, Installation, LocalSignals, Node, NodeInfo, NodeState, State,
        TrailQuery,
    };
    use sortie_store::SqliteState;
    use sortie_types::{ActivationId, UniqueId};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;
    use crate::{RootKey, Settings, directory::Directory};

    const T: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    async fn fresh() -> (Arc<SqliteState>, TempDir) {
        let kept = tempfile::tempdir().unwrap();
        let state = SqliteState::open(&kept.path().join("state.db")).await;
        (Arc::new(state.unwrap()), kept)
    }

    async fn start(state: &Arc<SqliteState>) -> Control {
        let opened = Control::open(
            state.clone(),
            Arc::new(LocalSignals::default()),
            RootKey::from_bytes([7; 32]),
            Settings::new("local-1".parse().unwrap()),
            T,
        );
        opened.await.unwrap()
    }

    async fn directory(control: &Control) -> Arc<Directory> {
        control.directory().await.unwrap()
    }

    async fn recorded(state: &SqliteState) -> Vec<String> {
        let query = TrailQuery {
            limit: 100,
            ..TrailQuery::default()
        };
        let lines = state.trail(query).await.unwrap();
        lines.into_iter().map(|(_, line)| line.event_name).collect()
    }

    async fn remove(control: &Control, kind: IdentityKind, key: &UniqueId) {
        let revision = directory(control).await.revision();
        let commit = Commit {
            changes: vec![
                Change::RequireIdentities { revision },
                Change::RemoveIdentity {
                    kind,
                    key: key.to_string(),
                },
            ],
            trail: Vec::new(),
        };
        control.inner.state.commit(commit).await.unwrap();
    }

    #[tokio::test]
    async fn a_fresh_installation_has_a_role_for_nodes_and_an_administrator() {
        let (state, _kept) = fresh().await;
        let control = start(&state).await;
        let name = "admin".parse().unwrap();
        let made = control.create_administrator(&name, T).await.unwrap();
        let made = made.unwrap();
        let directory = directory(&control).await;
        let user = directory.user("admin").unwrap();
        assert_eq!(*user, made.user);
        let everything = "arn:aws:iam::aws:policy/AdministratorAccess";
        assert_eq!(user.grants.attached, [everything.parse().unwrap()]);
        assert!(
            directory
                .managed_document(&user.grants.attached[0])
                .is_some()
        );
        assert_eq!(
            directory.access_key(&made.access_key_id).unwrap().user,
            user.unique_id
        );

        let role = directory.role(NODE_ROLE).unwrap();
        let core = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
        assert_eq!(role.grants.attached, [core.parse().unwrap()]);
        assert!(
            directory
                .managed_document(&role.grants.attached[0])
                .is_some()
        );
        assert_eq!(role.path, "/");
        assert!(control.usable_role(&directory, NODE_ROLE, None).is_ok());
        assert_eq!(
            recorded(&state).await,
            ["AdministratorCreated", "RolesCreated"]
        );
    }

    #[tokio::test]
    async fn an_administrator_that_was_deleted_does_not_come_back() {
        let (state, _kept) = fresh().await;
        let control = start(&state).await;
        let make = async |name: &str| {
            let name = name.parse().unwrap();
            control.create_administrator(&name, T).await.unwrap()
        };
        let made = make("admin").await.unwrap();
        assert!(make("admin").await.is_none());
        assert!(make("ADMIN").await.is_none());
        remove(&control, IdentityKind::User, &made.user.unique_id).await;
        assert!(make("Admin").await.is_none());
        assert_eq!(directory(&control).await.users().count(), 0);
        // Whoever has lost the key takes another name.
        let other = make("rescue").await.unwrap();
        assert_eq!(directory(&control).await.user("rescue"), Some(&other.user));
    }

    fn node(number: u8, iam_role: &str) -> Node {
        Node {
            id: NodeId::from_random([number; 9]),
            state: NodeState::Active,
            activation_id: ActivationId::new(Uuid::nil()),
            iam_role: iam_role.into(),
            name: None,
            registered: T,
            source_ip: None,
            fingerprint: String::new(),
            public_key: vec![number],
            previous_public_key: None,
            info: NodeInfo::default(),
            last_ping: T,
            connected: false,
            tags: Vec::new(),
        }
    }

    fn activation(iam_role: &str) -> Activation {
        Activation {
            id: ActivationId::new(Uuid::nil()),
            code_digest: [0; 32],
            iam_role: iam_role.into(),
            description: None,
            default_instance_name: None,
            registration_limit: 1,
            registrations_count: 0,
            expires: T,
            created: T,
            tags: Vec::new(),
        }
    }

    /// An installation from before roles could be made.
    async fn old(state: &SqliteState) {
        let installation = Installation {
            account_id: "111122223333".parse().unwrap(),
            region: "local-1".parse().unwrap(),
        };
        let commit = Commit {
            changes: vec![
                Change::InsertInstallation(installation),
                Change::InsertActivation(activation("service-role/Unused")),
                Change::InsertNode(Box::new(node(1, "Nodes"))),
                Change::InsertNode(Box::new(node(2, "nodes"))),
                Change::InsertNode(Box::new(node(3, "a/b/Deep"))),
            ],
            trail: Vec::new(),
        };
        state.commit(commit).await.unwrap();
    }

    #[tokio::test]
    async fn names_of_old_become_roles_once() {
        let (state, _kept) = fresh().await;
        old(&state).await;
        let control = start(&state).await;
        let directory = directory(&control).await;
        let found: Vec<(&str, &str)> = directory
            .roles()
            .map(|role| (role.path.as_str(), role.name.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("/a/b/", "Deep"),
                ("/", "Nodes"),
                ("/", NODE_ROLE),
                ("/service-role/", "Unused"),
            ]
        );
        for iam_role in ["Nodes", "nodes", "a/b/Deep", "service-role/Unused"] {
            assert!(
                control.usable_role(&directory, iam_role, None).is_ok(),
                "{iam_role}"
            );
        }
        let role = directory.role("Nodes").unwrap();
        // What nodes were known by before.
        let before = control.inner.names.role_unique_id("Nodes");
        assert_eq!(role.unique_id, before);

        remove(&control, IdentityKind::Role, &role.unique_id).await;
        let control = start(&state).await;
        let directory = self::directory(&control).await;
        assert!(directory.role("Nodes").is_none(), "it was deleted for good");
        assert_eq!(directory.roles().count(), 3);
    }
}
