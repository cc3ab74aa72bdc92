//! A document that allows to follow log files and nothing else, and somebody who may use that document
//! alone: every way to make it run something else leads nowhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sortie_testkit::{Installation, Peer, Terminal, aws, skip};

use super::text;

/// What no attempt may get to run; its name has no character that a pattern would refuse by itself.
const MARK: &str = "mark";

struct Tail {
    installation: Installation,
    aws: Peer,
    /// The key of the user who may only follow logs.
    key: Value,
    logs: PathBuf,
}

impl Tail {
    fn begin() -> Result<Option<Self>> {
        let Some(aws) = aws() else {
            return skip("the AWS CLI").map(|()| None);
        };
        let installation = Installation::start()?;
        let logs = installation.scratch().join("logs");
        fs::create_dir(&logs)?;
        fs::write(logs.join("app.log"), "first\nlast\n")?;
        fs::write(installation.scratch().join("secret"), "secret\n")?;
        let mut tail = Self {
            installation,
            aws,
            key: Value::Null,
            logs,
        };
        let file = format!("{}/", tail.logs.display()).replace('.', "\\.");
        let pattern =
            json!({"type": "String", "allowedPattern": format!("^{file}[a-zA-Z0-9_-]+\\.log$")});
        tail.create(
            "Follow-Log",
            "InteractiveCommands",
            &pattern,
            "tail -n 1 -f {{ file }}",
        )?;
        tail.create(
            "Last-Line",
            "NonInteractiveCommands",
            &pattern,
            "tail -n 1 {{ file }}",
        )?;
        let anything = json!({"type": "String"});
        tail.create(
            "Last-Line-Of",
            "NonInteractiveCommands",
            &anything,
            "tail -n 1 {{ file }}",
        )?;
        tail.key = tail.person()?;
        Ok(Some(tail))
    }

    fn admin(&self, arguments: &[&str]) -> Result<Value> {
        self.installation.aws(&self.aws, arguments)
    }

    fn create(&self, name: &str, session_type: &str, parameter: &Value, line: &str) -> Result<()> {
        let content = json!({
            "schemaVersion": "1.0",
            "description": "Shows the end of a log",
            "sessionType": session_type,
            "parameters": {"file": parameter},
            "properties": {"linux": {"commands": line, "runAsElevated": false}},
        });
        let content = content.to_string();
        let create = [
            "ssm",
            "create-document",
            "--document-type",
            "Session",
            "--name",
            name,
        ];
        self.admin(&[&create[..], &["--content", &content]].concat())?;
        Ok(())
    }

    /// Somebody who may start sessions on the node with these documents, and nothing else.
    fn person(&self) -> Result<Value> {
        let region = self.installation.fact("region");
        let place = format!(
            "arn:aws:ssm:{region}:{}",
            self.installation.fact("account_id")
        );
        let node = self.installation.fact("node_id");
        let policy = json!({"Version": "2012-10-17", "Statement": [
            {
                "Effect": "Allow",
                "Action": "ssm:StartSession",
                "Resource": [
                    format!("{place}:managed-instance/{node}"),
                    format!("{place}:document/Follow-Log"),
                    format!("{place}:document/Last-Line"),
                    format!("{place}:document/Last-Line-Of"),
                ],
                "Condition": {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}},
            },
            {"Effect": "Allow", "Action": ["ssm:TerminateSession", "ssm:ResumeSession"], "Resource": "*"},
        ]});
        let policy = policy.to_string();
        self.admin(&["iam", "create-user", "--user-name", "tailor"])?;
        let put = [
            "iam",
            "put-user-policy",
            "--user-name",
            "tailor",
            "--policy-name",
            "tail",
        ];
        self.admin(&[&put[..], &["--policy-document", &policy]].concat())?;
        let made = self.admin(&["iam", "create-access-key", "--user-name", "tailor"])?;
        Ok(made["AccessKey"].clone())
    }

    fn as_person(&self, program: impl AsRef<Path>) -> Result<Command> {
        let mut command = self.installation.command(program)?;
        for (name, member) in [
            ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
            ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
        ] {
            command.env(name, self.key[member].as_str().context("no key")?);
        }
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// `aws ssm start-session` by the person; parameters as JSON.
    fn start(&self, document: &str, parameters: &Value) -> Result<Output> {
        let mut command = self.as_person(&self.aws)?;
        command.args([
            "ssm",
            "start-session",
            "--target",
            self.installation.fact("node_id"),
        ]);
        command.args([
            "--document-name",
            document,
            "--parameters",
            &parameters.to_string(),
        ]);
        Ok(command.output()?)
    }

    /// The same with our command line.
    fn exec(&self, document: &str, value: &str) -> Result<Output> {
        let mut command = self.as_person("sortie")?;
        command.args([
            "exec",
            self.installation.fact("node_id"),
            "--document",
            document,
        ]);
        command.args(["--parameter", &format!("file={value}")]);
        Ok(command.output()?)
    }

    fn log(&self) -> String {
        self.logs.join("app.log").display().to_string()
    }

    fn mark(&self) -> PathBuf {
        self.installation.scratch().join(MARK)
    }

    /// Nothing was run, and nothing shown that is not for these eyes.
    fn is_harmless(&self, attempt: &str, output: &Output) -> Result<()> {
        ensure!(!self.mark().exists(), "{attempt:?} was run: {output:?}");
        let shown = text(&output.stdout);
        ensure!(!shown.contains("secret\n"), "{attempt:?} shows {shown}");
        Ok(())
    }

    /// Values that want to be more than the name of a log.
    fn values(&self) -> Vec<String> {
        let (log, logs) = (self.log(), self.logs.display());
        let mark = format!("touch {}", self.mark().display());
        let secret = self.installation.scratch().join("secret");
        let secret = secret.display();
        let spaceless = mark.replace(' ', "${IFS}");
        vec![
            format!("{log}; {mark}"),
            format!("{log}&& {mark}"),
            format!("{log}|| {mark}"),
            format!("{log} | {mark}"),
            format!("{log} & {mark}"),
            format!("{log}\n{mark}"),
            format!("{log}\r\n{mark}\r\n"),
            format!("{log}\n"),
            format!("\n{mark}\n{log}"),
            format!("$({mark})"),
            format!("`{mark}`"),
            format!("{logs}/$({mark}).log"),
            format!("{logs}/`{mark}`.log"),
            format!("{log};{spaceless}"),
            format!("{log} >{}", self.mark().display()),
            format!("{log} 2>{}", self.mark().display()),
            format!("<({mark})"),
            format!("'; {mark}; '"),
            format!("\"; {mark}; \""),
            format!("{log}' '; {mark} #"),
            format!("{log}\\\n; {mark}"),
            format!("{log} {secret}"),
            format!("{secret}"),
            format!("{logs}/../secret"),
            format!("{logs}/../secret#.log"),
            format!("{logs}/*.log {secret}"),
            "{{ file }}".to_owned(),
            "{{ssm:secret}}".to_owned(),
            format!("{{{{ file }}}}; {mark}"),
            format!("{log}\u{2028}{mark}"),
            format!("{log}\u{ff1b}{mark}"),
            format!("{log}\t;{mark}"),
            format!("{log}\u{0}; {mark}"),
            format!("-c 1 {secret}"),
            format!("--lines=1 {secret}"),
            String::new(),
            " ".to_owned(),
            format!("{logs}/{}.log", "a;".repeat(2000)),
            format!("$'\\n'{mark}"),
            format!("${{x:-$({mark})}}"),
        ]
    }
}

#[test]
fn a_document_for_logs_runs_nothing_else() -> Result<()> {
    let Some(tail) = Tail::begin()? else {
        return Ok(());
    };
    it_shows_logs(&tail)?;
    no_value_gets_past_the_pattern(&tail)?;
    no_word_becomes_a_command_on_the_node(&tail)?;
    no_other_way_leads_in(&tail)?;
    what_is_typed_is_no_command(&tail)
}

fn it_shows_logs(tail: &Tail) -> Result<()> {
    let output = tail.start("Last-Line", &json!({"file": [tail.log()]}))?;
    ensure!(text(&output.stdout).contains("\nlast\n"), "{output:?}");
    let output = tail.exec("Last-Line", &tail.log())?;
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("last\n", Some(0))
    );
    Ok(())
}

fn no_value_gets_past_the_pattern(tail: &Tail) -> Result<()> {
    let values = tail.values();
    assert!(values.len() >= 30);
    for (index, value) in values.iter().enumerate() {
        // Some by the stock CLI, which takes its time, and those that no argument can hold.
        let output = if index % 10 == 0 || value.contains('\0') {
            tail.start("Follow-Log", &json!({"file": [value]}))?
        } else {
            tail.exec("Follow-Log", value)?
        };
        tail.is_harmless(value, &output)?;
        ensure!(
            !output.status.success(),
            "{value:?} was let through: {output:?}"
        );
        let told = text(&output.stderr);
        let is_refused = [
            "InvalidParameters",
            "ValidationException",
            "validation failed",
        ]
        .iter()
        .any(|word| told.contains(word));
        ensure!(is_refused, "{value:?}: {output:?}");
    }
    Ok(())
}

/// Where the document has no pattern the node still has no shell: words stay words.
fn no_word_becomes_a_command_on_the_node(tail: &Tail) -> Result<()> {
    let mut let_through = 0;
    for value in tail.values().iter().filter(|value| !value.contains('\0')) {
        let output = tail.exec("Last-Line-Of", value)?;
        ensure!(!tail.mark().exists(), "{value:?} was run: {output:?}");
        let_through += usize::from(output.status.code() != Some(255));
    }
    assert!(
        let_through >= 20,
        "only {let_through} values came to the node"
    );
    Ok(())
}

fn no_other_way_leads_in(tail: &Tail) -> Result<()> {
    let mark = format!("touch {}", tail.mark().display());
    let log = tail.log();
    for parameters in [
        json!({}),
        json!({"file": []}),
        json!({"file": [log, mark]}),
        json!({"file": [log], "command": [mark]}),
        json!({"file": [log], "commands": [mark]}),
        json!({"File": [mark]}),
        json!({"command": [mark]}),
    ] {
        let output = tail.start("Follow-Log", &parameters)?;
        tail.is_harmless(&parameters.to_string(), &output)?;
        ensure!(!output.status.success(), "{parameters}: {output:?}");
    }
    for (document, parameters) in [
        ("AWS-StartInteractiveCommand", json!({"command": [mark]})),
        ("AWS-StartNonInteractiveCommand", json!({"command": [mark]})),
        ("AWS-StartSSHSession", json!({"portNumber": ["22"]})),
        (
            "AWS-StartPortForwardingSession",
            json!({"portNumber": ["22"]}),
        ),
        ("SSM-SessionManagerRunShell", json!({})),
        ("follow-log", json!({"file": [log]})),
    ] {
        let output = tail.start(document, &parameters)?;
        tail.is_harmless(document, &output)?;
        ensure!(!output.status.success(), "{document}: {output:?}");
    }
    let node = tail.installation.fact("node_id");
    let content = json!({"schemaVersion": "1.0", "sessionType": "InteractiveCommands",
        "properties": {"linux": {"commands": mark, "runAsElevated": false}}});
    let content = content.to_string();
    for call in [
        &["start-session", "--target", node][..],
        &[
            "update-document",
            "--name",
            "Follow-Log",
            "--content",
            &content,
            "--document-version",
            "$LATEST",
        ],
        &[
            "create-document",
            "--name",
            "Mine",
            "--document-type",
            "Session",
            "--content",
            &content,
        ],
        &["delete-document", "--name", "Follow-Log"],
    ] {
        let output = tail.as_person(&tail.aws)?.arg("ssm").args(call).output()?;
        tail.is_harmless(&call.join(" "), &output)?;
        ensure!(
            text(&output.stderr).contains("AccessDenied"),
            "{call:?}: {output:?}"
        );
    }
    Ok(())
}

fn what_is_typed_is_no_command(tail: &Tail) -> Result<()> {
    let mark = format!("touch {}\r", tail.mark().display());
    let parameter = format!("file={}", tail.log());
    for keys in [
        &[][..],
        &[0x03],
        &[0x1c],
        &[0x1a],
        &[0x04],
        b"!",
        b"\x1b:!",
        b"q",
    ] {
        let mut command = tail.as_person("sortie")?;
        command.args(["start", tail.installation.fact("node_id")]);
        command.args(["--document", "Follow-Log", "--parameter", &parameter]);
        let mut terminal = Terminal::open(&command, 80, 24)?;
        terminal.until("last")?;
        // Some of these end the session, and the rest is typed to nobody.
        let _ = terminal.keys(keys);
        let _ = terminal.keys(&mark);
        let _ = terminal.keys([0x03]);
        terminal
            .exit_status()
            .with_context(|| format!("{keys:?}: {}", terminal.shown()))?;
        ensure!(!tail.mark().exists(), "{keys:?} made room for a command");
    }
    Ok(())
}
