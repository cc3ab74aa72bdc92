//! Who may do what, walked over everything that people's tools can call: as nobody, as a user without
//! policies, as one who is denied, as one who may do everything but this, and as one who may do just
//! this. Code, status and text are AWS's, nobody learns what exists, and every call leaves one record.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod common;

use std::collections::HashMap;

use common::{Answer, Draft, World};
use serde_json::{Value, json};
use sortie_control::Access;
use sortie_doors::{OperationEntry, operations};
use sortie_wire::{Protocol, Service, sigv4::Credentials};

const NODE: &str = "mi-0123456789abcdef0";
const DOCUMENT: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ssm:List*","Resource":"*"}}"#;
const SHELL: &str = r#"{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{}}"#;
const TIER: &str = "/ssm/managed-instance/activation-tier";
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"ssm.amazonaws.com"},"Action":"sts:AssumeRole"}}"#;

/// The input of a call of a JSON service.
fn json_input(name: &str) -> Value {
    let tagged = json!({ "ResourceType": "ManagedInstance", "ResourceId": NODE });
    let with = |name: &str, value: Value| {
        let mut input = tagged.clone();
        input[name] = value;
        input
    };
    match name {
        "AddTagsToResource" => with("Tags", json!([{ "Key": "a", "Value": "b" }])),
        "RemoveTagsFromResource" => with("TagKeys", json!(["a"])),
        "ListTagsForResource" => tagged,
        "CreateActivation" => json!({ "IamRole": "SortieNode" }),
        "DeleteActivation" => json!({ "ActivationId": "0b2a6f0e-3f0e-4c57-9d7c-0123456789ab" }),
        "DeregisterManagedInstance" => json!({ "InstanceId": NODE }),
        "CreateDocument" => json!({
            "Name": "Walked", "DocumentType": "Session", "Content": SHELL,
            "Tags": [{ "Key": "a", "Value": "b" }],
        }),
        "UpdateDocument" => json!({ "Name": "Absent", "Content": SHELL }),
        "UpdateDocumentDefaultVersion" => json!({ "Name": "Absent", "DocumentVersion": "1" }),
        "DeleteDocument" | "DescribeDocument" | "GetDocument" | "ListDocumentVersions" => {
            json!({ "Name": "Absent" })
        }
        "DescribeDocumentPermission" | "ModifyDocumentPermission" => {
            json!({ "Name": "Absent", "PermissionType": "Share" })
        }
        "GetServiceSetting" | "ResetServiceSetting" => json!({ "SettingId": TIER }),
        "UpdateServiceSetting" => json!({ "SettingId": TIER, "SettingValue": "advanced" }),
        "DescribeSessions" => json!({ "State": "Active" }),
        "GetConnectionStatus" | "StartSession" => json!({ "Target": NODE }),
        "ResumeSession" | "TerminateSession" => json!({ "SessionId": "x-0123456789abcdef0" }),
        "UpdateManagedInstanceRole" => json!({ "InstanceId": NODE, "IamRole": "SortieNode" }),
        _ => json!({}),
    }
}

/// The input of a call of a query service: what is there under each name is made of the name's words.
fn query_input(entry: &OperationEntry, account: &str) -> Vec<(String, String)> {
    let name = entry.name;
    let arn = |kind: &str| format!("arn:aws:iam::{account}:{kind}/absent");
    let mut input: Vec<(&str, String)> = Vec::new();
    let policies = ["Policy", "PolicyVersion"];
    let of_policy = policies.iter().any(|kind| {
        ["Create", "Delete", "Get", "Tag", "Untag", "SetDefault"]
            .iter()
            .any(|verb| name == format!("{verb}{kind}"))
    });
    let attaches = name.starts_with("Attach") || name.starts_with("Detach");
    if attaches
        || name == "ListEntitiesForPolicy"
        || name == "ListPolicyTags"
        || name == "ListPolicyVersions"
        || (of_policy && name != "CreatePolicy")
    {
        input.push(("PolicyArn", arn("policy")));
    }
    if name.contains("PolicyVersion")
        && !["CreatePolicyVersion", "ListPolicyVersions"].contains(&name)
    {
        input.push(("VersionId", "v1".into()));
    }
    for kind in ["User", "Group", "Role"] {
        let whose = name.contains(kind)
            && !matches!(
                name,
                "ListUsers" | "ListGroups" | "ListRoles" | "ListGroupsForUser" | "AssumeRole"
            );
        if whose {
            let parameter = match kind {
                "User" => "UserName",
                "Group" => "GroupName",
                _ => "RoleName",
            };
            input.push((parameter, "absent".into()));
        }
    }
    let of_user = [
        "AccessKey",
        "AccessKeys",
        "LoginProfile",
        "MFADevice",
        "MFADevices",
        "SSHPublicKeys",
        "SigningCertificates",
        "ServiceSpecificCredentials",
        "GroupsForUser",
    ];
    if of_user.iter().any(|suffix| name.ends_with(suffix)) && !name.contains("Virtual") {
        input.push(("UserName", "absent".into()));
    }
    let inline = [
        "PutUserPolicy",
        "PutGroupPolicy",
        "PutRolePolicy",
        "GetUserPolicy",
        "GetGroupPolicy",
        "GetRolePolicy",
        "DeleteUserPolicy",
        "DeleteGroupPolicy",
        "DeleteRolePolicy",
    ];
    if inline.contains(&name) || name == "CreatePolicy" {
        input.push(("PolicyName", "own".into()));
    }
    let more: &[(&str, &str)] = match name {
        "PutUserPolicy"
        | "PutGroupPolicy"
        | "PutRolePolicy"
        | "CreatePolicy"
        | "CreatePolicyVersion" => &[("PolicyDocument", DOCUMENT)],
        "CreateRole" => &[("AssumeRolePolicyDocument", TRUST)],
        "UpdateAssumeRolePolicy" => &[("PolicyDocument", TRUST)],
        "UpdateRoleDescription" => &[("Description", "d")],
        "UpdateAccessKey" => &[
            ("AccessKeyId", "AKIAAAAAAAAAAAAAAAAA"),
            ("Status", "Active"),
        ],
        "DeleteAccessKey" | "GetAccessKeyLastUsed" => &[("AccessKeyId", "AKIAAAAAAAAAAAAAAAAA")],
        "CreateLoginProfile" => &[("Password", "correct horse battery 1")],
        "ChangePassword" => &[
            ("OldPassword", "a"),
            ("NewPassword", "correct horse battery 1"),
        ],
        "TagUser" | "TagRole" | "TagPolicy" => {
            &[("Tags.member.1.Key", "a"), ("Tags.member.1.Value", "b")]
        }
        "UntagUser" | "UntagRole" | "UntagPolicy" => &[("TagKeys.member.1", "a")],
        "EnableMFADevice" | "ResyncMFADevice" => &[
            ("AuthenticationCode1", "000000"),
            ("AuthenticationCode2", "000001"),
        ],
        "CreateVirtualMFADevice" => &[("VirtualMFADeviceName", "absent")],
        "SimulateCustomPolicy" => &[
            ("PolicyInputList.member.1", DOCUMENT),
            ("ActionNames.member.1", "ssm:StartSession"),
        ],
        "GetContextKeysForCustomPolicy" => &[("PolicyInputList.member.1", DOCUMENT)],
        "SimulatePrincipalPolicy" => &[("ActionNames.member.1", "ssm:StartSession")],
        _ => &[],
    };
    input.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
    if matches!(
        name,
        "DeactivateMFADevice"
            | "DeleteVirtualMFADevice"
            | "EnableMFADevice"
            | "ResyncMFADevice"
            | "GetMFADevice"
    ) {
        input.push(("SerialNumber", arn("mfa")));
    }
    if matches!(
        name,
        "SimulatePrincipalPolicy" | "GetContextKeysForPrincipalPolicy"
    ) {
        input.push(("PolicySourceArn", arn("user")));
    }
    if name.starts_with("Put") && name.ends_with("PermissionsBoundary") {
        let boundary = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
        input.push(("PermissionsBoundary", boundary.into()));
    }
    if name == "AssumeRole" {
        input.push(("RoleArn", format!("arn:aws:iam::{account}:role/Walked")));
        input.push(("RoleSessionName", "walker".into()));
    }
    let mut seen = HashMap::new();
    input.retain(|(key, _)| seen.insert((*key).to_owned(), ()).is_none());
    input
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Actions that must be allowed besides the operation's own.
fn further(name: &str) -> &'static [&'static str] {
    match name {
        "CreateActivation" | "UpdateManagedInstanceRole" => &["iam:PassRole"],
        "CreateDocument" => &["ssm:AddTagsToResource"],
        _ => &[],
    }
}

fn form(action: &str, version: &str, input: &[(String, String)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        };
        text.bytes().map(byte).collect()
    };
    let mut text = format!("Action={action}&Version={version}");
    for (key, value) in input {
        text.push_str(&format!("&{}={}", encode(key), encode(value)));
    }
    text
}

struct Walk {
    world: World,
    account: String,
    walker: Credentials,
}

impl Walk {
    async fn start() -> Self {
        let world = World::start().await;
        let account = world.control.account_id().to_string();
        let admin = world.admin.clone();
        let mut walk = Self {
            world,
            account,
            walker: admin,
        };
        let iam = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let admin = walk.world.admin.clone();
        walk.iam("CreateUser", &iam("UserName", "walker"), &admin)
            .await;
        let key = walk
            .iam("CreateAccessKey", &iam("UserName", "walker"), &admin)
            .await;
        let part = |name: &str| {
            let text = key.text();
            let (start, end) = (format!("<{name}>"), format!("</{name}>"));
            let from = text.find(&start).unwrap() + start.len();
            let to = text.find(&end).unwrap();
            text[from..to].to_owned()
        };
        walk.walker = Credentials {
            access_key_id: part("AccessKeyId"),
            secret_access_key: part("SecretAccessKey").into(),
            session_token: None,
        };
        let trust = json!({
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow", "Principal": {"AWS": walk.account}, "Action": "sts:AssumeRole",
            },
        });
        let role = [
            ("RoleName".to_owned(), "Walked".to_owned()),
            ("AssumeRolePolicyDocument".to_owned(), trust.to_string()),
        ];
        walk.iam("CreateRole", &role, &admin).await;
        walk
    }

    async fn iam(&self, action: &str, input: &[(String, String)], by: &Credentials) -> Answer {
        let answer = self
            .query(Service::Iam, action, input)
            .signed(by, "iam")
            .send()
            .await;
        assert_eq!(answer.status, 200, "{action}: {}", answer.text());
        answer
    }

    fn query(&self, service: Service, action: &str, input: &[(String, String)]) -> Draft {
        let version = service.api_version().unwrap();
        self.world
            .request("POST", "/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form(action, version, input))
    }

    fn draft(&self, entry: &OperationEntry) -> Draft {
        match entry.service.protocol() {
            Protocol::Query => {
                let input = query_input(entry, &self.account);
                self.query(entry.service, entry.name, &input)
            }
            _ => {
                let prefix = match entry.service {
                    Service::CloudTrail => "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101",
                    _ => "AmazonSSM",
                };
                self.world
                    .json(&format!("{prefix}.{}", entry.name), &json_input(entry.name))
            }
        }
    }

    async fn call(&self, entry: &OperationEntry) -> Answer {
        let draft = self.draft(entry);
        draft
            .signed(&self.walker, entry.service.signing_name())
            .send()
            .await
    }

    /// Gives the walker these statements and nothing else.
    async fn may(&self, statements: Value) {
        let document = json!({"Version": "2012-10-17", "Statement": statements});
        let input = [
            ("UserName".to_owned(), "walker".to_owned()),
            ("PolicyName".to_owned(), "only".to_owned()),
            ("PolicyDocument".to_owned(), document.to_string()),
        ];
        self.iam("PutUserPolicy", &input, &self.world.admin).await;
    }

    fn walked(&self) -> Vec<&'static OperationEntry> {
        let of_people = |entry: &&OperationEntry| entry.who() == Access::User && entry.is_call();
        operations().iter().filter(of_people).collect()
    }

    fn assert_denied(&self, entry: &OperationEntry, answer: &Answer, action: &str, why: &str) {
        let (status, code) = answer.error();
        let name = entry.name;
        let expected = match entry.service.protocol() {
            Protocol::Query => (403, "AccessDenied"),
            _ => (400, "AccessDeniedException"),
        };
        assert_eq!(
            (status, code.as_str()),
            expected,
            "{name}: {}",
            answer.text()
        );
        let text = answer.text().replace("&quot;", "\"");
        let beginning = format!(
            "User: arn:aws:iam::{}:user/walker is not authorized to perform: {action} ",
            self.account
        );
        assert!(text.contains(&beginning), "{name}: {text}");
        assert!(text.contains(why), "{name}: {text}");
    }
}

#[tokio::test]
async fn every_operation_needs_its_action_and_no_other() {
    let walk = Walk::start().await;
    let mut walked = 0;
    for entry in walk.walked() {
        walked += 1;
        let service = entry.service.signing_name();
        let own = format!("{service}:{}", entry.name);
        let mut needed = vec![own.as_str()];
        needed.extend(further(entry.name));

        let unsigned = walk.draft(entry).send().await;
        let (_, code) = unsigned.error();
        assert!(
            code.starts_with("MissingAuthenticationToken"),
            "{own}: {code}"
        );

        walk.may(json!([{"Effect": "Allow", "Action": "none:None", "Resource": "*"}]))
            .await;
        let missing = format!("because no identity-based policy allows the {own} action");
        let answer = walk.call(entry).await;
        walk.assert_denied(entry, &answer, &own, &missing);
        let record = walk.world.record_of(&answer).await;
        assert_eq!(record["errorCode"], "AccessDenied", "{own}");

        for lacking in &needed {
            walk.may(json!([{"Effect": "Allow", "NotAction": lacking, "Resource": "*"}]))
                .await;
            let missing = format!("because no identity-based policy allows the {lacking} action");
            walk.assert_denied(entry, &walk.call(entry).await, lacking, &missing);
        }
        walk.may(json!([
            {"Effect": "Allow", "Action": "*", "Resource": "*"},
            {"Effect": "Deny", "Action": own, "Resource": "*"},
        ]))
        .await;
        let denied = "with an explicit deny in an identity-based policy";
        walk.assert_denied(entry, &walk.call(entry).await, &own, denied);

        walk.may(json!([{"Effect": "Allow", "Action": needed, "Resource": "*"}]))
            .await;
        let allowed = walk.call(entry).await;
        let text = allowed.text();
        assert!(allowed.status < 500, "{own}: {text}");
        if allowed.status != 200 {
            // What is asked about may be absent, which only those who may ask are told.
            let (_, code) = allowed.error();
            let fit = !code.starts_with("AccessDenied") && !code.starts_with("Validation");
            assert!(fit, "{own}: {text}");
        }
        let record = walk.world.record_of(&allowed).await;
        assert_eq!(record["eventName"], entry.name);
        assert_eq!(
            record["errorCode"].is_null(),
            allowed.status == 200,
            "{own}"
        );
    }
    assert!(walked > 103, "{walked} operations are walked");
}
