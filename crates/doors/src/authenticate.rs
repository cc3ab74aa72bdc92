//! Who sent a request: what is presented is read and verified by `sortie-wire`, the keys are known
//! to `control`. Answers with a caller, or with the error that the service's protocol has for it.

use sortie_control::{AuthenticationError, Caller, Control, KnownKey, NodeKeys};
use sortie_types::Secret;
use sortie_wire::{
    AwsError, Protocol, Service,
    sigv4::{self, Authorization, Presented, Scope, SigError},
};

use crate::{DoorOptions, House, request::Received};

/// The region that clients of global services sign for.
const GLOBAL_REGION: &str = "us-east-1";

/// Why a request is not authenticated.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What the caller is told.
    pub(crate) error: AwsError,
    /// The key that was presented, as far as it could be read.
    pub(crate) access_key: Option<String>,
    /// The key belonged to a node that was deregistered.
    pub(crate) node_gone: bool,
    /// The key or its session token is none of ours.
    pub(crate) foreign: bool,
}

impl Refused {
    /// A request that nobody signed, where somebody must.
    pub(crate) fn unsigned(protocol: Protocol) -> Self {
        Self::of(SigError::Missing.code_for(protocol))
    }

    fn of(error: AwsError) -> Self {
        Self {
            error,
            access_key: None,
            node_gone: false,
            foreign: false,
        }
    }
}

/// What a request is verified against.
struct Claim<'a> {
    received: &'a Received,
    body: &'a [u8],
    service: Service,
    authorization: &'a Authorization,
}

impl House {
    /// The caller of a request for `service`. Unsigned requests have an anonymous caller: whether
    /// that is enough depends on what they ask.
    pub(crate) async fn authenticate(
        &self,
        received: &Received,
        body: &[u8],
        service: Service,
    ) -> Result<Caller, Refused> {
        let protocol = service.protocol();
        let presented = received.with_parts(sigv4::parse);
        let authorization = match presented {
            Ok(Presented::Anonymous) => return Ok(Caller::Anonymous { access_key: None }),
            Ok(Presented::Header(authorization) | Presented::Presigned(authorization)) => {
                authorization
            }
            Err(error) => {
                return Err(Refused::of(error.code_for(protocol)));
            }
        };
        let claim = Claim {
            received,
            body,
            service,
            authorization: &authorization,
        };
        let verified = if authorization.access_key.starts_with("mi-") {
            claim.by_node_key(&self.control, &self.options).await
        } else {
            claim.by_secret(&self.control, &self.options).await
        };
        verified.map_err(|failure| Refused {
            error: failure.error(protocol),
            access_key: Some(authorization.access_key),
            node_gone: matches!(failure, Failure::Known(AuthenticationError::NodeGone)),
            foreign: matches!(
                failure,
                Failure::Known(AuthenticationError::UnknownKey | AuthenticationError::BadToken)
            ),
        })
    }
}

impl Claim<'_> {
    async fn by_secret(&self, control: &Control, options: &DoorOptions) -> Result<Caller, Failure> {
        let KnownKey { caller, secret } = control
            .look_up_key(
                &self.authorization.access_key,
                self.authorization.session_token.as_ref(),
                self.received.now,
            )
            .await?;
        self.verify_secret(control, options, &secret)?;
        control.key_used(&caller, self.service.signing_name(), self.received.now);
        Ok(caller)
    }

    fn verify_secret(
        &self,
        control: &Control,
        options: &DoorOptions,
        secret: &Secret,
    ) -> Result<(), SigError> {
        let regions = regions(control, options, self.service);
        self.received.with_parts(|parts| {
            self.authorization.verify(
                parts,
                self.body,
                secret,
                self.received.now,
                &self.scope(&regions),
            )
        })
    }

    /// A node's own key, which may sign for `ssm` alone. The key before the current one is good
    /// until the current one has been used, because a node that did not hear the answer to its
    /// rotation tries both.
    async fn by_node_key(
        &self,
        control: &Control,
        options: &DoorOptions,
    ) -> Result<Caller, Failure> {
        if self.service != Service::Ssm {
            return Err(Failure::Known(AuthenticationError::UnknownKey));
        }
        let NodeKeys {
            node_id,
            current,
            previous,
            caller,
        } = control
            .node_public_keys(&self.authorization.access_key)
            .await?;
        let used = match (self.verify_rsa(control, options, &current), previous) {
            (Ok(()), _) => current,
            (Err(SigError::SignatureDoesNotMatch), Some(previous)) => {
                self.verify_rsa(control, options, &previous)?;
                previous
            }
            (Err(error), _) => return Err(error.into()),
        };
        control
            .node_key_used(&node_id, &used)
            .await
            .map_err(|error| AuthenticationError::Internal(error.into()))?;
        Ok(caller)
    }

    fn verify_rsa(
        &self,
        control: &Control,
        options: &DoorOptions,
        public_key: &[u8],
    ) -> Result<(), SigError> {
        let regions = regions(control, options, self.service);
        self.received.with_parts(|parts| {
            self.authorization.verify_rsa(
                parts,
                self.body,
                public_key,
                self.received.now,
                &self.scope(&regions),
            )
        })
    }

    fn scope<'a>(&self, regions: &'a [&'a str]) -> Scope<'a> {
        Scope {
            service: self.service.signing_name(),
            regions,
        }
    }
}

/// The regions that may stand in a scope. Clients of sts sign for `us-east-1` unless told
/// otherwise, wherever the endpoint is.
fn regions<'a>(control: &'a Control, options: &'a DoorOptions, service: Service) -> Vec<&'a str> {
    let mut regions = vec![control.region().as_str()];
    regions.extend(
        options
            .accepted_regions
            .iter()
            .map(|region| region.as_str()),
    );
    if matches!(service, Service::Sts | Service::Iam) {
        regions.push(GLOBAL_REGION);
    }
    regions
}

/// Either side's reason.
enum Failure {
    Known(AuthenticationError),
    Signature(SigError),
}

impl From<AuthenticationError> for Failure {
    fn from(error: AuthenticationError) -> Self {
        Self::Known(error)
    }
}

impl From<SigError> for Failure {
    fn from(error: SigError) -> Self {
        Self::Signature(error)
    }
}

impl Failure {
    fn error(&self, protocol: Protocol) -> AwsError {
        let signature = match self {
            Self::Signature(error) => error,
            Self::Known(AuthenticationError::UnknownKey | AuthenticationError::Inactive) => {
                &SigError::UnknownKey
            }
            Self::Known(AuthenticationError::BadToken) => &SigError::InvalidToken,
            Self::Known(AuthenticationError::Expired) => &SigError::ExpiredToken,
            Self::Known(AuthenticationError::NodeGone) => return node_gone(protocol),
            Self::Known(AuthenticationError::Internal(error)) => {
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "cannot look up a key"
                );
                return AwsError::unavailable(protocol);
            }
        };
        signature.code_for(protocol)
    }
}

/// What a deregistered node is told. On the token call the access-denied code makes the official
/// node wait longest before it asks again; on its channels the same code would make it poll
/// without end, so there it is another.
fn node_gone(protocol: Protocol) -> AwsError {
    let text = "The managed node was deregistered.";
    match protocol {
        Protocol::Channel => AwsError::new("InvalidInstanceId", 400, text),
        Protocol::Json11 => AwsError::new("AccessDeniedException", 400, text),
        Protocol::Query | Protocol::Rest => AwsError::new("AccessDenied", 403, text),
    }
}
