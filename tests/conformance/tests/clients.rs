//! Other people's clients against our server and agent: each is judge of what we say about the wire.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result};
use serde_json::Value;
use sortie_testkit::{
    Installation, Terminal, aws, node_modules, official_plugin, pyssm_python, python, skip,
};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name)
}

fn succeeded(what: &str, output: &Output) {
    let (said, log) = (&output.stdout, &output.stderr);
    let (said, log) = (String::from_utf8_lossy(said), String::from_utf8_lossy(log));
    assert!(
        output.status.success(),
        "{what}: {}\n{said}\n{log}",
        output.status
    );
}

/// A session started by boto3's operation, for clients that only speak the data channel.
fn start_session(installation: &Installation, python: &Path) -> Result<Value> {
    let node_id = installation.fact("node_id");
    // The CLI has replaced `start-session` by a command that runs the plugin, so ask boto3.
    let code = "import boto3, json, sys; \
        answer = boto3.client('ssm').start_session(Target=sys.argv[1]); \
        answer.pop('ResponseMetadata'); print(json.dumps(answer))";
    let output = installation
        .command(python)?
        .args(["-c", code, node_id])
        .output()?;
    succeeded("start_session", &output);
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn botocores_models_accept_every_answer() -> Result<()> {
    let Some(python) = python() else {
        return skip("a Python with boto3");
    };
    let installation = Installation::start()?;
    let mut judge = installation.command(python)?;
    judge
        .arg(script("botocore_judge.py"))
        .arg(installation.fact("node_id"));
    succeeded("botocore_judge.py", &judge.output()?);
    Ok(())
}

#[test]
fn the_npm_client_opens_a_shell() -> Result<()> {
    let (Some(python), Some(modules)) = (python(), node_modules()) else {
        return skip("the npm package ssm-session");
    };
    let installation = Installation::start()?;
    let session = start_session(&installation, &python)?;
    let mut client = installation.command("node")?;
    client
        .env("NODE_PATH", modules)
        .arg(script("ssm_session.cjs"))
        .arg(session.to_string());
    succeeded("ssm_session.cjs", &client.output()?);
    Ok(())
}

#[test]
fn pyssm_client_opens_a_shell() -> Result<()> {
    let Some(python) = pyssm_python() else {
        return Ok(());
    };
    let installation = Installation::start()?;
    let mut command = installation.command(python.with_file_name("pyssm"))?;
    command.args(["ssh", "--target", installation.fact("node_id")]);
    command.args(["--endpoint-url", installation.fact("endpoint")]);
    let mut terminal = Terminal::open(&command, 90, 25)?;
    terminal.until("# ")?;
    terminal.line("echo \"<\"$((6 * 7))\">\"")?;
    terminal.until("<42>")?;
    terminal.line("exit")?;
    terminal.exit_status()?;
    Ok(())
}

#[test]
fn the_official_plugin_opens_a_shell_on_our_agent() -> Result<()> {
    let Some(plugin) = official_plugin() else {
        return Ok(());
    };
    let Some(aws) = aws() else {
        return skip("the AWS CLI");
    };
    let installation = Installation::start()?;
    let mut command = installation.command(aws)?;
    let folder = plugin
        .parent()
        .context("the plugin is in no folder")?
        .to_string_lossy();
    let path = installation
        .environment()?
        .remove("PATH")
        .unwrap_or_default();
    command.env("PATH", format!("{folder}:{path}"));
    command.args([
        "ssm",
        "start-session",
        "--target",
        installation.fact("node_id"),
    ]);
    let mut terminal = Terminal::open(&command, 90, 25)?;
    terminal.until("Starting session with SessionId: ")?;
    terminal.line("echo \"<\"$((6 * 7))\">\"")?;
    terminal.until("<42>")?;
    // Said by the program itself: before, Ctrl-C would meet the shell that still starts it.
    terminal.line("sh -c 'echo sta\"\"rted; exec sleep 1000'; echo ne\"\"ver")?;
    terminal.until("started")?;
    terminal.keys([3])?;
    // The terminal throws away what is typed behind a Ctrl-C until it has acted on it.
    terminal.until("^C")?;
    terminal.line("echo \"<\"$?\">\"")?;
    terminal.until("<130>")?;
    terminal.line("exit")?;
    terminal.until("Exiting session with sessionId: ")?;
    assert!(terminal.exit_status()?.success());
    Ok(())
}
