//! Tunnels in a pairing: many connections, an outage in the middle, a destination that is not there,
//! a raw connection, and what official agents cannot do.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sortie_testkit::{ClosedPort, wait_for};

use super::{Client, Node, Pairing};

/// How long an outage is: within what an official end survives.
const OUTAGE: Duration = Duration::from_millis(1500);
/// What official ends carry in about a second.
const MUCH: usize = 700_000;

/// Sends back so much, and ends. Both sides reach the same loopback.
fn echo() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || echo_one(connection));
        }
    });
    Ok(port)
}

/// The first eight bytes say how much comes, since not every end knows of half-close.
fn echo_one(mut connection: TcpStream) -> std::io::Result<()> {
    let mut length = [0; 8];
    connection.read_exact(&mut length)?;
    let mut left = usize::from_be_bytes(length);
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let most = buffer.len().min(left);
        let read = connection.read(&mut buffer[..most])?;
        if read == 0 {
            break;
        }
        connection.write_all(&buffer[..read])?;
        left -= read;
    }
    connection.shutdown(Shutdown::Write)
}

/// Bytes that show every loss, repeat and exchange, without the one that official clients change.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = length.to_be_bytes().to_vec();
    let body = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        match (state >> 33) as u8 {
            b'\n' => b'n',
            byte => byte,
        }
    });
    bytes.extend(body.take(length));
    bytes
}

/// Sends a pattern and compares what comes back.
fn exchange(port: u16, length: usize, seed: u64) -> Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    let sent = pattern(length, seed);
    let mut writer = connection.try_clone()?;
    let expected = sent[8..].to_vec();
    let writing = thread::spawn(move || writer.write_all(&sent));
    let mut got = vec![0; expected.len()];
    connection.read_exact(&mut got)?;
    writing.join().ok().context("the writer failed")??;
    ensure!(got == expected, "{length} bytes came back changed");
    Ok(())
}

fn exchanges(port: u16, lengths: &[usize]) -> Vec<JoinHandle<Result<()>>> {
    (0..)
        .zip(lengths.iter().copied())
        .map(|(seed, length)| thread::spawn(move || exchange(port, length, seed)))
        .collect()
}

fn all(exchanges: Vec<JoinHandle<Result<()>>>) -> Result<()> {
    for exchange in exchanges {
        exchange.join().ok().context("a connection failed")??;
    }
    Ok(())
}

/// A client that listens.
struct Tunnel {
    child: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Tunnel {
    fn open(pairing: &Pairing, port: u16) -> Result<Self> {
        let command = if pairing.client == Client::Sortie {
            pairing.forward(&[&format!("0:{port}")])?
        } else {
            let parameters = json!({"portNumber": [port.to_string()], "localPortNumber": ["0"]});
            pairing.document("AWS-StartPortForwardingSession", &parameters)?
        };
        Self::spawn(pairing, command)
    }

    fn spawn(pairing: &Pairing, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut tunnel = Self {
            child,
            output,
            port: 0,
        };
        tunnel.port = if pairing.client == Client::Sortie {
            let line: Value = serde_json::from_str(&tunnel.line("{")?)?;
            let address = line["listen"].as_str().context("no address")?;
            let (_, port) = address.rsplit_once(':').context("no port")?;
            port.parse()?
        } else {
            let line = tunnel.line("Port ")?;
            let port = line.split(' ').nth(1).context("no port")?;
            port.parse()?
        };
        Ok(tunnel)
    }

    fn line(&mut self, begin: &str) -> Result<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                bail!("the output ended before `{begin}`");
            }
            if line.starts_with(begin) {
                return Ok(line);
            }
        }
    }

    /// Ends it as Ctrl-C does, which the CLI leaves to its plugin.
    fn close(mut self, pairing: &Pairing) -> Result<()> {
        let process = if pairing.client == Client::Sortie {
            self.child.id()
        } else {
            plugin_of(self.child.id())?
        };
        let process = i32::try_from(process).ok().and_then(Pid::from_raw);
        kill_process(process.context("no process id")?, Signal::INT)?;
        let child = &mut self.child;
        let status = wait_for("the client to end", || Ok(child.try_wait()?))?;
        ensure!(status.success(), "the client ended with {status}");
        pairing.node_is_clean()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one child of the CLI.
fn plugin_of(cli: u32) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{cli}/task/{cli}/children"))?;
    let first = children.split_whitespace().next();
    Ok(first.context("the CLI runs no plugin")?.parse()?)
}

/// Several connections at once and after one another.
pub(crate) fn many(pairing: &mut Pairing) -> Result<()> {
    let tunnel = Tunnel::open(pairing, echo()?)?;
    all(exchanges(tunnel.port, &[1, 100_000, 1017, 30_000, 70_000]))?;
    all(exchanges(tunnel.port, &[2041, 5]))?;
    tunnel.close(pairing)
}

/// What is under way when the client's network breaks arrives all the same. Official clients end every
/// connection that sends meanwhile, so theirs is away while nothing is under way.
pub(crate) fn client_cut(pairing: &mut Pairing) -> Result<()> {
    let tunnel = Tunnel::open(pairing, echo()?)?;
    exchange(tunnel.port, 10, 1)?;
    let lengths: &[usize] = match pairing.client {
        Client::OfficialPlugin => &[],
        Client::OurPlugin | Client::Sortie => &[MUCH, MUCH / 2],
    };
    let under_way = exchanges(tunnel.port, lengths);
    thread::park_timeout(OUTAGE / 10);
    pairing.client_network.refuse();
    ensure!(pairing.client_network.cut() > 0, "nothing to cut");
    thread::park_timeout(OUTAGE);
    let before = pairing.client_network.accepted();
    pairing.client_network.pass();
    wait_for("the client to be back", || {
        let is_there = pairing.client_network.accepted() > before;
        let sessions = pairing.sessions("Active")?;
        let is_joined = sessions
            .iter()
            .all(|session| session["Status"] == "Connected");
        Ok((is_there && is_joined).then_some(()))
    })?;
    all(under_way)?;
    all(exchanges(tunnel.port, &[30_000, 5]))?;
    tunnel.close(pairing)
}

/// The client hears of it, and the tunnel goes on.
pub(crate) fn refused(pairing: &mut Pairing) -> Result<()> {
    let nobody = ClosedPort::take()?;
    let mut tunnel = Tunnel::open(pairing, nobody.port())?;
    for _ in 0..2 {
        let mut connection = TcpStream::connect(("127.0.0.1", tunnel.port))?;
        connection.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut got = Vec::new();
        // Broken or ended, as the client can.
        let read = connection.read_to_end(&mut got);
        let is_late = read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        ensure!(!is_late && got.is_empty(), "it is not refused");
    }
    if pairing.client != Client::Sortie {
        tunnel.line("Connection to destination port failed")?;
    }
    tunnel.close(pairing)
}

/// As ssh uses it: standard input and output are the connection.
pub(crate) fn raw(pairing: &mut Pairing) -> Result<()> {
    let port = echo()?;
    let mut command = if pairing.client == Client::Sortie {
        pairing.ssh(&["--stdio"], &port.to_string())?
    } else {
        let parameters = json!({"portNumber": [port.to_string()]});
        pairing.document("AWS-StartSSHSession", &parameters)?
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let sent = pattern(200_000, 6);
    let expected = sent[8..].to_vec();
    let mut input = child.stdin.take().context("no standard input")?;
    let writing = thread::spawn(move || {
        input.write_all(&sent)?;
        // Kept open: it is the far end that ends it.
        std::io::Result::Ok(input)
    });
    let mut output = child.stdout.take().context("no standard output")?;
    let mut got = Vec::new();
    output.read_to_end(&mut got)?;
    let input = writing.join().ok().context("the writer failed")??;
    let found = got
        .windows(expected.len())
        .position(|part| part == expected)
        .with_context(|| format!("{} bytes came back changed", got.len()))?;
    if pairing.client == Client::Sortie {
        ensure!(found == 0 && got.len() == expected.len(), "there is more");
    }
    let child = &mut child;
    wait_for("the client to end", || Ok(child.try_wait()?))?;
    drop(input);
    pairing.node_is_clean()
}

/// What no plugin has: destinations that a SOCKS client chooses, and ports that the node listens at.
/// Refused in words where the node is official, before anything starts; sockets there, too.
pub(crate) fn beyond(pairing: &mut Pairing) -> Result<()> {
    match pairing.node {
        Node::OurAgent => socks(pairing).and_then(|()| reverse(pairing)),
        Node::OfficialAgent => beyond_is_refused(pairing),
    }
}

fn socks(pairing: &mut Pairing) -> Result<()> {
    let port = echo()?;
    let command = pairing.forward(&["-D", "0"])?;
    let tunnel = Tunnel::spawn(pairing, command)?;
    let mut connection = TcpStream::connect(("127.0.0.1", tunnel.port))?;
    connection.write_all(&[5, 1, 0])?;
    connection.write_all(&[&[5, 1, 0, 1, 127, 0, 0, 1][..], &port.to_be_bytes()].concat())?;
    let mut answer = [0; 12];
    connection.read_exact(&mut answer)?;
    ensure!(answer[..4] == [5, 0, 5, 0], "{answer:?}");
    drop(connection);
    tunnel.close(pairing)
}

fn reverse(pairing: &mut Pairing) -> Result<()> {
    let port = echo()?;
    let there = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let command = pairing.forward(&["-R", &format!("{there}:127.0.0.1:{port}")])?;
    let tunnel = Tunnel::spawn(pairing, command)?;
    all(exchanges(tunnel.port, &[30_000, 5]))?;
    tunnel.close(pairing)
}

fn beyond_is_refused(pairing: &mut Pairing) -> Result<()> {
    let before = pairing.sessions("History")?.len();
    for arguments in [
        &["-D", "0"][..],
        &["-R", "9000:localhost:80"],
        &["0:/run/x.sock"],
    ] {
        let output = pairing.forward(arguments)?.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(255), "{output:?}");
        ensure!(said.contains("official"), "{said}");
    }
    ensure!(
        pairing.sessions("History")?.len() == before,
        "a session was started"
    );
    Ok(())
}
