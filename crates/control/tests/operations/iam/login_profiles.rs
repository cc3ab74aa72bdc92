//! Passwords of users.

use sortie_control::{Caller, IamError, LoginProfileInput};

use super::{by, code, refused, user};
use crate::world::{START, World, call, secret};

const PASSWORD: &str = "Correct-Horse-1";

fn login(user: &str, password: Option<&str>, reset_required: Option<bool>) -> LoginProfileInput {
    LoginProfileInput {
        user_name: Some(user.into()),
        password: password.map(secret),
        reset_required,
    }
}

async fn set(world: &World, user: &str, password: &str) -> Result<(), IamError> {
    let call = world.admin("CreateLoginProfile");
    let input = login(user, Some(password), Some(true));
    let made = world.control.create_login_profile(&call, input).await?;
    let made = made.into_inner();
    assert_eq!(made.user_name.as_str(), user);
    assert!(made.reset_required);
    Ok(())
}

#[tokio::test]
async fn a_password_is_set_changed_and_taken_and_never_shown() {
    let world = World::start().await;
    user(&world, "bob").await;
    let control = &world.control;
    let bob = || Some("bob".to_owned());
    let get = async || {
        let call = world.admin("GetLoginProfile");
        let found = control.get_login_profile(&call, bob()).await;
        found.map(sortie_control::Recorded::into_inner)
    };
    let missing = "Login Profile for User bob cannot be found.".to_owned();
    assert_eq!(refused(get().await), ("NoSuchEntity", missing));
    set(&world, "bob", PASSWORD).await.unwrap();
    let found = get().await.unwrap();
    assert_eq!((found.created, found.reset_required), (START, true));
    let record = world.record("CreateLoginProfile");
    let shown = &record["responseElements"]["loginProfile"];
    assert_eq!(shown["userName"], "bob");
    assert_eq!(shown["passwordResetRequired"], true);
    assert!(!record.to_string().contains("argon2"));
    let taken = "Login Profile for user bob already exists.".to_owned();
    let again = set(&world, "bob", PASSWORD).await;
    assert_eq!(refused(again), ("EntityAlreadyExists", taken));

    let call = world.admin("UpdateLoginProfile");
    let update = control
        .update_login_profile(&call, login("bob", None, Some(false)))
        .await;
    update.unwrap();
    assert!(!get().await.unwrap().reset_required);
    let update = control
        .update_login_profile(&call, login("bob", Some("short"), None))
        .await;
    assert_eq!(code(update), "PasswordPolicyViolation");
    let update = control
        .update_login_profile(&call, login("bob", Some("Other-Horse-2"), None))
        .await;
    update.unwrap();

    let call = world.admin("DeleteLoginProfile");
    control.delete_login_profile(&call, bob()).await.unwrap();
    let again = control.delete_login_profile(&call, bob()).await;
    assert_eq!(code(again), "NoSuchEntity");
}

#[tokio::test]
async fn weak_passwords_are_refused() {
    let world = World::start().await;
    user(&world, "Correct-Horse-1").await;
    let account = world.control.account_id().to_string();
    for (password, text) in [
        ("Sh0rt-x", "Password should have a minimum length of 8"),
        ("alllowercase", "Password should have at least 3 of these"),
        ("lower0123456", "Password should have at least 3 of these"),
        (&account, "Password should have at least 3 of these"),
        ("correct-horse-1", "Password should not be the name"),
    ] {
        let (code, why) = refused(set(&world, "Correct-Horse-1", password).await);
        assert_eq!(code, "PasswordPolicyViolation", "{password}");
        assert!(why.starts_with(text), "{password}: {why}");
    }
    let call = world.admin("CreateLoginProfile");
    let none = login("Correct-Horse-1", None, None);
    let none = world.control.create_login_profile(&call, none).await;
    assert_eq!(code(none), "ValidationError");
}

#[tokio::test]
async fn a_user_changes_its_own_password_by_the_old_one() {
    let world = World::start().await;
    let bob = user(&world, "bob").await;
    set(&world, "bob", PASSWORD).await.unwrap();
    let control = &world.control;
    let change = async |old: &str, new: &str| {
        let call = by(&bob, "ChangePassword");
        control
            .change_password(&call, &secret(old), &secret(new))
            .await
    };
    assert_eq!(
        code(change(PASSWORD, "Other-Horse-2").await),
        "AccessDenied"
    );
    let call = world.admin("AttachUserPolicy");
    let holder = sortie_control::Holder::User("bob".into());
    let arn = "arn:aws:iam::aws:policy/IAMUserChangePassword";
    let attach = control.attach_policy(&call, &holder, arn).await;
    attach.unwrap();

    let wrong = "The old password was incorrect.".to_owned();
    let outcome = change("Wrong-Horse-1", "Other-Horse-2").await;
    assert_eq!(refused(outcome), ("AccessDenied", wrong.clone()));
    let outcome = change(PASSWORD, "weak").await;
    assert_eq!(code(outcome), "PasswordPolicyViolation");
    change(PASSWORD, "Other-Horse-2").await.unwrap();
    let outcome = change(PASSWORD, "Third-Horse-3").await;
    assert_eq!(refused(outcome), ("AccessDenied", wrong));
    let call = world.admin("GetLoginProfile");
    let found = control.get_login_profile(&call, Some("bob".into())).await;
    assert!(!found.unwrap().into_inner().reset_required);
    change("Other-Horse-2", "Third-Horse-3").await.unwrap();
}

#[tokio::test]
async fn only_users_change_passwords() {
    let world = World::start().await;
    let node = world.enrol(0).await;
    let node: Caller = world.node_caller(&node);
    let call = call(node, "ChangePassword", START);
    let (old, new) = (secret(PASSWORD), secret("Other-Horse-2"));
    let outcome = world.control.change_password(&call, &old, &new).await;
    assert_eq!(code(outcome), "InvalidUserType");
}
