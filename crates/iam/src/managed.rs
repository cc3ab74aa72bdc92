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

impl ManagedPolicy {
    /// Its ARN: that of AWS's own account.
    #[must_use]
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::aws:policy{}{}", self.path, self.name)
    }
}

/// The policy of an ARN.
#[must_use]
pub fn by_arn(arn: &str) -> Option<&'static ManagedPolicy> {
    let named = arn.strip_prefix("arn:aws:iam::aws:policy")?;
    ALL.iter().find(|policy| {
        named
            .strip_prefix(policy.path)
            .is_some_and(|name| name == policy.name)
    })
}

/// All of them, sorted by name.
#[must_use]
pub fn all() -> &'static [ManagedPolicy] {
    ALL
}

macro_rules! managed {
    ($path:literal, $name:literal, $version:literal, $description:literal) => {
        ManagedPolicy {
            name: $name,
            path: $path,
            description: $description,
            default_version_id: $version,
            document: include_str!(concat!("managed/", $name, ".json")),
        }
    };
}

const ALL: &[ManagedPolicy] = &[
    managed!(
        "/",
        "AWSCloudTrail_FullAccess",
        "v3",
        "Everything about trails, with the buckets and topics that they need."
    ),
    managed!(
        "/",
        "AWSCloudTrail_ReadOnlyAccess",
        "v1",
        "Reading trails and events."
    ),
    managed!("/", "AWSDenyAll", "v2", "Nothing, whatever else allows."),
    managed!(
        "/",
        "AWSKeyManagementServicePowerUser",
        "v2",
        "Managing keys without using them."
    ),
    managed!(
        "/aws-service-role/",
        "AWSSystemsManagerJustInTimeAccessServicePolicy",
        "v9",
        "What the approval of just-in-time access needs."
    ),
    managed!(
        "/",
        "AWSSystemsManagerJustInTimeAccessTokenPolicy",
        "v6",
        "What the role behind just-in-time access tokens may do."
    ),
    managed!(
        "/",
        "AWSSystemsManagerJustInTimeAccessTokenSessionPolicy",
        "v3",
        "Session policy of just-in-time access tokens, beside a statement for the node."
    ),
    managed!("/", "AdministratorAccess", "v1", "Everything."),
    managed!(
        "/service-role/",
        "AmazonEC2RoleforSSM",
        "v8",
        "Deprecated: the former policy of a node's role, with all logs and buckets."
    ),
    managed!(
        "/",
        "AmazonEventBridgeFullAccess",
        "v7",
        "Everything about event buses and rules."
    ),
    managed!(
        "/",
        "AmazonEventBridgeReadOnlyAccess",
        "v7",
        "Reading event buses and rules."
    ),
    managed!(
        "/",
        "AmazonS3FullAccess",
        "v2",
        "Everything about buckets and objects."
    ),
    managed!(
        "/",
        "AmazonS3ReadOnlyAccess",
        "v3",
        "Reading buckets and objects."
    ),
    managed!("/", "AmazonSNSFullAccess", "v2", "Everything about topics."),
    managed!(
        "/",
        "AmazonSNSReadOnlyAccess",
        "v2",
        "Reading topics and subscriptions."
    ),
    managed!(
        "/",
        "AmazonSSMFullAccess",
        "v4",
        "Everything in Systems Manager."
    ),
    managed!(
        "/",
        "AmazonSSMManagedEC2InstanceDefaultPolicy",
        "v2",
        "What a node's role needs to be managed, without reading parameters."
    ),
    managed!(
        "/",
        "AmazonSSMManagedInstanceCore",
        "v2",
        "What a node's role needs to be managed and to serve sessions."
    ),
    managed!(
        "/",
        "AmazonSSMPatchAssociation",
        "v1",
        "Reading patch baselines for patch associations."
    ),
    managed!(
        "/",
        "AmazonSSMReadOnlyAccess",
        "v1",
        "Reading everything in Systems Manager, access tokens and parameters included."
    ),
    managed!(
        "/",
        "CloudWatchAgentServerPolicy",
        "v3",
        "What the CloudWatch agent needs on a node."
    ),
    managed!(
        "/",
        "CloudWatchLogsFullAccess",
        "v8",
        "Everything about logs."
    ),
    managed!("/", "CloudWatchLogsReadOnlyAccess", "v12", "Reading logs."),
    managed!("/", "IAMFullAccess", "v2", "Everything about identities."),
    managed!(
        "/",
        "IAMReadOnlyAccess",
        "v4",
        "Reading everything about identities."
    ),
    managed!(
        "/",
        "IAMSelfManageServiceSpecificCredentials",
        "v1",
        "Managing one's own service-specific credentials."
    ),
    managed!(
        "/",
        "IAMUserChangePassword",
        "v5",
        "Changing one's own password."
    ),
    managed!("/", "IAMUserSSHKeys", "v1", "Managing one's own SSH keys."),
    managed!("/", "PowerUserAccess", "v12", "Everything but identities."),
    managed!("/", "ReadOnlyAccess", "v190", "Reading everything."),
    managed!(
        "/",
        "SecurityAudit",
        "v94",
        "Reading how everything is configured, without contents."
    ),
    managed!(
        "/job-function/",
        "SupportUser",
        "v11",
        "Reading what is needed to find and resolve problems."
    ),
    managed!(
        "/job-function/",
        "SystemAdministrator",
        "v12",
        "Running applications and their infrastructure."
    ),
    managed!(
        "/job-function/",
        "ViewOnlyAccess",
        "v46",
        "Listing resources, without their contents."
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policy, PolicyKind, Quota, Version, document_size};

    #[test]
    fn every_document_is_a_policy_within_its_quota() {
        for managed in all() {
            let policy = Policy::parse(managed.document, PolicyKind::Identity)
                .unwrap_or_else(|error| panic!("{}: {error} {}", managed.name, error.detail()));
            assert_eq!(policy.version(), Version::V2012, "{}", managed.name);
            let size = document_size(managed.document);
            assert_eq!(Quota::Managed.check(size), Ok(()), "{}", managed.name);
        }
    }

    #[test]
    fn policies_are_found_by_their_arn() {
        for managed in all() {
            assert_eq!(by_arn(&managed.arn()), Some(managed));
        }
        let core = by_arn("arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore").expect("core");
        assert_eq!(core.default_version_id, "v2");
        assert!(by_arn("arn:aws:iam::aws:policy/service-role/AmazonEC2RoleforSSM").is_some());
        for arn in [
            "arn:aws:iam::aws:policy/AmazonEC2RoleforSSM",
            "arn:aws:iam::111122223333:policy/AdministratorAccess",
            "arn:aws:iam::aws:policy/",
            "",
        ] {
            assert_eq!(by_arn(arn), None, "{arn}");
        }
    }

    #[test]
    fn they_are_sorted_and_each_is_there_once() {
        assert!(all().is_sorted_by(|a, b| a.name < b.name));
        assert!(all().len() > 25);
    }
}
