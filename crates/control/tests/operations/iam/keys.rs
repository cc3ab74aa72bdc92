//! Access keys of users.

use sortie_control::IamError;

use super::{by, code, first, next, refused, user};
use crate::world::{START, World};

#[tokio::test]
async fn a_secret_is_seen_once_and_never_in_the_trail() {
    let world = World::start().await;
    let bob = user(&world, "bob").await;
    let control = &world.control;
    let call = world.admin("CreateAccessKey");
    let made = control.create_access_key(&call, Some("bob".into())).await;
    let made = made.unwrap().into_inner();
    assert_eq!(made.secret.expose().len(), 40);
    assert_eq!(made.user_name, bob.user.name);
    let record = world.record("CreateAccessKey");
    let shown = &record["responseElements"]["accessKey"];
    assert_eq!(shown["accessKeyId"], made.id.as_str());
    assert_eq!(shown["status"], "Active");
    assert!(!record.to_string().contains(made.secret.expose()));
    // It is good for signing, and is the user's.
    let known = control.look_up_key(made.id.as_str(), None, START).await;
    let known = known.unwrap();
    assert_eq!(known.secret.expose(), made.secret.expose());
}

#[tokio::test]
async fn a_user_has_two_keys_in_pages_of_their_own() {
    let world = World::start().await;
    user(&world, "bob").await;
    let control = &world.control;
    let bob = || Some("bob".to_owned());
    let call = world.admin("CreateAccessKey");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let made = control.create_access_key(&call, bob()).await.unwrap();
        ids.push(made.into_inner().id);
    }
    assert_eq!(
        refused(control.create_access_key(&call, bob()).await),
        (
            "LimitExceeded",
            "Cannot exceed quota for AccessKeysPerUser: 2".into()
        )
    );
    let call = world.admin("ListAccessKeys");
    let page = control.list_access_keys(&call, bob(), &first(1)).await;
    let page = page.unwrap().into_inner();
    let rest = control
        .list_access_keys(&call, bob(), &next(page.marker, 1))
        .await;
    let rest = rest.unwrap().into_inner();
    assert_eq!(rest.marker, None);
    let mut listed = vec![page.items[0].id.clone(), rest.items[0].id.clone()];
    listed.sort();
    ids.sort();
    assert_eq!(listed, ids);
    // Without a name: the administrator's own one.
    let own = control.list_access_keys(&call, None, &first(10)).await;
    let own = own.unwrap().into_inner().items;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].id, world.administrator.access_key_id);
}

#[tokio::test]
async fn a_key_is_switched_off_and_on_and_deleted_by_its_users_name_alone() {
    let world = World::start().await;
    user(&world, "bob").await;
    user(&world, "carol").await;
    let control = &world.control;
    let bob = || Some("bob".to_owned());
    let call = world.admin("CreateAccessKey");
    let key = control.create_access_key(&call, bob()).await;
    let key = key.unwrap().into_inner().id;
    let update = async |name: Option<String>, id: &str, active| {
        let call = world.admin("UpdateAccessKey");
        control.update_access_key(&call, name, id, active).await
    };
    let not_found = format!("The Access Key with id {key} cannot be found.");
    for name in [None, Some("carol".to_owned())] {
        let outcome = update(name, key.as_str(), false).await;
        assert_eq!(refused(outcome), ("NoSuchEntity", not_found.clone()));
    }
    assert_eq!(code(update(bob(), "garbage", false).await), "NoSuchEntity");
    for active in [false, true] {
        update(bob(), key.as_str(), active).await.unwrap();
        let call = world.admin("ListAccessKeys");
        let keys = control.list_access_keys(&call, bob(), &first(10)).await;
        assert_eq!(keys.unwrap().into_inner().items[0].active, active);
    }
    let call = world.admin("DeleteAccessKey");
    let other = control
        .delete_access_key(&call, Some("carol".into()), key.as_str())
        .await;
    assert_eq!(code(other), "NoSuchEntity");
    let done = control.delete_access_key(&call, bob(), key.as_str()).await;
    done.unwrap();
    let again = control.delete_access_key(&call, bob(), key.as_str()).await;
    assert!(matches!(again, Err(IamError::NoSuchEntity(_))));
}

#[tokio::test]
async fn a_key_that_was_never_used_says_so() {
    let world = World::start().await;
    let bob = user(&world, "bob").await;
    let control = &world.control;
    let call = world.admin("CreateAccessKey");
    let key = control.create_access_key(&call, Some("bob".into())).await;
    let key = key.unwrap().into_inner().id;
    let call = world.admin("GetAccessKeyLastUsed");
    let found = control.get_access_key_last_used(&call, key.as_str()).await;
    let found = found.unwrap().into_inner();
    assert_eq!(found.user_name.as_str(), "bob");
    assert_eq!(found.used, None);
    let id = "AKIAAAAAAAAAAAAAAAAA";
    let outcome = control.get_access_key_last_used(&call, id).await;
    assert_eq!(code(outcome), "NoSuchEntity");
    let call = by(&bob, "GetAccessKeyLastUsed");
    let outcome = control.get_access_key_last_used(&call, id).await;
    assert_eq!(code(outcome), "AccessDenied");
}
