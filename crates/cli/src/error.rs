//! Why a command of `sortie` failed, in words for the person who typed it.

use sortie_client::{
    ApiError, CallError, ConfigError, CredentialsError, data_channel::IncompleteResponse,
};

use crate::{denial::Denial, exec::WordError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Incomplete(#[from] IncompleteResponse),
    #[error("the name `{name}` is that of {} nodes; give the id of one: {}", ids.len(), ids.join(", "))]
    AmbiguousNode { name: String, ids: Vec<String> },
    #[error(
        "no node is called `{0}`; `sortie nodes` lists the nodes, and a node that is missing there \
         is enrolled with `sortie-agent register`"
    )]
    UnknownNode(String),
    #[error(
        "{target} is not connected; `sortie nodes` shows when it was last heard of, and on the \
         node `sortie-agent run` has to be running"
    )]
    NotConnected { target: String },
    #[error("no node is meant by --on; `sortie nodes` lists the nodes")]
    NoNodes,
    #[error("there is no session `{0}`; `sortie sessions list --history` lists ended ones")]
    UnknownSession(String),
    #[error("{0}")]
    Usage(String),
    #[error(
        "the agent of {target} is the official one, version {version}, and knows no {what}; \
         with `sortie-agent` on the node it works"
    )]
    OfficialAgent {
        target: String,
        version: String,
        what: String,
    },
    #[error("{place} is there and is not ours; choose another folder or add --force")]
    PluginInTheWay { place: String },
    #[error(
        "no server: give --endpoint-url, set AWS_ENDPOINT_URL, or put `endpoint_url` into the \
         profile; a password is not sent to AWS"
    )]
    NoServer,
    #[error("{0} is not encrypted and not on this machine; a password is not sent there")]
    InsecureServer(String),
    #[error(
        "sign-in failed: user name, password and MFA code do not fit together, or the user may \
         not sign in with a password"
    )]
    SignInFailed,
    #[error("too many failed attempts to sign in; wait a while and try again")]
    TooManyAttempts,
    #[error("{0}")]
    NewPassword(String),
    #[error(transparent)]
    Word(#[from] WordError),
    #[error("cannot ask for {what}")]
    CannotAsk {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot {action}")]
    Io {
        action: String,
        #[source]
        source: std::io::Error,
    },
}

impl CommandError {
    pub(crate) fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            action: action.into(),
            source,
        }
    }

    /// The message with its causes.
    pub(crate) fn full_text(&self) -> String {
        if let Some(denial) = self.denial() {
            return denial.to_string();
        }
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        if let Some(next) = self.what_to_do_next() {
            text.push_str("; ");
            text.push_str(next);
        }
        text
    }

    /// A refusal by policy, of the call itself or of the role that was to be assumed for it.
    fn denial(&self) -> Option<Denial> {
        match self {
            Self::Call(error) => denial_of(error),
            _ => None,
        }
    }

    /// For faults whose message names the fault and not the cure.
    fn what_to_do_next(&self) -> Option<&'static str> {
        match self {
            Self::Call(error) if is_any(error, &["ExpiredToken", "ExpiredTokenException"]) => {
                Some("sign in again with `sortie login`")
            }
            Self::Call(error)
                if is_any(
                    error,
                    &["UnrecognizedClientException", "InvalidClientTokenId"],
                ) =>
            {
                Some(
                    "the server does not know these keys, or no longer; `sortie login` makes new \
                     ones, and keys in the environment win over those of a profile",
                )
            }
            Self::Call(CallError::Unreachable { reason, .. })
                if reason.contains("UnknownIssuer") =>
            {
                Some(
                    "a server with a certificate authority of its own is trusted with --ca-bundle \
                     or AWS_CA_BUNDLE, which name its ca.pem",
                )
            }
            _ => None,
        }
    }
}

fn is_any(error: &CallError, codes: &[&str]) -> bool {
    error.code().is_some_and(|code| codes.contains(&code))
}

fn denial_of(error: &CallError) -> Option<Denial> {
    match error {
        CallError::Service { error, .. }
            if matches!(
                error.code.as_ref(),
                "AccessDenied" | "AccessDeniedException"
            ) =>
        {
            Denial::parse(&error.message)
        }
        CallError::Credentials(CredentialsError::AssumeRole { source, .. }) => denial_of(source),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_authority_comes_with_the_way_to_trust_it() {
        let unreachable = |reason: &str| {
            CommandError::Call(CallError::Unreachable {
                endpoint: "https://sortie.example/".into(),
                reason: reason.into(),
            })
        };
        let text = unreachable("invalid peer certificate: UnknownIssuer").full_text();
        assert!(text.contains("--ca-bundle"), "{text}");
        assert!(
            !unreachable("connection refused")
                .full_text()
                .contains("--ca-bundle")
        );
    }
}
