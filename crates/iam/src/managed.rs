//! The AWS-managed policies that exist in every installation, under the ARNs that they have on AWS.
//! Their documents grant what AWS's do, for the services that are served here.

/// A managed policy that customers can attach but not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagedPolicy {
    /// Its name.
    pub name: &'static str,
    /// Its path: `/`, or with a folder.
    pub path: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// The id of its only version.
    pub default_version_id: &'static str,
    /// The document of that version.
    pub document: &'static str,
}
