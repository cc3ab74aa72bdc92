//! The program itself: what it prints, what it writes, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sortie-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SORTIE_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A `dev` that is ready, in `directory`.
struct Dev {
    child: Option<Child>,
    facts: Value,
}

impl Dev {
    fn start(directory: &Path) -> Self {
        let mut command = program();
        command.args(["dev", "--listen-tls", "127.0.0.1:0"]);
        Self::started_by(command, directory)
    }

    /// `command` up to the arguments that every `dev` here has.
    fn started_by(mut command: Command, directory: &Path) -> Self {
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]);
        let mut child = command
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines
            .next()
            .unwrap_or_else(|| panic!("ended: {:?}", child.wait()))
            .unwrap();
        assert!(first.starts_with("Sortie is ready"), "{first}");
        // Whoever reads no more must not stop the program from writing.
        thread::spawn(move || lines.for_each(drop));
        let facts = fs::read(directory.join("dev.json")).unwrap();
        Self {
            child: Some(child),
            facts: serde_json::from_slice(&facts).unwrap(),
        }
    }

    fn fact(&self, name: &str) -> &str {
        self.facts[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} in {}", self.facts))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends it by SIGTERM; it must end well and soon.
    fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let (ended, waited) = mpsc::channel();
        let mut child = self.child.take().unwrap();
        thread::spawn(move || ended.send(child.wait()));
        let status = waited.recv_timeout(PATIENCE).expect("it does not end");
        assert!(status.unwrap().success());
    }

    /// Ends it as a crash would.
    fn crash(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn child(&self) -> &Child {
        self.child.as_ref().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn unset_security_is_an_error() {
    let output = run(&["serve"]);
    assert!(!output.status.success());
    for key in ["`data_dir` must be set", "`listen_tls` must be set"] {
        assert!(said(&output).contains(key), "{}", said(&output));
    }
    let output = run(&[
        "serve",
        "--data-dir",
        "/nonexistent/x",
        "--listen-tls",
        "0.0.0.0:0",
    ]);
    assert!(said(&output).contains("`tls_names`"), "{}", said(&output));
}

#[test]
fn the_printed_configuration_is_one() {
    let directory = TempDir::new().unwrap();
    let printed = run(&["serve", "--print-config"]);
    assert!(printed.status.success());
    let file = directory.path().join("sortie.toml");
    fs::write(&file, &printed.stdout).unwrap();
    // It is read: what it complains about are the values that it leaves open, not its keys.
    let output = run(&["serve", "--config", file.to_str().unwrap()]);
    assert!(
        said(&output).contains("`data_dir` must be set"),
        "{}",
        said(&output)
    );

    fs::write(&file, "\nlisten_tsl = 1\n").unwrap();
    let output = run(&["serve", "--config", file.to_str().unwrap()]);
    assert!(
        said(&output).contains("`listen_tsl` in line 2"),
        "{}",
        said(&output)
    );
}

#[test]
fn serve_shows_the_administrators_key_once_and_ends_on_sigterm() {
    let directory = TempDir::new().unwrap();
    let mut serve = program();
    serve
        .args(["serve", "--listen-tls", "127.0.0.1:0"])
        .env("SORTIE_DATA_DIR", directory.path());
    let mut first = serve
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = String::new();
    let mut out = BufReader::new(first.stdout.take().unwrap());
    for _ in 0..4 {
        out.read_line(&mut shown).unwrap();
    }
    assert!(shown.contains("AWS_ACCESS_KEY_ID=AKIA"), "{shown}");
    let ready = BufReader::new(first.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(ready.into_iter().any(|line| line.contains("ready")));
    let pid = rustix::process::Pid::from_child(&first);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(first.wait().unwrap().success());

    let mut second = serve.spawn().unwrap();
    let ready = BufReader::new(second.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(ready.into_iter().any(|line| line.contains("ready")));
    let pid = rustix::process::Pid::from_child(&second);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = second.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn dev_keeps_its_identity_over_a_stop_and_a_crash() {
    let directory = TempDir::new().unwrap();
    let names = [
        "endpoint",
        "https_endpoint",
        "account_id",
        "access_key_id",
        "secret_access_key",
        "node_id",
    ];
    let facts = |dev: &Dev| names.map(|name| dev.fact(name).to_owned());

    let dev = Dev::start(directory.path());
    let first = facts(&dev);
    for file in ["dev.json", "dev.env", "administrator.json"] {
        let mode = fs::metadata(directory.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    dev.stop();

    // Scripts may remove what they wait for.
    fs::remove_file(directory.path().join("dev.json")).unwrap();
    let dev = Dev::start(directory.path());
    assert_eq!(facts(&dev), first);
    dev.crash();

    let dev = Dev::start(directory.path());
    assert_eq!(facts(&dev), first);
    dev.stop();
}

#[test]
fn a_second_dev_in_the_same_directory_says_who_has_it() {
    let directory = TempDir::new().unwrap();
    let dev = Dev::start(directory.path());
    let second = run(&[
        "dev",
        "--listen",
        "off",
        "--data-dir",
        directory.path().to_str().unwrap(),
    ]);
    assert!(!second.status.success());
    let text = said(&second);
    assert!(
        text.contains(&format!("(process {})", dev.child().id())),
        "{text}"
    );
    dev.stop();
}

#[test]
fn plain_http_beyond_loopback_is_refused_by_name() {
    let output = run(&["dev", "--listen", "0.0.0.0:7070"]);
    assert!(!output.status.success());
    assert!(said(&output).contains("loopback"), "{}", said(&output));
}

#[test]
fn without_plain_http_tools_are_pointed_at_https_and_the_bundle() {
    let directory = TempDir::new().unwrap();
    let mut command = program();
    command.args([
        "dev",
        "--no-node",
        "--listen",
        "off",
        "--listen-tls",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    let mut child = command
        .arg(directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    let facts: Value =
        serde_json::from_slice(&fs::read(directory.path().join("dev.json")).unwrap()).unwrap();
    let dev = Dev {
        child: Some(child),
        facts,
    };
    assert_eq!(dev.fact("endpoint"), dev.fact("https_endpoint"));
    assert_eq!(dev.facts["node_id"], Value::Null);
    let environment = fs::read_to_string(directory.path().join("dev.env")).unwrap();
    assert!(environment.contains(&format!("AWS_CA_BUNDLE='{}'", dev.fact("ca_bundle_file"))));
    dev.stop();
}

#[test]
fn idle_strangers_do_not_take_the_servers_own_descriptors() {
    const LIMIT: usize = 128;
    let directory = TempDir::new().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh"]);
    shell.arg(LIMIT.to_string());
    shell.arg(env!("CARGO_BIN_EXE_sortie-server"));
    shell.args(["dev", "--no-node", "--listen-tls", "127.0.0.1:0"]);
    let dev = Dev::started_by(shell, directory.path());
    let address = dev.fact("endpoint").strip_prefix("http://").unwrap();
    // Each holds what it was given, until one gets nothing any more.
    let mut strangers = Vec::new();
    while strangers.len() < 2 * LIMIT {
        let mut stranger = TcpStream::connect(address).unwrap();
        stranger
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        stranger
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let answered = stranger.read_exact(&mut [0; 12]).is_ok();
        strangers.push(stranger);
        if !answered {
            break;
        }
    }
    let listing = fs::read_dir(format!("/proc/{}/fd", dev.child().id())).unwrap();
    let open = listing.count();
    assert!(strangers.len() > LIMIT / 4, "{}", strangers.len());
    assert!(open < LIMIT, "{open} of {LIMIT}");
    drop(strangers);
    dev.stop();
}
