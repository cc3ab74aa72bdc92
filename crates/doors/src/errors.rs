//! The one table from what went wrong in `control` to what the caller is told: AWS's code, status
//! and text. Every match is exhaustive, so a new error cannot forget its line. What failed on our
//! side is logged with its causes and told to nobody.

use sortie_control::{
    AssumeRoleError, CreateActivationError, CreateControlChannelError, CreateDataChannelError,
    DeleteActivationError, Denied, DeregisterManagedInstanceError, DescribeActivationsError,
    DescribeInstanceInformationError, DescribeInstancePropertiesError, DescribeSessionsError,
    DocumentError, ExplainError, GetCallerError, GetCallerIdentityError, GetConnectionStatusError,
    GetSessionTokenError, IamError, InternalError, LookupEventsError, QuietError,
    RegisterManagedInstanceError, RequestManagedInstanceRoleTokenError, ResumeSessionError,
    ServiceSettingError, SignInError, StartSessionError, TagsError, TerminateSessionError,
    UpdateInstanceInformationError, UpdateManagedInstancePublicKeyError,
    UpdateManagedInstanceRoleError,
};
use sortie_wire::{AwsError, Protocol, Service, shapes::iam::errors as iam, sigv4::SigError};

/// What the trail writes for every refusal by policy, whatever the caller's protocol calls it.
const ACCESS_DENIED: &str = "AccessDenied";

/// A call that did not end well. It leaves through `House::failed`, which records it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the caller is told.
    pub(crate) error: AwsError,
    /// Whether policy refused it.
    denied: bool,
    /// Whether its record is written already.
    recorded: bool,
}

impl Failure {
    /// A failure that the trail shows as the caller saw it.
    pub(crate) fn of(error: AwsError) -> Self {
        Self {
            error,
            denied: false,
            recorded: false,
        }
    }

    /// A refusal by policy that the caller sees under another name.
    pub(crate) fn denied_as(error: AwsError) -> Self {
        Self {
            error,
            denied: true,
            recorded: false,
        }
    }

    fn denied(service: Service, denied: Denied) -> Self {
        Self::denied_as(AwsError::access_denied(service, denied.message))
    }

    /// Something of ours failed.
    pub(crate) fn internal(service: Service) -> Self {
        Self::of(match service {
            Service::Ssm => AwsError::new(
                "InternalServerError",
                500,
                "An error occurred on the server side.",
            ),
            _ => AwsError::internal(service.protocol()),
        })
    }

    /// The same, where control has recorded it in a form of its own.
    fn recorded(self) -> Self {
        Self {
            recorded: true,
            ..self
        }
    }

    /// Whether its record is written already.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// The error code in the trail.
    pub(crate) fn trail_code(&self) -> &str {
        if self.denied {
            ACCESS_DENIED
        } else {
            &self.error.code
        }
    }
}

fn failed(service: Service, error: &InternalError) -> Failure {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "an operation failed"
    );
    Failure::internal(service)
}

fn sender(code: &'static str, message: impl Into<String>) -> Failure {
    Failure::of(AwsError::new(code, 400, message))
}

/// The error's own text under this code.
fn code(code: &'static str) -> impl FnOnce(String) -> Failure {
    move |text| sender(code, text)
}

/// The error's own text under an error of a model, with the model's status.
fn modelled(error: fn(String) -> AwsError) -> impl FnOnce(String) -> Failure {
    move |text| Failure::of(error(text))
}

fn validation(message: String) -> Failure {
    Failure::of(AwsError::validation(Protocol::Json11, message))
}

/// One `From` an error: the service whose words refusals and our own failures take, then and what each
/// variant makes of the error's text.
macro_rules! table {
    ($($service:ident $error:ident { $($pattern:pat => $answer:expr,)* })*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                #[allow(unused_imports, reason = "some errors have no variant of their own")]
                use $error::*;
                #[allow(unused_variables, reason = "some errors have no text of their own")]
                let text = error.to_string();
                match error {
                    Denied(denied) => Failure::denied(Service::$service, denied),
                    Internal(error) => failed(Service::$service, &error),
                    $($pattern => $answer(text),)*
                }
            }
        }
    )*};
}

table! {
    Ssm StartSessionError {
        InvalidDocument { .. } => code("InvalidDocument"),
        InvalidParameters(_) => code("InvalidParameters"),
        NotConnected { .. } => code("TargetNotConnected"),
        Refused(_) => code("BadRequest"),
    }
    Ssm ResumeSessionError {
        DoesNotExist { .. } => code("DoesNotExistException"),
    }
    Ssm TerminateSessionError {
        DoesNotExist { .. } => code("DoesNotExistException"),
    }
    Ssm DescribeSessionsError {
        InvalidFilterKey { .. } => code("InvalidFilterKey"),
        InvalidFilterValue { .. } => validation,
        InvalidNextToken => code("InvalidNextToken"),
    }
    Ssm GetConnectionStatusError {}
    Ssm CreateActivationError {
        InvalidParameters(_) => code("InvalidParameters"),
        InvalidRole(_) => validation,
    }
    Ssm DescribeActivationsError {
        InvalidFilter { .. } => code("InvalidFilter"),
        InvalidNextToken => code("InvalidNextToken"),
    }
    Ssm DeleteActivationError {
        InvalidActivation => code("InvalidActivation"),
        InvalidActivationId => code("InvalidActivationId"),
    }
    Ssm DescribeInstanceInformationError {
        InvalidFilterKey { .. } => code("InvalidFilterKey"),
        InvalidFilterValue { .. } => code("InvalidInstanceInformationFilterValue"),
        InvalidInstanceId { .. } => code("InvalidInstanceId"),
        InvalidNextToken => code("InvalidNextToken"),
    }
    Ssm DescribeInstancePropertiesError {
        InvalidActivationId { .. } => code("InvalidActivationId"),
        InvalidDocument { .. } => code("InvalidDocument"),
        InvalidFilterKey { .. } => code("InvalidFilterKey"),
        InvalidFilterValue { .. } => code("InvalidInstancePropertyFilterValue"),
        InvalidInstanceId { .. } => code("InvalidInstanceId"),
        InvalidNextToken => code("InvalidNextToken"),
    }
    Ssm DeregisterManagedInstanceError {
        InvalidInstanceId { .. } => code("InvalidInstanceId"),
    }
    Ssm UpdateManagedInstanceRoleError {
        InvalidInstanceId { .. } => code("InvalidInstanceId"),
        InvalidRole(_) => validation,
    }
    Ssm TagsError {
        InvalidResourceId => code("InvalidResourceId"),
        InvalidResourceType => code("InvalidResourceType"),
        InvalidTag(_) => validation,
        TooManyTags => code("TooManyTagsError"),
    }
    Ssm DocumentError {
        AlreadyExists(_) => code("DocumentAlreadyExists"),
        DuplicateContent => code("DuplicateDocumentContent"),
        DuplicateVersionName(_) => code("DuplicateDocumentVersionName"),
        InvalidContent(_) => code("InvalidDocumentContent"),
        InvalidDocument(_) => code("InvalidDocument"),
        InvalidFilterKey(_) => code("InvalidFilterKey"),
        InvalidNextToken => code("InvalidNextToken"),
        InvalidOperation(_) => code("InvalidDocumentOperation"),
        InvalidSchemaVersion(_) => code("InvalidDocumentSchemaVersion"),
        InvalidTag(_) => validation,
        InvalidVersion => code("InvalidDocumentVersion"),
        LimitExceeded => code("DocumentLimitExceeded"),
        MaxSizeExceeded(_) => code("MaxDocumentSizeExceeded"),
        PermissionLimit(_) => code("DocumentPermissionLimit"),
        Validation(_) => validation,
        VersionLimitExceeded => code("DocumentVersionLimitExceeded"),
    }
    Ssm ServiceSettingError {
        InvalidValue { .. } => validation,
        NotFound(_) => code("ServiceSettingNotFound"),
    }
    CloudTrail LookupEventsError {
        InvalidEventCategory => code("InvalidEventCategoryException"),
        InvalidLookupAttributes(_) => code("InvalidLookupAttributesException"),
        InvalidMaxResults => code("InvalidMaxResultsException"),
        InvalidNextToken => code("InvalidNextTokenException"),
        InvalidTimeRange => code("InvalidTimeRangeException"),
    }
    Ssm RequestManagedInstanceRoleTokenError {
        FingerprintDoesNotMatch => code("MachineFingerprintDoesNotMatch"),
    }
    Ssm UpdateManagedInstancePublicKeyError {
        InvalidPublicKey => code("InvalidPublicKey"),
    }
    Ssm UpdateInstanceInformationError {
        InvalidInstanceId { .. } => code("InvalidInstanceId"),
    }
    SsmMessages CreateControlChannelError {
        InvalidInstanceId { .. } => code("InvalidInstanceId"),
    }
    SsmMessages CreateDataChannelError {
        DoesNotExist { .. } => code("DoesNotExistException"),
        // Official nodes look for these words and stop trying.
        Over => |_| sender("BadRequest", "Session is already terminated"),
    }
    Ssm QuietError {}
    Sortie ExplainError {
        InvalidAction(_) => code("InvalidActionException"),
        InvalidResource(_) => code("InvalidResourceException"),
        NoSuchPrincipal(_) => code("NoSuchPrincipalException"),
    }
    Iam IamError {
        ConcurrentModification => modelled(iam::concurrent_modification),
        DeleteConflict(_) => modelled(iam::delete_conflict),
        EntityAlreadyExists(_) => modelled(iam::entity_already_exists),
        EntityTemporarilyUnmodifiable(_) => modelled(iam::entity_temporarily_unmodifiable),
        InvalidAuthenticationCode(_) => modelled(iam::invalid_authentication_code),
        InvalidInput(_) => modelled(iam::invalid_input),
        InvalidUserType(_) => modelled(iam::invalid_user_type),
        LimitExceeded(_) => modelled(iam::limit_exceeded),
        MalformedPolicyDocument(_) => modelled(iam::malformed_policy_document),
        NoSuchEntity(_) => modelled(iam::no_such_entity),
        PasswordPolicyViolation(_) => modelled(iam::password_policy_violation),
        PolicyEvaluation(_) => modelled(iam::policy_evaluation),
        PolicyNotAttachable(_) => modelled(iam::policy_not_attachable),
        UnmodifiableEntity(_) => modelled(iam::unmodifiable_entity),
        Validation(_) => |text| Failure::of(AwsError::validation(Protocol::Query, text)),
    }
    Sts AssumeRoleError {
        InvalidInput(_) => code("ValidationError"),
        MalformedPolicyDocument(_) => code("MalformedPolicyDocument"),
        PackedPolicyTooLarge { .. } => code("PackedPolicyTooLarge"),
        Throttled => code("Throttling"),
    }
    Sts GetSessionTokenError {
        Throttled => code("Throttling"),
    }
}

// These errors have no policy behind them.

impl From<GetCallerIdentityError> for Failure {
    fn from(error: GetCallerIdentityError) -> Self {
        match error {
            GetCallerIdentityError::Internal(error) => failed(Service::Sts, &error),
            GetCallerIdentityError::NotAuthenticated => {
                Self::of(SigError::Missing.code_for(Protocol::Query))
            }
        }
    }
}

impl From<GetCallerError> for Failure {
    fn from(error: GetCallerError) -> Self {
        match error {
            GetCallerError::Internal(error) => failed(Service::Sortie, &error),
            GetCallerError::NotAuthenticated => {
                Self::of(SigError::Missing.code_for(Protocol::Json11))
            }
        }
    }
}

impl From<SignInError> for Failure {
    fn from(error: SignInError) -> Self {
        use SignInError as Error;
        let text = error.to_string();
        let failure = match error {
            Error::Failed => sender("SignInFailedException", text),
            Error::Internal(error) => failed(Service::Sortie, &error),
            Error::MfaCodeRequired => sender("MfaCodeRequiredException", text),
            Error::NewPasswordRequired => sender("NewPasswordRequiredException", text),
            Error::PasswordPolicyViolation(_) => sender("PasswordPolicyViolationException", text),
            Error::TooManyAttempts => sender("TooManyAttemptsException", text),
        };
        failure.recorded()
    }
}

impl From<RegisterManagedInstanceError> for Failure {
    fn from(error: RegisterManagedInstanceError) -> Self {
        use RegisterManagedInstanceError as Error;
        let text = error.to_string();
        match error {
            Error::ActivationExpired => sender("ActivationExpired", text),
            Error::Internal(error) => failed(Service::Ssm, &error),
            Error::InvalidActivation => sender("InvalidActivation", text),
            Error::InvalidActivationId => sender("InvalidActivationId", text),
            Error::InvalidParameters(_) => validation(text),
            Error::InvalidPublicKey => sender("InvalidPublicKey", text),
            Error::PublicKeyAlreadyRegistered => sender("PublicKeyAlreadyRegistered", text),
            Error::RegistrationLimitExceeded => sender("RegistrationLimitExceeded", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Denied {
        Denied {
            message: "User: arn is not authorized to perform: x".to_owned(),
        }
    }

    #[test]
    fn refusals_are_named_by_protocol_for_the_caller_and_alike_in_the_trail() {
        for (failure, code, status) in [
            (
                Failure::from(StartSessionError::Denied(denied())),
                "AccessDeniedException",
                400,
            ),
            (
                Failure::from(LookupEventsError::Denied(denied())),
                "AccessDeniedException",
                400,
            ),
            (
                Failure::from(CreateDataChannelError::Denied(denied())),
                "AccessDeniedException",
                403,
            ),
        ] {
            assert_eq!(
                (failure.error.code.as_ref(), failure.error.status),
                (code, status)
            );
            assert_eq!(failure.trail_code(), "AccessDenied");
            assert_eq!(failure.error.message, denied().message);
        }
    }

    #[test]
    fn failures_of_ours_say_nothing_of_their_cause() {
        let error = || InternalError::Store(sortie_control::StoreError::Closed);
        let ssm = Failure::from(StartSessionError::Internal(error()));
        assert_eq!(
            (ssm.error.code.as_ref(), ssm.error.status),
            ("InternalServerError", 500)
        );
        let sts = Failure::from(GetCallerIdentityError::Internal(error()));
        assert_eq!(
            (sts.error.code.as_ref(), sts.error.status),
            ("InternalFailure", 500)
        );
        for failure in [ssm, sts] {
            assert!(
                !failure.error.message.contains("store"),
                "{}",
                failure.error.message
            );
        }
    }

    #[test]
    fn a_node_of_an_ended_session_is_told_in_the_words_it_looks_for() {
        let failure = Failure::from(CreateDataChannelError::Over);
        assert!(
            failure
                .error
                .to_channel_xml()
                .contains("Session is already terminated")
        );
    }

    #[test]
    fn starting_on_an_absent_target_has_awss_code_and_words() {
        let target = "mi-0123456789abcdef0".to_owned();
        let failure = Failure::from(StartSessionError::NotConnected { target });
        assert_eq!(failure.error.code, "TargetNotConnected");
        assert_eq!(
            failure.error.message,
            "mi-0123456789abcdef0 is not connected."
        );
        assert_eq!(failure.trail_code(), "TargetNotConnected");
    }
}
