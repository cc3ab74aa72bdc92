//! The programs under test in front of a scripted server whose node runs a tiny shell.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "support of tests, of which each test program uses its part"
)]

#[path = "../../../client/tests/support/mod.rs"]
pub mod server;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::json;
use server::{Call, Node, Server};
use sortie_channel::frame::PayloadType;
use sortie_testkit::wait_for;

pub const NODE: &str = "mi-0123456789abcdef0";
pub const SESSION: &str = "someone-0123456789abcdef0";
pub const OURS: &str = "SRT1.topsecret";
pub const OFFICIAL: &str = "AAEAAtopsecret";

/// What the node saw.
#[derive(Default)]
pub struct Seen {
    pub input: Vec<u8>,
    pub sizes: Vec<(u32, u32)>,
    pub channels: usize,
}

/// A server, its node, and a folder for what the programs need.
pub struct World {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    pub folder: tempfile::TempDir,
    calls: Arc<Mutex<Vec<Call>>>,
    // Dropped last: everything above it runs on it.
    _runtime: tokio::runtime::Runtime,
}

impl World {
    /// A server that gives out this token and answers the calls of `sortie`.
    pub fn start(token: &'static str) -> Self {
        Self::start_with(token, |_| None)
    }

    /// With answers that go before the usual ones.
    pub fn start_with(
        token: &'static str,
        special: impl Fn(&Call) -> Option<(u16, String)> + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let own = Arc::clone(&address);
        let answers = move |call: &Call| {
            let own = own.lock().unwrap().expect("the server runs");
            special(call).unwrap_or_else(|| answer(call, own, token))
        };
        let server = runtime.block_on(Server::start(answers));
        *address.lock().unwrap() = Some(server.address);
        let (address, calls) = (server.address, Arc::clone(&server.calls));
        let seen: Arc<Mutex<Seen>> = Arc::default();
        runtime.spawn(serve(server, Arc::clone(&seen), token.starts_with("SRT1.")));
        Self {
            address,
            seen,
            folder: tempfile::tempdir().unwrap(),
            calls,
            _runtime: runtime,
        }
    }

    /// `sortie` with these arguments and nothing else of this machine's settings.
    pub fn sortie(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_sortie")));
        command.args(arguments);
        command
    }

    /// The plugin, installed by `sortie plugin install`, with AWS's arguments for this session.
    pub fn plugin(&self, token: &str) -> Command {
        let mut command = self.command(&self.install_plugin());
        let response = json!({
            "SessionId": SESSION,
            "TokenValue": token,
            "StreamUrl": format!("ws://{}/v1/data-channel/x", self.address),
        });
        command.env("AWS_SSM_START_SESSION_RESPONSE", response.to_string());
        command.args([
            "AWS_SSM_START_SESSION_RESPONSE",
            "local-1",
            "StartSession",
            "",
        ]);
        command.arg(json!({ "Target": NODE }).to_string());
        command.arg(format!("http://{}", self.address));
        command
    }

    pub fn install_plugin(&self) -> PathBuf {
        let folder = self.folder.path().join("bin");
        let installed = self
            .sortie(&["plugin", "install", folder.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(installed.status.success(), "{installed:?}");
        PathBuf::from(String::from_utf8(installed.stdout).unwrap().trim_end())
    }

    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.folder.path())
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_REGION", "local-1")
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "topsecretkey");
        command
    }

    /// How often an operation was called.
    pub fn count(&self, operation: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls
            .iter()
            .filter(|call| call.operation() == operation)
            .count()
    }

    pub fn calls_of(&self, operation: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        let of = calls.iter().filter(|call| call.operation() == operation);
        of.cloned().collect()
    }

    /// Waits until the node saw something.
    pub fn node_sees(&self, what: &str, probe: impl Fn(&Seen) -> bool) {
        wait_for(what, || Ok(probe(&self.seen.lock().unwrap()).then_some(()))).unwrap();
    }
}

fn answer(call: &Call, address: SocketAddr, token: &str) -> (u16, String) {
    let body = match call.operation().as_str() {
        "StartSession" if call.json()["Target"] != NODE => {
            let error = json!({"__type": "TargetNotConnected", "message": "no"});
            return (400, error.to_string());
        }
        "StartSession" => json!({
            "SessionId": SESSION,
            "TokenValue": token,
            "StreamUrl": format!("ws://{address}/v1/data-channel/{SESSION}?role=publish_subscribe"),
        }),
        "TerminateSession" => json!({ "SessionId": SESSION }),
        "ResumeSession" => json!({ "SessionId": SESSION }),
        "DescribeInstanceInformation" => nodes(&call.json()),
        "DescribeSessions" => sessions(&call.json()),
        "GetCallerIdentity" => {
            let identity = "<GetCallerIdentityResponse><GetCallerIdentityResult>\
                <Arn>arn:aws:iam::111122223333:user/someone</Arn><Account>111122223333</Account>\
                <UserId>AIDA1</UserId></GetCallerIdentityResult></GetCallerIdentityResponse>";
            return (200, identity.to_owned());
        }
        _ => json!({}),
    };
    (200, body.to_string())
}

/// Four nodes on two pages.
fn nodes(request: &serde_json::Value) -> serde_json::Value {
    let node = |id: &str, name: &str, status: &str| {
        json!({"InstanceId": id, "Name": name, "PingStatus": status, "PlatformType": "Linux",
            "PlatformName": "Debian", "PlatformVersion": "12", "IPAddress": "10.0.0.1",
            "AgentVersion": "3.3.9999.0", "ComputerName": "host", "LastPingDateTime": 1_777_881_600.0})
    };
    if request["NextToken"] == "more" {
        return json!({"InstanceInformationList": [
            node("mi-00000000000000002", "db", "Online"),
            node("mi-00000000000000003", "db", "ConnectionLost"),
        ]});
    }
    json!({"NextToken": "more", "InstanceInformationList": [
        node(NODE, "web", "Online"),
        node("mi-00000000000000001", "mail", "ConnectionLost"),
    ]})
}

fn sessions(request: &serde_json::Value) -> serde_json::Value {
    let is_history = request["State"] == "History";
    let id = if is_history {
        "someone-00000000000000001"
    } else {
        SESSION
    };
    let filter = &request["Filters"][0];
    if filter["key"] == "SessionId" && filter["value"] != id {
        return json!({"Sessions": []});
    }
    let mut session = json!({"SessionId": id, "Target": NODE, "Status": "Connected",
        "Owner": "arn:aws:iam::111122223333:user/someone", "StartDate": 1_777_881_600.0,
        "Reason": "because", "OutputUrl": {}});
    if is_history {
        session["Status"] = json!("Terminated");
        session["EndDate"] = json!(1_777_881_660.0);
    }
    json!({ "Sessions": [session] })
}

/// Serves one data channel after another with the tiny shell.
async fn serve(mut server: Server, seen: Arc<Mutex<Seen>>, is_ours: bool) {
    let mut shell = Shell::new(Node::new(is_ours), seen);
    loop {
        let peer = server.next_channel_unbounded().await;
        shell.seen.lock().unwrap().channels += 1;
        if is_ours {
            shell.node.attach_ours(peer, OURS).await;
        } else {
            shell.node.attach(peer);
        }
        shell.run().await;
        shell.node.cut();
    }
}

/// Echoes what is typed and knows a few words: `exit N`, `idle`, `cut`, `size`, `port`.
struct Shell {
    node: Node,
    seen: Arc<Mutex<Seen>>,
    read: usize,
    line: Vec<u8>,
    has_prompted: bool,
}

impl Shell {
    fn new(node: Node, seen: Arc<Mutex<Seen>>) -> Self {
        Self {
            node,
            seen,
            read: 0,
            line: Vec::new(),
            has_prompted: false,
        }
    }

    /// Until the connection or the session is over.
    async fn run(&mut self) {
        if !std::mem::replace(&mut self.has_prompted, true) {
            self.node.output(b"ready> ");
        }
        loop {
            let (read, seen) = (self.read, Arc::clone(&self.seen));
            let is_there = self
                .node
                .pump(|node| {
                    let mut seen = seen.lock().unwrap();
                    seen.input.clone_from(&node.input);
                    seen.sizes.clone_from(&node.sizes);
                    node.input.len() > read
                })
                .await;
            if !is_there {
                return;
            }
            let typed = self.node.input[self.read..].to_vec();
            self.read += typed.len();
            for part in typed.chunks(64 << 10) {
                self.node
                    .pump_until("room for the echo", |node| {
                        node.link.writable() >= part.len()
                    })
                    .await;
                self.node.output(part);
            }
            for byte in typed {
                self.line.push(byte);
                if matches!(byte, b'\r' | b'\n' | 4) && !self.command().await {
                    return;
                }
            }
        }
    }

    /// Does what the line says; false when the connection is over with it.
    async fn command(&mut self) -> bool {
        let typed = std::mem::take(&mut self.line);
        if typed.last() == Some(&4) {
            return self.exit("0").await;
        }
        let line = String::from_utf8_lossy(&typed).into_owned();
        let line = line.trim_end();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("exit", status) => return self.exit(status).await,
            ("idle", _) => {
                self.node.close("idle for 20 minutes").await;
                self.node.pump_until_closed().await;
                return false;
            }
            ("cut", _) => return false,
            ("size", _) => {
                let size = self.node.sizes.last().copied().unwrap_or_default();
                self.node
                    .output(format!("size is {}x{}\r\n", size.0, size.1).as_bytes());
            }
            _ => {}
        }
        true
    }

    async fn exit(&mut self, status: &str) -> bool {
        self.node.send(
            PayloadType::EXIT_CODE,
            format!("EXIT_CODE: {status}").as_bytes(),
        );
        self.node.close("").await;
        self.node.pump_until_closed().await;
        false
    }
}
