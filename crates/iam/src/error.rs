//! Why a policy document is refused, in AWS's words, and the sizes that documents may have.

use crate::policy::PolicyKind;

/// Why a document is no policy. The text is what `MalformedPolicyDocument`, or `LimitExceeded`, says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Larger than its quota: `LimitExceeded`.
    #[error("Cannot exceed quota for {}: {limit}", quota.code())]
    LimitExceeded {
        /// The quota.
        quota: Quota,
        /// Characters without white space that would have been allowed.
        limit: usize,
        /// Characters without white space that the document has.
        size: usize,
    },
    /// Not a policy, or not one of this kind: `MalformedPolicyDocument`.
    #[error("{problem}")]
    Malformed {
        /// What is wrong.
        problem: Problem,
        /// Where and what exactly, in a sentence for people.
        detail: String,
    },
}

/// What is wrong with a document. The texts are AWS's; where AWS has one for many causes, the
/// `detail` beside it tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// An action with more than one colon.
    #[error("Actions/Condition can contain only one colon.")]
    ActionColons,
    /// An action or condition key without a service in front.
    #[error("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")]
    ActionVendor,
    /// Two statements of one `Sid`.
    #[error("Statement IDs (SID) in a single policy must be unique.")]
    DuplicateSid,
    /// A document with a size or characters that no policy has, or that is not JSON.
    #[error("This policy contains invalid Json")]
    Json,
    /// No `Action` or `NotAction`, or an empty one.
    #[error("Policy statement must contain actions.")]
    MissingActions,
    /// No `Principal` where one is needed.
    #[error("Missing required field Principal")]
    MissingPrincipal,
    /// No `Resource` or `NotResource`, or an empty one.
    #[error("Policy statement must contain resources.")]
    MissingResources,
    /// A condition operator that does not exist.
    #[error("Invalid Condition type : {0}")]
    Operator(String),
    /// A partition that is empty.
    #[error("Partition \"\" is not valid for resource \"{0}\".")]
    Partition(String),
    /// A principal that is no principal, or that does not exist.
    #[error("Invalid principal in policy: {0}")]
    Principal(String),
    /// A principal in a policy that belongs to one.
    #[error("Policy document should not specify a principal.")]
    PrincipalInIdentity,
    /// A field that this kind of policy does not have.
    #[error("Has prohibited field {0}")]
    ProhibitedField(&'static str),
    /// A resource that is neither `*` nor shaped like an ARN.
    #[error("Resource {0} must be in ARN format or \"*\".")]
    Resource(String),
    /// A `Sid` with other characters.
    #[error(
        "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular \
         expression [0-9A-Za-z]*"
    )]
    Sid,
    /// Anything else that is no policy.
    #[error("Syntax errors in policy.")]
    Syntax,
    /// A trust policy about other actions.
    #[error("AssumeRole policy may only specify STS AssumeRole actions.")]
    TrustActions,
    /// A service name that cannot be one.
    #[error("Vendor {0} is not valid")]
    Vendor(String),
}

impl Problem {
    /// With a sentence that says where.
    pub(crate) fn at(self, detail: impl Into<String>) -> PolicyError {
        PolicyError::Malformed {
            problem: self,
            detail: detail.into(),
        }
    }
}

impl PolicyError {
    /// What is wrong and where, in a sentence for people.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::LimitExceeded { limit, size, .. } => format!(
                "the document has {size} characters without white space, {limit} are allowed"
            ),
            Self::Malformed { detail, .. } => detail.clone(),
        }
    }

    /// The error code that AWS answers: `LimitExceeded` or `MalformedPolicyDocument`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LimitExceeded { .. } => "LimitExceeded",
            Self::Malformed { .. } => "MalformedPolicyDocument",
        }
    }
}

/// Sizes in characters without white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quota {
    /// What any document may have at all, before it is looked at.
    Document,
    /// All inline policies of a group together.
    InlineGroup,
    /// All inline policies of a role together.
    InlineRole,
    /// All inline policies of a user together.
    InlineUser,
    /// One version of a managed policy.
    Managed,
    /// An inline session policy and the ARNs beside it together.
    Session,
    /// A role's trust policy.
    Trust,
}

impl Quota {
    /// Characters without white space.
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::Document => 131_072,
            Self::InlineGroup => 5_120,
            Self::InlineRole => 10_240,
            Self::InlineUser | Self::Session | Self::Trust => 2_048,
            Self::Managed => 6_144,
        }
    }

    /// AWS's name of the quota.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Document | Self::Managed | Self::Session => "PolicySize",
            Self::InlineGroup => "InlinePolicySizePerGroup",
            Self::InlineRole => "InlinePolicySizePerRole",
            Self::InlineUser => "InlinePolicySizePerUser",
            Self::Trust => "ACLSizePerRole",
        }
    }

    /// Checks a size: of one document, or the sum where the quota is about a sum.
    ///
    /// # Errors
    ///
    /// [`PolicyError::LimitExceeded`] when it is above the limit.
    pub const fn check(self, size: usize) -> Result<(), PolicyError> {
        if size <= self.limit() {
            return Ok(());
        }
        Err(PolicyError::LimitExceeded {
            quota: self,
            limit: self.limit(),
            size,
        })
    }
}

/// The size of a document as quotas count it: characters that are not white space.
#[must_use]
pub fn document_size(text: &str) -> usize {
    text.chars()
        .filter(|character| !character.is_whitespace())
        .count()
}

/// What AWS says of a document that is not JSON depends on where it was given.
pub(crate) fn not_json(kind: PolicyKind, detail: String) -> PolicyError {
    match kind {
        PolicyKind::Trust => Problem::Json.at(detail),
        _ => Problem::Syntax.at(detail),
    }
}
