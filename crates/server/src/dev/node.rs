//! This machine as a node of the development server: enrolled once, over the same HTTPS endpoint
//! and with the same kind of activation as any other machine, then run inside this process. Each
//! session is a process of its own, this program again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use sortie_agent::{RegisterError, RegisterOptions, Registration, RunError, RunOptions};
use sortie_control::{
    AuthenticationError, Call, CreateActivationError, CreateActivationInput, KnownKey, NODE_ROLE,
};
use sortie_ports::{NodeState, State, StoreError};
use sortie_types::NodeId;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::files::https_endpoint;
use crate::{
    Administrator, FileError, Running,
    files::{private_dir, read_private, write_private},
    serve::now,
};

/// How long the node may take to come online.
const ONLINE_TIME: Duration = Duration::from_secs(20);

/// Where the kernel says the host's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Why this machine is no node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The agent ended.
    #[error("the agent ended")]
    Ended,
    /// The administrator's key was refused.
    #[error("the administrator's key is not accepted")]
    Administrator(#[from] AuthenticationError),
    /// No activation could be made.
    #[error("cannot make an activation")]
    Activation(#[from] CreateActivationError),
    /// The agent could not register.
    #[error("cannot register")]
    Register(#[from] RegisterError),
    /// The agent could not run.
    #[error("the agent failed")]
    Run(#[from] RunError),
    /// The agent's directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registration could not be written.
    #[error("cannot write the registration")]
    Registration(#[source] serde_json::Error),
    /// The state could not be read.
    #[error("cannot read the state")]
    Store(#[from] StoreError),
    /// It did not come online in time.
    #[error("the node did not come online within {} s", ONLINE_TIME.as_secs())]
    Offline,
}

/// The agent inside this process.
pub(super) struct DevNode {
    id: NodeId,
    name: String,
    stop: DropGuard,
    agent: JoinHandle<Result<(), RunError>>,
}

impl DevNode {
    /// Enrols this machine if it is not, runs the agent, and waits until it is online.
    pub(super) async fn start(
        running: &Running,
        administrator: &Administrator,
        directory: &Path,
        log: &str,
    ) -> Result<Self, NodeError> {
        let data_dir = directory.join("node");
        private_dir(&data_dir)?;
        let name = host_name().unwrap_or_else(|| "localhost".to_owned());
        let id = match enrolled(running, &data_dir).await? {
            Some(id) => id,
            None => enrol(running, administrator, &data_dir, &name).await?,
        };
        let stop = CancellationToken::new();
        let options = RunOptions {
            run_as_self: true,
            end_sessions: true,
            worker_log: Some(log.to_owned()),
            ..RunOptions::new(data_dir, stop.clone())
        };
        let mut node = Self {
            name: shown_name(running, &id).await?.unwrap_or(name),
            id,
            stop: stop.drop_guard(),
            agent: tokio::spawn(sortie_agent::run(options)),
        };
        match node.until_online(&running.state).await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }

    pub(super) fn id(&self) -> &NodeId {
        &self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    async fn until_online(&mut self, state: &Arc<dyn State>) -> Result<(), NodeError> {
        let deadline = Instant::now() + ONLINE_TIME;
        loop {
            let node = state.node(&self.id).await?;
            // Facts come by another call than the channel; people look for both.
            if node.is_some_and(|node| node.connected && node.info.platform_name.is_some()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(NodeError::Offline);
            }
            tokio::select! {
                ended = &mut self.agent => {
                    return Err(match ended {
                        Ok(Err(error)) => error.into(),
                        Ok(Ok(())) | Err(_) => NodeError::Ended,
                    });
                }
                () = sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    pub(super) async fn stop(self) {
        drop(self.stop);
        if self.agent.is_finished() {
            return;
        }
        match self.agent.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the agent failed")
            }
            Err(error) => tracing::error!(%error, "the agent panicked"),
        }
    }
}

/// The node that an earlier start enrolled, if the server still knows it.
async fn enrolled(running: &Running, data_dir: &Path) -> Result<Option<NodeId>, NodeError> {
    let file = data_dir.join("registration.json");
    let Some(bytes) = read_private(&file)? else {
        return Ok(None);
    };
    let Ok(mut registration) = serde_json::from_slice::<Registration>(&bytes) else {
        return Ok(None);
    };
    let row = running.state.node(&registration.node_id).await?;
    if row.is_none_or(|row| row.state != NodeState::Active) {
        return Ok(None);
    }
    // The server may have been given another port since.
    let endpoint = https_endpoint(running);
    if registration.endpoint != endpoint {
        registration.endpoint = endpoint;
        let text = serde_json::to_vec_pretty(&registration).map_err(NodeError::Registration)?;
        write_private(&file, &text)?;
    }
    Ok(Some(registration.node_id))
}

async fn enrol(
    running: &Running,
    administrator: &Administrator,
    data_dir: &Path,
    name: &str,
) -> Result<NodeId, NodeError> {
    let input = CreateActivationInput {
        description: Some("sortie-server dev".to_owned()),
        default_instance_name: Some(name.to_owned()),
        iam_role: NODE_ROLE.to_owned(),
        registration_limit: None,
        expiration: None,
        tags: Vec::new(),
    };
    let call = activation_call(running, administrator, name).await?;
    let activation = running
        .control
        .create_activation(&call, input)
        .await?
        .into_inner();
    let options = RegisterOptions {
        data_dir: data_dir.to_owned(),
        endpoint: https_endpoint(running),
        activation_id: activation.activation_id.to_string(),
        activation_code: activation.activation_code,
        ca_file: running.ca_file.clone(),
        name: Some(name.to_owned()),
        region: Some(running.control.region().clone()),
        sudo: false,
    };
    Ok(sortie_agent::register(options).await?)
}

/// The administrator's call that makes the activation; the trail shows it like any other.
async fn activation_call(
    running: &Running,
    administrator: &Administrator,
    name: &str,
) -> Result<Call, NodeError> {
    let now = now();
    let key = &administrator.access_key_id;
    let KnownKey { caller, .. } = running.control.look_up_key(key, None, now).await?;
    Ok(Call {
        request_id: Uuid::new_v4(),
        caller,
        source_ip: "127.0.0.1".to_owned(),
        user_agent: Some(concat!("sortie-server/", env!("CARGO_PKG_VERSION")).to_owned()),
        referer: None,
        secure_transport: true,
        event_source: "ssm.amazonaws.com",
        event_name: "CreateActivation",
        read_only: false,
        request_parameters: json!({ "defaultInstanceName": name, "iamRole": NODE_ROLE }),
        now,
    })
}

/// The name under which the node is listed.
async fn shown_name(running: &Running, id: &NodeId) -> Result<Option<String>, NodeError> {
    let row = running.state.node(id).await?;
    Ok(row.and_then(|row| row.name).filter(|name| !name.is_empty()))
}

/// The host's name, without a domain.
pub(super) fn host_name() -> Option<String> {
    let text: io::Result<String> = std::fs::read_to_string(PathBuf::from(HOST_NAME));
    let text = text.ok()?;
    let name = text.trim().split('.').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}
