//! Users: their names, paths, tags, and what must go before they do.

use sortie_control::{CreateGroupInput, CreateUserInput, LoginProfileInput, UpdateUserInput};

use super::{by, code, first, next, refused, user};
use crate::world::{START, World, nobody, secret};

fn named(name: &str) -> CreateUserInput {
    CreateUserInput {
        name: name.into(),
        ..CreateUserInput::default()
    }
}

#[tokio::test]
async fn a_user_is_made_found_and_shown_in_the_trail() {
    let world = World::start().await;
    let input = CreateUserInput {
        path: Some("/ops/".into()),
        name: "Alice".into(),
        permissions_boundary: Some("arn:aws:iam::aws:policy/PowerUserAccess".into()),
        tags: vec![("team".into(), "blue".into())],
    };
    let made = world
        .control
        .create_user(&world.admin("CreateUser"), input)
        .await
        .unwrap()
        .into_inner();
    let account = world.control.account_id();
    let arn = format!("arn:aws:iam::{account}:user/ops/Alice");
    assert_eq!(made.arn.as_str(), arn);
    assert!(made.user.unique_id.as_str().starts_with("AIDA"));

    // Names are found without regard to case and shown as they were given.
    let call = world.admin("GetUser");
    let found = world.control.get_user(&call, Some("aLICE".into())).await;
    assert_eq!(found.unwrap().into_inner(), made);

    let record = world.record("CreateUser");
    assert_eq!(record["eventSource"], "iam.amazonaws.com");
    let shown = &record["responseElements"]["user"];
    assert_eq!(shown["userName"], "Alice");
    assert_eq!(shown["arn"], arn);
    assert_eq!(shown["createDate"], START.iso_seconds());
    assert_eq!(record["resources"][0]["ARN"], arn);
    assert!(record.get("errorCode").is_none());
}

#[tokio::test]
async fn without_a_name_the_caller_is_meant_and_a_node_is_no_user() {
    let world = World::start().await;
    let call = world.admin("GetUser");
    let found = world.control.get_user(&call, None).await.unwrap();
    assert_eq!(found.into_inner().user.name.as_str(), "admin");
    let node = world.enrol(0).await;
    let call = crate::world::call(world.node_caller(&node), "GetUser", START);
    let outcome = world.control.get_user(&call, None).await;
    assert_eq!(code(outcome), "ValidationError");
}

#[tokio::test]
async fn names_are_taken_without_regard_to_case_and_are_no_unique_ids() {
    let world = World::start().await;
    let bob = user(&world, "bob").await;
    let call = world.admin("CreateUser");
    let create = |name: &str| world.control.create_user(&call, named(name));
    assert_eq!(
        refused(create("BOB").await),
        (
            "EntityAlreadyExists",
            "User with name BOB already exists.".into()
        )
    );
    let id = bob.user.unique_id.as_str();
    for name in [id, &id.to_lowercase(), "AROAAAAAAAAAAAAAAAAAA", "a b", ""] {
        assert_eq!(code(create(name).await), "ValidationError", "{name}");
    }
    assert!(create("AIDA").await.is_ok());
    // Its sessions would be called like another's.
    assert!(create("Ann_Lee").await.is_ok());
    for name in ["ann+lee", "ANN=lee", "ann,lee"] {
        assert_eq!(code(create(name).await), "EntityAlreadyExists", "{name}");
    }
    assert!(create("ann.lee").await.is_ok());
    let twice = CreateUserInput {
        tags: vec![("a".into(), "1".into()), ("A".into(), "2".into())],
        ..named("twice")
    };
    let outcome = world.control.create_user(&call, twice).await;
    assert_eq!(code(outcome), "InvalidInput");
    let unbounded = CreateUserInput {
        permissions_boundary: Some("arn:aws:iam::aws:policy/NoSuchPolicy".into()),
        ..named("unbounded")
    };
    let outcome = world.control.create_user(&call, unbounded).await;
    assert_eq!(code(outcome), "NoSuchEntity");
}

#[tokio::test]
async fn users_are_listed_in_pages_and_by_path() {
    let world = World::start().await;
    for (index, name) in ["delta", "Bravo", "charlie", "alpha"].iter().enumerate() {
        let path = if index % 2 == 0 { "/even/" } else { "/odd/" };
        let input = CreateUserInput {
            path: Some(path.into()),
            ..named(name)
        };
        let call = world.admin("CreateUser");
        world.control.create_user(&call, input).await.unwrap();
    }
    let call = world.admin("ListUsers");
    let (mut seen, mut marker) = (Vec::new(), None);
    loop {
        let page = world
            .control
            .list_users(&call, None, &next(marker, 2))
            .await;
        let page = page.unwrap().into_inner();
        seen.extend(
            page.items
                .into_iter()
                .map(|view| view.user.name.to_string()),
        );
        marker = page.marker;
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["admin", "alpha", "Bravo", "charlie", "delta"]);
    let odd = world
        .control
        .list_users(&call, Some("/odd/"), &first(100))
        .await;
    let odd = odd.unwrap().into_inner();
    let odd: Vec<_> = odd
        .items
        .iter()
        .map(|view| view.user.name.as_str())
        .collect();
    assert_eq!(odd, ["alpha", "Bravo"]);
    let made_up = next(Some("made up".into()), 2);
    assert!(
        world
            .control
            .list_users(&call, None, &made_up)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_renamed_user_keeps_its_id_and_frees_its_name() {
    let world = World::start().await;
    let before = user(&world, "bob").await;
    user(&world, "carol").await;
    let call = world.admin("UpdateUser");
    let rename = |from: &str, to: &str| {
        let input = UpdateUserInput {
            name: from.into(),
            new_path: Some("/people/".into()),
            new_name: Some(to.into()),
        };
        world.control.update_user(&call, input)
    };
    assert_eq!(code(rename("bob", "Carol").await), "EntityAlreadyExists");
    assert_eq!(code(rename("nobody", "x").await), "NoSuchEntity");
    // Its own name in another case is free for it.
    rename("bob", "BOB").await.unwrap();
    rename("carol", "car_ol").await.unwrap();
    assert_eq!(code(rename("bob", "Car+ol").await), "EntityAlreadyExists");
    rename("car_ol", "car+ol").await.unwrap();
    rename("bob", "robert").await.unwrap();
    let call = world.admin("GetUser");
    let after = world.control.get_user(&call, Some("robert".into())).await;
    let after = after.unwrap().into_inner();
    assert_eq!(after.user.unique_id, before.user.unique_id);
    assert!(after.arn.as_str().ends_with(":user/people/robert"));
    let gone = world.control.get_user(&call, Some("bob".into())).await;
    assert_eq!(
        refused(gone),
        (
            "NoSuchEntity",
            "The user with name bob cannot be found.".into()
        )
    );
}

#[tokio::test]
async fn moving_a_user_must_be_allowed_at_both_ends() {
    let world = World::start().await;
    let mover = user(&world, "mover").await;
    user(&world, "bob").await;
    let account = world.control.account_id();
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"iam:*","Resource":"arn:aws:iam::{account}:user/bob"}}}}"#
    );
    let holder = sortie_control::Holder::User("mover".into());
    let put = world.admin("PutUserPolicy");
    let put = world
        .control
        .put_inline_policy(&put, &holder, "p", &policy)
        .await;
    put.unwrap();
    let call = by(&mover, "UpdateUser");
    let input = |new_name: Option<&str>| UpdateUserInput {
        name: "bob".into(),
        new_path: None,
        new_name: new_name.map(Into::into),
    };
    let refusal = world.control.update_user(&call, input(Some("rob"))).await;
    let (code, text) = refused(refusal);
    assert_eq!(code, "AccessDenied");
    assert!(text.contains(":user/rob"), "{text}");
    assert!(world.control.update_user(&call, input(None)).await.is_ok());
}

#[tokio::test]
async fn a_user_is_deleted_bare() {
    let world = World::start().await;
    user(&world, "bob").await;
    let control = &world.control;
    let admin = |name| world.admin(name);
    let bob = || Some("bob".to_owned());
    let key = control
        .create_access_key(&admin("CreateAccessKey"), bob())
        .await;
    let key = key.unwrap().into_inner();
    let login = LoginProfileInput {
        user_name: bob(),
        password: Some(secret("Correct-Horse-1")),
        reset_required: None,
    };
    let login = control
        .create_login_profile(&admin("CreateLoginProfile"), login)
        .await;
    login.unwrap();
    let group = CreateGroupInput {
        path: None,
        name: "ops".into(),
    };
    control
        .create_group(&admin("CreateGroup"), group)
        .await
        .unwrap();
    let add = admin("AddUserToGroup");
    control.add_user_to_group(&add, "ops", "bob").await.unwrap();

    let delete = async || {
        let outcome = control.delete_user(&admin("DeleteUser"), "bob").await;
        outcome.map_err(|error| error.to_string())
    };
    let must = |what: &str| format!("Cannot delete entity, must {what} first.");
    assert_eq!(delete().await.unwrap_err(), must("delete access keys"));
    let call = admin("DeleteAccessKey");
    let done = control
        .delete_access_key(&call, bob(), key.id.as_str())
        .await;
    done.unwrap();
    assert_eq!(delete().await.unwrap_err(), must("delete login profile"));
    let call = admin("DeleteLoginProfile");
    control.delete_login_profile(&call, bob()).await.unwrap();
    assert_eq!(delete().await.unwrap_err(), must("remove users from group"));
    let call = admin("RemoveUserFromGroup");
    let done = control.remove_user_from_group(&call, "ops", "bob").await;
    done.unwrap();
    delete().await.unwrap();
    let again = control.delete_user(&admin("DeleteUser"), "bob").await;
    assert_eq!(code(again), "NoSuchEntity");
}

#[tokio::test]
async fn tags_are_set_replaced_without_regard_to_case_and_removed() {
    let world = World::start().await;
    user(&world, "bob").await;
    let control = &world.control;
    let tag = async |tags: &[(&str, &str)]| {
        let tags: Vec<_> = tags
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        control
            .tag_user(&world.admin("TagUser"), "bob", &tags)
            .await
    };
    let tags = async || {
        let call = world.admin("ListUserTags");
        let page = control.list_user_tags(&call, "bob", &first(1)).await;
        let mut page = page.unwrap().into_inner();
        if let Some(marker) = page.marker {
            let rest = control
                .list_user_tags(&call, "bob", &next(Some(marker), 100))
                .await;
            page.items.extend(rest.unwrap().into_inner().items);
        }
        let tags = page.items.into_iter();
        tags.map(|tag| format!("{}={}", tag.key, tag.value))
            .collect::<Vec<_>>()
    };
    tag(&[("Team", "blue"), ("Site", "kr")]).await.unwrap();
    tag(&[("team", "red")]).await.unwrap();
    assert_eq!(tags().await, ["Site=kr", "team=red"]);
    assert_eq!(code(tag(&[("aws:x", "y")]).await), "InvalidInput");
    let call = world.admin("UntagUser");
    let keys = ["TEAM".to_owned(), "absent".to_owned()];
    control.untag_user(&call, "bob", &keys).await.unwrap();
    assert_eq!(tags().await, ["Site=kr"]);
    let many: Vec<_> = (0..50)
        .map(|index| (format!("k{index}"), String::new()))
        .collect();
    let over = control
        .tag_user(&world.admin("TagUser"), "bob", &many)
        .await;
    assert_eq!(code(over), "LimitExceeded");
}

#[tokio::test]
async fn what_nobody_has_is_an_empty_list_for_those_who_exist() {
    let world = World::start().await;
    let control = &world.control;
    for (name, found) in [(None, true), (Some("nobody"), false)] {
        let name = name.map(str::to_owned);
        let call = world.admin("ListSSHPublicKeys");
        let keys = control.list_ssh_public_keys(&call, name.clone()).await;
        assert_eq!(keys.is_ok(), found);
        let call = world.admin("ListSigningCertificates");
        let certificates = control.list_signing_certificates(&call, name.clone()).await;
        assert_eq!(certificates.is_ok(), found);
        let call = world.admin("ListServiceSpecificCredentials");
        let credentials = control
            .list_service_specific_credentials(&call, name, false)
            .await;
        assert_eq!(credentials.is_ok(), found);
    }
}

#[tokio::test]
async fn who_may_not_learns_nothing_and_changes_nothing() {
    let world = World::start().await;
    let bob = user(&world, "bob").await;
    let control = &world.control;
    let call = by(&bob, "GetUser");
    let texts = ["admin", "nobody"].map(|name| (name, control.get_user(&call, Some(name.into()))));
    for (name, outcome) in texts {
        let (code, text) = refused(outcome.await);
        assert_eq!(code, "AccessDenied");
        let arn = format!("arn:aws:iam::{}:user/{name}", control.account_id());
        assert!(
            text.ends_with(&format!(
                "is not authorized to perform: iam:GetUser on resource: {arn} because no \
             identity-based policy allows the iam:GetUser action"
            )),
            "{text}"
        );
    }
    let delete = control.delete_user(&by(&bob, "DeleteUser"), "admin").await;
    assert_eq!(code(delete), "AccessDenied");
    let call = crate::world::call(nobody(), "ListUsers", START);
    let outcome = control.list_users(&call, None, &first(1)).await;
    assert_eq!(code(outcome), "AccessDenied");
}
