//! Managed policies, ours with their versions and AWS's, which are as they are.

use serde_json::{Value, json};
use sortie_evidence::Resource;
use sortie_iam::{PolicyKind, Quota, document_size};
use sortie_ports::{Change, Identity, IdentityKind, ManagedPolicy, PolicyVersion};
use sortie_types::{Arn, Tag, Timestamp, UniqueId, UniqueIdKind};

use super::{
    ask, aws_policies,
    document::{check_policy, refusal},
    entity::{new_tags, parse_arn, policy_arn, sort_key, tagged, trail_tags, under, untagged},
    error::IamError,
    page::{Page, PageRequest},
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, Denied, OperationRule},
    call::{Call, Recorded},
    directory::{Directory, Edit},
    mint,
};

/// Managed policies of an account.
pub(crate) const POLICIES: usize = 1_500;
/// Versions of one.
pub(crate) const VERSIONS: usize = 5;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreatePolicyInput {
    /// `/` when absent.
    pub path: Option<String>,
    /// Its name.
    pub name: String,
    /// The first version.
    pub document: String,
    /// For people; cannot be changed.
    pub description: Option<String>,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

/// Whose managed policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyScope {
    /// Both.
    #[default]
    All,
    /// AWS's.
    Aws,
    /// The account's own.
    Local,
}

/// What a managed policy is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyUsage {
    /// It is the boundary of a user or role.
    Boundary,
    /// It is attached to a user, group or role.
    Permissions,
}

/// Which to list.
#[derive(Clone, Debug, Default)]
pub struct ListPoliciesInput {
    /// Whose.
    pub scope: PolicyScope,
    /// Only those that are attached to somebody.
    pub only_attached: bool,
    /// Only those under this path.
    pub path_prefix: Option<String>,
    /// Only those of this use.
    pub usage: Option<PolicyUsage>,
    /// Which part.
    pub page: PageRequest,
}

/// A kind of entity that a policy can be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityKind {
    /// Groups.
    Group,
    /// Roles.
    Role,
    /// Users.
    User,
}

/// Whom to list.
#[derive(Clone, Debug, Default)]
pub struct ListEntitiesInput {
    /// The policy.
    pub arn: String,
    /// Only these; all when absent.
    pub kind: Option<EntityKind>,
    /// Only those under this path.
    pub path_prefix: Option<String>,
    /// Only those who use it so.
    pub usage: Option<PolicyUsage>,
    /// Which part.
    pub page: PageRequest,
}

/// Somebody who has a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityView {
    /// What it is.
    pub kind: EntityKind,
    /// Its name.
    pub name: String,
    /// `AIDA…`, `AGPA…` or `AROA…`.
    pub unique_id: UniqueId,
}

/// A managed policy as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyView {
    /// Its name.
    pub name: String,
    /// `ANPA…`.
    pub unique_id: UniqueId,
    /// Its ARN.
    pub arn: Arn,
    /// `/` or `/a/b/`.
    pub path: String,
    /// Such as `v1`.
    pub default_version: String,
    /// Users, groups and roles that it is attached to.
    pub attachment_count: usize,
    /// Users and roles that it bounds.
    pub boundary_count: usize,
    /// For people.
    pub description: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When its versions last changed.
    pub updated: Timestamp,
    /// In order of keys.
    pub tags: Vec<Tag>,
}

/// A version as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyVersionView {
    /// Such as `v1`.
    pub id: String,
    /// As it was given.
    pub document: String,
    /// Whether it is in force.
    pub is_default: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// Of a policy, or of one that is not attached where it was said to be.
pub(crate) fn policy_was_not_found(arn: &Arn) -> IamError {
    IamError::NoSuchEntity(format!("Policy {arn} was not found."))
}

fn no_such_version(arn: &Arn, version: &str) -> IamError {
    let why = format!("Policy {arn} version {version} does not exist or is not attachable.");
    IamError::NoSuchEntity(why)
}

fn policy_resource(arn: Arn) -> Resource {
    Resource {
        kind: "AWS::IAM::Policy",
        arn,
    }
}

fn version_id(number: u32) -> String {
    format!("v{number}")
}

fn version_number(id: &str) -> Option<u32> {
    id.strip_prefix('v')?.parse().ok()
}

fn version_view(policy: &ManagedPolicy, version: &PolicyVersion) -> PolicyVersionView {
    PolicyVersionView {
        id: version_id(version.number),
        document: version.document.clone(),
        is_default: version.number == policy.default_version,
        created: version.created,
    }
}

/// A policy of the account.
pub(crate) fn view(directory: &Directory, names: &Names, policy: &ManagedPolicy) -> PolicyView {
    let arn = policy_arn(names, policy);
    let (attachment_count, boundary_count) = uses(directory, &arn);
    PolicyView {
        name: policy.name.clone(),
        unique_id: policy.unique_id.clone(),
        path: policy.path.clone(),
        default_version: version_id(policy.default_version),
        attachment_count,
        boundary_count,
        description: policy.description.clone(),
        created: policy.created,
        updated: policy.updated,
        tags: policy.tags.clone(),
        arn,
    }
}

/// How many have a policy attached, and how many it bounds.
pub(crate) fn uses(directory: &Directory, arn: &Arn) -> (usize, usize) {
    let uses = directory.attachments_of(arn);
    let attached = uses.users.len() + uses.groups.len() + uses.roles.len();
    (attached, uses.boundaries.len())
}

/// The versions of a policy of the account, newest first.
pub(crate) fn versions(policy: &ManagedPolicy) -> impl Iterator<Item = PolicyVersionView> + '_ {
    let newest_first = policy.versions.iter().rev();
    newest_first.map(|version| version_view(policy, version))
}

/// A policy of the account's own. AWS's can be seen but not changed.
fn own<'a>(
    directory: &'a Directory,
    arn: &Arn,
    refused: impl FnOnce() -> Denied,
) -> Result<&'a ManagedPolicy, IamError> {
    match directory.customer_policy(arn) {
        Some(policy) => Ok(policy),
        None if aws_policies::by_arn(arn).is_some() => Err(IamError::Denied(refused())),
        None => Err(policy_was_not_found(arn)),
    }
}

fn check_document(text: &str) -> Result<(), IamError> {
    check_policy(text, PolicyKind::Identity)?;
    Quota::Managed.check(document_size(text)).map_err(refusal)
}

fn create(
    directory: &Directory,
    names: &Names,
    input: &CreatePolicyInput,
    unique_id: &UniqueId,
    now: Timestamp,
) -> Result<Edit<PolicyView>, IamError> {
    check_document(&input.document)?;
    if directory.policy(&input.name).is_some() {
        let name = &input.name;
        let why =
            format!("A policy called {name} already exists. Duplicate names are not allowed.");
        return Err(IamError::EntityAlreadyExists(why));
    }
    if directory.policies().count() >= POLICIES {
        let why = format!("Cannot exceed quota for PoliciesPerAccount: {POLICIES}");
        return Err(IamError::LimitExceeded(why));
    }
    let policy = ManagedPolicy {
        unique_id: unique_id.clone(),
        name: input.name.clone(),
        path: input.path.clone().unwrap_or_else(|| "/".to_owned()),
        description: input.description.clone(),
        created: now,
        updated: now,
        versions: vec![PolicyVersion {
            number: 1,
            document: input.document.clone(),
            created: now,
        }],
        default_version: 1,
        next_version: 2,
        tags: new_tags(&input.tags)?,
    };
    let answer = view(directory, names, &policy);
    let response = json!({"policy": trail_policy(&answer)});
    Ok(Edit {
        response,
        ..edit(answer, names, policy)
    })
}

/// An answer, with a policy in place of the one there was.
fn edit<T>(answer: T, names: &Names, policy: ManagedPolicy) -> Edit<T> {
    Edit {
        answer,
        response: Value::Null,
        resources: vec![policy_resource(policy_arn(names, &policy))],
        changes: vec![Change::PutIdentity(Box::new(Identity::Policy(policy)))],
    }
}

fn trail_policy(view: &PolicyView) -> Value {
    let mut shown = json!({
        "policyName": view.name,
        "policyId": view.unique_id,
        "arn": view.arn,
        "path": view.path,
        "defaultVersionId": view.default_version,
        "attachmentCount": view.attachment_count,
        "permissionsBoundaryUsageCount": view.boundary_count,
        "isAttachable": true,
        "createDate": view.created.iso_seconds(),
        "updateDate": view.updated.iso_seconds(),
    });
    if let (false, Some(members)) = (view.tags.is_empty(), shown.as_object_mut()) {
        members.insert("tags".to_owned(), trail_tags(&view.tags));
    }
    shown
}

fn delete(
    directory: &Directory,
    arn: &Arn,
    refused: impl FnOnce() -> Denied,
) -> Result<Edit<()>, IamError> {
    let policy = own(directory, arn, refused)?;
    if uses(directory, arn) != (0, 0) {
        let why = "Cannot delete a policy attached to entities.";
        return Err(IamError::DeleteConflict(why.to_owned()));
    }
    if policy.versions.len() > 1 {
        let why = "This policy has more than one version. Before you delete a policy, you must \
                   delete the policy's versions. The default version is deleted with the policy.";
        return Err(IamError::DeleteConflict(why.to_owned()));
    }
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![policy_resource(arn.clone())],
        changes: vec![Change::RemoveIdentity {
            kind: IdentityKind::Policy,
            key: policy.unique_id.to_string(),
        }],
    })
}

/// A version to add.
#[derive(Clone, Copy)]
struct NewVersion<'a> {
    document: &'a str,
    set_as_default: bool,
    now: Timestamp,
}

fn create_version(
    directory: &Directory,
    names: &Names,
    arn: &Arn,
    new: NewVersion<'_>,
    refused: impl FnOnce() -> Denied,
) -> Result<Edit<PolicyVersionView>, IamError> {
    let mut policy = own(directory, arn, refused)?.clone();
    check_document(new.document)?;
    if policy.versions.len() >= VERSIONS {
        let why = format!(
            "A managed policy can have up to {VERSIONS} versions. Before you create a new version, \
             you must delete an existing version."
        );
        return Err(IamError::LimitExceeded(why));
    }
    let version = PolicyVersion {
        number: policy.next_version,
        document: new.document.to_owned(),
        created: new.now,
    };
    policy.next_version += 1;
    policy.updated = new.now;
    if new.set_as_default {
        policy.default_version = version.number;
    }
    let answer = version_view(&policy, &version);
    policy.versions.push(version);
    let response = json!({"policyVersion": {
        "versionId": answer.id,
        "isDefaultVersion": answer.is_default,
        "createDate": answer.created.iso_seconds(),
    }});
    Ok(Edit {
        response,
        ..edit(answer, names, policy)
    })
}

fn set_default_version(
    directory: &Directory,
    names: &Names,
    arn: &Arn,
    (version, now): (&str, Timestamp),
    refused: impl FnOnce() -> Denied,
) -> Result<Edit<()>, IamError> {
    let mut policy = own(directory, arn, refused)?.clone();
    policy.default_version = existing_version(&policy, arn, version)?;
    policy.updated = now;
    Ok(edit((), names, policy))
}

fn delete_version(
    directory: &Directory,
    names: &Names,
    arn: &Arn,
    (version, now): (&str, Timestamp),
    refused: impl FnOnce() -> Denied,
) -> Result<Edit<()>, IamError> {
    let mut policy = own(directory, arn, refused)?.clone();
    let number = existing_version(&policy, arn, version)?;
    if number == policy.default_version {
        let why = "Cannot delete the default version of a policy.";
        return Err(IamError::DeleteConflict(why.to_owned()));
    }
    policy.versions.retain(|version| version.number != number);
    policy.updated = now;
    Ok(edit((), names, policy))
}

fn existing_version(policy: &ManagedPolicy, arn: &Arn, id: &str) -> Result<u32, IamError> {
    version_number(id)
        .filter(|number| {
            policy
                .versions
                .iter()
                .any(|version| version.number == *number)
        })
        .ok_or_else(|| no_such_version(arn, id))
}

fn get(directory: &Directory, names: &Names, arn: &Arn) -> Result<PolicyView, IamError> {
    let own = directory.customer_policy(arn);
    own.map(|policy| view(directory, names, policy))
        .or_else(|| aws_policies::by_arn(arn).map(|policy| aws_policies::view(directory, policy)))
        .ok_or_else(|| policy_was_not_found(arn))
}

fn all_versions(directory: &Directory, arn: &Arn) -> Result<Vec<PolicyVersionView>, IamError> {
    let own = directory.customer_policy(arn);
    own.map(|policy| versions(policy).collect())
        .or_else(|| aws_policies::by_arn(arn).map(|policy| vec![aws_policies::version(policy)]))
        .ok_or_else(|| policy_was_not_found(arn))
}

fn listed(
    directory: &Directory,
    names: &Names,
    input: &ListPoliciesInput,
) -> Vec<(String, PolicyView)> {
    let own = directory
        .policies()
        .filter(|_| input.scope != PolicyScope::Aws)
        .map(|policy| view(directory, names, policy));
    let aws = aws_policies::all()
        .filter(|_| input.scope != PolicyScope::Local)
        .map(|policy| aws_policies::view(directory, policy));
    let wanted = |view: &PolicyView| {
        let of_usage = match input.usage {
            None => true,
            Some(PolicyUsage::Boundary) => view.boundary_count > 0,
            Some(PolicyUsage::Permissions) => view.attachment_count > 0,
        };
        of_usage
            && (!input.only_attached || view.attachment_count > 0)
            && under(&view.path, input.path_prefix.as_deref())
    };
    let mut listed: Vec<_> = own
        .chain(aws)
        .filter(wanted)
        // A policy of ours may have the name of one of AWS's.
        .map(|view| (format!("{} {}", sort_key(&view.name), view.arn), view))
        .collect();
    listed.sort_by(|one, other| one.0.cmp(&other.0));
    listed
}

fn entities(
    directory: &Directory,
    arn: &Arn,
    input: &ListEntitiesInput,
) -> Result<Vec<(String, EntityView)>, IamError> {
    if directory.managed_document(arn).is_none() {
        return Err(policy_was_not_found(arn));
    }
    let uses = |attached: &[Arn], boundary: Option<&Arn>| {
        let attached = attached.contains(arn) && input.usage != Some(PolicyUsage::Boundary);
        let bounds = boundary == Some(arn) && input.usage != Some(PolicyUsage::Permissions);
        attached || bounds
    };
    let groups = directory.groups().filter(|group| {
        uses(&group.grants.attached, None) && under(&group.path, input.path_prefix.as_deref())
    });
    let users = directory.users().filter(|user| {
        uses(&user.grants.attached, user.permissions_boundary.as_ref())
            && under(&user.path, input.path_prefix.as_deref())
    });
    let roles = directory.roles().filter(|role| {
        uses(&role.grants.attached, role.permissions_boundary.as_ref())
            && under(&role.path, input.path_prefix.as_deref())
    });
    let entity = |kind, name: &str, unique_id: &UniqueId| EntityView {
        kind,
        name: name.to_owned(),
        unique_id: unique_id.clone(),
    };
    let groups = groups.map(|group| entity(EntityKind::Group, &group.name, &group.unique_id));
    let roles = roles.map(|role| entity(EntityKind::Role, &role.name, &role.unique_id));
    let users = users.map(|user| entity(EntityKind::User, user.name.as_str(), &user.unique_id));
    let keyed = |entity: EntityView| {
        let kind = match entity.kind {
            EntityKind::Group => "group",
            EntityKind::Role => "role",
            EntityKind::User => "user",
        };
        (format!("{kind} {}", sort_key(&entity.name)), entity)
    };
    let of_kind = |entity: &EntityView| input.kind.is_none_or(|kind| kind == entity.kind);
    let all = groups.chain(roles).chain(users);
    Ok(all.filter(of_kind).map(keyed).collect())
}

/// The tags of a policy; those of AWS have none.
fn tags_of<'a>(directory: &'a Directory, arn: &Arn) -> Result<&'a [Tag], IamError> {
    match directory.customer_policy(arn) {
        Some(policy) => Ok(&policy.tags),
        None if aws_policies::by_arn(arn).is_some() => Ok(&[]),
        None => Err(policy_was_not_found(arn)),
    }
}

impl Control {
    /// The refusal to change what is AWS's, whatever policies say.
    fn not_yours(&self, call: &Call, rule: &OperationRule, arn: &Arn) -> Denied {
        let principal = authorize::principal(&self.inner.names, &call.caller);
        let action = rule.action;
        Denied {
            message: format!(
                "User: {principal} is not authorized to perform: {action} on resource: policy {arn}"
            ),
        }
    }

    /// `CreatePolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn create_policy(
        &self,
        call: &Call,
        input: CreatePolicyInput,
    ) -> Result<Recorded<PolicyView>, IamError> {
        let names = &self.inner.names;
        let id = UniqueId::from_random(UniqueIdKind::ManagedPolicy, mint::random()?);
        self.change_identities(
            call,
            &authorize::CREATE_POLICY,
            |_| ask::new_policy(names, input.path.as_deref(), &input.name, &input.tags),
            |directory, _| create(directory, names, &input, &id, call.now),
        )
        .await
    }

    /// `GetPolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_policy(
        &self,
        call: &Call,
        arn: &str,
    ) -> Result<Recorded<PolicyView>, IamError> {
        let (names, arn) = (&self.inner.names, parse_arn(arn)?);
        self.read_identities(
            call,
            &authorize::GET_POLICY,
            |directory| ask::policy(directory, &arn),
            |directory, _| get(directory, names, &arn),
        )
        .await
    }

    /// `ListPolicies`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_policies(
        &self,
        call: &Call,
        input: ListPoliciesInput,
    ) -> Result<Recorded<Page<PolicyView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_POLICIES;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, &input.page)?;
        self.read_identities(
            call,
            &RULE,
            |_| Ask::any(),
            |directory, _| pager.page(listed(directory, names, &input)),
        )
        .await
    }

    /// `DeletePolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_policy(&self, call: &Call, arn: &str) -> Result<Recorded<()>, IamError> {
        const RULE: OperationRule = authorize::DELETE_POLICY;
        let arn = parse_arn(arn)?;
        self.change_identities(
            call,
            &RULE,
            |directory| ask::policy(directory, &arn),
            |directory, _| delete(directory, &arn, || self.not_yours(call, &RULE, &arn)),
        )
        .await
    }

    /// `CreatePolicyVersion`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn create_policy_version(
        &self,
        call: &Call,
        arn: &str,
        document: &str,
        set_as_default: bool,
    ) -> Result<Recorded<PolicyVersionView>, IamError> {
        const RULE: OperationRule = authorize::CREATE_POLICY_VERSION;
        let (names, arn) = (&self.inner.names, parse_arn(arn)?);
        let new = NewVersion {
            document,
            set_as_default,
            now: call.now,
        };
        self.change_identities(
            call,
            &RULE,
            |directory| ask::policy(directory, &arn),
            |directory, _| {
                let refused = || self.not_yours(call, &RULE, &arn);
                create_version(directory, names, &arn, new, refused)
            },
        )
        .await
    }

    /// `GetPolicyVersion`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_policy_version(
        &self,
        call: &Call,
        arn: &str,
        version: &str,
    ) -> Result<Recorded<PolicyVersionView>, IamError> {
        let arn = parse_arn(arn)?;
        self.read_identities(
            call,
            &authorize::GET_POLICY_VERSION,
            |directory| ask::policy(directory, &arn),
            |directory, _| {
                let mut versions = all_versions(directory, &arn)?.into_iter();
                let found = versions.find(|found| found.id == version);
                found.ok_or_else(|| no_such_version(&arn, version))
            },
        )
        .await
    }

    /// `ListPolicyVersions`, newest first.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_policy_versions(
        &self,
        call: &Call,
        arn: &str,
        page: &PageRequest,
    ) -> Result<Recorded<Page<PolicyVersionView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_POLICY_VERSIONS;
        let arn = parse_arn(arn)?;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask::policy(directory, &arn),
            |directory, _| {
                let versions = all_versions(directory, &arn)?.into_iter();
                // Keys have to rise while the numbers fall.
                let key = |view: &PolicyVersionView| {
                    let number = version_number(&view.id).unwrap_or_default();
                    format!("{:010}", u32::MAX - number)
                };
                pager.page(versions.map(|view| (key(&view), view)))
            },
        )
        .await
    }

    /// `SetDefaultPolicyVersion`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn set_default_policy_version(
        &self,
        call: &Call,
        arn: &str,
        version: &str,
    ) -> Result<Recorded<()>, IamError> {
        const RULE: OperationRule = authorize::SET_DEFAULT_POLICY_VERSION;
        let (names, arn) = (&self.inner.names, parse_arn(arn)?);
        self.change_identities(
            call,
            &RULE,
            |directory| ask::policy(directory, &arn),
            |directory, _| {
                let refused = || self.not_yours(call, &RULE, &arn);
                set_default_version(directory, names, &arn, (version, call.now), refused)
            },
        )
        .await
    }

    /// `DeletePolicyVersion`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_policy_version(
        &self,
        call: &Call,
        arn: &str,
        version: &str,
    ) -> Result<Recorded<()>, IamError> {
        const RULE: OperationRule = authorize::DELETE_POLICY_VERSION;
        let (names, arn) = (&self.inner.names, parse_arn(arn)?);
        self.change_identities(
            call,
            &RULE,
            |directory| ask::policy(directory, &arn),
            |directory, _| {
                let refused = || self.not_yours(call, &RULE, &arn);
                delete_version(directory, names, &arn, (version, call.now), refused)
            },
        )
        .await
    }

    /// `ListEntitiesForPolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_entities_for_policy(
        &self,
        call: &Call,
        input: ListEntitiesInput,
    ) -> Result<Recorded<Page<EntityView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_ENTITIES_FOR_POLICY;
        let arn = parse_arn(&input.arn)?;
        let pager = self.pager(&RULE, &input.page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask::policy(directory, &arn),
            |directory, _| pager.page(entities(directory, &arn, &input)?),
        )
        .await
    }

    /// `TagPolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn tag_policy(
        &self,
        call: &Call,
        arn: &str,
        tags: &[(String, String)],
    ) -> Result<Recorded<()>, IamError> {
        const RULE: OperationRule = authorize::TAG_POLICY;
        let (names, arn) = (&self.inner.names, parse_arn(arn)?);
        self.change_identities(
            call,
            &RULE,
            |directory| ask::with_request_tags(ask::policy(directory, &arn), tags),
            |directory, _| {
                let before = own(directory, &arn, || self.not_yours(call, &RULE, &arn))?;
                let policy = ManagedPolicy {
                    tags: tagged(&before.tags, tags)?,
                    ..before.clone()
                };
                Ok(edit((), names, policy))
            },
        )
        .await
    }

    /// `UntagPolicy`. Keys that the policy does not have are fine.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn untag_policy(
        &self,
        call: &Call,
        arn: &str,
        keys: &[String],
    ) -> Result<Recorded<()>, IamError> {
        const RULE: OperationRule = authorize::UNTAG_POLICY;
        let (names, arn) = (&self.inner.names, parse_arn(arn)?);
        self.change_identities(
            call,
            &RULE,
            |directory| ask::policy(directory, &arn).list("aws:TagKeys", keys.to_vec()),
            |directory, _| {
                let before = own(directory, &arn, || self.not_yours(call, &RULE, &arn))?;
                let policy = ManagedPolicy {
                    tags: untagged(&before.tags, keys),
                    ..before.clone()
                };
                Ok(edit((), names, policy))
            },
        )
        .await
    }

    /// `ListPolicyTags`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_policy_tags(
        &self,
        call: &Call,
        arn: &str,
        page: &PageRequest,
    ) -> Result<Recorded<Page<Tag>>, IamError> {
        const RULE: OperationRule = authorize::LIST_POLICY_TAGS;
        let arn = parse_arn(arn)?;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask::policy(directory, &arn),
            |directory, _| {
                let tags = tags_of(directory, &arn)?.iter();
                pager.page(tags.map(|tag| (tag.key.clone(), tag.clone())))
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iam::testing::{self, NOW, READ_ONLY, Rows, allow, names, policy, text, user};

    const ARN: &str = "arn:aws:iam::111122223333:policy/Start";

    fn arn() -> Arn {
        ARN.parse().unwrap()
    }

    fn refused() -> Denied {
        Denied {
            message: "not yours".to_owned(),
        }
    }

    fn rows() -> Rows {
        Rows::of([Identity::Policy(policy("Start", 1))])
    }

    fn add(
        rows: &mut Rows,
        document: &str,
        set_as_default: bool,
    ) -> Result<PolicyVersionView, IamError> {
        let new = NewVersion {
            document,
            set_as_default,
            now: NOW,
        };
        rows.edit(|directory| create_version(directory, &names(), &arn(), new, refused))
    }

    #[test]
    fn names_are_taken_whatever_the_case_and_path() {
        let input = CreatePolicyInput {
            name: "START".to_owned(),
            path: Some("/other/".to_owned()),
            document: allow("ssm:*"),
            ..CreatePolicyInput::default()
        };
        let id = testing::id(UniqueIdKind::ManagedPolicy, 2);
        let outcome = rows().edit(|directory| create(directory, &names(), &input, &id, NOW));
        assert_eq!(
            text(outcome),
            "A policy called START already exists. Duplicate names are not allowed."
        );
    }

    #[test]
    fn versions_are_numbered_once_and_the_default_one_stays() {
        let mut rows = rows();
        for number in 2..=5 {
            let made = add(&mut rows, &allow("ssm:*"), number == 5).unwrap();
            assert_eq!(
                (made.id, made.is_default),
                (version_id(number), number == 5)
            );
        }
        let outcome = add(&mut rows, &allow("ssm:*"), true);
        assert!(text(outcome).starts_with("A managed policy can have up to 5 versions."));
        let delete = |rows: &mut Rows, version: &str| {
            let version = (version, NOW);
            rows.edit(|directory| delete_version(directory, &names(), &arn(), version, refused))
        };
        let outcome = delete(&mut rows, "v5");
        assert_eq!(
            text(outcome),
            "Cannot delete the default version of a policy."
        );
        delete(&mut rows, "v1").unwrap();
        let made = add(&mut rows, &allow("iam:*"), false).unwrap();
        assert_eq!((made.id.as_str(), made.is_default), ("v6", false));
        let outcome = delete(&mut rows, "v1");
        assert_eq!(
            text(outcome),
            format!("Policy {ARN} version v1 does not exist or is not attachable.")
        );
        let default = ("v6", NOW);
        rows.edit(|directory| set_default_version(directory, &names(), &arn(), default, refused))
            .unwrap();
        let directory = rows.directory();
        assert_eq!(directory.managed_document(&arn()), Some(&*allow("iam:*")));
        assert_eq!(all_versions(&directory, &arn()).unwrap().len(), 5);
    }

    #[test]
    fn a_policy_in_use_or_with_versions_stays() {
        let mut alice = user("alice", 1);
        alice.permissions_boundary = Some(arn());
        let in_use = [Identity::Policy(policy("Start", 1)), Identity::User(alice)];
        let mut bounding = Rows::of(in_use);
        let outcome = bounding.edit(|directory| delete(directory, &arn(), refused));
        assert_eq!(
            text(outcome),
            "Cannot delete a policy attached to entities."
        );
        let mut rows = rows();
        add(&mut rows, &allow("ssm:*"), true).unwrap();
        let outcome = rows.edit(|directory| delete(directory, &arn(), refused));
        assert!(text(outcome).starts_with("This policy has more than one version."));
        rows.edit(|directory| delete_version(directory, &names(), &arn(), ("v1", NOW), refused))
            .unwrap();
        rows.edit(|directory| delete(directory, &arn(), refused))
            .unwrap();
        let outcome = rows.edit(|directory| delete(directory, &arn(), refused));
        assert_eq!(text(outcome), format!("Policy {ARN} was not found."));
    }

    #[test]
    fn awss_policies_are_seen_and_not_touched() {
        let directory = rows().directory();
        let arn: Arn = READ_ONLY.parse().unwrap();
        let view = get(&directory, &names(), &arn).unwrap();
        assert_eq!(
            view.unique_id,
            get(&directory, &names(), &arn).unwrap().unique_id
        );
        assert_eq!(all_versions(&directory, &arn).unwrap().len(), 1);
        assert!(matches!(
            delete(&directory, &arn, refused),
            Err(IamError::Denied(_))
        ));
    }

    #[test]
    fn documents_are_checked_for_meaning_and_size() {
        assert!(matches!(
            check_document(r#"{"Statement": []}"#),
            Err(IamError::MalformedPolicyDocument(_))
        ));
        let long = allow(&format!("ssm:{}", "x".repeat(6_144)));
        assert_eq!(
            text(check_document(&long)),
            "Cannot exceed quota for PolicySize: 6144"
        );
    }

    #[test]
    fn listings_are_narrowed_by_scope_path_and_use() {
        let mut alice = user("alice", 1);
        alice.grants.attached = vec![arn(), READ_ONLY.parse().unwrap()];
        alice.permissions_boundary = Some(READ_ONLY.parse().unwrap());
        let other = ManagedPolicy {
            path: "/other/".to_owned(),
            ..policy("Other", 2)
        };
        let directory = Rows::of([
            Identity::Policy(policy("Start", 1)),
            Identity::Policy(other),
            Identity::User(alice),
        ])
        .directory();
        let names_of = |input: &ListPoliciesInput| -> Vec<String> {
            let listed = listed(&directory, &names(), input);
            assert!(listed.is_sorted_by(|one, other| one.0 < other.0));
            listed.into_iter().map(|(_, view)| view.name).collect()
        };
        let local = ListPoliciesInput {
            scope: PolicyScope::Local,
            ..ListPoliciesInput::default()
        };
        assert_eq!(names_of(&local), ["Other", "Start"]);
        let under = ListPoliciesInput {
            path_prefix: Some("/other/".to_owned()),
            ..local
        };
        assert_eq!(names_of(&under), ["Other"]);
        let attached = ListPoliciesInput {
            only_attached: true,
            ..ListPoliciesInput::default()
        };
        assert_eq!(names_of(&attached), ["ReadOnlyAccess", "Start"]);
        let bounding = ListPoliciesInput {
            usage: Some(PolicyUsage::Boundary),
            ..ListPoliciesInput::default()
        };
        assert_eq!(names_of(&bounding), ["ReadOnlyAccess"]);
        let aws = ListPoliciesInput {
            scope: PolicyScope::Aws,
            ..ListPoliciesInput::default()
        };
        assert!(!names_of(&aws).contains(&"Start".to_owned()));
        assert_eq!(
            names_of(&ListPoliciesInput::default()).len(),
            names_of(&aws).len() + 2
        );
    }
}
