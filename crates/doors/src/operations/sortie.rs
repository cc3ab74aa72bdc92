//! Our own service: signing in, who one is, and why something is or is not allowed.

use sortie_control::{
    CallerKind, ExplainInput, ExplainedPrincipal, Outcome, Recorded, SignInInput,
    SignedInWith as With,
};
use sortie_wire::{
    AwsError, Protocol,
    shapes::sortie::{
        CallerType, Credentials, Decision, Explain, ExplainRequest, ExplainResponse, GetCaller,
        GetCallerRequest, GetCallerResponse, SignIn, SignInRequest, SignInResponse, SignedInWith,
    },
};

use super::{Handler, Scene};
use crate::errors::Failure;

impl Handler for SignIn {
    async fn handle(
        scene: Scene<'_>,
        input: SignInRequest,
    ) -> Result<Recorded<SignInResponse>, Failure> {
        let input = SignInInput {
            user_name: input.user_name,
            password: input.password,
            mfa_code: input.mfa_code,
            new_password: input.new_password,
            duration_seconds: input.duration_seconds.map(i64::from),
        };
        let control = &scene.house.control;
        let signed_in = control.sign_in(scene.call, &input).await?;
        Ok(signed_in.map(|signed_in| {
            let keys = signed_in.credentials;
            SignInResponse {
                arn: signed_in.arn.to_string(),
                credentials: Credentials {
                    access_key_id: keys.access_key_id.to_string(),
                    secret_access_key: keys.secret_access_key,
                    session_token: keys.session_token,
                    expiration: keys.expiration,
                },
                mfa_used: signed_in.mfa_used,
                region: Some(control.region().to_string()),
            }
        }))
    }
}

impl Handler for GetCaller {
    async fn handle(
        scene: Scene<'_>,
        GetCallerRequest {}: GetCallerRequest,
    ) -> Result<Recorded<GetCallerResponse>, Failure> {
        let caller = scene.house.control.get_caller(scene.call).await?;
        Ok(caller.map(|caller| GetCallerResponse {
            account: caller.account.to_string(),
            arn: caller.arn.to_string(),
            caller_type: match caller.kind {
                CallerKind::Node => CallerType::NODE,
                CallerKind::Role => CallerType::ROLE,
                CallerKind::User => CallerType::USER,
            },
            signed_in_with: match caller.with {
                With::AccessKey => SignedInWith::ACCESS_KEY,
                With::AssumeRole => SignedInWith::ASSUME_ROLE,
                With::GetSessionToken => SignedInWith::GET_SESSION_TOKEN,
                With::NodeKey => SignedInWith::NODE_KEY,
                With::Password => SignedInWith::PASSWORD,
            },
            user_id: caller.user_id,
            user_name: caller.user_name,
            issued: caller.issued,
            expires: caller.expires,
            mfa_authenticated: caller.mfa,
        }))
    }
}

impl Handler for Explain {
    async fn handle(
        scene: Scene<'_>,
        input: ExplainRequest,
    ) -> Result<Recorded<ExplainResponse>, Failure> {
        let principal = match (input.principal_arn, input.user_name) {
            (None, None) => None,
            (Some(arn), None) => Some(ExplainedPrincipal::Arn(arn)),
            (None, Some(name)) => Some(ExplainedPrincipal::User(name)),
            (Some(_), Some(_)) => {
                let text = "PrincipalArn and UserName cannot both be given.";
                return Err(Failure::of(AwsError::validation(Protocol::Json11, text)));
            }
        };
        let context = input.context.unwrap_or_default();
        let input = ExplainInput {
            action: input.action,
            resource: input.resource,
            principal,
            context: context
                .into_iter()
                .map(|entry| (entry.key, entry.values))
                .collect(),
        };
        let explained = scene.house.control.explain(scene.call, &input).await?;
        Ok(explained.map(|explained| ExplainResponse {
            decision: match explained.outcome {
                Outcome::Allowed => Decision::ALLOWED,
                Outcome::ExplicitlyDenied => Decision::EXPLICIT_DENY,
                Outcome::ImplicitlyDenied => Decision::IMPLICIT_DENY,
            },
            principal_arn: explained.principal,
            action: explained.action,
            resources: Some(explained.resources),
            sentences: explained.sentences,
            message: explained.message,
        }))
    }
}
