//! Inline policies: those that a user, group or role carries itself.

use serde_json::Value;
use sortie_iam::{PolicyKind, Quota, document_size};
use sortie_ports::Grants;

use super::{
    ask,
    attachments::rule_for,
    document::check_policy,
    entity::{Held, Holder},
    error::IamError,
    page::{Page, PageRequest},
};
use crate::{
    Control,
    arns::Names,
    authorize,
    call::{Call, Recorded},
    directory::{Directory, Edit},
};

/// An inline policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinePolicyView {
    /// Whose, in the case it was made with.
    pub holder: String,
    /// Its name.
    pub name: String,
    /// As it was given.
    pub document: String,
}

fn put(
    directory: &Directory,
    names: &Names,
    holder: &Holder,
    name: &str,
    document: &str,
) -> Result<Edit<()>, IamError> {
    let held = holder.find(directory)?;
    check_policy(document, PolicyKind::Identity)?;
    let mut grants = held.grants().clone();
    grants.inline.insert(name.to_owned(), document.to_owned());
    let size: usize = grants.inline.values().map(|text| document_size(text)).sum();
    let quota = match holder {
        Holder::Group(_) => Quota::InlineGroup,
        Holder::Role(_) => Quota::InlineRole,
        Holder::User(_) => Quota::InlineUser,
    };
    let limit = quota.limit();
    if size > limit {
        let (kind, holder) = (holder.kind(), holder.name());
        let why = format!("Maximum policy size of {limit} bytes exceeded for {kind} {holder}");
        return Err(IamError::LimitExceeded(why));
    }
    Ok(changed(names, held, grants))
}

fn get(directory: &Directory, holder: &Holder, name: &str) -> Result<InlinePolicyView, IamError> {
    let held = holder.find(directory)?;
    let document = held.grants().inline.get(name);
    let document = document.ok_or_else(|| no_such_policy(holder, name))?;
    let holder = match held {
        Held::Group(group) => &group.name,
        Held::Role(role) => &role.name,
        Held::User(user) => user.name.as_str(),
    };
    Ok(InlinePolicyView {
        holder: holder.to_owned(),
        name: name.to_owned(),
        document: document.clone(),
    })
}

fn delete(
    directory: &Directory,
    names: &Names,
    holder: &Holder,
    name: &str,
) -> Result<Edit<()>, IamError> {
    let held = holder.find(directory)?;
    let mut grants = held.grants().clone();
    if grants.inline.remove(name).is_none() {
        return Err(no_such_policy(holder, name));
    }
    Ok(changed(names, held, grants))
}

fn changed(names: &Names, held: Held<'_>, grants: Grants) -> Edit<()> {
    Edit {
        answer: (),
        response: Value::Null,
        resources: vec![held.resource(names)],
        changes: vec![held.with_grants(grants)],
    }
}

fn no_such_policy(holder: &Holder, name: &str) -> IamError {
    let kind = holder.kind();
    IamError::NoSuchEntity(format!(
        "The {kind} policy with name {name} cannot be found."
    ))
}

impl Control {
    /// `PutUserPolicy`, `PutGroupPolicy` and `PutRolePolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn put_inline_policy(
        &self,
        call: &Call,
        holder: &Holder,
        name: &str,
        document: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let rules = [
            &authorize::PUT_USER_POLICY,
            &authorize::PUT_GROUP_POLICY,
            &authorize::PUT_ROLE_POLICY,
        ];
        self.change_identities(
            call,
            rule_for(holder, rules),
            |directory| ask::holder(directory, names, holder),
            |directory, _| put(directory, names, holder, name, document),
        )
        .await
    }

    /// `GetUserPolicy`, `GetGroupPolicy` and `GetRolePolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_inline_policy(
        &self,
        call: &Call,
        holder: &Holder,
        name: &str,
    ) -> Result<Recorded<InlinePolicyView>, IamError> {
        let names = &self.inner.names;
        let rules = [
            &authorize::GET_USER_POLICY,
            &authorize::GET_GROUP_POLICY,
            &authorize::GET_ROLE_POLICY,
        ];
        self.read_identities(
            call,
            rule_for(holder, rules),
            |directory| ask::holder(directory, names, holder),
            |directory, _| get(directory, holder, name),
        )
        .await
    }

    /// `ListUserPolicies`, `ListGroupPolicies` and `ListRolePolicies`: names alone.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_inline_policies(
        &self,
        call: &Call,
        holder: &Holder,
        page: &PageRequest,
    ) -> Result<Recorded<Page<String>>, IamError> {
        let names = &self.inner.names;
        let rules = [
            &authorize::LIST_USER_POLICIES,
            &authorize::LIST_GROUP_POLICIES,
            &authorize::LIST_ROLE_POLICIES,
        ];
        let rule = rule_for(holder, rules);
        let pager = self.pager(rule, page)?;
        self.read_identities(
            call,
            rule,
            |directory| ask::holder(directory, names, holder),
            |directory, _| {
                let inline = holder.find(directory)?.grants().inline.keys();
                pager.page(inline.map(|name| (name.clone(), name.clone())))
            },
        )
        .await
    }

    /// `DeleteUserPolicy`, `DeleteGroupPolicy` and `DeleteRolePolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_inline_policy(
        &self,
        call: &Call,
        holder: &Holder,
        name: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let rules = [
            &authorize::DELETE_USER_POLICY,
            &authorize::DELETE_GROUP_POLICY,
            &authorize::DELETE_ROLE_POLICY,
        ];
        self.change_identities(
            call,
            rule_for(holder, rules),
            |directory| ask::holder(directory, names, holder),
            |directory, _| delete(directory, names, holder, name),
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use sortie_ports::Identity;

    use super::*;
    use crate::iam::testing::{Rows, allow, group, names, role, text, user};

    fn rows() -> Rows {
        Rows::of([
            Identity::User(user("alice", 1)),
            Identity::Group(group("Ops", 2)),
            Identity::Role(role("Dev", 3)),
        ])
    }

    #[test]
    fn all_policies_of_a_holder_count_together() {
        for (holder, limit) in [
            (Holder::User("alice".to_owned()), 2_048),
            (Holder::Group("Ops".to_owned()), 5_120),
            (Holder::Role("Dev".to_owned()), 10_240),
        ] {
            let mut rows = rows();
            let half = allow(&format!("ssm:{}", "x".repeat(limit / 2 - 150)));
            let mut put = |name: &str| {
                rows.edit(|directory| super::put(directory, &names(), &holder, name, &half))
            };
            put("one").unwrap();
            put("two").unwrap();
            // In place of the one there was, it takes no further room.
            put("two").unwrap();
            let (kind, name) = (holder.kind(), holder.name());
            let outcome = put("three");
            assert_eq!(
                text(outcome),
                format!("Maximum policy size of {limit} bytes exceeded for {kind} {name}")
            );
        }
    }

    #[test]
    fn a_policy_is_read_back_as_it_was_given_and_then_gone() {
        let mut rows = rows();
        let holder = Holder::Role("dev".to_owned());
        let document = allow("ssm:StartSession").replace(',', ",\n  ");
        rows.edit(|directory| put(directory, &names(), &holder, "p", &document))
            .unwrap();
        let view = get(&rows.directory(), &holder, "p").unwrap();
        assert_eq!((view.holder, view.document), ("Dev".to_owned(), document));
        rows.edit(|directory| delete(directory, &names(), &holder, "p"))
            .unwrap();
        let outcome = rows.edit(|directory| delete(directory, &names(), &holder, "p"));
        assert_eq!(
            text(outcome),
            "The role policy with name p cannot be found."
        );
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        let holder = Holder::User("alice".to_owned());
        for document in ["", "{}", "nothing", r#"{"Statement":[]}"#] {
            let outcome = put(&rows().directory(), &names(), &holder, "p", document);
            assert!(
                matches!(outcome, Err(IamError::MalformedPolicyDocument(_))),
                "{document}"
            );
        }
    }
}
