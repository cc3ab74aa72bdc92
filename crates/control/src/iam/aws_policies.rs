//! AWS's managed policies as the operations show them. They are part of the program: nobody made
//! them here, and nobody can change them.

use aws_lc_rs::digest::{SHA256, digest};
use sortie_iam::managed::{self, ManagedPolicy};
use sortie_types::{Arn, Timestamp, UniqueId, UniqueIdKind};

use super::policies::{PolicyVersionView, PolicyView, uses};
use crate::directory::Directory;

/// When AWS brought managed policies out, 2015-02-06: they are older than any installation.
const MADE: Timestamp = Timestamp::from_millis(1_423_180_800_000);

/// All of them, in no particular order.
pub(crate) fn all() -> impl Iterator<Item = &'static ManagedPolicy> {
    managed::all().iter()
}

/// The one of an ARN.
pub(crate) fn by_arn(arn: &Arn) -> Option<&'static ManagedPolicy> {
    managed::by_arn(arn.as_str())
}

pub(crate) fn arn(policy: &ManagedPolicy) -> Arn {
    let resource = format!("policy{}{}", policy.path, policy.name);
    Arn::new("iam", "", "aws", &resource)
}

/// The same id for the same policy, everywhere.
fn unique_id(arn: &Arn) -> UniqueId {
    let mut bytes = [0; 17];
    let digest = digest(&SHA256, arn.as_str().as_bytes());
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    UniqueId::from_random(UniqueIdKind::ManagedPolicy, bytes)
}

pub(crate) fn view(directory: &Directory, policy: &ManagedPolicy) -> PolicyView {
    let arn = arn(policy);
    let (attachment_count, boundary_count) = uses(directory, &arn);
    PolicyView {
        name: policy.name.to_owned(),
        unique_id: unique_id(&arn),
        path: policy.path.to_owned(),
        default_version: policy.default_version_id.to_owned(),
        attachment_count,
        boundary_count,
        description: Some(policy.description.to_owned()),
        created: MADE,
        updated: MADE,
        tags: Vec::new(),
        arn,
    }
}

/// The only version.
pub(crate) fn version(policy: &ManagedPolicy) -> PolicyVersionView {
    PolicyVersionView {
        id: policy.default_version_id.to_owned(),
        document: policy.document.to_owned(),
        is_default: true,
        created: MADE,
    }
}
