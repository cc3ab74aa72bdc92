//! What the shapes of iam share: pages, tags, boundaries and documents, between the wire's form and
//! control's.

use sortie_control::{AttachedPolicyView, Page, PageRequest};
use sortie_types::{Arn, Tag};
use sortie_wire::{percent, shapes::iam};

pub(super) fn page(marker: Option<String>, max_items: Option<i32>) -> PageRequest {
    PageRequest { marker, max_items }
}

/// A part of a listing: its items, whether there are more, and where they go on.
pub(super) fn listing<T, W>(
    page: Page<T>,
    to_wire: impl FnMut(T) -> W,
) -> (Vec<W>, Option<bool>, Option<String>) {
    let is_truncated = Some(page.marker.is_some());
    let items = page.items.into_iter().map(to_wire).collect();
    (items, is_truncated, page.marker)
}

pub(super) fn given_tags(tags: Option<Vec<iam::Tag>>) -> Vec<(String, String)> {
    let tags = tags.unwrap_or_default().into_iter();
    tags.map(|tag| (tag.key, tag.value)).collect()
}

pub(super) fn tag(tag: Tag) -> iam::Tag {
    iam::Tag {
        key: tag.key,
        value: tag.value,
    }
}

/// The tags of an entity; absent where it has none, as IAM has it.
pub(super) fn tags(tags: Vec<Tag>) -> Option<Vec<iam::Tag>> {
    (!tags.is_empty()).then(|| tags.into_iter().map(tag).collect())
}

pub(super) fn boundary(arn: Option<Arn>) -> Option<iam::AttachedPermissionsBoundary> {
    arn.map(|arn| iam::AttachedPermissionsBoundary {
        permissions_boundary_type: Some(
            iam::PermissionsBoundaryAttachmentType::PERMISSIONS_BOUNDARY_POLICY,
        ),
        permissions_boundary_arn: Some(arn.to_string()),
    })
}

/// A policy document as IAM gives it.
pub(super) fn document(text: &str) -> String {
    percent::encode_component(text)
}

pub(super) fn attached(policies: Vec<AttachedPolicyView>) -> Vec<iam::AttachedPolicy> {
    let policy = |view: AttachedPolicyView| iam::AttachedPolicy {
        policy_name: Some(view.name),
        policy_arn: Some(view.arn.to_string()),
    };
    policies.into_iter().map(policy).collect()
}

/// A count as the wire has it.
pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
