//! `sortie ssh`: OpenSSH over a session, and the ProxyCommand that it runs for that.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::ExitStatusExt,
    time::Duration,
};

use bytes::Bytes;
use sortie_client::{
    Api, PortSession,
    data_channel::{self, End},
    ports::{Begun, Event, PortReader, PortStream, PortWriter},
};
use sortie_wire::shapes::ssm::StartSessionRequest;
use tokio::process::Command;

use crate::{
    FAILURE,
    arguments::{Connection, Ssh},
    error::CommandError,
    nodes, output,
    shell::Signals,
    start,
    stdio::{Input, Output, Stream},
};

/// What host names of the ssh configuration begin with that are names of nodes.
pub(crate) const NAME_PREFIX: &str = "sortie-";

/// The port of ssh.
const SSH_PORT: &str = "22";

/// How long the session may take to end by itself behind its stream.
const END_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) async fn run(
    api: &Api,
    arguments: &Ssh,
    connection: &Connection,
) -> Result<u8, CommandError> {
    if arguments.stdio {
        let port = arguments.arguments.first().map(OsString::as_os_str);
        let port = port.unwrap_or(OsStr::new(SSH_PORT)).to_string_lossy();
        return proxy(api, &arguments.node, &port).await;
    }
    let (user, node) = match arguments.node.rsplit_once('@') {
        Some((user, node)) => (Some(user), node),
        None => (None, arguments.node.as_str()),
    };
    if node.is_empty() || node.starts_with('-') {
        return Err(CommandError::UnknownNode(node.to_owned()));
    }
    let node_id = nodes::resolve(api, node).await?;
    let proxy = proxy_command(connection, &node_id)?;
    let mut command = Command::new("ssh");
    command
        .args(["-o", &format!("ProxyCommand={proxy}")])
        .args(["-o", &format!("HostKeyAlias={node_id}")]);
    if let Some(user) = user {
        command.args(["-l", user]);
    }
    command.arg(node).args(&arguments.arguments);
    run_ssh(command).await
}

/// Runs ssh in this one's place: signals of the keyboard are ssh's alone.
async fn run_ssh(mut command: Command) -> Result<u8, CommandError> {
    let mut signals =
        Signals::new().map_err(|error| CommandError::io("wait for signals", error))?;
    let mut child = command
        .spawn()
        .map_err(|error| CommandError::io("run ssh, which has to be installed", error))?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = signals.next() => {}
        }
    };
    let status = status.map_err(|error| CommandError::io("wait for ssh", error))?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|number| 128 + number));
    Ok(code.map_or(FAILURE, |code| code.rem_euclid(256) as u8))
}

/// The line that ssh runs for a connection to `host`, which may be one of ssh's tokens.
fn proxy_command(connection: &Connection, host: &str) -> Result<String, CommandError> {
    let program =
        std::env::current_exe().map_err(|error| CommandError::io("find this program", error))?;
    let mut words = vec![program.into_os_string()];
    words.extend(connection.as_arguments());
    words.extend(["ssh", "--stdio"].map(OsString::from));
    let mut line = String::new();
    for word in &words {
        let word = word
            .to_str()
            .ok_or_else(|| CommandError::Usage(format!("{} is no text", word.to_string_lossy())))?;
        line.push_str(&quoted(word));
        line.push(' ');
    }
    Ok(format!("{line}{host} %p"))
}

/// The ProxyCommand of a configuration file, for whatever host ssh is called with.
pub(crate) fn proxy_line(connection: &Connection) -> Result<String, CommandError> {
    // ssh puts into the shell's line whatever somebody wrote as the host, or a file that they fetched.
    proxy_command(connection, "'%h'")
}

/// A word for the shell that ssh runs its command with, and past ssh's own tokens.
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@,+%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

// ---- the ProxyCommand ----

/// Standard input and output are a connection to a port of the node. Nothing else goes to standard
/// output.
async fn proxy(api: &Api, node: &str, port: &str) -> Result<u8, CommandError> {
    let target = resolve_host(api, node).await?;
    let request = StartSessionRequest {
        target,
        document_name: Some("AWS-StartSSHSession".to_owned()),
        parameters: Some([("portNumber".to_owned(), vec![port.to_owned()])].into()),
        reason: None,
    };
    let session = start::open(api, &request).await?;
    let session_id = session.session_id.clone();
    let options = data_channel::Options::default();
    let session = PortSession::open(session, api.clone(), api.tls(), options);
    let outcome = carry_stdio(session, None)
        .await
        .map_err(|error| CommandError::io("use standard input and output", error))?;
    if !matches!(outcome.end, Some(End::Closed { .. } | End::TimedOut)) {
        start::terminate(api, &session_id).await;
    }
    match outcome.failure {
        None => Ok(0),
        Some(reason) => {
            let reason = output::plain(&reason);
            output::error_line(&format!("sortie: {node} port {port}: {reason}"));
            Ok(FAILURE)
        }
    }
}

/// The node of a host name in ssh's configuration.
async fn resolve_host(api: &Api, host: &str) -> Result<String, CommandError> {
    match nodes::resolve(api, host).await {
        Err(CommandError::UnknownNode(_)) if host.starts_with(NAME_PREFIX) => {
            nodes::resolve(api, host.strip_prefix(NAME_PREFIX).unwrap_or(host)).await
        }
        resolved => resolved,
    }
}

/// What came of a connection over standard input and output.
pub(crate) struct Outcome {
    /// How the session ended, unless it was left before.
    pub(crate) end: Option<End>,
    /// Why the connection failed, if it did.
    pub(crate) failure: Option<String>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
}

/// Joins standard input and output with the one stream of a session, until the node has ended its
/// direction or a signal comes. `begun` is what is known of a session that has begun.
pub(crate) async fn carry_stdio(
    mut session: PortSession,
    begun: Option<Begun>,
) -> io::Result<Outcome> {
    let mut signals = Signals::new()?;
    let signal = tokio::select! {
        carried = carry(&mut session, begun) => return carried,
        number = signals.next_ending() => number,
    };
    Ok(Outcome {
        end: close(session).await,
        failure: None,
        signal: Some(signal),
    })
}

async fn carry(session: &mut PortSession, begun: Option<Begun>) -> io::Result<Outcome> {
    let over = |end: End| Outcome {
        failure: failure(&end),
        end: Some(end),
        signal: None,
    };
    if begun.is_none()
        && let Some(end) = wait_begun(session).await
    {
        return Ok(over(end));
    }
    let stream = match session.connector().open_own() {
        Ok(stream) => stream,
        Err(error) => {
            return Ok(Outcome {
                end: None,
                failure: Some(error.to_string()),
                signal: None,
            });
        }
    };
    let mut spliced = std::pin::pin!(splice_stdio(stream));
    let result = loop {
        tokio::select! {
            result = &mut spliced => break result?,
            event = session.next() => match event {
                None => return Ok(over(End::Left)),
                // The stream ends with it, behind what has come.
                Some(Event::Ended(end)) => {
                    let failure = spliced.await?.and_then(|broken| why(&broken, &end));
                    return Ok(Outcome { end: Some(end), failure, signal: None });
                }
                Some(_) => {}
            },
        }
    };
    // A session of one stream ends by itself, and the node tells why it did.
    session.close();
    let ended = async {
        loop {
            match session.next().await {
                Some(Event::Ended(end)) => return Some(end),
                Some(_) => {}
                None => return None,
            }
        }
    };
    let end = tokio::time::timeout(END_TIMEOUT, ended)
        .await
        .ok()
        .flatten();
    Ok(Outcome {
        end,
        failure: result.map(|broken| broken.to_string()),
        signal: None,
    })
}

/// Why a stream failed whose session is over. One that was cut off by that alone failed as the session
/// did: official agents tell the end of a connection in no other way. What it was told before stands.
fn why(broken: &io::Error, end: &End) -> Option<String> {
    if broken.kind() == io::ErrorKind::ConnectionAborted {
        return failure(end);
    }
    Some(broken.to_string())
}

async fn wait_begun(session: &mut PortSession) -> Option<End> {
    loop {
        match session.next().await {
            Some(Event::Begun(_)) => return None,
            Some(Event::Ended(end)) => return Some(end),
            Some(_) => {}
            None => return Some(End::Left),
        }
    }
}

/// Ends a session that the person leaves.
pub(crate) async fn close(mut session: PortSession) -> Option<End> {
    session.close();
    let ended = async {
        loop {
            match session.next().await {
                Some(Event::Ended(end)) => return Some(end),
                Some(_) => {}
                None => return None,
            }
        }
    };
    tokio::time::timeout(END_TIMEOUT, ended)
        .await
        .ok()
        .flatten()
}

fn failure(end: &End) -> Option<String> {
    match end {
        End::Closed { output } if output.is_empty() => None,
        End::Closed { output } => Some(output.clone()),
        End::Left => None,
        End::Lost { reason } | End::Refused { reason } => Some(reason.clone()),
        End::TimedOut => Some("the session ended while the connection was away".to_owned()),
    }
}

/// Moves bytes between a stream and standard input and output until the node has ended its direction; says
/// why the stream failed, if it did.
async fn splice_stdio(stream: PortStream) -> io::Result<Option<io::Error>> {
    let output = Output::start()?;
    let input = Input::start()?;
    let (reader, writer) = stream.into_split();
    let failure = tokio::select! {
        failure = download(reader, &output) => failure,
        never = upload(input, writer) => match never {},
    };
    output.finish().await;
    Ok(failure)
}

/// Sends the input and its end. Never returns: the other direction tells what comes of it.
async fn upload(mut input: Input, mut writer: PortWriter) -> std::convert::Infallible {
    while let Some(piece) = input.next().await {
        if writer.send(piece).await.is_err() {
            return std::future::pending().await;
        }
    }
    writer.finish();
    std::future::pending().await
}

async fn download(mut reader: PortReader, output: &Output) -> Option<io::Error> {
    loop {
        let piece: Bytes = match reader.piece().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return None,
            Err(error) => return Some(error),
        };
        if output.put((Stream::Stdout, piece)).await.is_err() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_pass_the_shell_and_ssh_unchanged() {
        for (word, expected) in [
            ("/usr/bin/sortie", "/usr/bin/sortie"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("100%", "100%%"),
            ("$(x)", "'$(x)'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
