//! Signing in and out, roles with MFA, and what is said about who one is and why something is refused.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sortie_testkit::Terminal;
use support::{NODE, OURS, World, server::Call};

const PASSWORD: &str = "correct horse";
const CODE: &str = "123456";
const ALICE: &str = "arn:aws:iam::111122223333:user/alice";

fn refused(code: &str) -> (u16, String) {
    let text = json!({"__type": code, "message": format!("the text of {code}")});
    (400, text.to_string())
}

fn keys() -> Value {
    json!({
        "Arn": ALICE, "MfaUsed": true, "Region": "local-9",
        "Credentials": {"AccessKeyId": "ASIANEW", "SecretAccessKey": "newsecret",
            "SessionToken": "newtoken", "Expiration": 4_102_444_800.0},
    })
}

/// Signs alice in with her password and code.
fn door(call: &Call) -> Option<(u16, String)> {
    if call.operation() != "SignIn" {
        return None;
    }
    assert_eq!(
        call.header("authorization"),
        None,
        "signing in is not signed"
    );
    let input = call.json();
    Some(
        if input["UserName"] != "alice" || input["Password"] != PASSWORD {
            refused("SignInFailedException")
        } else if input.get("MfaCode").is_none() {
            refused("MfaCodeRequiredException")
        } else if input["MfaCode"] != CODE {
            refused("SignInFailedException")
        } else {
            (200, keys().to_string())
        },
    )
}

/// The program without keys in the environment.
fn sortie(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.sortie(arguments);
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY");
    command
}

fn credentials_file(world: &World) -> PathBuf {
    world.folder.path().join(".aws/credentials")
}

fn write_file(world: &World, name: &str, text: &str) {
    let folder = world.folder.path().join(".aws");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

/// Runs without a terminal: status, stdout, stderr.
fn run(mut command: Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn a_password_and_a_code_become_keys_in_the_profile() {
    let world = World::start_with(OURS, door);
    let others = "# mine\n[work]\naws_access_key_id=AKIAWORK\n\taws_secret_access_key = w\n";
    write_file(&world, "credentials", others);
    let mut terminal = Terminal::open(&sortie(&world, &["login"]), 80, 24).unwrap();
    terminal.until("User name: ").unwrap();
    terminal.line("alicf\u{7f}e").unwrap();
    terminal.until("Password of alice: ").unwrap();
    assert!(!terminal.is_cooked().unwrap());
    terminal.line(PASSWORD).unwrap();
    terminal.until("MFA code: ").unwrap();
    terminal.line(CODE).unwrap();
    terminal
        .until(&format!("Signed in as {ALICE} until 2100-01-01T00:00:00Z."))
        .unwrap();
    assert!(terminal.exit_status().unwrap().success());
    assert!(terminal.is_cooked().unwrap());
    for secret in [PASSWORD, CODE, "newsecret", "newtoken"] {
        assert!(!terminal.shown().contains(secret), "{}", terminal.shown());
    }

    let file = credentials_file(&world);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        format!(
            "{others}\n[default]\naws_access_key_id = ASIANEW\naws_secret_access_key = newsecret\n\
             aws_session_token = newtoken\nx_security_token_expires = 2100-01-01T00:00:00Z\n\
             x_principal_arn = {ALICE}\n"
        )
    );

    let (status, ..) = run(sortie(&world, &["nodes"]));
    assert_eq!(status, 0);
    let call = world.calls_of("DescribeInstanceInformation")[0].clone();
    assert_eq!(call.header("x-amz-security-token"), Some("newtoken"));

    let (status, said, _) = run(sortie(&world, &["logout"]));
    assert_eq!(
        (status, said.starts_with("Signed out")),
        (0, true),
        "{said}"
    );
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.trim_end(), others.trim_end());
    let (status, said, _) = run(sortie(&world, &["logout"]));
    assert_eq!((status, said.starts_with("Nobody")), (0, true), "{said}");
}

#[test]
fn a_new_profile_keeps_what_was_given_for_it() {
    let world = World::start_with(OURS, door);
    let server = format!("http://{}", world.address);
    let mut command = sortie(
        &world,
        &[
            "login",
            "--profile",
            "fresh",
            "--endpoint-url",
            &server,
            "--user",
            "alice",
        ],
    );
    command
        .env_remove("AWS_ENDPOINT_URL")
        .env_remove("AWS_REGION")
        .args(["--password-stdin", "--mfa-code", CODE, "--duration", "1h"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let line = format!("{PASSWORD}\nmore");
    running
        .stdin
        .take()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    assert!(running.wait_with_output().unwrap().status.success());
    assert_eq!(world.calls_of("SignIn")[0].json()["DurationSeconds"], 3600);

    let mut nodes = sortie(&world, &["nodes", "--profile", "fresh"]);
    nodes
        .env_remove("AWS_ENDPOINT_URL")
        .env_remove("AWS_REGION");
    let (status, _, stderr) = run(nodes);
    assert_eq!(status, 0, "{stderr}");
    let call = world.calls_of("DescribeInstanceInformation")[0].clone();
    let scope = call.header("authorization").unwrap().to_owned();
    assert!(scope.contains("/local-9/ssm/"), "{scope}");
}

#[test]
fn a_wrong_password_and_a_wrong_code_are_one_refusal_and_leave_nothing() {
    let world = World::start_with(OURS, door);
    let mut said = Vec::new();
    for (password, code) in [("wrong", None), (PASSWORD, Some("000000"))] {
        let login = sortie(&world, &["login", "--user", "alice"]);
        let mut terminal = Terminal::open(&login, 80, 24).unwrap();
        terminal.until("Password of alice: ").unwrap();
        terminal.line(password).unwrap();
        if let Some(code) = code {
            terminal.until("MFA code: ").unwrap();
            terminal.line(code).unwrap();
        }
        terminal.until("sortie: ").unwrap();
        assert_eq!(terminal.exit_status().unwrap().code(), Some(255));
        let shown = terminal.shown();
        said.push(shown.split("sortie: ").nth(1).unwrap().to_owned());
    }
    assert!(said[0].contains("sign-in failed"), "{}", said[0]);
    assert_eq!(said[0], said[1]);
    assert!(!credentials_file(&world).exists());
    assert_eq!(world.count("SignIn"), 3, "nothing is tried again by itself");
}

#[test]
fn a_password_that_has_to_be_changed_is_changed_on_the_way() {
    let world = World::start_with(OURS, |call| {
        (call.operation() == "SignIn").then(|| match call.json()["NewPassword"].as_str() {
            None => refused("NewPasswordRequiredException"),
            Some("short") => refused("PasswordPolicyViolationException"),
            Some(_) => (200, keys().to_string()),
        })
    });
    let login = sortie(&world, &["login", "--user", "alice"]);
    let mut terminal = Terminal::open(&login, 80, 24).unwrap();
    terminal.until("Password of alice: ").unwrap();
    terminal.line(PASSWORD).unwrap();
    for (typed, then) in [
        ("short", "the text of Pass"),
        ("long enough", "Signed in as"),
    ] {
        terminal.until("New password: ").unwrap();
        terminal.line(typed).unwrap();
        terminal.until("The same again: ").unwrap();
        terminal.line(typed).unwrap();
        terminal.until(then).unwrap();
    }
    assert!(terminal.exit_status().unwrap().success());
    assert!(!terminal.shown().contains("long enough"));
}

#[test]
fn leaving_the_question_sends_nothing_and_restores_the_terminal() {
    let world = World::start_with(OURS, door);
    let login = sortie(&world, &["login", "--user", "alice"]);
    let mut terminal = Terminal::open(&login, 80, 24).unwrap();
    terminal.until("Password of alice: ").unwrap();
    terminal.keys("half\u{3}").unwrap();
    assert_eq!(terminal.exit_status().unwrap().code(), Some(255));
    assert!(terminal.is_cooked().unwrap());
    assert_eq!(world.count("SignIn"), 0);
}

#[test]
fn a_password_is_not_asked_for_where_it_could_not_be_used() {
    let world = World::start_with(OURS, door);
    let key = "aws_access_key_id = AKIALONG\naws_secret_access_key = s\n";
    write_file(&world, "credentials", &format!("[default]\n{key}"));
    write_file(
        &world,
        "config",
        "[profile ops]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n",
    );
    for (arguments, environment, expected) in [
        (&["login"][..], None, "long-lived key AKIALONG"),
        (&["login", "--profile", "ops"], None, "source_profile"),
        (&["login", "--profile", "a]b"], None, "its name"),
        (&["logout"], None, "long-lived key AKIALONG"),
        (&["login", "--profile", "x"], Some(""), "no server"),
        (
            &["login", "--profile", "x"],
            Some("http://sortie.example"),
            "not encrypted",
        ),
        (
            &["login", "--profile", "x"],
            Some("http://192.0.2.1:7443"),
            "not encrypted",
        ),
        (
            &["login", "--profile", "x"],
            Some("http://localhost.sortie.example"),
            "not encrypted",
        ),
        (
            &["login", "--profile", "x"],
            Some("http://127.0.0.1@sortie.example"),
            "not encrypted",
        ),
    ] {
        let mut command = sortie(&world, arguments);
        if let Some(endpoint) = environment {
            command.env("AWS_ENDPOINT_URL", endpoint);
        }
        let (status, _, stderr) = run(command);
        assert_eq!(status, 255, "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
    assert_eq!(world.count("SignIn"), 0);
}

#[test]
fn a_role_with_mfa_asks_once_and_keeps_its_keys() {
    let world = World::start_with(OURS, |call| {
        (call.operation() == "AssumeRole").then(|| {
            let answer = "<AssumeRoleResponse><AssumeRoleResult><Credentials>\
                <AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
                <SessionToken>roletoken</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>\
                </Credentials></AssumeRoleResult></AssumeRoleResponse>";
            (200, answer.to_owned())
        })
    });
    let key = "aws_access_key_id = AKIABASE\naws_secret_access_key = s\n";
    write_file(&world, "credentials", &format!("[base]\n{key}"));
    write_file(
        &world,
        "config",
        "[profile ops]\nrole_arn = arn:aws:iam::111122223333:role/Ops\nsource_profile = base\n\
         mfa_serial = arn:aws:iam::111122223333:mfa/alice\nexternal_id = ticket\n\
         role_session_name = alice\nduration_seconds = 900\n",
    );
    let nodes = || sortie(&world, &["nodes", "--profile", "ops"]);
    let (status, _, stderr) = run(nodes_without_terminal(nodes()));
    assert_eq!(status, 255);
    assert!(stderr.contains("mfa/alice"), "{stderr}");

    let mut terminal = Terminal::open(&nodes(), 80, 24).unwrap();
    terminal
        .until("MFA code for arn:aws:iam::111122223333:mfa/alice: ")
        .unwrap();
    terminal.line(CODE).unwrap();
    terminal.until("web").unwrap();
    assert!(terminal.exit_status().unwrap().success());
    let call = world.calls_of("AssumeRole")[0].clone();
    let form = String::from_utf8(call.body.clone()).unwrap();
    for member in [
        "RoleSessionName=alice",
        "ExternalId=ticket",
        "DurationSeconds=900",
        "TokenCode=123456",
        "SerialNumber=arn",
    ] {
        assert!(form.contains(member), "{form}");
    }
    assert!(call.header("authorization").unwrap().contains("AKIABASE/"));

    let (status, _, stderr) = run(nodes());
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(world.count("AssumeRole"), 1);
    let last = world.calls_of("DescribeInstanceInformation").pop().unwrap();
    assert_eq!(last.header("x-amz-security-token"), Some("roletoken"));

    // Kept for their owner alone, and not where other tools take them for another server's.
    let cache = world.folder.path().join(".sortie/cache");
    let mode = std::fs::metadata(&cache).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    assert!(!world.folder.path().join(".aws/cli").exists());
    // Somebody else's key in the same profile does not get them.
    let key = key.replace("AKIABASE", "AKIAELSE");
    write_file(&world, "credentials", &format!("[base]\n{key}"));
    let (status, _, stderr) = run(nodes_without_terminal(nodes()));
    assert_eq!(status, 255);
    assert!(stderr.contains("mfa/alice"), "{stderr}");
    // What was assumed after a sign-in goes with it.
    let signed_in = format!(
        "[base]\n{key}aws_session_token = t\n\
        x_security_token_expires = 2100-01-01T00:00:00Z\nx_principal_arn = {ALICE}\n"
    );
    write_file(&world, "credentials", &signed_in);
    let mut terminal = Terminal::open(&nodes(), 80, 24).unwrap();
    terminal.until("MFA code for ").unwrap();
    terminal.line(CODE).unwrap();
    terminal.until("web").unwrap();
    assert!(terminal.exit_status().unwrap().success());
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 2);
    let (status, _, stderr) = run(sortie(&world, &["logout", "--profile", "base"]));
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
}

/// In a session of its own, so that the terminal of whoever runs the tests is not asked.
fn nodes_without_terminal(command: Command) -> Command {
    let mut alone = Command::new("setsid");
    alone
        .arg("-w")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    alone
}

#[test]
fn a_refusal_says_who_what_on_what_and_why() {
    let resource = format!("arn:aws:ssm:local-1:111122223333:managed-instance/{NODE}");
    let text = format!(
        "User: {ALICE} is not authorized to perform: ssm:StartSession on resource: {resource} \
         with an explicit deny in an identity-based policy"
    );
    let world = World::start_with(OURS, move |call| {
        let refusal = json!({"__type": "AccessDeniedException", "message": text});
        (call.operation() == "StartSession").then(|| (400, refusal.to_string()))
    });
    let (status, _, stderr) = run(world.sortie(&["start", NODE]));
    assert_eq!(status, 255);
    assert_eq!(
        stderr,
        format!(
            "sortie: access denied\n  who   user alice ({ALICE})\n  what  ssm:StartSession\n  \
             on    node {NODE} ({resource})\n  \
             why   a policy of the user, or of a group it is in, denies it\n  \
             `sortie explain ssm:StartSession {resource}` says more\n"
        )
    );
}

#[test]
fn an_explanation_is_printed_and_decides_the_status() {
    let world = World::start_with(OURS, |call| {
        (call.operation() == "Explain").then(|| {
            let is_allowed = call.json()["UserName"] == "alice";
            let decision = if is_allowed {
                "allowed"
            } else {
                "implicitDeny"
            };
            let sentences = ["It is so.", "It is\u{1b}[2J not otherwise."];
            let answer = json!({"Decision": decision, "PrincipalArn": ALICE,
                "Action": "ssm:StartSession", "Sentences": sentences});
            (200, answer.to_string())
        })
    });
    let (status, stdout, _) = run(world.sortie(&[
        "explain",
        "ssm:StartSession",
        "web",
        "--as",
        "alice",
        "--context",
        "aws:SourceIp=10.0.0.1",
        "--context",
        "aws:TagKeys=a",
        "--context",
        "aws:tagkeys=b",
    ]));
    assert_eq!(status, 0);
    assert_eq!(stdout, "It is so.\nIt is\u{fffd}[2J not otherwise.\n");
    assert_eq!(
        world.calls_of("Explain")[0].json(),
        json!({"Action": "ssm:StartSession", "Resource": NODE, "UserName": "alice", "Context": [
            {"Key": "aws:SourceIp", "Values": ["10.0.0.1"]},
            {"Key": "aws:TagKeys", "Values": ["a", "b"]},
        ]})
    );
    let (status, stdout, _) = run(world.sortie(&["explain", "iam:ListUsers", "--json"]));
    assert_eq!(status, 1);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["Decision"], "implicitDeny");
    assert_eq!(world.calls_of("Explain")[1].json()["Resource"], "*");
}

#[test]
fn whoami_says_how_and_from_where() {
    let world = World::start_with(OURS, |call| {
        (call.operation() == "GetCaller").then(|| {
            let answer = json!({"Account": "111122223333", "Arn": ALICE, "CallerType": "User",
                "SignedInWith": "Password", "UserId": "AIDA1", "UserName": "alice",
                "Expires": 1_777_885_200.0, "MfaAuthenticated": 1_777_881_600.0});
            (200, answer.to_string())
        })
    });
    let (status, stdout, _) = run(world.sortie(&["whoami"]));
    assert_eq!(status, 0);
    assert!(
        stdout.contains(
            "signed in with a password, MFA at 2026-05-04T08:00:00Z, until 2026-05-04T09:00:00Z\n\
             keys from the environment\n"
        ),
        "{stdout}"
    );
    let (_, stdout, _) = run(world.sortie(&["whoami", "--json"]));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["SignedInWith"], "Password");
    assert_eq!(answer["CredentialsFrom"], "the environment");
}
