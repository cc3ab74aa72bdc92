//! Permissions boundaries: the managed policy that a user or role can do no more than.

use serde_json::Value;
use sortie_types::Arn;

use super::{
    ask,
    entity::{Holder, not_found, parse_arn},
    error::IamError,
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, OperationRule},
    call::{Call, Recorded},
    directory::{Directory, Edit},
};

/// The managed policy that is to be a boundary.
pub(crate) fn boundary(directory: &Directory, arn: &str) -> Result<Arn, IamError> {
    let policy = parse_arn(arn)?;
    if directory.managed_document(&policy).is_none() {
        let why = format!("Scope ARN: {arn} does not exist or is not attachable.");
        return Err(IamError::NoSuchEntity(why));
    }
    Ok(policy)
}

fn put(
    directory: &Directory,
    names: &Names,
    holder: &Holder,
    arn: &Arn,
) -> Result<Edit<()>, IamError> {
    let held = holder.find(directory)?;
    let arn = boundary(directory, arn.as_str())?;
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![held.resource(names)],
        changes: vec![held.with_boundary(Some(arn))],
    })
}

fn delete(directory: &Directory, names: &Names, holder: &Holder) -> Result<Edit<()>, IamError> {
    let held = holder.find(directory)?;
    if held.boundary().is_none() {
        let (kind, name) = (holder.kind(), holder.name());
        let why = format!("The {kind} with name {name} does not have a permissions boundary.");
        return Err(IamError::NoSuchEntity(why));
    }
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![held.resource(names)],
        changes: vec![held.with_boundary(None)],
    })
}

/// The rule for a user or for a role. Groups have no boundary.
fn rule(
    holder: &Holder,
    user: &'static OperationRule,
    role: &'static OperationRule,
) -> Result<&'static OperationRule, IamError> {
    match holder {
        Holder::Group(name) => Err(not_found("user", name)),
        Holder::Role(_) => Ok(role),
        Holder::User(_) => Ok(user),
    }
}

impl Control {
    /// `PutUserPermissionsBoundary` and `PutRolePermissionsBoundary`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn put_permissions_boundary(
        &self,
        call: &Call,
        holder: &Holder,
        arn: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let arn = parse_arn(arn)?;
        let rule = rule(
            holder,
            &authorize::PUT_USER_PERMISSIONS_BOUNDARY,
            &authorize::PUT_ROLE_PERMISSIONS_BOUNDARY,
        )?;
        self.change_identities(
            call,
            rule,
            |directory| ask::holder_with_boundary(directory, names, holder, &arn),
            |directory, _| put(directory, names, holder, &arn),
        )
        .await
    }

    /// `DeleteUserPermissionsBoundary` and `DeleteRolePermissionsBoundary`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_permissions_boundary(
        &self,
        call: &Call,
        holder: &Holder,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let rule = rule(
            holder,
            &authorize::DELETE_USER_PERMISSIONS_BOUNDARY,
            &authorize::DELETE_ROLE_PERMISSIONS_BOUNDARY,
        )?;
        self.change_identities(
            call,
            rule,
            |directory| ask::holder(directory, names, holder),
            |directory, _| delete(directory, names, holder),
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use sortie_ports::Identity;

    use super::*;
    use crate::iam::testing::{READ_ONLY, Rows, names, role, text, user};

    #[test]
    fn a_boundary_is_put_replaced_and_deleted() {
        let mut rows = Rows::of([
            Identity::User(user("alice", 1)),
            Identity::Role(role("Dev", 2)),
        ]);
        for holder in [Holder::User("alice".into()), Holder::Role("Dev".into())] {
            for policy in [READ_ONLY, "arn:aws:iam::aws:policy/AdministratorAccess"] {
                let policy: Arn = policy.parse().unwrap();
                rows.edit(|directory| put(directory, &names(), &holder, &policy))
                    .unwrap();
                let directory = rows.directory();
                let held = holder.find(&directory).unwrap();
                assert_eq!(held.boundary(), Some(&policy));
            }
            rows.edit(|directory| delete(directory, &names(), &holder))
                .unwrap();
            let outcome = rows.edit(|directory| delete(directory, &names(), &holder));
            assert!(matches!(outcome, Err(IamError::NoSuchEntity(_))));
            let missing: Arn = "arn:aws:iam::111122223333:policy/None".parse().unwrap();
            let outcome = rows.edit(|directory| put(directory, &names(), &holder, &missing));
            assert_eq!(
                text(outcome),
                "Scope ARN: arn:aws:iam::111122223333:policy/None does not exist or is not \
                 attachable."
            );
        }
    }
}
