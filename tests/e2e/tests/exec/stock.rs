//! Commands of the stock AWS CLI, as AWS's guides write them, with our plugin.

use std::process::{Command, Stdio};

use anyhow::Result;
use sortie_testkit::{Installation, Terminal, aws, skip};

use super::text;

struct Stock {
    installation: Installation,
    aws: sortie_testkit::Peer,
}

impl Stock {
    fn begin() -> Result<Option<Self>> {
        let Some(aws) = aws() else {
            return skip("the AWS CLI").map(|()| None);
        };
        let installation = Installation::start()?;
        Ok(Some(Self { installation, aws }))
    }

    /// `aws ssm start-session` with a document.
    fn start(&self, document: &str, parameters: &str) -> Result<Command> {
        let mut command = self.installation.command(&self.aws)?;
        command.args([
            "ssm",
            "start-session",
            "--target",
            self.installation.fact("node_id"),
        ]);
        command.args(["--document-name", document, "--parameters", parameters]);
        Ok(command)
    }
}

/// What is between AWS's first and last lines.
fn between(shown: &str) -> Option<&str> {
    let (first, rest) = shown
        .strip_prefix("\nStarting session with SessionId: ")?
        .split_once('\n')?;
    rest.strip_suffix(&format!("\n\nExiting session with sessionId: {first}.\n\n"))
}

#[test]
fn commands_without_a_terminal_print_what_awss_plugin_prints() -> Result<()> {
    let Some(stock) = Stock::begin()? else {
        return Ok(());
    };
    let document = "AWS-StartNonInteractiveCommand";
    for (parameters, shown) in [
        (r#"{"command":["echo 'a  b' $HOME"]}"#, "a  b $HOME\n"),
        (
            r#"{"command":["sh -c 'echo out; echo err >&2; exit 4'"]}"#,
            "out\nerr\n",
        ),
        (
            r#"{"command":["sh -c 'echo out; exit 4'"],"separateOutputStream":["true"]}"#,
            "out\nEXIT_CODE: 4",
        ),
    ] {
        // The end of the input is no reason to leave a command that takes none.
        let mut command = stock.start(document, parameters)?;
        let output = command.stdin(Stdio::null()).output()?;
        let said = text(&output.stdout);
        assert_eq!(between(&said), Some(shown), "{parameters}: {output:?}");
        // AWS's plugin ends with 0 whatever the command did.
        assert_eq!(output.status.code(), Some(0));
    }
    // Lines end where they end on a terminal too, and Ctrl-C is the command's.
    let words = r#"{"command":["sh -c 'trap \"echo got it; exit\" INT; seq 3; while :; do sleep 0.05; done'"],"separateOutputStream":["true"]}"#;
    let mut terminal = Terminal::open(&stock.start(document, words)?, 80, 24)?;
    terminal.until("1\r\n2\r\n3\r\n")?;
    terminal.keys([0x03])?;
    terminal.until("got it")?;
    assert_eq!(terminal.exit_status()?.code(), Some(0));
    assert!(terminal.is_cooked()?);
    Ok(())
}

#[test]
fn commands_on_a_terminal_have_one() -> Result<()> {
    let Some(stock) = Stock::begin()? else {
        return Ok(());
    };
    let command = stock.start(
        "AWS-StartInteractiveCommand",
        r#"{"command":["tty; read x; echo \"<$x>\"; exit 9"]}"#,
    )?;
    let mut terminal = Terminal::open(&command, 80, 24)?;
    terminal.until("/dev/pts/")?;
    terminal.line("word")?;
    terminal.until("<word>")?;
    assert_eq!(terminal.exit_status()?.code(), Some(0));
    terminal.until("Exiting session with sessionId: ")?;
    Ok(())
}

#[test]
fn parameters_that_a_document_does_not_have_are_refused() -> Result<()> {
    let Some(stock) = Stock::begin()? else {
        return Ok(());
    };
    for parameters in [
        "{}",
        r#"{"command":["true"],"no-such":["x"]}"#,
        r#"{"command":["true","false"]}"#,
        r#"{"command":["true"],"separateOutputStream":["maybe"]}"#,
    ] {
        let mut command = stock.start("AWS-StartNonInteractiveCommand", parameters)?;
        let output = command.stdin(Stdio::null()).output()?;
        assert!(!output.status.success(), "{parameters}: {output:?}");
        assert!(
            text(&output.stderr).contains("InvalidParameters"),
            "{parameters}: {output:?}"
        );
    }
    Ok(())
}
