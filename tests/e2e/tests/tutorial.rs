//! What every Session Manager tutorial does, with the stock AWS CLI alone: a role and an activation
//! for nodes, users who may reach one node each, MFA, hours, one's own sessions, and access that is
//! taken away in the middle of a session.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sortie_testkit::{Agent, Authenticator, Installation, Terminal, aws, skip, wait_for};

/// Somebody with credentials.
struct Person {
    variables: Vec<(&'static str, String)>,
}

impl Person {
    fn with(credentials: &Value) -> Result<Self> {
        let text = |name: &str| {
            let value = credentials[name].as_str();
            value
                .map(ToOwned::to_owned)
                .with_context(|| format!("no {name}"))
        };
        let mut variables = vec![
            ("AWS_ACCESS_KEY_ID", text("AccessKeyId")?),
            ("AWS_SECRET_ACCESS_KEY", text("SecretAccessKey")?),
        ];
        if let Ok(token) = text("SessionToken") {
            variables.push(("AWS_SESSION_TOKEN", token));
        }
        Ok(Self { variables })
    }
}

/// An installation with two nodes: this machine, and one that a tutorial's role and activation have
/// brought in.
struct Story {
    second: Agent,
    installation: Installation,
    aws: PathBuf,
    account_id: String,
    first_id: String,
    second_id: String,
}

impl Story {
    fn begin() -> Result<Option<Self>> {
        let Some(aws) = aws() else {
            return skip("the AWS CLI").map(|()| None);
        };
        let installation = Installation::start()?;
        let (second_id, second) = second_node(&installation, &aws)?;
        let story = Self {
            second,
            aws,
            account_id: installation.fact("account_id").to_owned(),
            first_id: installation.fact("node_id").to_owned(),
            second_id,
            installation,
        };
        wait_for("the second node to be connected", || {
            let ask = ["ssm", "get-connection-status", "--target", &story.second_id];
            let answer = story.admin(&ask)?;
            Ok((answer["Status"] == "connected").then_some(()))
        })
        .with_context(|| story.second.log())?;
        Ok(Some(story))
    }

    fn admin(&self, arguments: &[&str]) -> Result<Value> {
        self.installation.aws(&self.aws, arguments)
    }

    fn command(&self, person: &Person) -> Result<Command> {
        let mut command = self.installation.command(&self.aws)?;
        command.envs(person.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn as_person(&self, person: &Person, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command(person)?;
        let output = command
            .args(arguments)
            .args(["--output", "json"])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    /// What the CLI says when the call is refused.
    fn refused(&self, person: &Person, arguments: &[&str]) -> Result<String> {
        let output = self.command(person)?.args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{arguments:?} was not refused");
        ensure!(
            said.contains("AccessDeniedException") || said.contains("AccessDenied"),
            "{said}"
        );
        Ok(said)
    }

    fn node_arn(&self, node_id: &str) -> String {
        let region = self.installation.fact("region");
        format!(
            "arn:aws:ssm:{region}:{}:managed-instance/{node_id}",
            self.account_id
        )
    }

    fn default_document(&self) -> String {
        let region = self.installation.fact("region");
        format!(
            "arn:aws:ssm:{region}:{}:document/SSM-SessionManagerRunShell",
            self.account_id
        )
    }

    /// A user with one access key and one inline policy.
    fn person(&self, name: &str, statements: &Value) -> Result<Person> {
        self.admin(&["iam", "create-user", "--user-name", name])?;
        self.give(name, statements)?;
        let made = self.admin(&["iam", "create-access-key", "--user-name", name])?;
        Person::with(&made["AccessKey"])
    }

    fn give(&self, name: &str, statements: &Value) -> Result<()> {
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let put = [
            "iam",
            "put-user-policy",
            "--user-name",
            name,
            "--policy-name",
            "Sessions",
            "--policy-document",
            &policy,
        ];
        self.admin(&put).map(drop)
    }

    fn start(&self, person: &Person, node_id: &str) -> Result<Terminal> {
        let mut command = self.command(person)?;
        command.args(["ssm", "start-session", "--target", node_id]);
        Terminal::open(&command, 100, 30)
    }

    /// Starts a session and waits until its shell answers.
    fn shell(&self, person: &Person, node_id: &str) -> Result<(Terminal, String)> {
        let mut terminal = self.start(person, node_id)?;
        terminal.until("Starting session with SessionId: ")?;
        let session_id = terminal.until("\n")?.trim().to_owned();
        terminal.line("echo \"<\"$((6 * 7))\">\"")?;
        terminal.until("<42>")?;
        Ok((terminal, session_id))
    }

    fn allowed(&self, person: &Person, node_id: &str) -> Result<()> {
        let (mut terminal, _) = self.shell(person, node_id)?;
        terminal.line("exit")?;
        terminal.until("Exiting session with sessionId: ")?;
        ensure!(terminal.exit_status()?.success());
        Ok(())
    }

    fn denied(&self, person: &Person, node_id: &str) -> Result<String> {
        let said = self.refused(person, &["ssm", "start-session", "--target", node_id])?;
        ensure!(
            said.contains("is not authorized to perform: ssm:StartSession on resource: "),
            "{said}"
        );
        Ok(said)
    }

    fn end(self) -> Result<()> {
        self.second.stop()
    }
}

/// Role, policy, activation, registration: the first page of every tutorial.
fn second_node(installation: &Installation, aws: &Path) -> Result<(String, Agent)> {
    let trust = json!({
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": "ssm.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    });
    let trust = trust.to_string();
    let create = [
        "iam",
        "create-role",
        "--role-name",
        "SSMServiceRole",
        "--assume-role-policy-document",
        &trust,
    ];
    let role = installation.aws(aws, &create)?;
    assert_eq!(
        role["Role"]["AssumeRolePolicyDocument"]["Version"],
        "2012-10-17"
    );
    let attach = [
        "iam",
        "attach-role-policy",
        "--role-name",
        "SSMServiceRole",
        "--policy-arn",
        "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
    ];
    installation.aws(aws, &attach)?;
    let create = [
        "ssm",
        "create-activation",
        "--default-instance-name",
        "second",
        "--iam-role",
        "SSMServiceRole",
        "--registration-limit",
        "1",
        "--tags",
        "Key=Env,Value=dev",
    ];
    let activation = installation.aws(aws, &create)?;
    installation.enrol(&activation, "second", &["--run-as-self"])
}

/// Start sessions on this resource, with the default shell document.
fn start_on(story: &Story, resource: &str, condition: &Value) -> Value {
    json!([
        {
            "Effect": "Allow",
            "Action": "ssm:StartSession",
            "Resource": resource,
            "Condition": condition,
        },
        {
            "Effect": "Allow",
            "Action": "ssm:StartSession",
            "Resource": story.default_document(),
        },
    ])
}

#[test]
fn two_people_reach_one_node_each_by_id_and_by_tag() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    let (first, second) = (story.first_id.clone(), story.second_id.clone());
    let by_id = start_on(&story, &story.node_arn(&first), &json!({}));
    let ann = story.person("ann", &by_id)?;
    let tagged = json!({"StringEquals": {"ssm:resourceTag/Env": "dev"}});
    let by_tag = start_on(&story, &story.node_arn("*"), &tagged);
    let bob = story.person("bob", &by_tag)?;

    story.allowed(&ann, &first)?;
    story.allowed(&bob, &second)?;
    let said = story.denied(&ann, &second)?;
    let expected = format!(
        "User: arn:aws:iam::{}:user/ann is not authorized to perform: ssm:StartSession on resource: {} \
         because no identity-based policy allows the ssm:StartSession action",
        story.account_id,
        story.node_arn(&second)
    );
    ensure!(said.contains(&expected), "{said}");
    story.denied(&bob, &first)?;
    story.refused(&ann, &["ssm", "describe-instance-information"])?;

    // The tag moves, and access with it.
    let tag = |node_id: &str, value: &str| {
        let tags = format!("Key=Env,Value={value}");
        let kind = "ManagedInstance";
        let add = ["ssm", "add-tags-to-resource", "--resource-type", kind];
        story.admin(&[&add[..], &["--resource-id", node_id, "--tags", &tags]].concat())
    };
    tag(&first, "dev")?;
    tag(&second, "prod")?;
    story.allowed(&bob, &first)?;
    story.denied(&bob, &second)?;
    story.end()
}

#[test]
fn mfa_is_demanded_and_a_session_token_with_a_code_brings_it() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    let node_id = story.first_id.clone();
    let with_mfa = json!({"Bool": {"aws:MultiFactorAuthPresent": "true"}});
    let statements = start_on(&story, &story.node_arn(&node_id), &with_mfa);
    let cat = story.person("cat", &statements)?;
    story.denied(&cat, &node_id)?;

    let seed_file = story.installation.scratch().join("seed");
    let seed_path = seed_file.to_string_lossy().into_owned();
    let create = [
        "iam",
        "create-virtual-mfa-device",
        "--virtual-mfa-device-name",
        "cat",
        "--bootstrap-method",
        "Base32StringSeed",
        "--outfile",
        &seed_path,
    ];
    let device = story.admin(&create)?;
    let serial = device["VirtualMFADevice"]["SerialNumber"].as_str();
    let serial = serial.context("no serial number")?.to_owned();
    let authenticator = Authenticator::new(&fs::read_to_string(&seed_file)?)?;
    let (before, now) = (authenticator.code(-1)?, authenticator.code(0)?);
    let enable = [
        "iam",
        "enable-mfa-device",
        "--user-name",
        "cat",
        "--serial-number",
        &serial,
        "--authentication-code1",
        &before,
        "--authentication-code2",
        &now,
    ];
    story.admin(&enable)?;
    story.denied(&cat, &node_id)?;

    let token = |code: &str| {
        let ask = ["sts", "get-session-token", "--serial-number", &serial];
        story.as_person(&cat, &[&ask[..], &["--token-code", code]].concat())
    };
    let replayed = token(&now);
    let said = format!(
        "{:#}",
        replayed.err().context("a used code was taken again")?
    );
    ensure!(
        said.contains("MultiFactorAuthentication failed with invalid MFA one time pass code"),
        "{said}"
    );
    let answer = token(&authenticator.code(1)?)?;
    let with_code = Person::with(&answer["Credentials"])?;
    story.allowed(&with_code, &node_id)?;
    let without = story.as_person(&cat, &["sts", "get-session-token"])?;
    let without = Person::with(&without["Credentials"])?;
    story.denied(&without, &node_id)?;
    story.end()
}

#[test]
fn access_has_hours() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    let node_id = story.first_id.clone();
    let window = |from: &str, until: &str| {
        json!({
            "DateGreaterThan": {"aws:CurrentTime": from},
            "DateLessThan": {"aws:CurrentTime": until},
        })
    };
    let statements =
        |from: &str, until: &str| start_on(&story, &story.node_arn(&node_id), &window(from, until));
    let over = statements("2020-01-01T00:00:00Z", "2020-01-01T08:00:00Z");
    let dan = story.person("dan", &over)?;
    story.denied(&dan, &node_id)?;
    story.give(
        "dan",
        &statements("2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z"),
    )?;
    story.allowed(&dan, &node_id)?;
    story.give(
        "dan",
        &statements("2119-01-01T00:00:00Z", "2120-01-01T00:00:00Z"),
    )?;
    story.denied(&dan, &node_id)?;
    story.end()
}

#[test]
fn people_end_their_own_sessions_alone_and_lose_them_with_their_access() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    let node_id = story.first_id.clone();
    let mut statements = start_on(&story, &story.node_arn(&node_id), &json!({}));
    let own = json!({
        "Effect": "Allow",
        "Action": ["ssm:TerminateSession", "ssm:ResumeSession"],
        "Resource": "arn:aws:ssm:*:*:session/${aws:username}-*",
    });
    statements.as_array_mut().context("a list")?.push(own);
    let eve = story.person("eve", &statements)?;
    let fay = story.person("fay", &statements)?;
    let (mut of_eve, eves_id) = story.shell(&eve, &node_id)?;
    let (mut of_fay, fays_id) = story.shell(&fay, &node_id)?;

    let terminate_as = |person: &Person, session_id: &str| {
        let terminate = ["ssm", "terminate-session", "--session-id", session_id];
        story.as_person(person, &terminate)
    };
    let said = format!(
        "{:#}",
        terminate_as(&eve, &fays_id)
            .err()
            .context("ended another's")?
    );
    ensure!(
        said.contains("is not authorized to perform: ssm:TerminateSession"),
        "{said}"
    );
    let ended = terminate_as(&eve, &eves_id)?;
    assert_eq!(ended["SessionId"], eves_id.as_str());
    of_eve.exit_status()?;

    of_fay.line("echo \"<\"$((7 * 9))\">\"")?;
    of_fay.until("<63>")?;
    let delete = ["iam", "delete-user-policy", "--user-name", "fay"];
    story.admin(&[&delete[..], &["--policy-name", "Sessions"]].concat())?;
    of_fay.exit_status()?;
    wait_for("the session in the history", || {
        let history = story.admin(&["ssm", "describe-sessions", "--state", "History"])?;
        let sessions = history["Sessions"].as_array().context("no history")?;
        let is_there = sessions
            .iter()
            .any(|session| session["SessionId"] == fays_id.as_str());
        Ok(is_there.then_some(()))
    })?;
    story.denied(&fay, &node_id)?;
    story.end()
}

#[test]
fn a_key_that_is_switched_off_ends_what_it_began() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    let node_id = story.first_id.clone();
    let statements = start_on(&story, &story.node_arn(&node_id), &json!({}));
    let gus = story.person("gus", &statements)?;
    let (mut terminal, _) = story.shell(&gus, &node_id)?;
    let key_id = &gus.variables[0].1;
    let switch = |status: &str| {
        let update = ["iam", "update-access-key", "--user-name", "gus"];
        let which = ["--access-key-id", key_id, "--status", status];
        story.admin(&[&update[..], &which].concat())
    };
    switch("Inactive")?;
    terminal.exit_status()?;
    let start = ["ssm", "start-session", "--target", &node_id];
    let output = story.command(&gus)?.args(start).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("UnrecognizedClientException"), "{said}");
    switch("Active")?;
    story.allowed(&gus, &node_id)?;
    story.end()
}
