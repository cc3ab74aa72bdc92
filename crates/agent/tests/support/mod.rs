//! A server that does what a test tells it, over real TLS on loopback, and a client at its other side.
//! It verifies every signature; it knows one node.

#![allow(dead_code, reason = "each test file uses its own part of it")]

pub(crate) mod peer;
pub(crate) mod server;
pub(crate) mod shell;

use std::{future::Future, path::Path, time::Duration};

use serde_json::{Value, json};
use sortie_agent::{RegisterOptions, RunError, RunOptions};
use sortie_types::{NodeId, Secret};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::server::Server;

/// The longest any test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen, and says what did not.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// A node: its directory, and its agent while that runs.
pub(crate) struct Node {
    pub(crate) directory: TempDir,
    pub(crate) node_id: NodeId,
    /// Sessions run as the tests' account.
    pub(crate) run_as_self: bool,
    pub(crate) end_sessions: bool,
    agent: Option<(CancellationToken, JoinHandle<Result<(), RunError>>)>,
}

impl Node {
    /// Enrols a node with `server`. Its agent does not run yet.
    pub(crate) async fn register(server: &Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("given-ca.pem");
        std::fs::write(&ca_file, &server.ca_pem).unwrap();
        let node_id = sortie_agent::register(RegisterOptions {
            data_dir: directory.path().join("agent"),
            endpoint: server.endpoint(),
            activation_id: "0a1b2c3d-0000-4000-8000-000000000000".to_owned(),
            activation_code: Secret::new("code-of-twenty-characters"),
            ca_file: Some(ca_file),
            name: Some("node-1".to_owned()),
            region: None,
            sudo: false,
        })
        .await
        .unwrap();
        Self {
            directory,
            node_id,
            run_as_self: true,
            end_sessions: false,
            agent: None,
        }
    }

    /// A node whose agent runs.
    pub(crate) async fn start(server: &Server) -> Self {
        let mut node = Self::register(server).await;
        node.run();
        node
    }

    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("agent")
    }

    /// Starts the agent.
    pub(crate) fn run(&mut self) {
        let stop = CancellationToken::new();
        let options = RunOptions {
            worker_program: Some(Path::new(env!("CARGO_BIN_EXE_sortie-agent")).to_owned()),
            run_as_self: self.run_as_self,
            end_sessions: self.end_sessions,
            ..RunOptions::new(self.data_dir(), stop.clone())
        };
        self.agent = Some((stop, tokio::spawn(sortie_agent::run(options))));
    }

    /// Stops the agent. Its sessions live on.
    pub(crate) async fn stop(&mut self) {
        let (stop, agent) = self.agent.take().unwrap();
        stop.cancel();
        within("the agent to stop", agent).await.unwrap().unwrap();
    }
}

/// A session outlives its agent, but not its test.
impl Drop for Node {
    fn drop(&mut self) {
        let sessions = std::fs::read_dir(self.data_dir().join("sessions"));
        for session in sessions.into_iter().flatten().flatten() {
            let worker = std::fs::read(session.path().join("worker.json")).unwrap_or_default();
            let Ok(worker) = serde_json::from_slice::<Value>(&worker) else {
                continue;
            };
            let pid = worker["pid"]
                .as_i64()
                .and_then(|pid| i32::try_from(pid).ok());
            let command = std::fs::read_to_string(format!("/proc/{}/cmdline", worker["pid"]))
                .unwrap_or_default();
            if command.contains("session-worker")
                && let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// The document of an ordinary shell.
pub(crate) fn shell_document(inputs: Value) -> Value {
    json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs,
           "parameters": {}, "properties": null})
}

/// A document that runs `commands`.
pub(crate) fn command_document(session_type: &str, commands: &str) -> Value {
    json!({"schemaVersion": "1.0", "sessionType": session_type, "inputs": {},
           "parameters": {}, "properties": {"linux": {"commands": commands}}})
}
