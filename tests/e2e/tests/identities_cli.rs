//! A person at a terminal: signing in with a password and a code, who one is, why something is refused,
//! and a shell with the keys that signing in gave. The administrator uses the stock AWS CLI.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sortie_testkit::{Authenticator, Installation, Terminal, aws, skip};

const FIRST_PASSWORD: &str = "Correct-Horse-1";
const PASSWORD: &str = "Battery-Staple-2";

/// An installation with alice, who has a password to change and an MFA device, and may start sessions
/// on this machine when she gave a code.
struct Story {
    installation: Installation,
    aws: PathBuf,
    authenticator: Authenticator,
    node_id: String,
}

impl Story {
    fn begin() -> Result<Option<Self>> {
        let Some(aws) = aws() else {
            return skip("the AWS CLI").map(|()| None);
        };
        let installation = Installation::start()?;
        let node_id = installation.fact("node_id").to_owned();
        let admin = |arguments: &[&str]| installation.aws(&aws, arguments);
        admin(&["iam", "create-user", "--user-name", "alice"])?;
        let policy = json!({"Version": "2012-10-17", "Statement": [
            {
                "Sid": "MyNode", "Effect": "Allow", "Action": "ssm:StartSession",
                "Resource": [
                    format!("arn:aws:ssm:*:*:managed-instance/{node_id}"),
                    "arn:aws:ssm:*:*:document/SSM-SessionManagerRunShell",
                ],
                "Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}},
            },
            {
                "Effect": "Allow", "Action": ["ssm:TerminateSession", "ssm:ResumeSession"],
                "Resource": "arn:aws:ssm:*:*:session/${aws:username}-*",
            },
        ]});
        let policy = policy.to_string();
        let put = [
            "iam",
            "put-user-policy",
            "--user-name",
            "alice",
            "--policy-name",
            "shell",
        ];
        admin(&[&put[..], &["--policy-document", &policy]].concat())?;
        let login = ["iam", "create-login-profile", "--user-name", "alice"];
        let password = ["--password", FIRST_PASSWORD, "--password-reset-required"];
        admin(&[&login[..], &password].concat())?;
        let authenticator = enabled_device(&installation, &aws)?;
        Ok(Some(Self {
            installation,
            aws,
            authenticator,
            node_id,
        }))
    }

    /// A program as alice runs it: with a home, and no keys in the environment.
    fn alice(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = self.installation.command(program)?;
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .args(arguments);
        Ok(command)
    }

    /// Runs `sortie` without a terminal: exit status, standard output, standard error.
    fn sortie(&self, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
        said(&mut self.alice("sortie", arguments)?)
    }

    fn sortie_as_admin(&self, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
        said(self.installation.command("sortie")?.args(arguments))
    }

    fn terminal(&self, arguments: &[&str]) -> Result<Terminal> {
        Terminal::open(&self.alice("sortie", arguments)?, 120, 30)
    }

    fn trail(&self, name: &str) -> Result<Vec<Value>> {
        let attribute = format!("AttributeKey=EventName,AttributeValue={name}");
        let look_up = [
            "cloudtrail",
            "lookup-events",
            "--lookup-attributes",
            &attribute,
        ];
        let found = self.installation.aws(&self.aws, &look_up)?;
        let events = found["Events"].as_array().context("no events")?;
        let record = |event: &Value| {
            let text = event["CloudTrailEvent"].as_str().context("no record")?;
            Ok(serde_json::from_str(text)?)
        };
        events.iter().map(record).collect()
    }
}

fn said(command: &mut Command) -> Result<(Option<i32>, String, String)> {
    let output = command.output()?;
    let text = |bytes| String::from_utf8(bytes);
    Ok((
        output.status.code(),
        text(output.stdout)?,
        text(output.stderr)?,
    ))
}

fn enabled_device(installation: &Installation, aws: &Path) -> Result<Authenticator> {
    let seed_file = installation.scratch().join("seed");
    let seed_path = seed_file.to_string_lossy().into_owned();
    let create = [
        "iam",
        "create-virtual-mfa-device",
        "--virtual-mfa-device-name",
        "alice",
    ];
    let seed = [
        "--bootstrap-method",
        "Base32StringSeed",
        "--outfile",
        &seed_path,
    ];
    let device = installation.aws(aws, &[&create[..], &seed].concat())?;
    let serial = device["VirtualMFADevice"]["SerialNumber"].as_str();
    let serial = serial.context("no serial number")?;
    let authenticator = Authenticator::new(&fs::read_to_string(&seed_file)?)?;
    let (before, now) = (authenticator.code(-1)?, authenticator.code(0)?);
    let enable = ["iam", "enable-mfa-device", "--user-name", "alice"];
    let with = ["--serial-number", serial, "--authentication-code1", &before];
    let codes = ["--authentication-code2", &now];
    installation.aws(aws, &[&enable[..], &with, &codes].concat())?;
    Ok(authenticator)
}

#[test]
fn a_person_signs_in_is_explained_to_and_gets_a_shell() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    let (status, _, stderr) = story.sortie(&["whoami"])?;
    ensure!(
        status == Some(255) && stderr.contains("sortie login"),
        "{stderr}"
    );
    a_wrong_password_is_refused(&story)?;
    let code = alice_signs_in(&story)?;

    let (_, who, _) = story.sortie(&["whoami"])?;
    ensure!(who.contains(":user/alice\n"), "{who}");
    ensure!(
        who.contains("signed in with a password, MFA at 20"),
        "{who}"
    );
    ensure!(who.contains("keys from profile `default` of "), "{who}");
    let mut stock = story.alice(
        &story.aws.to_string_lossy(),
        &["sts", "get-caller-identity"],
    )?;
    let (_, identity, _) = said(&mut stock)?;
    ensure!(
        identity.contains(":user/alice"),
        "the stock CLI finds the keys: {identity}"
    );

    decisions_are_explained(&story)?;
    a_shell_opens_and_another_is_refused(&story)?;
    a_code_is_good_once(&story, &code)?;

    let (status, said, _) = story.sortie(&["logout"])?;
    ensure!(
        status == Some(0) && said.starts_with("Signed out"),
        "{said}"
    );
    let (status, ..) = story.sortie(&["whoami"])?;
    assert_eq!(status, Some(255));
    the_trail_knows(&story)
}

fn a_wrong_password_is_refused(story: &Story) -> Result<()> {
    let mut terminal = story.terminal(&["login", "--user", "alice"])?;
    terminal.until("Password of alice: ")?;
    terminal.line("Wrong-Horse-3")?;
    terminal.until("sign-in failed")?;
    assert_eq!(terminal.exit_status()?.code(), Some(255));
    ensure!(terminal.is_cooked()?);
    Ok(())
}

/// The first time: the password has to be changed, and a code is asked for.
fn alice_signs_in(story: &Story) -> Result<String> {
    let mut terminal = story.terminal(&["login"])?;
    terminal.until("User name: ")?;
    terminal.line("alice")?;
    terminal.until("Password of alice: ")?;
    terminal.line(FIRST_PASSWORD)?;
    terminal.until("New password: ")?;
    terminal.line(PASSWORD)?;
    terminal.until("The same again: ")?;
    terminal.line(PASSWORD)?;
    terminal.until("MFA code: ")?;
    // Those before were used when the device was enabled.
    let code = story.authenticator.code(1)?;
    terminal.line(&code)?;
    terminal.until("Signed in as arn:aws:iam::")?;
    ensure!(terminal.exit_status()?.success());
    for secret in [FIRST_PASSWORD, PASSWORD, &code] {
        ensure!(!terminal.shown().contains(secret), "a secret was shown");
    }
    let file = story.installation.scratch().join(".aws/credentials");
    let mode = fs::metadata(&file)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    Ok(code)
}

fn decisions_are_explained(story: &Story) -> Result<()> {
    let node_id = story.node_id.as_str();
    let (status, why, stderr) = story.sortie(&["explain", "ssm:StartSession", node_id])?;
    ensure!(status == Some(0), "{why}{stderr}");
    ensure!(
        why.contains("is allowed by statement 1 (MyNode) of the inline policy `shell`"),
        "{why}"
    );

    let as_alice = ["explain", "ssm:StartSession", node_id, "--as", "alice"];
    let (status, why, stderr) = story.sortie_as_admin(&as_alice)?;
    ensure!(status == Some(1), "{why}{stderr}");
    ensure!(
        why.contains("aws:MultiFactorAuthPresent wants `true`"),
        "{why}"
    );
    let supposed = ["--context", "aws:MultiFactorAuthPresent=true"];
    let (status, why, _) = story.sortie_as_admin(&[&as_alice[..], &supposed].concat())?;
    ensure!(status == Some(0), "{why}");

    let (status, _, stderr) = story.sortie(&["explain", "iam:ListUsers", "--as", "bob"])?;
    ensure!(status == Some(255), "{stderr}");
    ensure!(
        stderr.contains("what  iam:SimulatePrincipalPolicy"),
        "{stderr}"
    );
    Ok(())
}

fn a_shell_opens_and_another_is_refused(story: &Story) -> Result<()> {
    let mut terminal = story.terminal(&["start", &story.node_id])?;
    // The echo of the line has quotes that the answer has not.
    terminal.line("echo =\"\"[$((6 * 7))]=")?;
    terminal.until("=[42]=")?;
    terminal.line("exit")?;
    assert_eq!(terminal.exit_status()?.code(), Some(0));

    let (status, _, stderr) = story.sortie(&["start", "mi-0123456789abcdef0"])?;
    ensure!(status == Some(255), "{stderr}");
    for part in [
        "access denied\n  who   user alice (arn:aws:iam::",
        "what  ssm:StartSession",
        "on    node mi-0123456789abcdef0 (",
        "why   no policy of the user, or of a group it is in, allows it",
        "`sortie explain ssm:StartSession arn:",
    ] {
        ensure!(stderr.contains(part), "{part}: {stderr}");
    }
    Ok(())
}

fn a_code_is_good_once(story: &Story, code: &str) -> Result<()> {
    let mut terminal = story.terminal(&["login", "--user", "alice", "--profile", "again"])?;
    terminal.until("Password of alice: ")?;
    terminal.line(PASSWORD)?;
    terminal.until("MFA code: ")?;
    terminal.line(code)?;
    terminal.until("sign-in failed")?;
    assert_eq!(terminal.exit_status()?.code(), Some(255));
    Ok(())
}

fn the_trail_knows(story: &Story) -> Result<()> {
    let records = story.trail("ConsoleLogin")?;
    let with = |outcome: &str| {
        let mut found = records.iter();
        let found = found.find(|record| record["responseElements"]["ConsoleLogin"] == outcome);
        found.with_context(|| format!("no {outcome} in {records:#?}"))
    };
    let success = with("Success")?;
    assert_eq!(success["userIdentity"]["userName"], "alice");
    assert_eq!(success["additionalEventData"]["MFAUsed"], "Yes");
    assert_eq!(success["eventSource"], "signin.amazonaws.com");
    assert_eq!(with("Failure")?["errorMessage"], "Failed authentication");
    let text = serde_json::to_string(&records)?;
    for secret in [FIRST_PASSWORD, PASSWORD, "Wrong-Horse-3"] {
        ensure!(!text.contains(secret), "a password is in the trail");
    }
    let log = story.installation.log();
    ensure!(!log.contains(PASSWORD), "a password is in the log: {log}");
    Ok(())
}
