//! Real programs through tunnels: a database under load, a web server with many connections, OpenSSH
//! with what is built on it, Ansible. What is carried is compared; the programs judge the rest.
//!
//! Each needs a server program of the distribution on this machine and is skipped visibly without.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sortie_testkit::{Installation, Server, ansible_playbook, program, skip, wait_for};

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `sortie forward` with its listeners, until it goes out of scope.
struct Forward {
    child: Child,
    _lines: BufReader<ChildStdout>,
    addresses: Vec<String>,
}

impl Forward {
    fn start(installation: &Installation, specs: &[&str]) -> Result<Self> {
        let mut command = installation.command(program("sortie")?)?;
        command
            .args(["forward", "--json", installation.fact("node_id")])
            .args(specs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut addresses = Vec::new();
        for _ in specs {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            let told: Value = serde_json::from_str(&line)
                .with_context(|| format!("sortie forward said {line:?}"))?;
            let address = told["listen"].as_str().context("no address")?;
            addresses.push(address.to_owned());
        }
        Ok(Self {
            child,
            _lines: lines,
            addresses,
        })
    }

    fn port(&self) -> Result<&str> {
        let (_, port) = self.addresses[0].rsplit_once(':').context("no port")?;
        Ok(port)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and gives what it wrote.
fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    Ok(text(&output.stdout))
}

/// Where Debian keeps programs that are not in everybody's `PATH`.
fn server_program(name: &str) -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    folders.push("/usr/sbin".into());
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    let mut places = folders.into_iter().map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

/// Who runs a database: PostgreSQL refuses root.
struct Owner {
    runuser: bool,
}

impl Owner {
    fn of(folder: &Path) -> Result<Self> {
        let runuser = rustix::process::geteuid().is_root();
        if runuser {
            let id = |option: &str| -> Result<u32> {
                let said = run(Command::new("id").args([option, "postgres"]))?;
                Ok(said.trim().parse()?)
            };
            chown(folder, Some(id("-u")?), Some(id("-g")?))?;
        }
        Ok(Self { runuser })
    }

    fn command(&self, program: &Path) -> Command {
        if !self.runuser {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    }
}

/// PostgreSQL in a folder of its own, on a port of its own.
struct Database {
    _server: Server,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Database {
    fn start(initdb: &Path, postgres: &Path) -> Result<Self> {
        let folder = tempfile::TempDir::new()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        let owner = Owner::of(&data)?;
        let mut make = owner.command(initdb);
        make.args(["--auth=trust", "--username=postgres", "--no-sync", "-D"]);
        run(make.arg(&data).current_dir("/"))?;
        let port = free_port()?;
        let mut serve = owner.command(postgres);
        serve.arg("-D").arg(&data).current_dir("/").args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=off",
        ]);
        let server = Server::spawn(&mut serve, folder.path().join("postgres.log"))?;
        // It listens before it takes anybody.
        wait_for("PostgreSQL", || {
            let is_ready = server.log().contains("ready to accept connections");
            Ok(is_ready.then_some(()))
        })
        .with_context(|| server.log())?;
        Ok(Self {
            _server: server,
            port,
            _folder: folder,
        })
    }
}

#[test]
fn postgresql_takes_the_load_of_pgbench_through_a_tunnel() -> Result<()> {
    let found = ["initdb", "postgres", "pgbench"].map(server_program);
    let [Some(initdb), Some(postgres), Some(pgbench)] = found else {
        return skip("PostgreSQL with pgbench");
    };
    let database = Database::start(&initdb, &postgres)?;
    let installation = Installation::start()?;
    let forward = Forward::start(&installation, &[&format!("0:{}", database.port)])?;
    let pgbench = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(&pgbench);
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", forward.port()?]);
        run(command.args(arguments).arg("postgres"))
    };
    pgbench(&["-i", "-s", "1", "-q"])?;
    // Every client connects anew for each transaction in the second run.
    let kept = pgbench(&["-c", "16", "-j", "2", "-t", "50"])?;
    ensure!(kept.contains("actually processed: 800/800"), "{kept}");
    let anew = pgbench(&["-c", "8", "-j", "2", "-t", "10", "-C", "-S"])?;
    ensure!(anew.contains("actually processed: 80/80"), "{anew}");
    Ok(())
}

/// Connections that a browser or a load test holds open at once.
const CONNECTIONS: usize = 200;
const REQUESTS: usize = 5;

/// Python's own, which by itself keeps no connection and lets five wait to be accepted.
const WEB_SERVER: &str = "
import http.server, sys
http.server.ThreadingHTTPServer.request_queue_size = 256
http.server.SimpleHTTPRequestHandler.protocol_version = 'HTTP/1.1'
place = ('127.0.0.1', int(sys.argv[1]))
http.server.ThreadingHTTPServer(place, http.server.SimpleHTTPRequestHandler).serve_forever()
";

#[test]
fn a_web_server_is_read_over_two_hundred_connections_that_are_kept() -> Result<()> {
    let installation = Installation::start()?;
    let site = installation.scratch().join("site");
    fs::create_dir(&site)?;
    let page = pseudo_random(40_000, 7);
    fs::write(site.join("page"), &page)?;
    let port = free_port()?;
    let mut serve = Command::new("python3");
    serve.args(["-c", WEB_SERVER, &port.to_string()]);
    serve.current_dir(&site);
    let server = Server::spawn(&mut serve, installation.scratch().join("web.log"))?;
    wait_for("the web server", || {
        Ok(TcpStream::connect(("127.0.0.1", port))
            .is_ok()
            .then_some(()))
    })
    .with_context(|| server.log())?;
    let forward = Forward::start(&installation, &[&format!("0:localhost:{port}")])?;
    let address = forward.addresses[0].clone();
    // All are open before the first is used.
    let connections = (0..CONNECTIONS)
        .map(|_| Ok(TcpStream::connect(&address)?))
        .collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let readers: Vec<_> = connections
            .into_iter()
            .map(|connection| scope.spawn(|| read_pages(connection, &page)))
            .collect();
        readers.into_iter().try_for_each(|reader| {
            reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))?
        })
    })
}

fn read_pages(connection: TcpStream, page: &[u8]) -> Result<()> {
    connection.set_read_timeout(Some(sortie_testkit::PATIENCE))?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut connection = connection;
    for _ in 0..REQUESTS {
        connection.write_all(b"GET /page HTTP/1.1\r\nHost: here\r\n\r\n")?;
        let mut length = None;
        loop {
            let mut line = String::new();
            ensure!(reader.read_line(&mut line)? > 0, "the connection ended");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        ensure!(length == Some(page.len()), "a page of {length:?} bytes");
        let mut body = vec![0; page.len()];
        reader.read_exact(&mut body)?;
        ensure!(body == page, "another page came");
    }
    Ok(())
}

/// Bytes that do not compress and are the same for the same seed.
fn pseudo_random(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes
}

/// An sshd of its own, for the account that runs the test, and the client's configuration for it.
struct Ssh {
    _server: Server,
    config: PathBuf,
    host: String,
}

impl Ssh {
    fn start(installation: &Installation, sshd: &Path) -> Result<Self> {
        let folder = installation.scratch().join("ssh");
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        // What sshd changes to before it knows who is there.
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd")?;
        }
        for name in ["host", "user"] {
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            run(make.arg(folder.join(name)))?;
        }
        fs::copy(folder.join("user.pub"), folder.join("authorized_keys"))?;
        let port = free_port()?;
        let at = folder.display();
        let server_config = folder.join("sshd_config");
        fs::write(
            &server_config,
            format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host\nPidFile none\n\
                 AuthorizedKeysFile {at}/authorized_keys\nStrictModes no\nUsePAM no\n\
                 PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
                 Subsystem sftp internal-sftp\n"
            ),
        )?;
        let mut serve = Command::new(sshd);
        serve.args(["-D", "-e", "-f"]).arg(&server_config);
        let server = Server::spawn(&mut serve, folder.join("sshd.log"))?;
        wait_for("sshd", || {
            Ok(TcpStream::connect(("127.0.0.1", port))
                .is_ok()
                .then_some(()))
        })
        .with_context(|| server.log())?;
        let host = installation.fact("node_id").to_owned();
        let config = folder.join("config");
        let mut print = installation.command(program("sortie")?)?;
        let block = run(print.arg("ssh-config"))?;
        fs::write(
            &config,
            format!(
                "{block}\nHost *\n    Port {port}\n    IdentityFile {at}/user\n    \
                 IdentitiesOnly yes\n    UserKnownHostsFile {at}/known_hosts\n    \
                 StrictHostKeyChecking accept-new\n    BatchMode yes\n"
            ),
        )?;
        Ok(Self {
            _server: server,
            config,
            host,
        })
    }

    fn command(&self, installation: &Installation, program: &str) -> Result<Command> {
        let mut command = installation.command(program)?;
        command.arg("-F").arg(&self.config);
        Ok(command)
    }
}

/// A tree of 64 MiB: a large file, many small ones, names that need care.
fn plant(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("many"))?;
    fs::create_dir_all(root.join("a b"))?;
    fs::write(root.join("large"), pseudo_random(60 << 20, 1))?;
    for number in 0..400_u64 {
        let name = format!("many/file-{number}");
        fs::write(root.join(name), pseudo_random(10 << 10, number + 2))?;
    }
    fs::write(root.join("a b/it's \"quoted\""), b"\n")?;
    fs::write(root.join("a b/empty"), b"")?;
    Ok(())
}

/// What is in a tree: each file's place and checksum, by a program that is not ours.
fn checksums(root: &Path) -> Result<String> {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "cd \"$1\" && find . -type f -print0 | sort -z | xargs -0 sha256sum",
        "sh",
    ]);
    run(command.arg(root))
}

#[test]
fn openssh_scp_and_rsync_carry_a_tree_unchanged() -> Result<()> {
    let (Some(sshd), Some(_), Some(_)) = (
        server_program("sshd"),
        server_program("rsync"),
        server_program("scp"),
    ) else {
        return skip("OpenSSH's server and rsync");
    };
    let installation = Installation::start()?;
    let ssh = Ssh::start(&installation, &sshd)?;
    let scratch = installation.scratch();
    let tree = scratch.join("tree");
    plant(&tree)?;
    let planted = checksums(&tree)?;

    let mut uname = ssh.command(&installation, "ssh")?;
    let said = run(uname.args([&ssh.host, "echo through the tunnel; exit 0"]))?;
    ensure!(said == "through the tunnel\n", "{said:?}");

    for (name, to) in [("scp", "by-scp"), ("sftp-less scp", "by-old-scp")] {
        let mut copy = ssh.command(&installation, "scp")?;
        copy.args(["-q", "-r"]);
        if name != "scp" {
            copy.arg("-O");
        }
        let there = format!("{}:{}", ssh.host, scratch.join(to).display());
        run(copy.arg(&tree).arg(there))?;
        ensure!(checksums(&scratch.join(to))? == planted, "{name} up");
    }
    let mut copy = ssh.command(&installation, "scp")?;
    let there = format!("{}:{}", ssh.host, tree.display());
    run(copy.args(["-q", "-r", &there]).arg(scratch.join("back")))?;
    ensure!(checksums(&scratch.join("back"))? == planted, "scp down");

    let shell = format!("ssh -F {}", ssh.config.display());
    for (from, to) in [
        (
            format!("{}/", tree.display()),
            format!("{}:{}/", ssh.host, scratch.join("synced").display()),
        ),
        (
            format!("{}:{}/", ssh.host, tree.display()),
            format!("{}/", scratch.join("synced-back").display()),
        ),
    ] {
        let mut sync = installation.command("rsync")?;
        run(sync.args(["-a", "-e", &shell, &from, &to]))?;
    }
    ensure!(checksums(&scratch.join("synced"))? == planted, "rsync up");
    ensure!(
        checksums(&scratch.join("synced-back"))? == planted,
        "rsync down"
    );
    Ok(())
}

#[test]
fn ansible_runs_a_playbook_over_the_proxy_command() -> Result<()> {
    let Some(sshd) = server_program("sshd") else {
        return skip("OpenSSH's server");
    };
    let Some(ansible) = ansible_playbook() else {
        return skip("ansible-playbook");
    };
    let installation = Installation::start()?;
    let ssh = Ssh::start(&installation, &sshd)?;
    let scratch = installation.scratch();
    let playbook = scratch.join("playbook.yml");
    let made = scratch.join("made-by-ansible");
    fs::write(
        &playbook,
        format!(
            "- hosts: all\n  gather_facts: true\n  tasks:\n\
             \x20   - ansible.builtin.copy:\n        content: \"kernel {{{{ ansible_kernel }}}}\\n\"\n        dest: {0}\n\
             \x20   - ansible.builtin.command: cat {0}\n      register: shown\n\
             \x20   - ansible.builtin.assert:\n        that: shown.stdout == 'kernel ' ~ ansible_kernel\n",
            made.display()
        ),
    )?;
    let mut play = installation.command(&ansible)?;
    play.args(["-i", &format!("{},", ssh.host)])
        .arg(&playbook)
        .env("ANSIBLE_SSH_ARGS", format!("-F {}", ssh.config.display()))
        .env("ANSIBLE_LOCAL_TEMP", scratch.join("ansible"))
        .env("ANSIBLE_REMOTE_TMP", scratch.join("ansible-there"))
        .env(
            "ANSIBLE_PYTHON_INTERPRETER",
            ansible.with_file_name("python3"),
        )
        .env("ANSIBLE_NOCOWS", "1")
        .env("LC_ALL", "C.UTF-8");
    let said = run(&mut play)?;
    ensure!(said.contains("failed=0"), "{said}");
    let mut text = String::new();
    File::open(&made)?.read_to_string(&mut text)?;
    ensure!(text.starts_with("kernel "), "{text:?}");
    Ok(())
}
