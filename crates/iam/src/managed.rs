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

/// All of them, in order of names.
#[must_use]
pub fn all() -> &'static [ManagedPolicy] {
    POLICIES
}

/// The one of an ARN: `arn:aws:iam::aws:policy` and its path and name.
#[must_use]
pub fn by_arn(arn: &str) -> Option<&'static ManagedPolicy> {
    let rest = arn.strip_prefix("arn:aws:iam::aws:policy")?;
    let named = |policy: &&ManagedPolicy| {
        rest.strip_prefix(policy.path) == Some(policy.name)
    };
    POLICIES.iter().find(named)
}

const POLICIES: &[ManagedPolicy] = &[
    ManagedPolicy {
        name: "AdministratorAccess",
        path: "/",
        description: "Every action on everything.",
        default_version_id: "v1",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    },
    ManagedPolicy {
        name: "AmazonSSMManagedInstanceCore",
        path: "/",
        description: "What a managed node needs for Session Manager.",
        default_version_id: "v2",
        document: r#"{"Version":"2012-10-17","Statement":[
{"Effect":"Allow","Action":["ssm:DescribeAssociation","ssm:GetDeployablePatchSnapshotForInstance","ssm:GetDocument","ssm:DescribeDocument","ssm:GetManifest","ssm:GetParameter","ssm:GetParameters","ssm:ListAssociations","ssm:ListInstanceAssociations","ssm:PutInventory","ssm:PutComplianceItems","ssm:PutConfigurePackageResult","ssm:UpdateAssociationStatus","ssm:UpdateInstanceAssociationStatus","ssm:UpdateInstanceInformation"],"Resource":"*"},
{"Effect":"Allow","Action":["ssmmessages:CreateControlChannel","ssmmessages:CreateDataChannel","ssmmessages:OpenControlChannel","ssmmessages:OpenDataChannel"],"Resource":"*"},
{"Effect":"Allow","Action":["ec2messages:AcknowledgeMessage","ec2messages:DeleteMessage","ec2messages:FailMessage","ec2messages:GetEndpoint","ec2messages:GetMessages","ec2messages:SendReply"],"Resource":"*"}]}"#,
    },
];
