//! `sortie login` and `sortie logout`: a password, and a code where the user has an MFA device, for
//! temporary keys in a profile of the shared credentials file.

use std::io::{self, BufRead, Read};

use sortie_client::{Api, CallError, ClientConfig, Environment, Overrides, SignInPlace, SignedIn};
use sortie_types::Secret;
use sortie_wire::{
    Service,
    shapes::sortie::{SignIn, SignInRequest, SignInResponse},
    sigv4::Credentials,
};

use crate::{
    arguments::Login,
    error::CommandError,
    output,
    prompt::{self, Echo},
};

/// The longest password line read from standard input.
const LONGEST_LINE: u64 = 4096;

pub(crate) async fn log_in(
    api: &Api,
    arguments: &Login,
    given: &Overrides,
) -> Result<(), CommandError> {
    let config = api.config();
    // Before anybody types a password that could not be used.
    let place = config.sign_in_place()?.clone();
    check_server(config)?;
    let user_name = match &arguments.user {
        Some(name) => name.clone(),
        None => ask("the user name", "User name: ", Echo::Shown)
            .await?
            .expose()
            .trim()
            .to_owned(),
    };
    let password = if arguments.password_stdin {
        password_of_stdin()?
    } else {
        let question = format!("Password of {}: ", output::plain(&user_name));
        ask("the password", &question, Echo::Hidden).await?
    };
    let request = SignInRequest {
        user_name,
        password,
        mfa_code: arguments.mfa_code.clone(),
        new_password: None,
        duration_seconds: arguments.duration,
    };
    let answer = sign_in(api, request).await?;
    let signed_in = signed_in(config, given, answer);
    place
        .write(&signed_in)
        .map_err(|error| CommandError::io(format!("write {}", place.file().display()), error))?;
    tell(config, given, &place, &signed_in)
}

/// Asks for what the server misses, until it gives keys or refuses.
async fn sign_in(api: &Api, mut request: SignInRequest) -> Result<SignInResponse, CommandError> {
    loop {
        let error = match api.call_unsigned::<SignIn>(&request).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match error.code() {
            Some("MfaCodeRequiredException") if request.mfa_code.is_none() => {
                let code = ask("the MFA code", "MFA code: ", Echo::Hidden).await?;
                request.mfa_code = Some(Secret::new(code.expose().trim()));
            }
            Some("NewPasswordRequiredException") if request.new_password.is_none() => {
                output::error_line("The password has to be changed before it can be used.");
                request.new_password = Some(new_password().await?);
            }
            Some("PasswordPolicyViolationException") if request.new_password.is_some() => {
                output::error_line(&output::plain(&message_of(&error)));
                request.new_password = Some(new_password().await?);
            }
            Some("SignInFailedException") => return Err(CommandError::SignInFailed),
            Some("TooManyAttemptsException") => return Err(CommandError::TooManyAttempts),
            _ => return Err(error.into()),
        }
    }
}

fn message_of(error: &CallError) -> String {
    match error {
        CallError::Service { error, .. } => error.message.clone(),
        other => other.to_string(),
    }
}

/// A password typed twice alike.
async fn new_password() -> Result<Secret, CommandError> {
    let first = ask("a new password", "New password: ", Echo::Hidden).await?;
    let again = ask("a new password", "The same again: ", Echo::Hidden).await?;
    if first.expose() != again.expose() {
        let text = "the two new passwords differ; nothing was changed";
        return Err(CommandError::NewPassword(text.to_owned()));
    }
    Ok(first)
}

async fn ask(what: &str, question: &str, echo: Echo) -> Result<Secret, CommandError> {
    prompt::ask(question, echo)
        .await
        .map_err(|source| CommandError::CannotAsk {
            what: what.to_owned(),
            source,
        })
}

fn password_of_stdin() -> Result<Secret, CommandError> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(LONGEST_LINE)
        .read_line(&mut line)
        .map_err(|error| CommandError::io("read the password", error))?;
    Ok(Secret::new(line.trim_end_matches(['\n', '\r'])))
}

/// A password goes to a server that was named, and never in the clear over a network.
fn check_server(config: &ClientConfig) -> Result<(), CommandError> {
    if !config.has_endpoint(Service::Sortie) {
        return Err(CommandError::NoServer);
    }
    let endpoint = config.endpoint(Service::Sortie)?;
    let is_here = endpoint.host().is_some_and(is_loopback);
    if endpoint.scheme_str() != Some("https") && !is_here {
        return Err(CommandError::InsecureServer(endpoint.to_string()));
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn signed_in(config: &ClientConfig, given: &Overrides, answer: SignInResponse) -> SignedIn {
    let keys = answer.credentials;
    let bundle = given.ca_bundle.as_ref().map(|path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        path.display().to_string()
    });
    // What was given by hand for this call would be missing at the next one.
    let region = given
        .region
        .clone()
        .or_else(|| (!config.has_region()).then(|| answer.region.clone())?);
    let settings = [
        ("region", region),
        ("endpoint_url", given.endpoint.clone()),
        ("ca_bundle", bundle),
    ];
    SignedIn {
        credentials: Credentials {
            access_key_id: keys.access_key_id,
            secret_access_key: keys.secret_access_key,
            session_token: Some(keys.session_token),
        },
        expires: keys.expiration,
        principal_arn: answer.arn,
        settings: settings
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
    }
}

fn tell(
    config: &ClientConfig,
    given: &Overrides,
    place: &SignInPlace,
    signed_in: &SignedIn,
) -> Result<(), CommandError> {
    output::print(&format!(
        "Signed in as {} until {}.\nThe keys are in profile `{}` of {}.\n",
        output::plain(&signed_in.principal_arn),
        signed_in.expires.iso_seconds(),
        place.profile(),
        place.file().display(),
    ))?;
    if config.is_overruled_by_environment() {
        output::error_line(
            "AWS_ACCESS_KEY_ID is set and wins over this profile, unless --profile names it.",
        );
    } else if given.profile.is_some() && place.profile() != "default" {
        output::error_line(&format!(
            "Use it with --profile {0} or AWS_PROFILE={0}.",
            place.profile()
        ));
    }
    Ok(())
}

pub(crate) fn log_out(environment: &Environment, given: &Overrides) -> Result<(), CommandError> {
    let place = ClientConfig::sign_out_place(environment, given)?;
    let was_there = place
        .clear()
        .map_err(|error| CommandError::io(format!("write {}", place.file().display()), error))?;
    let state = if was_there {
        "Signed out of"
    } else {
        "Nobody was signed in with"
    };
    output::print(&format!(
        "{state} profile `{}` of {}.\n",
        place.profile(),
        place.file().display()
    ))
}
