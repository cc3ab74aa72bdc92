//! Tunnels with our own ends, and AWS's guides with the stock CLI and our plugin: what goes in comes
//! out, each direction ends by itself, what is refused is said, and nothing is left behind.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sortie_testkit::{ClosedPort, Installation, Proxy, Server, aws, program, skip, wait_for};

/// How long a socket of a test is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that accepts connections at a node, each served by `serve` in a thread of its own.
fn listen(
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let serve = serve.clone();
            // What becomes of a connection is seen by the other end.
            thread::spawn(move || serve(connection));
        }
    });
    Ok(port)
}

/// Sends everything back, and ends when the other end has.
fn echo(mut connection: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match connection.read(&mut buffer)? {
            0 => return connection.shutdown(Shutdown::Write),
            length => connection.write_all(&buffer[..length])?,
        }
    }
}

/// Reads to the end, and then answers with how much it was: only possible with half-close.
fn count(mut connection: TcpStream) -> std::io::Result<()> {
    let mut all = Vec::new();
    connection.read_to_end(&mut all)?;
    connection.write_all(format!("{} bytes", all.len()).as_bytes())
}

/// Bytes that show every loss, repeat and exchange.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    })
    .take(length)
    .collect()
}

/// Sends and receives at once over an echo, and compares.
fn exchange(connection: TcpStream, sent: Vec<u8>) -> Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut writer = connection.try_clone()?;
    let expected = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut got = Vec::new();
    (&connection).read_to_end(&mut got)?;
    writing.join().ok().context("the writer failed")??;
    ensure!(got == expected, "{} of {} bytes", got.len(), expected.len());
    Ok(())
}

/// `sortie forward --json` until it goes out of scope.
struct Forward {
    child: Child,
    _output: BufReader<ChildStdout>,
    addresses: Vec<String>,
    session_ids: Vec<String>,
    said: PathBuf,
}

impl Forward {
    fn start(installation: &Installation, arguments: &[&str], lines: usize) -> Result<Self> {
        let command = installation.command(program("sortie")?)?;
        Self::start_by(installation, command, arguments, lines)
    }

    fn start_by(
        installation: &Installation,
        mut command: Command,
        arguments: &[&str],
        lines: usize,
    ) -> Result<Self> {
        let said = tempfile::Builder::new()
            .prefix("forward-")
            .tempfile_in(installation.scratch())?
            .into_temp_path()
            .keep()?;
        command
            .args(["forward", "--json", installation.fact("node_id")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&said)?);
        let mut child = command.spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("no stdout")?);
        let (mut addresses, mut session_ids) = (Vec::new(), Vec::new());
        for _ in 0..lines {
            let mut line = String::new();
            output.read_line(&mut line)?;
            let told: Value = serde_json::from_str(&line)
                .with_context(|| fs::read_to_string(&said).unwrap_or_default())?;
            let word = |name: &str| told[name].as_str().context("a line without a member");
            addresses.push(word("listen")?.to_owned());
            session_ids.push(word("session_id")?.to_owned());
        }
        Ok(Self {
            child,
            _output: output,
            addresses,
            session_ids,
            said,
        })
    }

    fn connect(&self, listener: usize) -> Result<TcpStream> {
        let address: SocketAddr = self.addresses[listener].parse()?;
        let connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// As Ctrl-C does.
    fn interrupt(&mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::INT)?;
        let child = &mut self.child;
        let status = wait_for("sortie forward to end", || Ok(child.try_wait()?))?;
        ensure!(status.success(), "{status}: {}", self.said());
        Ok(())
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program of ours to its end and gives what it printed.
fn sortie(installation: &Installation, arguments: &[&str]) -> Result<String> {
    let output = installation
        .command(program("sortie")?)?
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn nothing_runs(installation: &Installation) -> Result<()> {
    wait_for("no session to be open", || {
        let listed = sortie(installation, &["sessions", "list", "--json"])?;
        let listed: Value = serde_json::from_str(&listed)?;
        Ok(listed.as_array().is_some_and(Vec::is_empty).then_some(()))
    })
}

#[test]
fn many_connections_each_direction_by_itself_and_a_clean_end() -> Result<()> {
    let installation = Installation::start()?;
    let (echoes, counts) = (listen(echo)?, listen(count)?);
    let (to_echo, to_count) = (format!("0:{echoes}"), format!("0:localhost:{counts}"));
    // The same destination twice is one session.
    let mut forward = Forward::start(&installation, &[&to_echo, &to_count, &to_echo], 3)?;
    ensure!(
        forward.session_ids[0] == forward.session_ids[1],
        "{:?}",
        forward.session_ids
    );
    ensure!(forward.session_ids[0] != forward.session_ids[2]);

    let connections = (0..60)
        .map(|number| {
            let connection = forward.connect(usize::from(number % 2 == 1))?;
            let length = [1, 100_000, 0, 3_000_000, 7][number % 5];
            Ok(thread::spawn(move || {
                exchange(connection, pattern(length, number as u64))
            }))
        })
        .collect::<Result<Vec<_>>>()?;
    for connection in connections {
        connection.join().ok().context("a connection failed")??;
    }

    let mut connection = forward.connect(2)?;
    connection.write_all(&pattern(500_000, 3))?;
    connection.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    ensure!(answer == "500000 bytes", "{answer}");

    // Open connections do not hold it.
    let held = forward.connect(0)?;
    forward.interrupt()?;
    let mut rest = Vec::new();
    let _ = (&held).read_to_end(&mut rest);
    ensure!(rest.is_empty());
    nothing_runs(&installation)
}

#[test]
fn a_port_where_nobody_listens_breaks_the_connection_and_is_told_once() -> Result<()> {
    let installation = Installation::start()?;
    let nobody = ClosedPort::take()?;
    let mut forward = Forward::start(&installation, &[&format!("0:{}", nobody.port())], 1)?;
    for _ in 0..20 {
        let mut connection = forward.connect(0)?;
        let mut got = Vec::new();
        let broken = connection.read_to_end(&mut got).is_err();
        ensure!(broken && got.is_empty(), "an orderly end, or an answer");
    }
    wait_for("the reason", || {
        Ok(forward.said().contains("refused").then_some(()))
    })?;
    ensure!(forward.said().lines().count() == 1, "{}", forward.said());
    forward.interrupt()
}

/// A SOCKS client: what it asks for, and the connection with the answer's code.
fn socks(forward: &Forward, request: &[u8]) -> Result<(TcpStream, u8)> {
    let mut connection = forward.connect(0)?;
    connection.write_all(&[5, 1, 0])?;
    let mut method = [0; 2];
    connection.read_exact(&mut method)?;
    ensure!(method == [5, 0], "{method:?}");
    connection.write_all(&[&[5, 1, 0], request].concat())?;
    let mut answer = [0; 10];
    connection.read_exact(&mut answer)?;
    Ok((connection, answer[1]))
}

#[test]
fn a_socks_client_goes_where_it_wants_and_hears_why_not() -> Result<()> {
    let installation = Installation::start()?;
    let port = listen(echo)?.to_be_bytes();
    let nobody = ClosedPort::take()?;
    let mut forward = Forward::start(&installation, &["-D", "0"], 1)?;
    let name =
        |name: &str, port: [u8; 2]| [&[3, name.len() as u8], name.as_bytes(), &port[..]].concat();
    for request in [
        name("localhost", port),
        [&[1, 127, 0, 0, 1][..], &port].concat(),
    ] {
        let (connection, code) = socks(&forward, &request)?;
        ensure!(code == 0, "{code}");
        exchange(connection, pattern(300_000, 5))?;
    }
    for (request, expected) in [
        (name("localhost", nobody.port().to_be_bytes()), 5),
        (name("no-such-host.invalid", port), 4),
    ] {
        let (_, code) = socks(&forward, &request)?;
        ensure!(code == expected, "{code} for {request:?}");
    }
    forward.interrupt()?;
    nothing_runs(&installation)
}

#[test]
fn the_node_listens_for_this_machine_and_unix_sockets_work_on_both_sides() -> Result<()> {
    let installation = Installation::start()?;
    let folder = installation.scratch();
    let here = listen(echo)?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let node_socket = folder.join("node.sock");
    let (local_socket, far_socket) = (folder.join("local.sock"), folder.join("far.sock"));
    let far = UnixListener::bind(&far_socket)?;
    thread::spawn(move || {
        for connection in far.incoming().flatten() {
            thread::spawn(move || {
                let mut text = String::new();
                (&connection).read_to_string(&mut text)?;
                (&connection).write_all(text.to_uppercase().as_bytes())
            });
        }
    });
    // A socket that somebody left behind is no obstacle.
    drop(UnixListener::bind(&local_socket)?);
    let arguments = [
        format!("{}:{}", local_socket.display(), far_socket.display()),
        "-R".to_owned(),
        format!("{free}:localhost:{here}"),
        "-R".to_owned(),
        format!("{}:127.0.0.1:{here}", node_socket.display()),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut forward = Forward::start(&installation, &arguments, 3)?;
    ensure!(
        forward.addresses[1] == format!("localhost:{free}"),
        "{:?}",
        forward.addresses
    );

    let metadata = fs::symlink_metadata(&local_socket)?;
    ensure!(metadata.file_type().is_socket() && metadata.permissions().mode() & 0o77 == 0);
    let mut connection = UnixStream::connect(&local_socket)?;
    connection.write_all(b"over two sockets")?;
    connection.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    ensure!(answer == "OVER TWO SOCKETS", "{answer}");

    exchange(
        TcpStream::connect(("127.0.0.1", free))?,
        pattern(700_000, 8),
    )?;
    let mut connection = UnixStream::connect(&node_socket)?;
    connection.write_all(b"hello")?;
    connection.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    ensure!(answer == b"hello");

    forward.interrupt()?;
    ensure!(!local_socket.exists(), "the local socket is left");
    nothing_runs(&installation)?;
    wait_for("the node's socket to be removed", || {
        Ok((!node_socket.exists()).then_some(()))
    })
}

#[test]
fn connections_survive_a_network_that_breaks_again_and_again() -> Result<()> {
    let installation = Installation::start()?;
    let network = Proxy::to_url(installation.fact("endpoint"))?;
    let mut command = installation.command(program("sortie")?)?;
    command.env("AWS_ENDPOINT_URL", format!("http://{}", network.address()));
    let port = format!("0:{}", listen(echo)?);
    let mut forward = Forward::start_by(&installation, command, &[&port], 1)?;
    let connections = (0..4)
        .map(|seed| {
            let connection = forward.connect(0)?;
            Ok(thread::spawn(move || {
                exchange(connection, pattern(12_000_000, seed))
            }))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut cuts = 0;
    while connections
        .iter()
        .any(|connection| !connection.is_finished())
        && cuts < 12
    {
        cuts += usize::from(network.cut() > 0);
        wait_for("the client to be back", || {
            let is_done = connections.iter().all(thread::JoinHandle::is_finished);
            Ok((is_done || network.open() > 0).then_some(()))
        })?;
    }
    for connection in connections {
        connection.join().ok().context("a connection failed")??;
    }
    ensure!(cuts > 1, "the network broke {cuts} times");
    forward.interrupt()
}

// ---- AWS's guides, with the stock CLI and our plugin ----

/// The port if it is free here, else any.
fn this_or_any(port: u16) -> Result<u16> {
    let listener =
        TcpListener::bind(("127.0.0.1", port)).or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
    Ok(listener.local_addr()?.port())
}

/// `aws ssm start-session` that listens, until it goes out of scope.
struct Guide {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Guide {
    fn start(installation: &Installation, aws: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = installation.command(aws)?;
        command
            .args([
                "ssm",
                "start-session",
                "--target",
                installation.fact("node_id"),
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        // A process group of its own, as a terminal gives it: Ctrl-C is for all of it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let output = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { child, output })
    }

    /// Reads up to a line that begins so, and gives it.
    fn until(&mut self, begin: &str) -> Result<String> {
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

    fn interrupt(&mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process_group(pid.context("no process id")?, Signal::INT)?;
        let child = &mut self.child;
        wait_for("the CLI to end", || Ok(child.try_wait()?))?;
        Ok(())
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn the_guides_forward_a_port_of_the_node_and_of_another_host() -> Result<()> {
    let Some(aws) = aws() else {
        return skip("the AWS CLI");
    };
    let installation = Installation::start()?;
    let far = this_or_any(80)?;
    let listener = TcpListener::bind(("127.0.0.1", far))?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || echo(connection));
        }
    });
    let local = this_or_any(8080)?;
    let to_node = format!(r#"{{"portNumber":["{far}"],"localPortNumber":["{local}"]}}"#);
    let to_host =
        format!(r#"{{"host":["localhost"],"portNumber":["{far}"],"localPortNumber":["{local}"]}}"#);
    for (document, parameters) in [
        ("AWS-StartPortForwardingSession", to_node),
        ("AWS-StartPortForwardingSessionToRemoteHost", to_host),
    ] {
        let mut guide = Guide::start(
            &installation,
            &aws,
            &["--document-name", document, "--parameters", &parameters],
        )?;
        let opened = guide.until("Port ")?;
        ensure!(
            opened.starts_with(&format!("Port {local} opened for sessionId ")),
            "{opened}"
        );
        guide.until("Waiting for connections...")?;
        let connections = (0..5)
            .map(|seed| {
                let connection = TcpStream::connect(("localhost", local))?;
                Ok(thread::spawn(move || {
                    exchange(connection, pattern(200_000, seed))
                }))
            })
            .collect::<Result<Vec<_>>>()?;
        for connection in connections {
            connection.join().ok().context("a connection failed")??;
        }
        guide.until("Connection accepted for session [")?;
        guide.interrupt()?;
        nothing_runs(&installation)?;
    }
    Ok(())
}

/// An sshd of this test's own, with keys of its own.
struct Sshd {
    _process: Server,
    port: u16,
    folder: PathBuf,
}

impl Sshd {
    /// `None` where OpenSSH is not installed.
    fn start(folder: &Path) -> Result<Option<Self>> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.is_file() {
            return Ok(None);
        }
        let folder = folder.join("sshd");
        fs::create_dir_all(&folder)?;
        // Whoever runs the tests as root needs it.
        let _ = fs::create_dir_all("/run/sshd");
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key))
                .status()?;
            ensure!(made.success(), "ssh-keygen: {made}");
        }
        fs::copy(folder.join("user.pub"), folder.join("authorized"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nPidFile none\n\
             AuthorizedKeysFile {0}/authorized\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin yes\n",
            folder.display()
        );
        fs::write(folder.join("config"), settings)?;
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f"]).arg(folder.join("config"));
        let process = Server::spawn(&mut command, folder.join("log"))?;
        wait_for("sshd to listen", || {
            Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
        })?;
        Ok(Some(Self {
            _process: process,
            port,
            folder,
        }))
    }

    /// ssh's options for this one, with a file of known hosts of the test's own.
    fn options(&self) -> Vec<String> {
        let folder = self.folder.display();
        let mut options = vec!["-p".to_owned(), self.port.to_string()];
        for option in [
            format!("IdentityFile={folder}/user"),
            format!("UserKnownHostsFile={folder}/known"),
            "StrictHostKeyChecking=accept-new".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "BatchMode=yes".to_owned(),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        options
    }
}

fn user() -> Result<String> {
    let said = Command::new("id").arg("-un").output()?;
    Ok(String::from_utf8(said.stdout)?.trim().to_owned())
}

#[test]
fn ssh_runs_by_the_guides_proxy_command_and_by_ours() -> Result<()> {
    let installation = Installation::start()?;
    let Some(sshd) = Sshd::start(installation.scratch())? else {
        return skip("sshd");
    };
    let node_id = installation.fact("node_id").to_owned();
    let user = user()?;
    // Enough that its end is lost if the session ends before its output.
    let work = ["head", "-c", "3000000", "/dev/zero"];
    let check = |name: &str, command: &mut Command| -> Result<()> {
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name}: {}: {said}", output.status);
        ensure!(
            output.stdout.len() == 3_000_000,
            "{name}: {} bytes: {said}",
            output.stdout.len()
        );
        Ok(())
    };

    if let Some(aws) = aws() {
        // As AWS's guide has it for ~/.ssh/config.
        let proxy = format!(
            "ProxyCommand=sh -c \"{} ssm start-session --target %h --document-name \
             AWS-StartSSHSession --parameters 'portNumber=%p'\"",
            aws.display()
        );
        let mut ssh = installation.command("ssh")?;
        ssh.args(sshd.options()).args(["-o", &proxy]);
        ssh.arg(format!("{user}@{node_id}")).args(work);
        check("the guide", &mut ssh)?;
    } else {
        skip("the AWS CLI")?;
    }

    let mut ssh = installation.command(program("sortie")?)?;
    ssh.args(["ssh", &format!("{user}@{node_id}")])
        .args(sshd.options())
        .args(work);
    check("sortie ssh", &mut ssh)?;

    let config = installation.scratch().join("ssh_config");
    let written = ["ssh-config", "--write", "--file"];
    let mut write = installation.command(program("sortie")?)?;
    ensure!(write.args(written).arg(&config).status()?.success());
    let mut ssh = installation.command("ssh")?;
    ssh.arg("-F").arg(&config).args(sshd.options());
    ssh.arg(format!("{user}@{node_id}")).args(work);
    check("ssh-config", &mut ssh)?;

    // ssh's own status, and one that the command was killed with.
    let mut ssh = installation.command(program("sortie")?)?;
    ssh.args(["ssh", &node_id, "-l", &user])
        .args(sshd.options())
        .args(["exit", "42"]);
    let status = ssh.stdin(Stdio::null()).status()?;
    ensure!(status.code() == Some(42), "{status}");
    nothing_runs(&installation)
}

#[test]
fn a_proxy_command_that_finds_nobody_says_why_and_prints_nothing_else() -> Result<()> {
    let installation = Installation::start()?;
    let nobody = ClosedPort::take()?;
    let output = installation
        .command(program("sortie")?)?
        .args([
            "ssh",
            "--stdio",
            installation.fact("node_id"),
            &nobody.port().to_string(),
        ])
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.code() == Some(255), "{output:?}");
    ensure!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("refused"), "{said}");
    Ok(())
}
