//! Documents: what is kept, what is refused, who may, and what sessions become of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sortie_control::{
    AddTagsToResourceInput, Caller, CreateDocumentInput, DocumentError, DocumentFilter,
    DocumentInput, DocumentView, ListDocumentVersionsInput, ListDocumentsInput,
    ListTagsForResourceInput, ModifyDocumentPermissionInput, ServiceSettingError,
    ServiceSettingInput, StartSessionError, StartSessionInput, UpdateDocumentInput,
    UpdateServiceSettingInput, run_as_of,
};
use sortie_ports::Session;
use sortie_types::NodeId;

use crate::{
    access::{allow, deny, grant, node, person, user},
    world::{START, World, call, start},
};

const PREFERENCES: &str = "SSM-SessionManagerRunShell";

fn shell(inputs: &Value) -> String {
    let document = json!({
        "schemaVersion": "1.0",
        "description": "Document to hold regional settings for Session Manager",
        "sessionType": "Standard_Stream",
        "inputs": inputs,
    });
    document.to_string()
}

/// What the guide to restricting commands shows: one command on files of one folder.
fn tail() -> String {
    let document = json!({
        "schemaVersion": "1.0",
        "description": "Follow a log",
        "sessionType": "InteractiveCommands",
        "parameters": {"logpath": {
            "type": "String",
            "description": "The log file",
            "default": "/var/log/messages",
            "allowedPattern": "^/var/log/[a-zA-Z0-9_-]+(\\.[a-zA-Z0-9_-]+)*$",
            "maxChars": 64,
        }},
        "properties": {"linux": {"commands": "tail -f {{ logpath }}", "runAsElevated": true}},
    });
    document.to_string()
}

async fn create(world: &World, name: &str, content: &str) -> Result<DocumentView, DocumentError> {
    let input = CreateDocumentInput {
        name: name.into(),
        content: content.into(),
        document_type: Some("Session".into()),
        ..CreateDocumentInput::default()
    };
    let call = world.admin("CreateDocument");
    let made = world.control.create_document(&call, input).await;
    made.map(sortie_control::Recorded::into_inner)
}

async fn update(world: &World, name: &str, content: &str) -> Result<DocumentView, DocumentError> {
    let input = UpdateDocumentInput {
        name: name.into(),
        content: content.into(),
        version: Some("$LATEST".into()),
        ..UpdateDocumentInput::default()
    };
    let call = world.admin("UpdateDocument");
    let made = world.control.update_document(&call, input).await;
    made.map(sortie_control::Recorded::into_inner)
}

async fn make_default(world: &World, name: &str, version: &str) -> Result<i64, DocumentError> {
    let input = version_of(name, version);
    let call = world.admin("UpdateDocumentDefaultVersion");
    let made = world
        .control
        .update_document_default_version(&call, input)
        .await;
    made.map(|made| made.into_inner().default_version)
}

/// As the console saves preferences: a new version, put in force.
async fn save_preferences(world: &World, inputs: &Value) {
    let content = shell(inputs);
    let view = match create(world, PREFERENCES, &content).await {
        Err(DocumentError::AlreadyExists(_)) => update(world, PREFERENCES, &content).await,
        made => made,
    };
    let version = view.unwrap().version.to_string();
    make_default(world, PREFERENCES, &version).await.unwrap();
}

fn named(name: &str) -> DocumentInput {
    DocumentInput {
        name: name.into(),
        ..DocumentInput::default()
    }
}

fn version_of(name: &str, version: &str) -> DocumentInput {
    DocumentInput {
        version: Some(version.into()),
        ..named(name)
    }
}

async fn describe(world: &World, input: DocumentInput) -> Result<DocumentView, DocumentError> {
    let call = world.admin("DescribeDocument");
    let found = world.control.describe_document(&call, input).await;
    found.map(sortie_control::Recorded::into_inner)
}

async fn content(world: &World, input: DocumentInput, format: Option<&str>) -> String {
    let call = world.admin("GetDocument");
    let found = world.control.get_document(&call, input, format).await;
    found.unwrap().into_inner().content
}

async fn delete(world: &World, input: DocumentInput) -> Result<(), DocumentError> {
    let call = world.admin("DeleteDocument");
    let gone = world.control.delete_document(&call, input).await;
    gone.map(sortie_control::Recorded::into_inner)
}

fn wanted(node: &NodeId, document: &str, parameters: &[(&str, &str)]) -> StartSessionInput {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), vec![(*value).to_owned()]);
    StartSessionInput {
        document_name: Some(document.into()),
        parameters: parameters.iter().map(pair).collect::<BTreeMap<_, _>>(),
        ..start(node.as_str())
    }
}

async fn starts_as(
    world: &World,
    caller: Caller,
    input: StartSessionInput,
) -> Result<Session, StartSessionError> {
    let call = call(caller, "StartSession", START);
    let started = world
        .control
        .start_session(&call, input)
        .await?
        .into_inner();
    Ok(world.session_row(&started.session_id).await)
}

async fn starts(world: &World, input: StartSessionInput) -> Result<Session, StartSessionError> {
    starts_as(world, world.admin_caller(), input).await
}

async fn sessions(world: &World) -> usize {
    let query = sortie_ports::SessionQuery {
        limit: 1000,
        ..sortie_ports::SessionQuery::default()
    };
    let found = sortie_ports::State::sessions(&*world.state, query).await;
    found.unwrap().len()
}

#[tokio::test]
async fn versions_are_added_put_in_force_and_deleted() {
    let world = World::start().await;
    let made = create(&world, "Tail", &tail()).await.unwrap();
    assert_eq!(
        (made.version, made.latest_version, made.default_version),
        (1, 1, 1)
    );
    assert_eq!(made.owner, world.control.account_id().as_str());
    assert_eq!(made.platform_types, ["Linux"]);
    assert_eq!(
        made.parameters[0].default.as_deref(),
        Some("/var/log/messages")
    );
    assert_eq!(made.hash.len(), 64);
    let twice = create(&world, "Tail", &tail()).await;
    assert!(matches!(twice, Err(DocumentError::AlreadyExists(_))));
    let same = update(&world, "Tail", &tail()).await;
    assert!(matches!(same, Err(DocumentError::DuplicateContent)));

    let second = update(&world, "Tail", &(tail() + " ")).await.unwrap();
    assert_eq!(
        (
            second.version,
            second.latest_version,
            second.default_version
        ),
        (2, 2, 1)
    );
    for (version, number) in [("$LATEST", 2), ("$DEFAULT", 1), ("1", 1), ("2", 2)] {
        let found = describe(&world, version_of("Tail", version)).await.unwrap();
        assert_eq!(found.version, number, "{version}");
    }
    assert_eq!(describe(&world, named("Tail")).await.unwrap().version, 1);
    for version in ["3", "0", "-1", "99999999999999999999", "LATEST", "$OTHER"] {
        let found = describe(&world, version_of("Tail", version)).await;
        assert!(
            matches!(found, Err(DocumentError::InvalidVersion)),
            "{version}"
        );
    }
    assert_eq!(make_default(&world, "Tail", "2").await.unwrap(), 2);
    let refused = delete(&world, version_of("Tail", "2")).await;
    assert!(matches!(refused, Err(DocumentError::InvalidOperation(_))));
    make_default(&world, "Tail", "1").await.unwrap();
    delete(&world, version_of("Tail", "2")).await.unwrap();
    let found = describe(&world, named("Tail")).await.unwrap();
    assert_eq!((found.latest_version, found.default_version), (1, 1));
    // Numbers are not given again.
    let third = update(&world, "Tail", &(tail() + "  ")).await.unwrap();
    assert_eq!(third.version, 3);

    delete(&world, named("Tail")).await.unwrap();
    let gone = describe(&world, named("Tail")).await;
    assert!(matches!(gone, Err(DocumentError::InvalidDocument(_))));
    assert!(update(&world, "Tail", &tail()).await.is_err());
}

#[tokio::test]
async fn versions_have_names_and_pages() {
    let world = World::start().await;
    create(&world, "Tail", &tail()).await.unwrap();
    let name = |number: usize| format!("release-{number}");
    for number in 2..=7 {
        let input = UpdateDocumentInput {
            name: "Tail".into(),
            content: tail() + &" ".repeat(number),
            version_name: Some(name(number)),
            ..UpdateDocumentInput::default()
        };
        let call = world.admin("UpdateDocument");
        world.control.update_document(&call, input).await.unwrap();
    }
    let by_name = DocumentInput {
        version_name: Some(name(5)),
        ..named("Tail")
    };
    let found = describe(&world, by_name.clone()).await.unwrap();
    assert_eq!(found.version, 5);
    let other = DocumentInput {
        version: Some("4".into()),
        ..by_name
    };
    assert!(
        describe(&world, other).await.is_err(),
        "name and number differ"
    );
    let taken = UpdateDocumentInput {
        name: "Tail".into(),
        content: tail() + "\n",
        version_name: Some(name(5)),
        ..UpdateDocumentInput::default()
    };
    let call = world.admin("UpdateDocument");
    let taken = world.control.update_document(&call, taken).await;
    assert!(matches!(taken, Err(DocumentError::DuplicateVersionName(_))));

    let mut found = Vec::new();
    let mut next_token = None;
    loop {
        let input = ListDocumentVersionsInput {
            name: "Tail".into(),
            max_results: Some(3),
            next_token,
        };
        let call = world.admin("ListDocumentVersions");
        let page = world.control.list_document_versions(&call, input).await;
        let page = page.unwrap().into_inner();
        found.extend(page.items.iter().map(|version| version.version));
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    assert_eq!(found, [7, 6, 5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn content_comes_back_as_it_was_given_or_in_the_other_format() {
    let world = World::start().await;
    let yaml = "---\nschemaVersion: '1.0'\nsessionType: Standard_Stream # a shell\ninputs:\n  idleSessionTimeout: '7'\n";
    let input = CreateDocumentInput {
        name: "Yaml".into(),
        content: yaml.into(),
        format: Some("YAML".into()),
        document_type: Some("Session".into()),
        ..CreateDocumentInput::default()
    };
    let create_call = world.admin("CreateDocument");
    world
        .control
        .create_document(&create_call, input)
        .await
        .unwrap();
    assert_eq!(content(&world, named("Yaml"), Some("YAML")).await, yaml);
    assert_eq!(content(&world, named("Yaml"), Some("TEXT")).await, yaml);
    let as_json: Value = serde_json::from_str(&content(&world, named("Yaml"), None).await).unwrap();
    assert_eq!(as_json["inputs"]["idleSessionTimeout"], "7");

    create(&world, "Json", &tail()).await.unwrap();
    assert_eq!(content(&world, named("Json"), None).await, tail());
    let as_yaml = content(&world, named("Json"), Some("YAML")).await;
    assert!(
        as_yaml.contains("sessionType: InteractiveCommands"),
        "{as_yaml}"
    );
    let again = CreateDocumentInput {
        name: "Again".into(),
        content: as_yaml,
        format: Some("YAML".into()),
        document_type: Some("Session".into()),
        ..CreateDocumentInput::default()
    };
    world
        .control
        .create_document(&create_call, again)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_no_session_document_is_refused_for_its_reason() {
    let world = World::start().await;
    let bomb = format!("{}{}", "a: &a [x]\nb: [*a,*a]\n", "");
    let make = async |name: &str, content: &str, format: &str, document_type: &str| {
        let input = CreateDocumentInput {
            name: name.into(),
            content: content.into(),
            format: Some(format.into()),
            document_type: Some(document_type.into()),
            ..CreateDocumentInput::default()
        };
        let call = world.admin("CreateDocument");
        world.control.create_document(&call, input).await.err()
    };
    let large = format!("{}{}", tail(), " ".repeat(65_536));
    let refused = make("X", &large, "JSON", "Session").await;
    assert!(matches!(refused, Some(DocumentError::MaxSizeExceeded(_))));
    for content in [
        "",
        "{",
        "[]x",
        &tail().replace("tail -f {{ logpath }}", "{{ other }}"),
    ] {
        let refused = make("X", content, "JSON", "Session").await;
        assert!(
            matches!(refused, Some(DocumentError::InvalidContent(_))),
            "{content}"
        );
    }
    let refused = make("X", &bomb, "YAML", "Session").await;
    assert!(matches!(refused, Some(DocumentError::InvalidContent(_))));
    let refused = make("X", &tail(), "TEXT", "Session").await;
    assert!(matches!(refused, Some(DocumentError::InvalidContent(_))));
    let old = tail().replace("\"1.0\"", "\"2.2\"");
    let refused = make("X", &old, "JSON", "Session").await;
    assert!(matches!(
        refused,
        Some(DocumentError::InvalidSchemaVersion(_))
    ));
    let refused = make("X", &tail(), "JSON", "Command").await;
    assert!(matches!(refused, Some(DocumentError::Validation(_))));
    for name in [
        "AWS-Mine",
        "aws-mine",
        "Amazon-Mine",
        "AmznMine",
        "Sortie-Mine",
        "sortie-mine",
    ] {
        let refused = make(name, &tail(), "JSON", "Session").await;
        assert!(
            matches!(refused, Some(DocumentError::Validation(_))),
            "{name}"
        );
    }
    let refused = make(PREFERENCES, &tail(), "JSON", "Session").await;
    assert!(matches!(refused, Some(DocumentError::InvalidContent(_))));
    let unknown = shell(&json!({"idleTimeout": "5"}));
    let refused = make(PREFERENCES, &unknown, "JSON", "Session").await;
    assert!(matches!(refused, Some(DocumentError::InvalidContent(_))));
}

#[tokio::test]
async fn built_in_documents_are_read_and_never_changed() {
    let world = World::start().await;
    let found = describe(&world, named("AWS-StartPortForwardingSession"))
        .await
        .unwrap();
    assert_eq!((found.owner.as_str(), found.version), ("Amazon", 1));
    assert_eq!(found.platform_types, ["Windows", "Linux", "MacOS"]);
    let arn = format!(
        "arn:aws:ssm:{}::document/AWS-StartSSHSession",
        world.control.region()
    );
    let found = describe(&world, version_of(&arn, "$LATEST")).await.unwrap();
    assert_eq!(found.parameters[0].default.as_deref(), Some("22"));
    let with_account = arn.replace(
        "::document",
        &format!(":{}:document", world.control.account_id()),
    );
    assert!(describe(&world, named(&with_account)).await.is_err());
    assert_eq!(
        describe(&world, named("Sortie-CopyFile"))
            .await
            .unwrap()
            .owner,
        "Sortie"
    );
    assert!(
        describe(&world, version_of("AWS-StartSSHSession", "2"))
            .await
            .is_err()
    );
    let name = "AWS-StartSSHSession";
    for refused in [
        update(&world, name, &tail()).await.err(),
        make_default(&world, name, "1").await.err(),
        delete(&world, named(name)).await.err(),
    ] {
        assert!(
            matches!(refused, Some(DocumentError::InvalidOperation(_))),
            "{refused:?}"
        );
    }
    // There are no preferences until somebody saves some.
    let none = describe(&world, named(PREFERENCES)).await;
    assert!(matches!(none, Err(DocumentError::InvalidDocument(_))));
}

#[tokio::test]
async fn documents_are_listed_by_filters_in_pages() {
    let world = World::start().await;
    for name in ["Tail", "Audit", "Zebra"] {
        create(&world, name, &tail()).await.unwrap();
    }
    let tags = AddTagsToResourceInput {
        resource_type: "Document".into(),
        resource_id: "Audit".into(),
        tags: vec![("Team".into(), "red".into())],
    };
    let call = world.admin("AddTagsToResource");
    world
        .control
        .add_tags_to_resource(&call, tags)
        .await
        .unwrap();
    let list = async |filters: &[(&str, &[&str])]| -> Vec<String> {
        let filter = |(key, values): &(&str, &[&str])| DocumentFilter {
            key: (*key).to_owned(),
            values: values.iter().map(ToString::to_string).collect(),
        };
        let mut found = Vec::new();
        let mut next_token = None;
        loop {
            let input = ListDocumentsInput {
                filters: filters.iter().map(filter).collect(),
                max_results: Some(2),
                next_token,
            };
            let call = world.admin("ListDocuments");
            let page = world.control.list_documents(&call, input).await;
            let page = page.unwrap().into_inner();
            assert!(page.items.len() <= 2);
            found.extend(page.items.into_iter().map(|document| document.name));
            next_token = page.next_token;
            if next_token.is_none() {
                return found;
            }
        }
    };
    let all = list(&[]).await;
    assert_eq!(all.len(), 12);
    assert!(all.is_sorted(), "{all:?}");
    assert_eq!(
        list(&[("Owner", &["Self"])]).await,
        ["Audit", "Tail", "Zebra"]
    );
    assert_eq!(list(&[("Owner", &["Amazon"])]).await.len(), 6);
    assert_eq!(list(&[("Owner", &["Sortie"])]).await.len(), 3);
    assert_eq!(list(&[("Name", &["AWS-StartP", "Ta"])]).await.len(), 4);
    let both: &[(&str, &[&str])] = &[("Owner", &["Self"]), ("Name", &["T", "Z"])];
    assert_eq!(list(both).await, ["Tail", "Zebra"]);
    assert_eq!(list(&[("tag:Team", &["red"])]).await, ["Audit"]);
    assert_eq!(list(&[("PlatformTypes", &["windows"])]).await.len(), 9);
    assert_eq!(list(&[("DocumentType", &["Command"])]).await, [""; 0]);
    assert_eq!(list(&[("SearchKeyword", &["follow a"])]).await.len(), 3);
    let input = ListDocumentsInput {
        filters: vec![DocumentFilter {
            key: "Colour".into(),
            values: vec!["red".into()],
        }],
        ..ListDocumentsInput::default()
    };
    let call = world.admin("ListDocuments");
    let refused = world.control.list_documents(&call, input).await;
    assert!(matches!(refused, Err(DocumentError::InvalidFilterKey(_))));
}

#[tokio::test]
async fn sharing_is_kept_and_stands_in_the_way_of_deleting() {
    let world = World::start().await;
    create(&world, "Tail", &tail()).await.unwrap();
    let modify = async |add: &[&str], remove: &[&str]| {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let input = ModifyDocumentPermissionInput {
            name: "Tail".into(),
            add: own(add),
            remove: own(remove),
            version: None,
        };
        let call = world.admin("ModifyDocumentPermission");
        world.control.modify_document_permission(&call, input).await
    };
    modify(&["111122223333", "444455556666"], &[])
        .await
        .unwrap();
    modify(&[], &["444455556666"]).await.unwrap();
    let call = world.admin("DescribeDocumentPermission");
    let input = sortie_control::DescribeDocumentPermissionInput {
        name: "Tail".into(),
        ..Default::default()
    };
    let found = world
        .control
        .describe_document_permission(&call, input)
        .await;
    let found = found.unwrap().into_inner().items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].account, "111122223333");
    let refused = delete(&world, named("Tail")).await;
    assert!(matches!(refused, Err(DocumentError::InvalidOperation(_))));
    let own = world.control.account_id().to_string();
    assert!(modify(&[&own], &[]).await.is_err());
    assert!(
        modify(&["all"], &[]).await.is_err(),
        "public sharing is off"
    );
    let input = UpdateServiceSettingInput {
        setting_id: "/ssm/documents/console/public-sharing-permission".into(),
        setting_value: "Enable".into(),
    };
    let call = world.admin("UpdateServiceSetting");
    world
        .control
        .update_service_setting(&call, input)
        .await
        .unwrap();
    modify(&["all"], &[]).await.unwrap();
    modify(&[], &["all", "111122223333"]).await.unwrap();
    delete(&world, named("Tail")).await.unwrap();
}

#[tokio::test]
async fn who_may_not_ask_does_not_learn_what_there_is() {
    let world = World::start().await;
    create(&world, "Tail", &tail()).await.unwrap();
    let mallory = person(&world, "mallet", &[]).await;
    let mut said = Vec::new();
    for name in ["Tail", "None", "AWS-StartSSHSession"] {
        let call = call(mallory.clone(), "GetDocument", START);
        let refused = world.control.get_document(&call, named(name), None).await;
        let Err(DocumentError::Denied(denied)) = refused else {
            panic!("{name}: {refused:?}");
        };
        said.push(
            denied
                .message
                .replace(name, "X")
                .replace("::document", ":A:document"),
        );
    }
    let account = world.control.account_id().to_string();
    let said: Vec<String> = said
        .into_iter()
        .map(|text| text.replace(&account, "A"))
        .collect();
    assert_eq!(said[0], said[1]);
    assert_eq!(said[1], said[2]);
}

#[tokio::test]
async fn tags_of_a_document_decide_who_may_start_sessions_of_it() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    create(&world, "Tail", &tail()).await.unwrap();
    let tagged = json!({
        "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*",
        "Condition": {"StringEquals": {"ssm:resourceTag/Env": "prod"}},
    });
    let alice = person(&world, "alice", &[tagged]).await;
    let input = || wanted(&node_id, "Tail", &[]);
    let refused = starts_as(&world, alice.clone(), input()).await;
    assert!(matches!(refused, Err(StartSessionError::Denied(_))));
    let tags = |value: &str| AddTagsToResourceInput {
        resource_type: "Document".into(),
        resource_id: "Tail".into(),
        tags: vec![("Env".into(), value.into())],
    };
    let add = world.admin("AddTagsToResource");
    world
        .control
        .add_tags_to_resource(&add, tags("prod"))
        .await
        .unwrap();
    let list = world.admin("ListTagsForResource");
    let input_of_list = ListTagsForResourceInput {
        resource_type: "Document".into(),
        resource_id: "Tail".into(),
    };
    let found = world
        .control
        .list_tags_for_resource(&list, input_of_list)
        .await;
    assert_eq!(found.unwrap().into_inner().tags.len(), 1);
    let session = starts_as(&world, alice, input()).await.unwrap();
    // What allowed it goes, and so does the session.
    world
        .control
        .add_tags_to_resource(&add, tags("test"))
        .await
        .unwrap();
    world.control.judge_sessions().await.unwrap();
    let session = world.session_row(&session.id).await;
    assert_eq!(session.state.as_str(), "Terminating");
}

#[tokio::test]
async fn the_version_in_force_is_the_one_of_the_next_session() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    create(&world, "Tail", &tail()).await.unwrap();
    let command = async || {
        let session = starts(&world, wanted(&node_id, "Tail", &[])).await.unwrap();
        let content = session.document_content;
        content["properties"]["linux"]["commands"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(command().await, "tail -f /var/log/messages");
    let other = tail().replace("tail -f", "tail -n 5");
    update(&world, "Tail", &other).await.unwrap();
    assert_eq!(command().await, "tail -f /var/log/messages");
    make_default(&world, "Tail", "2").await.unwrap();
    assert_eq!(command().await, "tail -n 5 /var/log/messages");
    let arn = format!(
        "arn:aws:ssm:{}:{}:document/Tail",
        world.control.region(),
        world.control.account_id()
    );
    assert!(starts(&world, wanted(&node_id, &arn, &[])).await.is_ok());
}

/// Thirty ways to make `tail` of a log into something else. None of them leaves a session.
#[tokio::test]
async fn a_document_for_tail_runs_nothing_else() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    create(&world, "Tail", &tail()).await.unwrap();
    let fine = wanted(
        &node_id,
        "Tail",
        &[("logpath", "/var/log/nginx_access.log.1")],
    );
    let session = starts(&world, fine).await.unwrap();
    assert_eq!(
        session.document_content["properties"]["linux"]["commands"],
        "tail -f /var/log/nginx_access.log.1"
    );
    let hostile = [
        "/var/log/x; id",
        "/var/log/x;id",
        "/var/log/x && id",
        "/var/log/x || id",
        "/var/log/x | sh",
        "/var/log/x & id",
        "/var/log/x\nid",
        "/var/log/x\n",
        "\n/var/log/x",
        "/var/log/x\r\nid",
        "/var/log/x\u{85}id",
        "/var/log/x\u{2028}id",
        "/var/log/$(id)",
        "/var/log/`id`",
        "/var/log/${IFS}x",
        "/var/log/x > /etc/passwd",
        "/var/log/x < /etc/shadow",
        "/var/log/x -f /etc/shadow",
        "/var/log/x\t/etc/shadow",
        "/var/log/../../etc/shadow",
        "/var/log/../../../bin/sh",
        "/etc/shadow",
        "/var/log/",
        "/var/log/x'",
        "/var/log/x\"",
        "/var/log/x\\",
        "/var/log/*",
        "/var/log/x{,/etc/shadow}",
        "/var/log/x#",
        "~root/.ssh/id_rsa",
        "{{ logpath }}",
        "/var/log/{{ logpath }}",
        "{{ssm:secret}}",
        "/var/log/x\0",
        "-c id",
        "",
        "/var/log/ｘ",
    ];
    assert!(hostile.len() >= 30);
    for value in hostile {
        let refused = starts(&world, wanted(&node_id, "Tail", &[("logpath", value)])).await;
        let invalid = matches!(refused, Err(StartSessionError::InvalidParameters(_)));
        assert!(invalid, "{value:?}: {refused:?}");
    }
    let long = format!("/var/log/{}", "a".repeat(64));
    let two = StartSessionInput {
        parameters: [(
            "logpath".to_owned(),
            vec!["/var/log/a".into(), "; id".into()],
        )]
        .into(),
        ..wanted(&node_id, "Tail", &[])
    };
    let none = StartSessionInput {
        parameters: [("logpath".to_owned(), Vec::new())].into(),
        ..wanted(&node_id, "Tail", &[])
    };
    for input in [
        wanted(&node_id, "Tail", &[("logpath", &long)]),
        wanted(&node_id, "Tail", &[("logPath", "/var/log/x")]),
        wanted(&node_id, "Tail", &[("commands", "id")]),
        wanted(&node_id, "Tail", &[("linux", "id")]),
        two,
        none,
    ] {
        let refused = starts(&world, input.clone()).await;
        let invalid = matches!(refused, Err(StartSessionError::InvalidParameters(_)));
        assert!(invalid, "{input:?}: {refused:?}");
    }
    // Only the session of the beginning is there.
    assert_eq!(sessions(&world).await, 1);
}

#[tokio::test]
async fn policies_see_where_a_tunnel_leads() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let to = |key: &str, value: &str| {
        json!({
            "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*",
            "Condition": {"StringEquals": {key: value}},
        })
    };
    let alice = person(&world, "alice", &[to("sortie:DestinationPort", "5432")]).await;
    let bob = person(
        &world,
        "bob",
        &[
            allow("ssm:StartSession", "*"),
            json!({
                "Effect": "Deny", "Action": "ssm:StartSession", "Resource": "*",
                "Condition": {"StringLike": {"sortie:DestinationHost": "*.internal"}},
            }),
        ],
    )
    .await;
    let remote = "AWS-StartPortForwardingSessionToRemoteHost";
    let port = |port: &'static str| {
        wanted(
            &node_id,
            "AWS-StartPortForwardingSession",
            &[("portNumber", port)],
        )
    };
    let host =
        |host: &'static str| wanted(&node_id, remote, &[("host", host), ("portNumber", "5432")]);
    for (caller, input, may) in [
        (&alice, port("5432"), true),
        (&alice, port("22"), false),
        (&alice, port("nonsense"), false),
        (&alice, host("db.internal"), true),
        (&alice, start(node_id.as_str()), false),
        (&bob, host("db.example"), true),
        (&bob, host("db.internal"), false),
        (&bob, host("DB.Internal"), false),
        (&bob, host("db.internal."), false),
        (&bob, port("22"), true),
    ] {
        let outcome = starts_as(&world, caller.clone(), input.clone()).await;
        let denied = matches!(outcome, Err(StartSessionError::Denied(_)));
        assert_eq!(
            (outcome.is_ok(), denied),
            (may, !may),
            "{input:?}: {outcome:?}"
        );
    }
    // A session that is under way is judged by where it leads, too.
    let session = starts_as(&world, alice, port("5432")).await.unwrap();
    grant(
        &world,
        &user("alice"),
        "own",
        &[to("sortie:DestinationPort", "80")],
    )
    .await;
    world.control.judge_sessions().await.unwrap();
    assert_eq!(
        world.session_row(&session.id).await.state.as_str(),
        "Terminating"
    );
}

#[tokio::test]
async fn documents_are_what_policies_allow_them_to_be() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    create(&world, "Tail", &tail()).await.unwrap();
    let alice = person(
        &world,
        "alice",
        &[
            allow("ssm:StartSession", "arn:aws:ssm:*:*:managed-instance/*"),
            allow("ssm:StartSession", "arn:aws:ssm:*:*:document/Tail"),
            deny("ssm:StartSession", "arn:aws:ssm:*::document/AWS-*"),
        ],
    )
    .await;
    let may = async |document: &str| {
        let input = wanted(&node_id, document, &[]);
        match starts_as(&world, alice.clone(), input).await {
            Ok(_) => true,
            Err(StartSessionError::Denied(_)) => false,
            Err(other) => panic!("{document}: {other}"),
        }
    };
    assert!(may("Tail").await);
    for other in [
        PREFERENCES,
        "AWS-StartSSHSession",
        "Sortie-StartSocksSession",
        "None",
    ] {
        assert!(!may(other).await, "{other}");
    }
}

#[tokio::test]
async fn preferences_hold_for_the_next_session() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let session = starts(&world, start(node_id.as_str())).await.unwrap();
    assert_eq!(
        (session.idle_timeout_seconds, session.max_duration_seconds),
        (1200, None)
    );
    assert_eq!(run_as_of(&session.document_content), "");

    save_preferences(
        &world,
        &json!({
            "idleSessionTimeout": "5", "maxSessionDuration": "90", "runAsEnabled": true,
            "runAsDefaultUser": "ops",
            "shellProfile": {"linux": "exec bash", "windows": ""},
        }),
    )
    .await;
    let session = starts(&world, start(node_id.as_str())).await.unwrap();
    assert_eq!(session.idle_timeout_seconds, 300);
    assert_eq!(session.max_duration_seconds, Some(5400));
    assert_eq!(run_as_of(&session.document_content), "ops");
    let inputs = &session.document_content["inputs"];
    assert_eq!(inputs["shellProfile"]["linux"], "exec bash");
    let port = wanted(&node_id, "AWS-StartSSHSession", &[]);
    assert_eq!(
        starts(&world, port).await.unwrap().idle_timeout_seconds,
        300
    );
    let command = wanted(
        &node_id,
        "AWS-StartInteractiveCommand",
        &[("command", "id")],
    );
    let session = starts(&world, command).await.unwrap();
    assert_eq!(run_as_of(&session.document_content), "ops");

    for (inputs, word) in [
        (json!({"kmsKeyId": "alias/x"}), "KMS"),
        (json!({"s3BucketName": "session-logs"}), "S3"),
        (json!({"cloudWatchLogGroupName": "logs"}), "CloudWatch"),
        (json!({"runAsEnabled": true}), "RunAs"),
    ] {
        save_preferences(&world, &inputs).await;
        let refused = starts(&world, start(node_id.as_str())).await;
        let Err(StartSessionError::Refused(why)) = refused else {
            panic!("{inputs}: {refused:?}");
        };
        assert!(why.contains(word), "{why}");
    }
    let root = create(&world, "Root", &shell(&json!({"runAsDefaultUser": "root"}))).await;
    assert!(matches!(root, Err(DocumentError::InvalidContent(_))));
}

#[tokio::test]
async fn the_principals_tag_says_as_whom_a_session_runs() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    save_preferences(
        &world,
        &json!({"runAsEnabled": true, "runAsDefaultUser": "ops"}),
    )
    .await;
    let mut alice = person(&world, "alice", &[allow("ssm:StartSession", "*")]).await;
    let tag = |caller: &mut Caller, value: &str| {
        let Caller::User(user) = caller else {
            panic!("alice is a user");
        };
        user.user.tags = vec![sortie_types::Tag::new("SSMSessionRunAs", value).unwrap()];
    };
    let run_as = async |caller: &Caller| {
        let session = starts_as(&world, caller.clone(), start(node_id.as_str())).await;
        session.map(|session| run_as_of(&session.document_content).to_owned())
    };
    assert_eq!(run_as(&alice).await.unwrap(), "ops");
    tag(&mut alice, "al");
    assert_eq!(run_as(&alice).await.unwrap(), "al");
    for name in ["root", "Root", "0", "a b"] {
        tag(&mut alice, name);
        let refused = run_as(&alice).await;
        assert!(
            matches!(refused, Err(StartSessionError::Refused(_))),
            "{name}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn settings_are_read_set_and_reset() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let id = "/ssm/managed-instance/activation-tier";
    let arn = format!(
        "arn:aws:ssm:{}:{}:servicesetting{id}",
        world.control.region(),
        world.control.account_id()
    );
    let get = async |id: &str| {
        let call = world.admin("GetServiceSetting");
        let input = ServiceSettingInput {
            setting_id: id.into(),
        };
        let found = world.control.get_service_setting(&call, input).await;
        found.map(sortie_control::Recorded::into_inner)
    };
    let set = async |id: &str, value: &str| {
        let call = world.admin("UpdateServiceSetting");
        let input = UpdateServiceSettingInput {
            setting_id: id.into(),
            setting_value: value.into(),
        };
        world.control.update_service_setting(&call, input).await
    };
    let found = get(id).await.unwrap();
    assert_eq!(
        (found.value.as_str(), found.modified.is_none()),
        ("advanced", true)
    );
    set(&arn, "standard").await.unwrap();
    let found = get(&arn).await.unwrap();
    assert_eq!(
        (found.value.as_str(), found.arn.as_str()),
        ("standard", arn.as_str())
    );
    let (_, by) = found.modified.unwrap();
    assert!(by.ends_with(":user/admin"), "{by}");
    let refused = starts(&world, start(node_id.as_str())).await;
    let Err(StartSessionError::Refused(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.starts_with("Enable advanced-instances tier"), "{why}");
    let wrong = set(id, "premium").await;
    assert!(matches!(
        wrong,
        Err(ServiceSettingError::InvalidValue { .. })
    ));
    let call = world.admin("ResetServiceSetting");
    let input = ServiceSettingInput {
        setting_id: id.into(),
    };
    let reset = world.control.reset_service_setting(&call, input).await;
    assert_eq!(reset.unwrap().into_inner().value, "advanced");
    assert!(starts(&world, start(node_id.as_str())).await.is_ok());
    let elsewhere = arn.replace(":servicesetting", "0:servicesetting");
    for unknown in ["/ssm/none", "ssm", "", &elsewhere] {
        let found = get(unknown).await;
        assert!(
            matches!(found, Err(ServiceSettingError::NotFound(_))),
            "{unknown}"
        );
    }
}
