//! Managed policies attached to users, groups and roles.

use serde_json::Value;
use sortie_ports::Grants;
use sortie_types::Arn;

use super::{
    ask,
    entity::{Holder, parse_arn, sort_key, under},
    error::IamError,
    page::{Page, PageRequest},
    policies::policy_was_not_found,
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, OperationRule},
    call::{Call, Recorded},
    directory::{Directory, Edit},
};

/// Managed policies of one user, group or role.
pub(crate) const ATTACHED: usize = 10;
/// Policies under this path belong to roles that services make for themselves.
const SERVICE_LINKED: &str = ":policy/aws-service-role/";

/// A managed policy as the listing of a holder shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedPolicyView {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: Arn,
}

/// A policy by the last part of its ARN.
pub(crate) fn attached_view(arn: &Arn) -> AttachedPolicyView {
    let name = arn.resource().rsplit('/').next().unwrap_or_default();
    AttachedPolicyView {
        name: name.to_owned(),
        arn: arn.clone(),
    }
}

/// The path in a policy's ARN.
fn path(arn: &Arn) -> &str {
    let resource = arn.resource();
    let path = resource.strip_prefix("policy").unwrap_or(resource);
    let end = path.rfind('/').map_or(0, |slash| slash + 1);
    path.get(..end).unwrap_or_default()
}

fn attach(
    directory: &Directory,
    names: &Names,
    holder: &Holder,
    arn: &Arn,
) -> Result<Edit<()>, IamError> {
    let held = holder.find(directory)?;
    if directory.managed_document(arn).is_none() {
        let why = format!("Policy {arn} does not exist or is not attachable.");
        return Err(IamError::NoSuchEntity(why));
    }
    if arn.as_str().contains(SERVICE_LINKED) {
        let why = "Cannot attach a Service Role Policy to a Customer Role.";
        return Err(IamError::PolicyNotAttachable(why.to_owned()));
    }
    let mut grants = held.grants().clone();
    let present = grants.attached.contains(arn);
    if !present && grants.attached.len() >= ATTACHED {
        let quota = match holder {
            Holder::Group(_) => "PoliciesPerGroup",
            Holder::Role(_) => "PoliciesPerRole",
            Holder::User(_) => "PoliciesPerUser",
        };
        let why = format!("Cannot exceed quota for {quota}: {ATTACHED}");
        return Err(IamError::LimitExceeded(why));
    }
    if !present {
        grants.attached.push(arn.clone());
    }
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![held.resource(names)],
        // What is attached already needs no new row, and nobody is judged anew.
        changes: if present {
            Vec::new()
        } else {
            vec![held.with_grants(grants)]
        },
    })
}

fn detach(
    directory: &Directory,
    names: &Names,
    holder: &Holder,
    arn: &Arn,
) -> Result<Edit<()>, IamError> {
    let held = holder.find(directory)?;
    let before = held.grants();
    if !before.attached.contains(arn) {
        return Err(policy_was_not_found(arn));
    }
    let left = before.attached.iter().filter(|attached| *attached != arn);
    let grants = Grants {
        attached: left.cloned().collect(),
        inline: before.inline.clone(),
    };
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![held.resource(names)],
        changes: vec![held.with_grants(grants)],
    })
}

fn listed(
    directory: &Directory,
    holder: &Holder,
    prefix: Option<&str>,
) -> Result<Vec<(String, AttachedPolicyView)>, IamError> {
    let attached = holder.find(directory)?.grants().attached.iter();
    let mut listed: Vec<_> = attached
        .filter(|arn| under(path(arn), prefix))
        .map(attached_view)
        // The ARN tells apart what has one name under two paths or accounts.
        .map(|view| (format!("{} {}", sort_key(&view.name), view.arn), view))
        .collect();
    listed.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(listed)
}

/// The rule for each kind of holder.
pub(crate) fn rule_for(
    holder: &Holder,
    [user, group, role]: [&'static OperationRule; 3],
) -> &'static OperationRule {
    match holder {
        Holder::Group(_) => group,
        Holder::Role(_) => role,
        Holder::User(_) => user,
    }
}

impl Control {
    /// `AttachUserPolicy`, `AttachGroupPolicy` and `AttachRolePolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn attach_policy(
        &self,
        call: &Call,
        holder: &Holder,
        arn: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let arn = parse_arn(arn)?;
        let rules = [
            &authorize::ATTACH_USER_POLICY,
            &authorize::ATTACH_GROUP_POLICY,
            &authorize::ATTACH_ROLE_POLICY,
        ];
        self.change_identities(
            call,
            rule_for(holder, rules),
            |directory| ask::holder(directory, names, holder).key("iam:PolicyARN", arn.as_str()),
            |directory, _| attach(directory, names, holder, &arn),
        )
        .await
    }

    /// `DetachUserPolicy`, `DetachGroupPolicy` and `DetachRolePolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn detach_policy(
        &self,
        call: &Call,
        holder: &Holder,
        arn: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let arn = parse_arn(arn)?;
        let rules = [
            &authorize::DETACH_USER_POLICY,
            &authorize::DETACH_GROUP_POLICY,
            &authorize::DETACH_ROLE_POLICY,
        ];
        self.change_identities(
            call,
            rule_for(holder, rules),
            |directory| ask::holder(directory, names, holder).key("iam:PolicyARN", arn.as_str()),
            |directory, _| detach(directory, names, holder, &arn),
        )
        .await
    }

    /// `ListAttachedUserPolicies`, `ListAttachedGroupPolicies` and `ListAttachedRolePolicies`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_attached_policies(
        &self,
        call: &Call,
        holder: &Holder,
        path_prefix: Option<&str>,
        page: &PageRequest,
    ) -> Result<Recorded<Page<AttachedPolicyView>>, IamError> {
        let names = &self.inner.names;
        let rules = [
            &authorize::LIST_ATTACHED_USER_POLICIES,
            &authorize::LIST_ATTACHED_GROUP_POLICIES,
            &authorize::LIST_ATTACHED_ROLE_POLICIES,
        ];
        let rule = rule_for(holder, rules);
        let pager = self.pager(rule, page)?;
        self.read_identities(
            call,
            rule,
            |directory| ask::holder(directory, names, holder),
            |directory, _| pager.page(listed(directory, holder, path_prefix)?),
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use sortie_ports::Identity;

    use super::*;
    use crate::iam::testing::{READ_ONLY, Rows, group, names, policy, role, text, user};

    fn rows() -> Rows {
        let policies =
            (0..12).map(|number| Identity::Policy(policy(&format!("P{number}"), number)));
        let holders = [
            Identity::User(user("alice", 1)),
            Identity::Group(group("Ops", 2)),
            Identity::Role(role("Dev", 3)),
        ];
        Rows::of(policies.chain(holders))
    }

    fn arn(number: usize) -> Arn {
        format!("arn:aws:iam::111122223333:policy/P{number}")
            .parse()
            .unwrap()
    }

    fn holders() -> [(Holder, &'static str); 3] {
        [
            (Holder::User("Alice".to_owned()), "PoliciesPerUser"),
            (Holder::Group("ops".to_owned()), "PoliciesPerGroup"),
            (Holder::Role("dev".to_owned()), "PoliciesPerRole"),
        ]
    }

    #[test]
    fn every_holder_takes_ten_and_gives_them_back() {
        let mut rows = rows();
        for (holder, quota) in holders() {
            for number in 0..10 {
                rows.edit(|directory| attach(directory, &names(), &holder, &arn(number)))
                    .unwrap();
            }
            // What is attached already takes no place.
            rows.edit(|directory| attach(directory, &names(), &holder, &arn(3)))
                .unwrap();
            let outcome = rows.edit(|directory| attach(directory, &names(), &holder, &arn(10)));
            assert_eq!(
                text(outcome),
                format!("Cannot exceed quota for {quota}: 10")
            );
            assert_eq!(listed(&rows.directory(), &holder, None).unwrap().len(), 10);
            rows.edit(|directory| detach(directory, &names(), &holder, &arn(3)))
                .unwrap();
            let outcome = rows.edit(|directory| detach(directory, &names(), &holder, &arn(3)));
            assert_eq!(
                text(outcome),
                "Policy arn:aws:iam::111122223333:policy/P3 was not found."
            );
        }
    }

    #[test]
    fn attaching_again_changes_nothing() {
        let mut rows = rows();
        let (holder, _) = holders().into_iter().next().unwrap();
        let policy: Arn = READ_ONLY.parse().unwrap();
        rows.edit(|directory| attach(directory, &names(), &holder, &policy))
            .unwrap();
        let again = attach(&rows.directory(), &names(), &holder, &policy).unwrap();
        assert!(again.changes.is_empty());
    }

    #[test]
    fn what_is_not_there_cannot_be_attached() {
        let directory = rows().directory();
        let missing: Arn = "arn:aws:iam::111122223333:policy/None".parse().unwrap();
        for (holder, _) in holders() {
            assert_eq!(
                text(attach(&directory, &names(), &holder, &missing)),
                "Policy arn:aws:iam::111122223333:policy/None does not exist or is not attachable."
            );
        }
        let nobody = Holder::User("bob".to_owned());
        assert_eq!(
            text(attach(&directory, &names(), &nobody, &arn(1))),
            "The user with name bob cannot be found."
        );
    }

    #[test]
    fn the_path_of_a_policy_is_read_from_its_arn() {
        for (text, expected) in [
            ("arn:aws:iam::aws:policy/ReadOnlyAccess", "/"),
            (
                "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess",
                "/job-function/",
            ),
            ("arn:aws:iam::111122223333:policy/a/b/c", "/a/b/"),
        ] {
            assert_eq!(path(&text.parse().unwrap()), expected);
        }
    }
}
