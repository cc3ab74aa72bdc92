//! Signing in with a password: what it gives, what it tells whom, and what it leaves in the trail.

use std::time::Duration;

use serde_json::Value;
use sortie_control::{
    AuthenticationError, Call, Caller, CallerKind, Holder, IssuedCredentials, LoginProfileInput,
    SignInError, SignInInput, SignInOutput, SignedInWith,
};
use sortie_types::Timestamp;

use crate::{
    access,
    iam::{
        mfa::{App, STEP, device},
        user,
    },
    sts,
    world::{START, World, call, nobody, secret},
};

const PASSWORD: &str = "Correct-Horse-1";
const NEW: &str = "Other-Horse-2";

fn typed(user: &str, password: &str) -> SignInInput {
    SignInInput {
        user_name: user.into(),
        password: secret(password),
        mfa_code: None,
        new_password: None,
        duration_seconds: None,
    }
}

fn from(address: &str, now: Timestamp) -> Call {
    Call {
        source_ip: address.into(),
        ..call(nobody(), "SignIn", now)
    }
}

async fn sign_in(
    world: &World,
    input: SignInInput,
    now: Timestamp,
) -> Result<SignInOutput, SignInError> {
    let call = from("192.0.2.1", now);
    let outcome = world.control.sign_in(&call, &input).await;
    outcome.map(sortie_control::Recorded::into_inner)
}

/// A user with a password.
async fn bob(world: &World, reset_required: bool) {
    user(world, "bob").await;
    let input = LoginProfileInput {
        user_name: Some("bob".into()),
        password: Some(secret(PASSWORD)),
        reset_required: Some(reset_required),
    };
    let call = world.admin("CreateLoginProfile");
    world
        .control
        .create_login_profile(&call, input)
        .await
        .unwrap();
}

/// And with an enabled device.
async fn with_device(world: &World) -> App {
    let made = device(world, "phone").await;
    let app = App::of(&made);
    let call = world.admin("EnableMFADevice");
    let codes = app.two("bob", &made, START);
    world.control.enable_mfa_device(&call, codes).await.unwrap();
    app
}

/// Who signs with the new keys.
async fn caller(world: &World, signed_in: &SignInOutput, now: Timestamp) -> Caller {
    let keys = &signed_in.credentials;
    let key = keys.access_key_id.as_str();
    let known = world
        .control
        .look_up_key(key, Some(&keys.session_token), now);
    let known = known.await.unwrap();
    assert_eq!(known.secret.expose(), keys.secret_access_key.expose());
    known.caller
}

#[tokio::test]
async fn a_password_gives_keys_of_the_user_for_half_a_day() {
    let world = World::start().await;
    bob(&world, false).await;
    let signed_in = sign_in(&world, typed("BOB", PASSWORD), START)
        .await
        .unwrap();
    assert!(signed_in.arn.as_str().ends_with(":user/bob"));
    assert!(!signed_in.mfa_used);
    let expires = START.plus(Duration::from_hours(12));
    assert_eq!(signed_in.credentials.expiration, expires);

    let caller = caller(&world, &signed_in, START).await;
    let asking = call(caller, "GetCaller", START);
    let who = world.control.get_caller(&asking).await;
    let who = who.unwrap().into_inner();
    assert_eq!(
        (who.kind, who.with),
        (CallerKind::User, SignedInWith::Password)
    );
    assert_eq!(who.user_name.as_deref(), Some("bob"));
    assert_eq!((who.expires, who.mfa), (Some(expires), None));

    let short = SignInInput {
        duration_seconds: Some(900),
        ..typed("bob", PASSWORD)
    };
    let short = sign_in(&world, short, START).await.unwrap();
    assert_eq!(
        short.credentials.expiration,
        START.plus(Duration::from_mins(15))
    );
}

#[tokio::test]
async fn a_code_is_needed_after_the_right_password_only_and_good_once() {
    let world = World::start().await;
    bob(&world, false).await;
    let app = with_device(&world).await;
    let now = START.plus(STEP);
    let wrong = sign_in(&world, typed("bob", "Wrong-Horse-1"), now).await;
    assert!(matches!(wrong, Err(SignInError::Failed)), "{wrong:?}");
    let right = sign_in(&world, typed("bob", PASSWORD), now).await;
    assert!(
        matches!(right, Err(SignInError::MfaCodeRequired)),
        "{right:?}"
    );

    let with_code = |code: &str| SignInInput {
        mfa_code: Some(secret(code)),
        ..typed("bob", PASSWORD)
    };
    let used = app.code(START);
    let wrong_code = app.code(START.plus(Duration::from_hours(1)));
    for code in [wrong_code.as_str(), used.as_str(), "", "12345x"] {
        let refused = sign_in(&world, with_code(code), now).await;
        assert!(
            matches!(refused, Err(SignInError::Failed)),
            "{code}: {refused:?}"
        );
    }
    let fresh = app.code(now);
    let signed_in = sign_in(&world, with_code(&fresh), now).await.unwrap();
    assert!(signed_in.mfa_used);
    let caller = caller(&world, &signed_in, now).await;
    let asking = call(caller, "GetCaller", now);
    let who = world.control.get_caller(&asking).await;
    assert_eq!(who.unwrap().into_inner().mfa, Some(now));
    let replayed = sign_in(&world, with_code(&fresh), now).await;
    assert!(matches!(replayed, Err(SignInError::Failed)), "{replayed:?}");
}

#[tokio::test]
async fn a_password_that_must_change_is_good_for_changing_it() {
    let world = World::start().await;
    bob(&world, true).await;
    let app = with_device(&world).await;
    let now = START.plus(STEP);
    let with_new = |new: &str| SignInInput {
        new_password: Some(secret(new)),
        ..typed("bob", PASSWORD)
    };
    let refused = sign_in(&world, typed("bob", PASSWORD), now).await;
    assert!(
        matches!(refused, Err(SignInError::NewPasswordRequired)),
        "{refused:?}"
    );
    for bad in ["short", PASSWORD] {
        let refused = sign_in(&world, with_new(bad), now).await;
        let policy = matches!(refused, Err(SignInError::PasswordPolicyViolation(_)));
        assert!(policy, "{bad}: {refused:?}");
    }
    // Without the code nothing changes.
    let refused = sign_in(&world, with_new(NEW), now).await;
    assert!(
        matches!(refused, Err(SignInError::MfaCodeRequired)),
        "{refused:?}"
    );
    let complete = SignInInput {
        mfa_code: Some(secret(&app.code(now))),
        ..with_new(NEW)
    };
    sign_in(&world, complete, now).await.unwrap();

    let later = now.plus(STEP);
    let old = sign_in(&world, typed("bob", PASSWORD), later).await;
    assert!(matches!(old, Err(SignInError::Failed)), "{old:?}");
    let again = SignInInput {
        mfa_code: Some(secret(&app.code(later))),
        // Of no effect now.
        new_password: Some(secret("Third-Horse-3")),
        ..typed("bob", NEW)
    };
    sign_in(&world, again, later).await.unwrap();
    let third = sign_in(&world, typed("bob", "Third-Horse-3"), later).await;
    assert!(matches!(third, Err(SignInError::Failed)), "{third:?}");
}

#[tokio::test]
async fn nobody_learns_which_names_exist() {
    let world = World::start().await;
    bob(&world, false).await;
    user(&world, "keys-only").await;
    let mut texts = Vec::new();
    for name in ["bob", "keys-only", "nobody", "admin"] {
        let refused = sign_in(&world, typed(name, "Wrong-Horse-1"), START).await;
        texts.push(refused.unwrap_err().to_string());
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn guessing_is_stopped_for_names_that_exist_and_for_others_alike() {
    let world = World::start().await;
    bob(&world, false).await;
    for name in ["bob", "nobody"] {
        let mut answers = Vec::new();
        for _ in 0..11 {
            let call = from("198.51.100.7", START);
            let input = typed(name, "Wrong-Horse-1");
            let refused = world.control.sign_in(&call, &input).await.unwrap_err();
            answers.push(matches!(refused, SignInError::TooManyAttempts));
        }
        assert_eq!(
            answers.iter().filter(|limited| **limited).count(),
            1,
            "{name}"
        );
        assert!(answers[10], "{name}");
    }
    let limited = from("198.51.100.7", START);
    let right = world
        .control
        .sign_in(&limited, &typed("bob", PASSWORD))
        .await;
    assert!(
        matches!(right, Err(SignInError::TooManyAttempts)),
        "{right:?}"
    );
    // Whoever is elsewhere is not locked out.
    sign_in(&world, typed("bob", PASSWORD), START)
        .await
        .unwrap();
}

#[tokio::test]
async fn keys_of_a_sign_in_end_with_the_password() {
    let world = World::start().await;
    bob(&world, false).await;
    let signed_in = sign_in(&world, typed("bob", PASSWORD), START)
        .await
        .unwrap();
    let call = world.admin("DeleteLoginProfile");
    let deleted = world
        .control
        .delete_login_profile(&call, Some("bob".into()));
    deleted.await.unwrap();
    let keys = &signed_in.credentials;
    let key = keys.access_key_id.as_str();
    let known = world
        .control
        .look_up_key(key, Some(&keys.session_token), START);
    assert!(known.await.is_err());
    let again = sign_in(&world, typed("bob", PASSWORD), START).await;
    assert!(matches!(again, Err(SignInError::Failed)), "{again:?}");
}

#[tokio::test]
async fn keys_of_a_sign_in_and_of_what_followed_end_when_the_password_is_another() {
    let world = World::start().await;
    bob(&world, false).await;
    let at = |seconds| START.plus(Duration::from_secs(seconds));
    let assume = access::allow("sts:AssumeRole", "*");
    access::grant(&world, &Holder::User("bob".into()), "assume", &[assume]).await;
    sts::trusting_account(&world, "Ops").await;
    let looked_up = async |keys: &IssuedCredentials| {
        let key = keys.access_key_id.as_str();
        let token = Some(&keys.session_token);
        world.control.look_up_key(key, token, at(9)).await
    };
    let change = async |again: bool| {
        let input = LoginProfileInput {
            user_name: Some("bob".into()),
            password: Some(secret(if again { PASSWORD } else { NEW })),
            reset_required: None,
        };
        if again {
            let call = world.admin("DeleteLoginProfile");
            let name = Some("bob".to_owned());
            let deleted = world.control.delete_login_profile(&call, name).await;
            deleted.unwrap();
            let call = world.admin_at("CreateLoginProfile", at(4));
            let made = world.control.create_login_profile(&call, input).await;
            made.unwrap();
        } else {
            let call = world.admin_at("UpdateLoginProfile", at(2));
            let updated = world.control.update_login_profile(&call, input).await;
            updated.unwrap();
        }
    };
    for (again, password, now) in [(false, PASSWORD, at(1)), (true, NEW, at(3))] {
        let keys = sign_in(&world, typed("bob", password), now).await;
        let keys = keys.unwrap().credentials;
        let caller = looked_up(&keys).await.unwrap().caller;
        let chained = sts::issued(&world, &caller, "Ops", "bob").await;
        assert!(looked_up(&chained).await.is_ok());
        change(again).await;
        for keys in [keys, chained] {
            let refused = looked_up(&keys).await;
            assert!(matches!(refused, Err(AuthenticationError::Inactive)));
        }
    }
    let keys = sign_in(&world, typed("bob", PASSWORD), at(5)).await;
    assert!(looked_up(&keys.unwrap().credentials).await.is_ok());
}

#[tokio::test]
async fn the_trail_has_every_attempt_and_nothing_that_was_typed() {
    let world = World::start().await;
    bob(&world, false).await;
    let app = with_device(&world).await;
    let now = START.plus(STEP);
    let code = app.code(now);
    let typed_as_name = "Hunter2-Hunter2";
    let _ = sign_in(&world, typed(typed_as_name, "x"), now).await;
    let unknown = world.record("ConsoleLogin");
    assert_eq!(
        unknown["userIdentity"]["userName"],
        "HIDDEN_DUE_TO_SECURITY_REASONS"
    );
    assert_eq!(unknown["errorMessage"], "Failed authentication");
    assert_eq!(unknown.get("errorCode"), None);

    let _ = sign_in(&world, typed("bob", "Wrong-Horse-1"), now).await;
    let wrong = world.record("ConsoleLogin");
    assert_eq!(wrong["responseElements"]["ConsoleLogin"], "Failure");
    assert_eq!(wrong["userIdentity"]["userName"], "bob");
    assert_eq!(wrong["sourceIPAddress"], "192.0.2.1");

    let before = world.count("ConsoleLogin");
    let _ = sign_in(&world, typed("bob", PASSWORD), now).await;
    assert_eq!(
        world.count("ConsoleLogin"),
        before,
        "half a sign-in is no failure"
    );
    assert_eq!(
        world.record("CheckMfa")["responseElements"]["CheckMfa"],
        "Success"
    );

    let input = SignInInput {
        mfa_code: Some(secret(&code)),
        ..typed("bob", PASSWORD)
    };
    sign_in(&world, input, now).await.unwrap();
    let right = world.record("ConsoleLogin");
    assert_eq!(right["responseElements"]["ConsoleLogin"], "Success");
    assert_eq!(right["additionalEventData"]["MFAUsed"], "Yes");
    assert_eq!(right["eventSource"], "signin.amazonaws.com");
    assert_eq!(right["eventType"], "AwsConsoleSignIn");
    assert_eq!(right["requestParameters"], Value::Null);

    let all = world.records().into_iter();
    let text: String = all.map(|record| record.to_string()).collect();
    for secret in [PASSWORD, "Wrong-Horse-1", typed_as_name, code.as_str()] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn without_its_record_nobody_signs_in() {
    let world = World::start().await;
    bob(&world, false).await;
    world.fail_commits(true);
    let refused = sign_in(&world, typed("bob", PASSWORD), START).await;
    assert!(
        matches!(refused, Err(SignInError::Internal(_))),
        "{refused:?}"
    );
}
