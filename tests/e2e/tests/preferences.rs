//! What an account's preferences do to sessions on a node whose agent runs as root: who they run as,
//! and what is typed into their shells. Needs root; the agent makes its account on this machine.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sortie_testkit::{Agent, Installation, Terminal, announce, aws, program, skip, wait_for};

/// The document of an account's preferences.
const PREFERENCES: &str = "SSM-SessionManagerRunShell";

/// An installation with a second node, whose agent is root and may become anybody.
struct Story {
    agent: Agent,
    installation: Installation,
    aws: PathBuf,
    node_id: String,
}

impl Story {
    fn begin() -> Result<Option<Self>> {
        let Some(aws) = aws() else {
            return skip("the AWS CLI").map(|()| None);
        };
        if !rustix::process::geteuid().is_root() {
            announce("run-as, which needs root");
            return Ok(None);
        }
        let installation = Installation::start()?;
        let (node_id, agent) = root_node(&installation, &aws)?;
        let story = Self {
            agent,
            installation,
            aws,
            node_id,
        };
        wait_for("the node to be connected", || {
            let ask = ["ssm", "get-connection-status", "--target", &story.node_id];
            Ok((story.admin(&ask)?["Status"] == "connected").then_some(()))
        })
        .with_context(|| story.agent.log())?;
        Ok(Some(story))
    }

    fn admin(&self, arguments: &[&str]) -> Result<Value> {
        self.installation.aws(&self.aws, arguments)
    }

    fn sortie(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.installation.command(program("sortie")?)?;
        command.args(arguments);
        Ok(command)
    }

    /// Saves the account's preferences, as the console of the original does.
    fn prefer(&self, inputs: &Value) -> Result<()> {
        let content = json!({
            "schemaVersion": "1.0",
            "description": "Document to hold regional settings for Session Manager",
            "sessionType": "Standard_Stream",
            "inputs": inputs,
        });
        let content = content.to_string();
        let named = ["--name", PREFERENCES, "--content", &content];
        let update = [&["ssm", "update-document"][..], &named].concat();
        let update = [&update[..], &["--document-version", "$LATEST"]].concat();
        let Ok(updated) = self.admin(&update) else {
            let create = ["ssm", "create-document", "--document-type", "Session"];
            return self.admin(&[&create[..], &named].concat()).map(drop);
        };
        let version = updated["DocumentDescription"]["DocumentVersion"]
            .as_str()
            .context("no version")?;
        let choose = ["ssm", "update-document-default-version"];
        let choose = [&choose[..], &["--name", PREFERENCES]].concat();
        self.admin(&[&choose[..], &["--document-version", version]].concat())
            .map(drop)
    }

    /// Says as whom the administrator's sessions run.
    fn tag(&self, user: &str) -> Result<()> {
        let me = self.admin(&["sts", "get-caller-identity"])?;
        let me = me["Arn"].as_str().and_then(|arn| arn.rsplit('/').next());
        let name = me.context("nobody calls")?;
        let tags = format!("Key=SSMSessionRunAs,Value={user}");
        self.admin(&["iam", "tag-user", "--user-name", name, "--tags", &tags])
            .map(drop)
    }

    fn exec(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.sortie(&["exec", &self.node_id, "--"])?;
        Ok(command.args(words).output()?)
    }

    /// Who a command runs as.
    fn runs_as(&self) -> Result<String> {
        let output = self.exec(&["id", "-un"])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// What is said where no session comes of it.
    fn refused(&self) -> Result<String> {
        let output = self.exec(&["id", "-un"])?;
        ensure!(output.status.code() == Some(255), "{output:?}");
        ensure!(output.stdout.is_empty(), "{output:?}");
        Ok(String::from_utf8(output.stderr)?)
    }
}

fn root_node(installation: &Installation, aws: &Path) -> Result<(String, Agent)> {
    let create = ["ssm", "create-activation", "--iam-role", "SortieNode"];
    let activation = installation.aws(aws, &create)?;
    installation.enrol(&activation, "root-node", &[])
}

#[test]
fn the_next_session_runs_as_the_preferences_say() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    ensure!(story.runs_as()? == "ssm-user");

    story.prefer(&json!({"runAsEnabled": true, "runAsDefaultUser": ""}))?;
    let said = story.refused()?;
    ensure!(said.contains("please set the RunAs default user"), "{said}");

    story.prefer(&json!({"runAsEnabled": true, "runAsDefaultUser": "nobody"}))?;
    ensure!(story.runs_as()? == "nobody");
    story.tag("ssm-user")?;
    ensure!(story.runs_as()? == "ssm-user", "the principal's tag wins");
    story.tag("no-such-user-here")?;
    let said = story.refused()?;
    let why = "failed to start pty since RunAs user no-such-user-here does not exist";
    ensure!(said.contains(why), "{said}");
    story.tag("root")?;
    let said = story.refused()?;
    ensure!(said.contains("root"), "{said}");

    // Elevated commands are root's, whoever asks.
    let elevated = json!({
        "schemaVersion": "1.0",
        "sessionType": "InteractiveCommands",
        "properties": {"linux": {"commands": "echo i am $(id -un)", "runAsElevated": true}},
    });
    let elevated = elevated.to_string();
    let create = ["ssm", "create-document", "--document-type", "Session"];
    let named = ["--name", "Elevated", "--content", &elevated];
    story.admin(&[&create[..], &named].concat())?;
    let start = ["start", &story.node_id, "--document", "Elevated"];
    let mut terminal = Terminal::open(&story.sortie(&start)?, 100, 30)?;
    terminal.until("i am root")?;
    ensure!(terminal.exit_status()?.success());
    story.agent.stop()
}

#[test]
fn the_shell_profile_is_typed_into_the_next_shell() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    let profile = "export COLOUR=blue\ncd /var/tmp\necho \"profile: $((40 + 2))\"";
    story.prefer(&json!({"shellProfile": {"linux": profile, "windows": "Get-Date"}}))?;
    let start = story.sortie(&["start", &story.node_id])?;
    let mut terminal = Terminal::open(&start, 100, 30)?;
    terminal.until("profile: 42")?;
    terminal.line("echo \"$COLOUR in $PWD as $(id -un)\"; exit 3")?;
    terminal.until("blue in /var/tmp as ssm-user")?;
    ensure!(terminal.exit_status()?.code() == Some(3));
    // Commands have no shell that it could be typed into.
    let output = story.exec(&["sh", "-c", "echo \"$COLOUR$PWD\""])?;
    ensure!(output.stdout == b"/home/ssm-user\n", "{output:?}");
    story.agent.stop()
}
