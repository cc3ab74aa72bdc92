//! Giving a role to nodes: whoever does needs `iam:PassRole` on it, and the role must exist and trust
//! `ssm.amazonaws.com`. What nodes then may do is decided by the role's policies at each call.

use sortie_iam::{Context, Outcome, Policies, Principal};
use sortie_ports::Role;
use sortie_types::{NodeId, UniqueId};

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

    /// Whether a node, or one that is not there yet, may act with a role. Its name as it spells it
    /// itself, behind the path that was given.
    pub(crate) fn usable_role(
        &self,
        directory: &Directory,
        iam_role: &str,
        node: Option<&NodeId>,
    ) -> Result<String, UnusableRole> {
        let role = role_of_nodes(&self.inner.names, directory, iam_role, None, node);
        let path = iam_role
            .strip_suffix(role_name(iam_role))
            .unwrap_or_default();
        let own_spelling = |role: &Role| format!("{path}{}", role.name);
        role.map(own_spelling).ok_or_else(|| UnusableRole {
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
    node: Option<&NodeId>,
) -> Option<&'a Role> {
    let role = match known {
        Some(id) => directory.role_by_id(id),
        None => named_role(directory, iam_role),
    };
    role.filter(|role| trusts_service(names, directory, role, node))
}

/// Whether the service may assume the role on behalf of this account and of its node, as trust policies
/// ask that let no other account's nodes in. Before there is a node it is for an activation.
fn trusts_service(
    names: &Names,
    directory: &Directory,
    role: &Role,
    node: Option<&NodeId>,
) -> bool {
    let source = node.map_or_else(|| names.any_activation(), |node| names.node(node));
    let mut context = Context::new();
    context.set("aws:SourceAccount", names.account.as_str());
    context.set("aws:SourceArn", source.as_str());
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
        context: &context,
    };
    question.decide(names) == Outcome::Allowed
}

/// A role by the name that is given for nodes. A path before the name must be the role's.
fn named_role<'a>(directory: &'a Directory, iam_role: &str) -> Option<&'a Role> {
    let role = directory.role(role_name(iam_role))?;
    let path = iam_role.strip_suffix(role_name(iam_role))?;
    (path.is_empty() || role.path == format!("/{path}")).then_some(role)
}
