//! Groups and who is in them.

use sortie_control::{CreateGroupInput, UpdateGroupInput};

use super::{code, first, next, refused, user};
use crate::world::World;

async fn group(world: &World, name: &str) {
    let input = CreateGroupInput {
        path: Some("/teams/".into()),
        name: name.into(),
    };
    let call = world.admin("CreateGroup");
    world.control.create_group(&call, input).await.unwrap();
}

#[tokio::test]
async fn a_group_is_made_renamed_and_found() {
    let world = World::start().await;
    group(&world, "Ops").await;
    let control = &world.control;
    let record = world.record("CreateGroup");
    let shown = &record["responseElements"]["group"];
    assert_eq!(shown["groupName"], "Ops");
    assert!(shown["groupId"].as_str().unwrap().starts_with("AGPA"));
    let again = CreateGroupInput {
        path: None,
        name: "OPS".into(),
    };
    let again = control
        .create_group(&world.admin("CreateGroup"), again)
        .await;
    assert_eq!(
        refused(again),
        (
            "EntityAlreadyExists",
            "Group with name OPS already exists.".into()
        )
    );
    let input = UpdateGroupInput {
        name: "ops".into(),
        new_path: Some("/".into()),
        new_name: Some("operators".into()),
    };
    control
        .update_group(&world.admin("UpdateGroup"), input)
        .await
        .unwrap();
    let call = world.admin("GetGroup");
    let found = control.get_group(&call, "OPERATORS", &first(10)).await;
    let found = found.unwrap().into_inner();
    let arn = format!("arn:aws:iam::{}:group/operators", control.account_id());
    assert_eq!(found.group.arn.as_str(), arn);
    assert_eq!(
        refused(control.get_group(&call, "ops", &first(10)).await),
        (
            "NoSuchEntity",
            "The group with name ops cannot be found.".into()
        )
    );
}

#[tokio::test]
async fn members_come_in_pages_and_leave() {
    let world = World::start().await;
    group(&world, "ops").await;
    let control = &world.control;
    let add = world.admin("AddUserToGroup");
    for name in ["dora", "Bert", "anna"] {
        user(&world, name).await;
        control.add_user_to_group(&add, "ops", name).await.unwrap();
        // Twice is once.
        control.add_user_to_group(&add, "ops", name).await.unwrap();
    }
    let call = world.admin("GetGroup");
    let page = control.get_group(&call, "ops", &first(2)).await;
    let page = page.unwrap().into_inner().members;
    let rest = control.get_group(&call, "ops", &next(page.marker, 2)).await;
    let rest = rest.unwrap().into_inner().members;
    assert_eq!(rest.marker, None);
    let members = page.items.iter().chain(&rest.items);
    let members: Vec<_> = members.map(|view| view.user.name.as_str()).collect();
    assert_eq!(members, ["anna", "Bert", "dora"]);

    let delete = control
        .delete_group(&world.admin("DeleteGroup"), "ops")
        .await;
    assert_eq!(
        refused(delete),
        (
            "DeleteConflict",
            "Cannot delete entity, must remove users from group first.".into()
        )
    );
    let remove = world.admin("RemoveUserFromGroup");
    for name in ["anna", "bert", "dora", "dora"] {
        let done = control.remove_user_from_group(&remove, "ops", name).await;
        done.unwrap();
    }
    let done = control
        .delete_group(&world.admin("DeleteGroup"), "ops")
        .await;
    done.unwrap();
    let gone = control.add_user_to_group(&add, "ops", "anna").await;
    assert_eq!(code(gone), "NoSuchEntity");
}

#[tokio::test]
async fn a_user_is_in_ten_groups_at_most_and_lists_them() {
    let world = World::start().await;
    user(&world, "bob").await;
    let control = &world.control;
    let add = world.admin("AddUserToGroup");
    for index in 0..11 {
        let name = format!("group{index:02}");
        group(&world, &name).await;
        let outcome = control.add_user_to_group(&add, &name, "bob").await;
        if index < 10 {
            outcome.unwrap();
        } else {
            let text = "Cannot exceed quota for GroupsPerUser: 10".to_owned();
            assert_eq!(refused(outcome), ("LimitExceeded", text));
        }
    }
    let call = world.admin("ListGroupsForUser");
    let groups = control
        .list_groups_for_user(&call, "bob", &first(100))
        .await;
    let groups = groups.unwrap().into_inner();
    assert_eq!(groups.items.len(), 10);
    let call = world.admin("ListGroups");
    let page = control.list_groups(&call, Some("/teams/"), &first(4)).await;
    let page = page.unwrap().into_inner();
    assert_eq!(page.items.len(), 4);
    let rest = control
        .list_groups(&call, Some("/teams/"), &next(page.marker, 100))
        .await;
    assert_eq!(rest.unwrap().into_inner().items.len(), 7);
    let none = control.list_groups(&call, Some("/other/"), &first(4)).await;
    assert_eq!(none.unwrap().into_inner().items.len(), 0);
}
