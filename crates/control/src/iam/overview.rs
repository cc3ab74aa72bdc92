//! The account at one look: everybody with their policies, and the numbers against the quotas.

use std::collections::BTreeMap;

use sortie_iam::Quota;
use sortie_ports::{Group, Role, User};
use sortie_types::Arn;

use super::{
    attachments::{self, AttachedPolicyView, attached_view},
    aws_policies,
    entity::{group_arn, sort_key, user_arn},
    error::IamError,
    page::{Page, PageRequest},
    policies::{self, PolicyVersionView, PolicyView},
    roles::{self, RoleView},
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, OperationRule},
    call::{Call, Recorded},
    directory::Directory,
};

/// What an overview can be narrowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetailKind {
    /// AWS's managed policies that are in use.
    AwsManagedPolicy,
    /// Groups.
    Group,
    /// Managed policies of the account.
    LocalManagedPolicy,
    /// Roles.
    Role,
    /// Users.
    User,
}

/// One entity with all that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A group.
    Group(GroupDetail),
    /// A managed policy with its versions.
    Policy(PolicyView, Vec<PolicyVersionView>),
    /// A role.
    Role(RoleView, Vec<AttachedPolicyView>),
    /// A user.
    User(UserDetail),
}

/// A user with all that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDetail {
    /// The row.
    pub user: User,
    /// Its ARN.
    pub arn: Arn,
    /// The names of its groups.
    pub groups: Vec<String>,
    /// Its managed policies.
    pub attached: Vec<AttachedPolicyView>,
}

/// A group with all that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDetail {
    /// The row.
    pub group: Group,
    /// Its ARN.
    pub arn: Arn,
    /// Its managed policies.
    pub attached: Vec<AttachedPolicyView>,
}

fn attached(arns: &[Arn]) -> Vec<AttachedPolicyView> {
    arns.iter().map(attached_view).collect()
}

fn user_detail(directory: &Directory, names: &Names, user: &User) -> UserDetail {
    let groups = user
        .groups
        .iter()
        .filter_map(|id| directory.group_by_id(id));
    UserDetail {
        arn: user_arn(names, user),
        groups: groups.map(|group| group.name.clone()).collect(),
        attached: attached(&user.grants.attached),
        user: user.clone(),
    }
}

fn group_detail(names: &Names, group: &Group) -> GroupDetail {
    GroupDetail {
        arn: group_arn(names, group),
        attached: attached(&group.grants.attached),
        group: group.clone(),
    }
}

fn role_detail(directory: &Directory, names: &Names, role: &Role) -> Detail {
    let attached = attached(&role.grants.attached);
    Detail::Role(roles::view(directory, names, role), attached)
}

/// Everything, in an order that pages can follow.
fn details<'a>(
    directory: &'a Directory,
    names: &'a Names,
    filter: &'a [DetailKind],
) -> impl Iterator<Item = (String, Detail)> + 'a {
    let wants = |kind: DetailKind| filter.is_empty() || filter.contains(&kind);
    let key = |kind: &str, name: &str| format!("{kind} {}", sort_key(name));
    let users = directory
        .users()
        .filter(move |_| wants(DetailKind::User))
        .map(move |user| {
            let detail = user_detail(directory, names, user);
            (key("1", user.name.as_str()), Detail::User(detail))
        });
    let groups = directory
        .groups()
        .filter(move |_| wants(DetailKind::Group))
        .map(move |group| {
            let detail = Detail::Group(group_detail(names, group));
            (key("2", &group.name), detail)
        });
    let roles = directory
        .roles()
        .filter(move |_| wants(DetailKind::Role))
        .map(move |role| (key("3", &role.name), role_detail(directory, names, role)));
    let own = directory
        .policies()
        .filter(move |_| wants(DetailKind::LocalManagedPolicy))
        .map(move |policy| {
            let view = policies::view(directory, names, policy);
            let versions = policies::versions(policy).collect();
            (key("4", &policy.name), Detail::Policy(view, versions))
        });
    users
        .chain(groups)
        .chain(roles)
        .chain(own)
        .chain(aws_details(directory, wants(DetailKind::AwsManagedPolicy)))
}

/// AWS's policies that somebody uses, by name.
fn aws_details(directory: &Directory, wanted: bool) -> Vec<(String, Detail)> {
    let in_use = aws_policies::all().filter_map(|policy| {
        let view = aws_policies::view(directory, policy);
        let versions = vec![aws_policies::version(policy)];
        let used = view.attachment_count + view.boundary_count > 0;
        (wanted && used).then(|| {
            let key = format!("5 {}", sort_key(&view.name));
            (key, Detail::Policy(view, versions))
        })
    });
    let mut details: Vec<_> = in_use.collect();
    details.sort_by(|one, other| one.0.cmp(&other.0));
    details
}

/// Numbers and quotas under AWS's names.
fn summary(directory: &Directory) -> BTreeMap<&'static str, usize> {
    let versions: usize = directory
        .policies()
        .map(|policy| policy.versions.len())
        .sum();
    let devices = directory.mfa_devices();
    let (all_devices, in_use) = devices.fold((0, 0), |(all, in_use), device| {
        (all + 1, in_use + usize::from(device.user.is_some()))
    });
    BTreeMap::from([
        ("Users", directory.users().count()),
        ("UsersQuota", 5_000),
        ("Groups", directory.groups().count()),
        ("GroupsQuota", 300),
        ("GroupsPerUserQuota", 10),
        ("Roles", directory.roles().count()),
        ("RolesQuota", roles::ROLES),
        ("Policies", directory.policies().count()),
        ("PoliciesQuota", policies::POLICIES),
        ("PolicySizeQuota", Quota::Managed.limit()),
        ("PolicyVersionsInUse", versions),
        (
            "PolicyVersionsInUseQuota",
            policies::POLICIES * policies::VERSIONS,
        ),
        ("VersionsPerPolicyQuota", policies::VERSIONS),
        ("AttachedPoliciesPerUserQuota", attachments::ATTACHED),
        ("AttachedPoliciesPerGroupQuota", attachments::ATTACHED),
        ("AttachedPoliciesPerRoleQuota", attachments::ATTACHED),
        ("UserPolicySizeQuota", Quota::InlineUser.limit()),
        ("GroupPolicySizeQuota", Quota::InlineGroup.limit()),
        ("RolePolicySizeQuota", Quota::InlineRole.limit()),
        ("AssumeRolePolicySizeQuota", Quota::Trust.limit()),
        ("AccessKeysPerUserQuota", 2),
        ("SigningCertificatesPerUserQuota", 0),
        ("MFADevices", all_devices),
        ("MFADevicesInUse", in_use),
        // There is no root user: nothing of it is present.
        ("AccountMFAEnabled", 0),
        ("AccountAccessKeysPresent", 0),
        ("AccountPasswordPresent", 0),
        ("AccountSigningCertificatesPresent", 0),
        ("ServerCertificates", 0),
        ("ServerCertificatesQuota", 0),
        ("InstanceProfiles", 0),
        ("InstanceProfilesQuota", 0),
        ("Providers", 0),
        ("GlobalEndpointTokenVersion", 2),
    ])
}

impl Control {
    /// `GetAccountAuthorizationDetails`: users, groups, roles and policies, of these kinds or of all.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_account_authorization_details(
        &self,
        call: &Call,
        filter: &[DetailKind],
        page: &PageRequest,
    ) -> Result<Recorded<Page<Detail>>, IamError> {
        const RULE: OperationRule = authorize::GET_ACCOUNT_AUTHORIZATION_DETAILS;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |_| Ask::any(),
            |directory, _| pager.page(details(directory, names, filter)),
        )
        .await
    }

    /// `GetAccountSummary`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_account_summary(
        &self,
        call: &Call,
    ) -> Result<Recorded<BTreeMap<&'static str, usize>>, IamError> {
        self.read_identities(
            call,
            &authorize::GET_ACCOUNT_SUMMARY,
            |_| Ask::any(),
            |directory, _| Ok(summary(directory)),
        )
        .await
    }
}
