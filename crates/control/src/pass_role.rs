//! Giving a role to nodes: whoever does needs `iam:PassRole` on it, and the role must exist and trust
//! `ssm.amazonaws.com`. What nodes then may do is decided by the role's policies at each call.

use sortie_iam::{Context, Outcome, Policies, Principal};
use sortie_ports::Role;
use sortie_types::UniqueId;

use crate::{
    Control,
    arns::{Names, role_name},
    authorize::{Ask, AskedResource, Question},
    context::Keys,
    directory::Directory,
};

/// The service that nodes' roles are for.
pub(crate) const SERVICE: &str = "ssm.amazonaws.com";

/// No role that nodes may act with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
// Terraform tries again when it reads the first two words: a role that was just made.
#[error("Nonexistent role or missing ssm service principal in trust policy: {iam_role}")]
pub struct UnusableRole {
    /// As it was given.
    pub iam_role: String,
}

impl Control {
    /// The same ask, with leave to pass the role.
    pub(crate) fn passing_role(&self, directory: &Directory, ask: Ask, iam_role: &str) -> Ask {
        let names = &self.inner.names;
        let passed = match named_role(directory, iam_role) {
            Some(role) => AskedResource::new(names.role_arn(role))
                .tags(&["aws:ResourceTag", "iam:ResourceTag"], &role.tags),
            None => AskedResource::new(names.role(iam_role)),
        };
        let keys = Keys::default().one("iam:PassedToService", SERVICE);
        ask.also_with("iam:PassRole", vec![passed], keys)
    }

    /// Whether nodes may act with a role.
    pub(crate) fn usable_role(
        &self,
        directory: &Directory,
        iam_role: &str,
    ) -> Result<(), UnusableRole> {
        let role = role_of_nodes(&self.inner.names, directory, iam_role, None);
        role.map(|_| ()).ok_or_else(|| UnusableRole {
            iam_role: iam_role.to_owned(),
        })
    }
}

/// The role that nodes act with, by the name that is given for them or by unique id where that is
/// known: a role that was made anew is another one. `None` when it does not trust the service any more.
pub(crate) fn role_of_nodes<'a>(
    names: &Names,
    directory: &'a Directory,
    iam_role: &str,
    known: Option<&UniqueId>,
) -> Option<&'a Role> {
    let role = match known {
        Some(id) => directory.role_by_id(id),
        None => named_role(directory, iam_role),
    };
    role.filter(|role| trusts_service(names, directory, role))
}

fn trusts_service(names: &Names, directory: &Directory, role: &Role) -> bool {
    let trust = directory.trust_policy(role);
    let principal = Principal::Service {
        name: SERVICE.to_owned(),
    };
    let question = Question {
        principal: &principal,
        policies: Policies {
            resource: Some(&trust),
            ..Policies::default()
        },
        action: "sts:AssumeRole",
        resource: Some(&AskedResource::new(names.role_arn(role))),
        context: &Context::new(),
    };
    question.decide(names) == Outcome::Allowed
}

/// A role by the name that is given for nodes. A path before the name must be the role's.
fn named_role<'a>(directory: &'a Directory, iam_role: &str) -> Option<&'a Role> {
    let role = directory.role(role_name(iam_role))?;
    let path = iam_role.strip_suffix(role_name(iam_role))?;
    (path.is_empty() || role.path == format!("/{path}")).then_some(role)
}
