//! The identities of one moment, with the ways to find them: what every call is judged by. Made from
//! the rows of the state, kept until their revision is another, and changed only by an edit that
//! holds as long as nobody else changed anything.
//!
//! Knows rows and policies; who may do what with them is decided in `authorize`, and what an
//! operation means is in `iam`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use sortie_evidence::Resource;
use sortie_iam::{NamedPolicy, Policy, PolicyKind, PolicySource};
use sortie_ports::{
    AccessKey, Change, Conflict, Grants, Group, Identities, Identity, ManagedPolicy, MfaDevice,
    Role, Signal, StoreError, User,
};
use sortie_types::{AccessKeyId, AccountId, Arn, UniqueId};
use tokio::sync::Semaphore;

use crate::{
    Control,
    authorize::{Ask, Authorized, OperationRule},
    call::{Call, InternalError, Recorded},
    iam::error::IamError,
    trail::Done,
};

/// How often an edit is tried while other servers change identities.
const ATTEMPTS: usize = 16;

/// All identities of one revision.
#[derive(Debug)]
pub(crate) struct Directory {
    revision: i64,
    account: AccountId,
    users: Named<User>,
    groups: Named<Group>,
    roles: Named<Role>,
    policies: Named<ManagedPolicy>,
    /// Places of [`Self::policies`] by ARN.
    policies_by_arn: HashMap<Arn, usize>,
    /// Places of the users of each group.
    members: HashMap<UniqueId, Vec<usize>>,
    access_keys: HashMap<AccessKeyId, AccessKey>,
    access_keys_of: HashMap<UniqueId, Vec<AccessKeyId>>,
    mfa_devices: BTreeMap<String, MfaDevice>,
    mfa_devices_of: HashMap<UniqueId, Vec<String>>,
    attachments: HashMap<Arn, Uses>,
    parsed: Parsed,
    /// By place of the user.
    user_policies: Vec<OnceLock<PrincipalPolicies>>,
    /// By place of the role.
    role_policies: Vec<OnceLock<PrincipalPolicies>>,
}

/// Rows with a name, in order of it without regard to case.
#[derive(Debug)]
struct Named<T> {
    rows: Vec<T>,
    by_name: HashMap<String, usize>,
    by_id: HashMap<UniqueId, usize>,
}

/// What has a name and a unique id.
trait Identified {
    fn name(&self) -> &str;
    fn unique_id(&self) -> &UniqueId;
}

macro_rules! identified {
    ($($row:ty: $name:ident => $text:expr;)*) => {$(
        impl Identified for $row {
            fn name(&self) -> &str {
                let $name = &self.name;
                $text
            }

            fn unique_id(&self) -> &UniqueId {
                &self.unique_id
            }
        }
    )*};
}

identified! {
    Group: name => name;
    ManagedPolicy: name => name;
    Role: name => name;
    User: name => name.as_str();
}

impl<T: Identified> Named<T> {
    fn new(mut rows: Vec<T>) -> Self {
        rows.sort_by_cached_key(|row| (row.name().to_lowercase(), row.unique_id().clone()));
        let mut by_name = HashMap::with_capacity(rows.len());
        let mut by_id = HashMap::with_capacity(rows.len());
        for (place, row) in rows.iter().enumerate() {
            // Names differ by more than case, but for what was written before that was so.
            by_name.entry(row.name().to_lowercase()).or_insert(place);
            by_id.insert(row.unique_id().clone(), place);
        }
        Self {
            rows,
            by_name,
            by_id,
        }
    }

    fn named(&self, name: &str) -> Option<&T> {
        self.rows.get(*self.by_name.get(&name.to_lowercase())?)
    }

    fn identified(&self, id: &UniqueId) -> Option<&T> {
        self.rows.get(*self.by_id.get(id)?)
    }

    /// The place of a row that is one of these, not a changed copy.
    fn place(&self, row: &T) -> Option<usize> {
        let place = *self.by_id.get(row.unique_id())?;
        let own = self.rows.get(place)?;
        std::ptr::eq(own, row).then_some(place)
    }

    fn at<'a>(&'a self, places: Option<&'a Vec<usize>>) -> impl Iterator<Item = &'a T> {
        let places = places.into_iter().flatten();
        places.filter_map(|place| self.rows.get(*place))
    }
}

/// Places of those that use a managed policy.
#[derive(Debug, Default)]
struct Uses {
    users: Vec<usize>,
    groups: Vec<usize>,
    roles: Vec<usize>,
    bounded_users: Vec<usize>,
    bounded_roles: Vec<usize>,
}

/// Who uses a managed policy, each in order of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attachments<'a> {
    /// It is attached to these users.
    pub(crate) users: Vec<&'a User>,
    /// It is attached to these groups.
    pub(crate) groups: Vec<&'a Group>,
    /// It is attached to these roles.
    pub(crate) roles: Vec<&'a Role>,
    /// It bounds these users and roles.
    pub(crate) boundaries: Vec<&'a UniqueId>,
}

/// The policies of a user or role, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrincipalPolicies {
    /// Its own and those of its groups.
    pub(crate) identity: Vec<NamedPolicy>,
    /// What bounds it.
    pub(crate) boundary: Option<NamedPolicy>,
}

/// Policies that were read, by kind and digest of their text.
type Parsed = HashMap<(PolicyKind, [u8; 32]), Arc<Policy>>;

fn text_digest(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes
        .iter_mut()
        .zip(digest(&SHA256, text.as_bytes()).as_ref())
    {
        *to = *from;
    }
    bytes
}

/// What takes the place of a policy that is not there or cannot be read: nobody knows what it denied.
#[expect(clippy::expect_used, reason = "constant texts, read by a test")]
static DENY_ALL: LazyLock<(Arc<Policy>, Arc<Policy>)> = LazyLock::new(|| {
    let identity = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}"#;
    let trust = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Principal": "*", "Action": "sts:*"}}"#;
    let read = |text, kind| Arc::new(Policy::parse(text, kind).expect("valid"));
    (
        read(identity, PolicyKind::Identity),
        read(trust, PolicyKind::Trust),
    )
});

fn deny_all(kind: PolicyKind) -> Arc<Policy> {
    let (identity, trust) = &*DENY_ALL;
    Arc::clone(match kind {
        PolicyKind::Resource | PolicyKind::Trust => trust,
        PolicyKind::Boundary | PolicyKind::Identity | PolicyKind::Session => identity,
    })
}

/// Rows by kind.
#[derive(Default)]
struct Sorted {
    users: Vec<User>,
    groups: Vec<Group>,
    roles: Vec<Role>,
    policies: Vec<ManagedPolicy>,
    access_keys: HashMap<AccessKeyId, AccessKey>,
    mfa_devices: BTreeMap<String, MfaDevice>,
}

impl Sorted {
    fn new(rows: Vec<Identity>) -> Self {
        let mut sorted = Self::default();
        for row in rows {
            match row {
                Identity::AccessKey(key) => {
                    sorted.access_keys.insert(key.id.clone(), key);
                }
                Identity::Group(group) => sorted.groups.push(group),
                Identity::MfaDevice(device) => {
                    let serial_number = device.serial_number.to_string();
                    sorted.mfa_devices.insert(serial_number, device);
                }
                Identity::Policy(policy) => sorted.policies.push(policy),
                Identity::Role(role) => sorted.roles.push(role),
                Identity::User(user) => sorted.users.push(user),
            }
        }
        sorted
    }
}

impl Directory {
    /// The directory of these rows. What `before` has read of policies is not read again.
    pub(crate) fn new(
        identities: Identities,
        account: &AccountId,
        before: Option<&Directory>,
    ) -> Self {
        let Identities { revision, rows } = identities;
        let sorted = Sorted::new(rows);
        let policies = Named::new(sorted.policies);
        let (users, roles) = (Named::new(sorted.users), Named::new(sorted.roles));
        let mut directory = Self {
            revision,
            account: account.clone(),
            policies_by_arn: by_arn(account, &policies),
            members: members(&users),
            access_keys_of: access_keys_of(&sorted.access_keys),
            mfa_devices_of: mfa_devices_of(&sorted.mfa_devices),
            attachments: HashMap::new(),
            parsed: Parsed::new(),
            user_policies: users.rows.iter().map(|_| OnceLock::new()).collect(),
            role_policies: roles.rows.iter().map(|_| OnceLock::new()).collect(),
            users,
            groups: Named::new(sorted.groups),
            roles,
            policies,
            access_keys: sorted.access_keys,
            mfa_devices: sorted.mfa_devices,
        };
        directory.attachments = directory.count_attachments();
        directory.parsed = directory.parse_all(before);
        directory
    }

    /// Raised by every change.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// A user by name, without regard to case.
    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.named(name)
    }

    /// A user by unique id.
    pub(crate) fn user_by_id(&self, id: &UniqueId) -> Option<&User> {
        self.users.identified(id)
    }

    /// All users, in order of lower-case names.
    pub(crate) fn users(&self) -> impl Iterator<Item = &User> {
        self.users.rows.iter()
    }

    /// A group by name, without regard to case.
    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.named(name)
    }

    /// A group by unique id.
    pub(crate) fn group_by_id(&self, id: &UniqueId) -> Option<&Group> {
        self.groups.identified(id)
    }

    /// All groups, in order of lower-case names.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.rows.iter()
    }

    /// A role by name, without regard to case.
    pub(crate) fn role(&self, name: &str) -> Option<&Role> {
        self.roles.named(name)
    }

    /// A role by unique id.
    pub(crate) fn role_by_id(&self, id: &UniqueId) -> Option<&Role> {
        self.roles.identified(id)
    }

    /// All roles, in order of lower-case names.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.rows.iter()
    }

    /// A customer managed policy by name, without regard to case.
    pub(crate) fn policy(&self, name: &str) -> Option<&ManagedPolicy> {
        self.policies.named(name)
    }

    /// All customer managed policies, in order of lower-case names.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &ManagedPolicy> {
        self.policies.rows.iter()
    }

    /// A customer managed policy by ARN.
    pub(crate) fn customer_policy(&self, arn: &Arn) -> Option<&ManagedPolicy> {
        self.policies.rows.get(*self.policies_by_arn.get(arn)?)
    }

    /// The users of a group, in order of lower-case names.
    pub(crate) fn members(&self, group: &UniqueId) -> impl Iterator<Item = &User> {
        self.users.at(self.members.get(group))
    }

    /// A long-lived access key.
    pub(crate) fn access_key(&self, id: &AccessKeyId) -> Option<&AccessKey> {
        self.access_keys.get(id)
    }

    /// A user's access keys, in order of creation.
    pub(crate) fn access_keys_of(&self, user: &UniqueId) -> Vec<&AccessKey> {
        let ids = self.access_keys_of.get(user).into_iter().flatten();
        ids.filter_map(|id| self.access_keys.get(id)).collect()
    }

    /// An MFA device by serial number.
    pub(crate) fn mfa_device(&self, serial_number: &str) -> Option<&MfaDevice> {
        self.mfa_devices.get(serial_number)
    }

    /// The MFA devices that are a user's, in order of serial numbers.
    pub(crate) fn mfa_devices_of(&self, user: &UniqueId) -> Vec<&MfaDevice> {
        let serial_numbers = self.mfa_devices_of.get(user).into_iter().flatten();
        serial_numbers
            .filter_map(|serial_number| self.mfa_devices.get(serial_number))
            .collect()
    }

    /// All MFA devices, assigned or not, in order of serial numbers.
    pub(crate) fn mfa_devices(&self) -> impl Iterator<Item = &MfaDevice> {
        self.mfa_devices.values()
    }

    /// Who uses a managed policy, AWS's or ours.
    pub(crate) fn attachments_of(&self, policy: &Arn) -> Attachments<'_> {
        let Some(uses) = self.attachments.get(policy) else {
            return Attachments::default();
        };
        let users = self.users.at(Some(&uses.bounded_users));
        let roles = self.roles.at(Some(&uses.bounded_roles));
        let bounded_users = users.map(|user| &user.unique_id);
        let bounded_roles = roles.map(|role| &role.unique_id);
        Attachments {
            users: self.users.at(Some(&uses.users)).collect(),
            groups: self.groups.at(Some(&uses.groups)).collect(),
            roles: self.roles.at(Some(&uses.roles)).collect(),
            boundaries: bounded_users.chain(bounded_roles).collect(),
        }
    }

    /// The document of a managed policy that is in force, AWS's or ours.
    pub(crate) fn managed_document(&self, arn: &Arn) -> Option<&str> {
        if let Some(policy) = sortie_iam::managed::by_arn(arn.as_str()) {
            return Some(policy.document);
        }
        let policy = self.customer_policy(arn)?;
        let default =
            |version: &&sortie_ports::PolicyVersion| version.number == policy.default_version;
        let version = policy.versions.iter().find(default)?;
        Some(&version.document)
    }

    /// A user's policies: inline, attached, and through groups.
    pub(crate) fn policies_of_user(&self, user: &User) -> PrincipalPolicies {
        let read = || {
            let holder = format!("user {}", user.name);
            let mut policies =
                self.read_policies(&user.grants, &holder, &user.permissions_boundary);
            for group in user.groups.iter().filter_map(|id| self.group_by_id(id)) {
                let holder = format!("group {}", group.name);
                let through = self.read_grants(&group.grants, &holder);
                policies.identity.extend(through);
            }
            policies
        };
        let place = self.users.place(user);
        match place.and_then(|place| self.user_policies.get(place)) {
            Some(known) => known.get_or_init(read).clone(),
            None => read(),
        }
    }

    /// A role's policies: inline and attached.
    pub(crate) fn policies_of_role(&self, role: &Role) -> PrincipalPolicies {
        let read = || {
            let holder = format!("role {}", role.name);
            self.read_policies(&role.grants, &holder, &role.permissions_boundary)
        };
        let place = self.roles.place(role);
        match place.and_then(|place| self.role_policies.get(place)) {
            Some(known) => known.get_or_init(read).clone(),
            None => read(),
        }
    }

    /// Who may assume a role.
    pub(crate) fn trust_policy(&self, role: &Role) -> NamedPolicy {
        let resource = format!("role{}{}", role.path, role.name);
        let role_arn = Arn::new("iam", "", self.account.as_str(), &resource);
        NamedPolicy {
            source: PolicySource::Trust {
                role_arn: role_arn.into(),
            },
            policy: self.read(PolicyKind::Trust, Some(&role.trust_policy)),
        }
    }

    fn read_policies(
        &self,
        grants: &Grants,
        holder: &str,
        boundary: &Option<Arn>,
    ) -> PrincipalPolicies {
        let boundary = boundary.as_ref().map(|arn| NamedPolicy {
            source: PolicySource::Boundary {
                arn: arn.to_string(),
            },
            policy: self.read(PolicyKind::Boundary, self.managed_document(arn)),
        });
        PrincipalPolicies {
            identity: self.read_grants(grants, holder).collect(),
            boundary,
        }
    }

    fn read_grants<'a>(
        &'a self,
        grants: &'a Grants,
        holder: &'a str,
    ) -> impl Iterator<Item = NamedPolicy> + 'a {
        let inline = grants.inline.iter().map(|(name, text)| NamedPolicy {
            source: PolicySource::Inline {
                name: name.clone(),
                attached_to: holder.to_owned(),
            },
            policy: self.read(PolicyKind::Identity, Some(text)),
        });
        let attached = grants.attached.iter().map(|arn| NamedPolicy {
            source: PolicySource::Managed {
                arn: arn.to_string(),
                attached_to: holder.to_owned(),
            },
            policy: self.read(PolicyKind::Identity, self.managed_document(arn)),
        });
        inline.chain(attached)
    }

    /// A policy that was read with the rows, or else now.
    fn read(&self, kind: PolicyKind, text: Option<&str>) -> Arc<Policy> {
        let Some(text) = text else {
            tracing::error!("a managed policy is attached that is not there: it denies everything");
            return deny_all(kind);
        };
        match self.parsed.get(&(kind, text_digest(text))) {
            Some(policy) => Arc::clone(policy),
            None => parse(kind, text),
        }
    }

    fn count_attachments(&self) -> HashMap<Arn, Uses> {
        let mut attachments: HashMap<Arn, Uses> = HashMap::new();
        let mut of = |arn: &Arn, add: &mut dyn FnMut(&mut Uses)| match attachments.get_mut(arn) {
            Some(uses) => add(uses),
            None => add(attachments.entry(arn.clone()).or_default()),
        };
        for (place, user) in self.users.rows.iter().enumerate() {
            for arn in &user.grants.attached {
                of(arn, &mut |uses| uses.users.push(place));
            }
            if let Some(arn) = &user.permissions_boundary {
                of(arn, &mut |uses| uses.bounded_users.push(place));
            }
        }
        for (place, group) in self.groups.rows.iter().enumerate() {
            for arn in &group.grants.attached {
                of(arn, &mut |uses| uses.groups.push(place));
            }
        }
        for (place, role) in self.roles.rows.iter().enumerate() {
            for arn in &role.grants.attached {
                of(arn, &mut |uses| uses.roles.push(place));
            }
            if let Some(arn) = &role.permissions_boundary {
                of(arn, &mut |uses| uses.bounded_roles.push(place));
            }
        }
        attachments
    }

    /// Every text that may be asked for, read once. `before` has most of them already.
    fn parse_all(&self, before: Option<&Directory>) -> Parsed {
        let grants = self.users.rows.iter().map(|user| &user.grants);
        let grants = grants.chain(self.groups.rows.iter().map(|group| &group.grants));
        let grants = grants.chain(self.roles.rows.iter().map(|role| &role.grants));
        let inline = grants
            .flat_map(|grants| grants.inline.values())
            .map(|text| (PolicyKind::Identity, text.as_str()));
        let trust = self.roles.rows.iter();
        let trust = trust.map(|role| (PolicyKind::Trust, role.trust_policy.as_str()));
        let attachments = self.attachments.iter();
        let managed = attachments.filter_map(|(arn, uses)| {
            let text = self.managed_document(arn)?;
            let attached = uses.users.len() + uses.groups.len() + uses.roles.len() > 0;
            let bounds = uses.bounded_users.len() + uses.bounded_roles.len() > 0;
            let identity = attached.then_some((PolicyKind::Identity, text));
            Some(
                identity
                    .into_iter()
                    .chain(bounds.then_some((PolicyKind::Boundary, text))),
            )
        });
        let mut parsed = Parsed::new();
        for (kind, text) in inline.chain(trust).chain(managed.flatten()) {
            let key = (kind, text_digest(text));
            parsed.entry(key).or_insert_with_key(|key| {
                let known = before.and_then(|before| before.parsed.get(key));
                known.map_or_else(|| parse(kind, text), Arc::clone)
            });
        }
        parsed
    }
}

/// A policy was checked before it was stored; one that cannot be read all the same denies everything.
fn parse(kind: PolicyKind, text: &str) -> Arc<Policy> {
    match Policy::parse(text, kind) {
        Ok(policy) => Arc::new(policy),
        Err(error) => {
            tracing::error!(%error, ?kind, "a stored policy cannot be read: it denies everything");
            deny_all(kind)
        }
    }
}

fn by_arn(account: &AccountId, policies: &Named<ManagedPolicy>) -> HashMap<Arn, usize> {
    let rows = policies.rows.iter().enumerate();
    rows.map(|(place, policy)| {
        let resource = format!("policy{}{}", policy.path, policy.name);
        (Arn::new("iam", "", account.as_str(), &resource), place)
    })
    .collect()
}

fn members(users: &Named<User>) -> HashMap<UniqueId, Vec<usize>> {
    let mut members: HashMap<UniqueId, Vec<usize>> = HashMap::new();
    for (place, user) in users.rows.iter().enumerate() {
        for group in &user.groups {
            members.entry(group.clone()).or_default().push(place);
        }
    }
    members
}

fn access_keys_of(keys: &HashMap<AccessKeyId, AccessKey>) -> HashMap<UniqueId, Vec<AccessKeyId>> {
    let mut in_order: Vec<&AccessKey> = keys.values().collect();
    in_order.sort_by_key(|key| (key.created, &key.id));
    let mut keys_of: HashMap<UniqueId, Vec<AccessKeyId>> = HashMap::new();
    for key in in_order {
        let keys = keys_of.entry(key.user.clone()).or_default();
        keys.push(key.id.clone());
    }
    keys_of
}

fn mfa_devices_of(devices: &BTreeMap<String, MfaDevice>) -> HashMap<UniqueId, Vec<String>> {
    let mut devices_of: HashMap<UniqueId, Vec<String>> = HashMap::new();
    for (serial_number, device) in devices {
        if let Some(user) = &device.user {
            let devices = devices_of.entry(user.clone()).or_default();
            devices.push(serial_number.clone());
        }
    }
    devices_of
}

/// The directory of the newest revision that was read, and who may read or change next.
pub(crate) struct DirectoryCache {
    newest: RwLock<Option<Arc<Directory>>>,
    /// One reads for all that wait.
    reading: Semaphore,
    /// Edits of this server do not get into each other's way.
    editing: Semaphore,
}

impl Default for DirectoryCache {
    fn default() -> Self {
        Self {
            newest: RwLock::default(),
            reading: Semaphore::new(1),
            editing: Semaphore::new(1),
        }
    }
}

impl DirectoryCache {
    fn newest(&self) -> Option<Arc<Directory>> {
        // An Arc is replaced whole: a panic elsewhere leaves nothing half done.
        let newest = self.newest.read();
        newest.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, directory: &Arc<Directory>) {
        let newest = self.newest.write();
        *newest.unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(directory));
    }
}

/// What an edit of identities comes to.
#[derive(Debug)]
pub(crate) struct Edit<T> {
    /// For the caller.
    pub(crate) answer: T,
    /// What becomes true, if nobody else changed an identity meanwhile.
    pub(crate) changes: Vec<Change>,
    /// `responseElements` of the record.
    pub(crate) response: Value,
    /// `resources` of the record.
    pub(crate) resources: Vec<Resource>,
}

/// Proof that the caller may do what it asked for.
pub(crate) type Granted = Authorized<()>;

impl<T> Edit<T> {
    /// Its commit holds at `revision` only.
    fn done(self, revision: i64) -> Done<T> {
        let require = (!self.changes.is_empty()).then_some(Change::RequireIdentities { revision });
        let changes = require.into_iter().chain(self.changes).collect();
        Done::with(self.answer)
            .changing(changes)
            .showing(self.response)
            .about(self.resources)
    }
}

impl Control {
    /// The identities of now. Everything that was committed before this call is seen.
    pub(crate) async fn directory(&self) -> Result<Arc<Directory>, InternalError> {
        let cache = &self.inner.directory;
        let revision = self.inner.state.identity_revision().await?;
        let current = |known: &Arc<Directory>| known.revision == revision;
        if let Some(known) = cache.newest().filter(current) {
            return Ok(known);
        }
        // The semaphore is never closed.
        let _turn = cache.reading.acquire().await;
        let known = cache.newest();
        let revision = known.as_ref().map(|known| known.revision);
        let read = self.inner.state.identities(revision).await?;
        match (read, known) {
            (None, Some(known)) => Ok(known),
            (read, before) => {
                let account = &self.inner.names.account;
                let rows = read.unwrap_or_default();
                let directory = Arc::new(Directory::new(rows, account, before.as_deref()));
                cache.replace(&directory);
                Ok(directory)
            }
        }
    }

    /// Authorises, runs the pure `edit` and commits what it comes to with the call's record, if the
    /// identities are still those that it has seen; else starts again.
    ///
    /// # Errors
    /// What `edit` says, a refusal, or a failure on our side.
    pub(crate) async fn change_identities<T>(
        &self,
        call: &Call,
        rule: &OperationRule,
        ask: impl Fn(&Directory) -> Ask,
        edit: impl Fn(&Directory, &Granted) -> Result<Edit<T>, IamError>,
    ) -> Result<Recorded<T>, IamError> {
        let _turn = self.inner.directory.editing.acquire().await;
        for _ in 0..ATTEMPTS {
            let directory = self.directory().await?;
            let asked = ask(&directory);
            let granted = self.authorize_in(&directory, call, rule, &asked, None, ())?;
            let edit = edit(&directory, &granted)?;
            let changed = !edit.changes.is_empty();
            match self.record(call, rule, edit.done(directory.revision)).await {
                Err(InternalError::Store(StoreError::Conflict(Conflict::Revision))) => {}
                Err(error) => return Err(error.into_iam()),
                Ok(recorded) => {
                    if changed {
                        self.inner.signals.publish(Signal::Identities);
                    }
                    return Ok(recorded);
                }
            }
        }
        Err(IamError::ConcurrentModification)
    }

    /// Authorises, and answers what `read` finds, with the call's record.
    ///
    /// # Errors
    /// What `read` says, a refusal, or a failure on our side.
    pub(crate) async fn read_identities<T>(
        &self,
        call: &Call,
        rule: &OperationRule,
        ask: impl FnOnce(&Directory) -> Ask,
        read: impl FnOnce(&Directory, &Granted) -> Result<T, IamError>,
    ) -> Result<Recorded<T>, IamError> {
        let directory = self.directory().await?;
        let asked = ask(&directory);
        let granted = self.authorize_in(&directory, call, rule, &asked, None, ())?;
        let answer = read(&directory, &granted)?;
        let recorded = self.record(call, rule, Done::with(answer)).await;
        recorded.map_err(InternalError::into_iam)
    }
}

#[cfg(test)]
mod tests;
