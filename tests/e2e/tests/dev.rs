//! The five minutes of the README, as a person would spend them: `dev`, the stock AWS CLI with our
//! plugin, and our own command line.

use std::fs;

use anyhow::{Context, Result};
use sortie_testkit::{Installation, Terminal, aws, skip, wait_for};

/// Opens a session by `program`, in the environment that `dev.env` makes.
fn open(installation: &Installation, program: &str, arguments: &[&str]) -> Result<Terminal> {
    let mut command = installation.command(program)?;
    command.args(arguments);
    Terminal::open(&command, 100, 30)
}

/// Types a line whose answer cannot be mistaken for the echo of the typing, and waits for it.
fn ask(terminal: &mut Terminal, expression: &str) -> Result<String> {
    terminal.line(&format!("echo \"=\"\"[\"{expression}\"]\"\"=\""))?;
    // The echoed line has quotes between the equals sign and the bracket.
    terminal.until("=[")?;
    let answer = terminal.until("]=")?;
    Ok(answer.trim_end_matches("]=").to_owned())
}

/// What must hold in any shell on a node, whoever opened it.
fn a_shell_behaves(installation: &Installation, terminal: &mut Terminal) -> Result<()> {
    assert_eq!(ask(terminal, "$((6 * 7))")?, "42");
    assert_eq!(
        ask(terminal, "$(tput cols)x$(tput lines)")?,
        "100x30",
        "the first size"
    );

    terminal.resize(77, 20)?;
    wait_for("the new size to reach the shell", || {
        Ok((ask(terminal, "$(tput cols)x$(tput lines)")? == "77x20").then_some(()))
    })?;

    // Said by the program itself: before, Ctrl-C would meet the shell that still starts it.
    terminal.line("sh -c 'echo sta\"\"rted; exec sleep 1000'; echo ne\"\"ver")?;
    terminal.until("started")?;
    terminal.keys([3])?;
    // The terminal throws away what is typed behind a Ctrl-C until it has acted on it.
    terminal.until("^C")?;
    assert_eq!(
        ask(terminal, "$?")?,
        "130",
        "Ctrl-C ends what runs in front"
    );

    let file = installation.scratch().join("written-by-vim");
    terminal.line(&format!("vim -u NONE {}", file.display()))?;
    terminal.until("[New File]")?;
    terminal.keys("iwritten in a session")?;
    terminal.until("written in a session")?;
    terminal.keys("\x1b:wq\r")?;
    let text = wait_for("vim to write its file", || {
        let written = fs::read_to_string(&file).ok();
        Ok(written.filter(|text| text.ends_with('\n')))
    })?;
    assert_eq!(text.trim(), "written in a session");
    fs::remove_file(file)?;
    assert_eq!(
        ask(terminal, "$((6 * 9))")?,
        "54",
        "the shell is back after vim"
    );
    Ok(())
}

#[test]
fn the_stock_cli_gets_a_shell_on_this_machine() -> Result<()> {
    let Some(aws) = aws() else {
        return skip("the AWS CLI");
    };
    let installation = Installation::start()?;
    let node_id = installation.fact("node_id");
    let listed = installation.aws(&aws, &["ssm", "describe-instance-information"])?;
    let node = &listed["InstanceInformationList"][0];
    assert_eq!(node["InstanceId"], node_id);
    assert_eq!(node["PingStatus"], "Online");
    assert_eq!(node["PlatformType"], "Linux");

    let aws = aws.to_string_lossy();
    let start = [
        "ssm",
        "start-session",
        "--target",
        node_id,
        "--reason",
        "a look around",
    ];
    let mut terminal = open(&installation, &aws, &start)?;
    terminal.until("Starting session with SessionId: ")?;
    let session_id = terminal.until("\n")?.trim().to_owned();
    a_shell_behaves(&installation, &mut terminal)?;
    terminal.line("exit")?;
    terminal.until(&format!("Exiting session with sessionId: {session_id}."))?;
    assert!(terminal.exit_status()?.success());
    assert!(terminal.is_cooked()?, "the terminal is as it was before");
    let said = installation.log();
    assert!(
        !said.contains("INFO"),
        "`dev` is quiet while all is well: {said}"
    );
    Ok(())
}

#[test]
fn our_own_command_line_gets_a_shell_by_name() -> Result<()> {
    let installation = Installation::start()?;
    let listed = installation
        .command("sortie")?
        .args(["nodes", "--json"])
        .output()?;
    assert!(
        listed.status.success(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname")?;

    let mut terminal = open(&installation, "sortie", &["start", hostname.trim()])?;
    a_shell_behaves(&installation, &mut terminal)?;
    terminal.line("exit 7")?;
    assert_eq!(
        terminal.exit_status()?.code(),
        Some(7),
        "the remote shell's exit status is ours"
    );
    assert!(terminal.is_cooked()?, "the terminal is as it was before");
    Ok(())
}

#[test]
fn a_terminal_is_left_as_it_was_however_the_session_ends() -> Result<()> {
    let installation = Installation::start()?;
    let node_id = installation.fact("node_id");

    let mut left = open(&installation, "sortie", &["start", node_id])?;
    assert_eq!(ask(&mut left, "$((1 + 1))")?, "2");
    left.keys("\r~.")?;
    assert_eq!(
        left.exit_status()?.code(),
        Some(255),
        "leaving is not an exit of the remote shell"
    );
    assert!(left.is_cooked()?);

    let mut ended = open(&installation, "sortie", &["start", node_id])?;
    assert_eq!(ask(&mut ended, "$((1 + 1))")?, "2");
    // A state may be written after what it tells of was seen.
    let session_id = wait_for("a connected session", || {
        let sessions = installation
            .command("sortie")?
            .args(["sessions", "list", "--json"])
            .output()?;
        let sessions: serde_json::Value = serde_json::from_slice(&sessions.stdout)?;
        let live = sessions.as_array().context("a list")?;
        let connected = live.iter().find(|session| session["Status"] == "Connected");
        Ok(connected
            .and_then(|session| session["SessionId"].as_str())
            .map(str::to_owned))
    })?;
    let terminate = installation
        .command("sortie")?
        .args(["sessions", "terminate", &session_id])
        .output()?;
    assert!(
        terminate.status.success(),
        "{}",
        String::from_utf8_lossy(&terminate.stderr)
    );
    ended.until("ended by admin")?;
    assert_eq!(ended.exit_status()?.code(), Some(255));
    assert!(ended.is_cooked()?);
    Ok(())
}

#[test]
fn history_and_trail_say_who_did_what() -> Result<()> {
    let Some(aws) = aws() else {
        return skip("the AWS CLI");
    };
    let installation = Installation::start()?;
    let node_id = installation.fact("node_id").to_owned();
    let start = [
        "ssm",
        "start-session",
        "--target",
        &node_id,
        "--reason",
        "ticket 4711",
    ];
    let mut terminal = open(&installation, &aws.to_string_lossy(), &start)?;
    terminal.until("Starting session with SessionId: ")?;
    let session_id = terminal.until("\n")?.trim().to_owned();
    assert_eq!(ask(&mut terminal, "$((6 * 7))")?, "42");
    terminal.line("exit")?;
    assert!(terminal.exit_status()?.success());

    let session = wait_for("the session in the history", || {
        let history =
            installation.aws(&aws, &["ssm", "describe-sessions", "--state", "History"])?;
        let sessions = history["Sessions"].as_array().context("Sessions")?;
        Ok(sessions
            .iter()
            .find(|session| session["SessionId"] == session_id.as_str())
            .cloned())
    })?;
    assert_eq!(session["Target"], node_id.as_str());
    assert_eq!(session["Status"], "Terminated");
    assert_eq!(session["Reason"], "ticket 4711");
    let owner = session["Owner"].as_str().context("Owner")?;
    assert!(
        owner.starts_with("arn:aws:iam::") && owner.contains(":user/"),
        "{owner}"
    );
    assert!(session["StartDate"].as_str() <= session["EndDate"].as_str());
    assert!(!session["EndDate"].is_null());

    // A call with a wrong secret is refused, and that is in the trail too.
    let mut wrong = installation.command(&aws)?;
    wrong
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .args(["ssm", "describe-sessions", "--state"]);
    let refused = wrong.arg("Active").output()?;
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("InvalidSignatureException"), "{said}");

    let trail = installation.aws(&aws, &["cloudtrail", "lookup-events"])?;
    let events = trail["Events"].as_array().context("Events")?;
    let records = events
        .iter()
        .map(|event| {
            Ok(serde_json::from_str(
                event["CloudTrailEvent"].as_str().context("text")?,
            )?)
        })
        .collect::<Result<Vec<serde_json::Value>>>()?;
    let started = records
        .iter()
        .find(|record| record["eventName"] == "StartSession")
        .context("StartSession in the trail")?;
    assert_eq!(started["userIdentity"]["arn"], owner);
    assert_eq!(started["requestParameters"]["target"], node_id.as_str());
    assert_eq!(started["requestParameters"]["reason"], "ticket 4711");
    assert_eq!(
        started["responseElements"]["sessionId"],
        session_id.as_str()
    );
    let token = started["responseElements"]["tokenValue"].as_str();
    assert_eq!(token, Some("Value hidden due to security reasons."));
    assert!(
        records
            .iter()
            .any(|record| record["eventName"] == "DescribeSessions"
                && record["errorCode"] == "InvalidSignatureException"),
        "the refused call is in the trail"
    );
    Ok(())
}

#[test]
fn state_and_identity_survive_a_restart() -> Result<()> {
    let mut installation = Installation::start()?;
    let facts: Vec<String> = [
        "node_id",
        "account_id",
        "access_key_id",
        "secret_access_key",
        "endpoint",
        "https_endpoint",
    ]
    .map(|name| installation.fact(name).to_owned())
    .to_vec();
    assert!(facts.iter().all(|fact| !fact.is_empty()), "{facts:?}");
    installation.stop()?;
    installation.restart()?;
    let again: Vec<String> = [
        "node_id",
        "account_id",
        "access_key_id",
        "secret_access_key",
        "endpoint",
        "https_endpoint",
    ]
    .map(|name| installation.fact(name).to_owned())
    .to_vec();
    assert_eq!(facts, again);
    let mut terminal = open(
        &installation,
        "sortie",
        &["start", installation.fact("node_id")],
    )?;
    assert_eq!(ask(&mut terminal, "$((6 * 7))")?, "42");
    terminal.line("exit")?;
    assert_eq!(terminal.exit_status()?.code(), Some(0));
    Ok(())
}

#[test]
fn files_with_secrets_are_for_their_owner_alone() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let installation = Installation::start()?;
    for name in [
        "dev.json",
        "dev.env",
        "administrator.json",
        "server/root.key",
    ] {
        let mode = fs::metadata(installation.data_dir().join(name))
            .context(name)?
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
    let log = installation.log();
    assert!(
        !log.contains(installation.fact("secret_access_key")),
        "a secret is in the log"
    );
    Ok(())
}
