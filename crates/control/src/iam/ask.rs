//! What operations on identities ask of the policies: the ARN with its path, the tags of what is
//! there, and the keys of the request. What is not there is asked about by its name alone, so that
//! nobody learns from a refusal whether it exists.

use sortie_types::{Arn, Tag};

use super::entity::{Holder, identity_arn};
use crate::{
    arns::Names,
    authorize::{Ask, AskedResource},
    directory::Directory,
};

/// The tags of what an action is on, under both of their names.
const RESOURCE_TAG: &[&str] = &["aws:ResourceTag", "iam:ResourceTag"];
const BOUNDARY: &str = "iam:PermissionsBoundary";

/// A user, group or role.
pub(crate) fn holder(directory: &Directory, names: &Names, holder: &Holder) -> Ask {
    let ask = Ask::about(vec![holder_itself(directory, names, holder)]);
    match holder.find(directory).ok().and_then(|held| held.boundary()) {
        Some(boundary) => ask.key(BOUNDARY, boundary.as_str()),
        None => ask,
    }
}

/// The same, where the request names the boundary to set.
pub(crate) fn holder_with_boundary(
    directory: &Directory,
    names: &Names,
    holder: &Holder,
    boundary: &Arn,
) -> Ask {
    Ask::about(vec![holder_itself(directory, names, holder)]).key(BOUNDARY, boundary.as_str())
}

/// The same as a resource beside others.
pub(super) fn holder_itself(
    directory: &Directory,
    names: &Names,
    holder: &Holder,
) -> AskedResource {
    let resource = AskedResource::new(holder.arn(directory, names));
    match holder.find(directory) {
        Ok(held) => resource.tags(RESOURCE_TAG, held.tags()),
        Err(_) => resource,
    }
}

/// A role.
pub(crate) fn role(directory: &Directory, names: &Names, name: &str) -> Ask {
    holder(directory, names, &Holder::Role(name.to_owned()))
}

/// A managed policy.
pub(crate) fn policy(directory: &Directory, arn: &Arn) -> Ask {
    let resource = AskedResource::new(arn.clone());
    Ask::about(vec![match directory.customer_policy(arn) {
        Some(policy) => resource.tags(RESOURCE_TAG, &policy.tags),
        None => resource,
    }])
}

/// A role that is to be made.
pub(crate) fn new_role(
    names: &Names,
    path: Option<&str>,
    name: &str,
    boundary: Option<&str>,
    tags: &[(String, String)],
) -> Ask {
    let arn = identity_arn(names, "role", path.unwrap_or("/"), name);
    let ask = match boundary {
        Some(boundary) => Ask::on(arn.clone()).key(BOUNDARY, boundary),
        None => Ask::on(arn.clone()),
    };
    with_new_tags(ask, arn, "iam:TagRole", tags)
}

/// A managed policy that is to be made.
pub(crate) fn new_policy(
    names: &Names,
    path: Option<&str>,
    name: &str,
    tags: &[(String, String)],
) -> Ask {
    let arn = identity_arn(names, "policy", path.unwrap_or("/"), name);
    with_new_tags(Ask::on(arn.clone()), arn, "iam:TagPolicy", tags)
}

/// Making something with tags is tagging it as well.
fn with_new_tags(ask: Ask, arn: Arn, action: &'static str, tags: &[(String, String)]) -> Ask {
    if tags.is_empty() {
        return ask;
    }
    with_request_tags(ask, tags).also(action, vec![AskedResource::new(arn)])
}

/// With the tags that a request sets. Whether they are good is not asked yet.
pub(crate) fn with_request_tags(ask: Ask, tags: &[(String, String)]) -> Ask {
    let tag = |(key, value): &(String, String)| Tag {
        key: key.clone(),
        value: value.clone(),
    };
    let tags: Vec<Tag> = tags.iter().map(tag).collect();
    ask.request_tags(&tags)
}
