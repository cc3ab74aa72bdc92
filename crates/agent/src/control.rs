//! The control channel: the one connection over which the server reaches this node. It comes back
//! within a second when it breaks, and never gives up. What is asked over it is done by `sessions`.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use sortie_channel::{
    body::{Body, OpenControl, SortieOpen},
    control::ControlMessage,
    frame::Frame,
    handshake::AGENT_VERSION,
};
use sortie_types::{NodeId, Secret};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    api::{Api, CallError},
    backoff::Backoff,
    clock,
    identity::RoleCredentials,
    log::chain,
    sessions::Sessions,
    socket::{DialError, Dialer, Socket, SocketEvent},
};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A connection that lasted so long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// How often a result is repeated that the server does not acknowledge.
const RESEND_INTERVAL: Duration = Duration::from_secs(5);
const QUERY: &str = "role=subscribe&stream=input";

/// The node's end of the control channel.
pub(crate) struct ControlChannel {
    pub(crate) api: Api,
    pub(crate) dialer: Dialer,
    pub(crate) node_id: NodeId,
    pub(crate) credentials: RoleCredentials,
    pub(crate) sessions: Sessions,
}

/// Why the channel did not open.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection broke: {0}")]
    Socket(String),
    #[error("the agent is stopping")]
    Stopping,
}

impl ControlChannel {
    /// Keeps the channel open until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            tokio::select! {
                () = self.connect_and_serve(&mut backoff, &stop) => {}
                () = stop.cancelled() => return,
            }
            if stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn connect_and_serve(&self, backoff: &mut Backoff, stop: &CancellationToken) {
        match self.open().await {
            Ok(socket) => {
                tracing::info!("the control channel is open");
                let opened = Instant::now();
                let reason = self.serve(socket, stop).await;
                if opened.elapsed() >= GOOD_AFTER {
                    backoff.reset();
                }
                tracing::info!(reason, "the control channel closed");
            }
            Err(OpenError::Stopping) => {}
            Err(error) => {
                if matches!(&error, OpenError::Call(error) if error.is_refusal()) {
                    self.credentials.renew();
                }
                let error = chain(&error);
                if backoff.is_first_retry() {
                    // A server that restarts refuses for a moment; that is nothing to worry about.
                    tracing::info!(error, "cannot open the control channel again yet");
                } else {
                    tracing::warn!(error, "cannot open the control channel");
                }
            }
        }
    }

    async fn open(&self) -> Result<Socket, OpenError> {
        let credentials = self
            .credentials
            .current()
            .await
            .ok_or(OpenError::Stopping)?;
        let token = self
            .api
            .create_control_channel(&self.node_id, &credentials)
            .await?;
        let path = format!("/v1/control-channel/{}", self.node_id);
        let headers = self.api.sign_upgrade(&path, QUERY, &credentials)?;
        let mut socket = self
            .dialer
            .websocket(&format!("{path}?{QUERY}"), &headers)
            .await?;
        socket
            .push_text(self.open_message(token))
            .map_err(OpenError::Socket)?;
        Ok(socket)
    }

    fn open_message(&self, token: Secret) -> String {
        let sessions = self
            .sessions
            .ids()
            .iter()
            .map(ToString::to_string)
            .collect();
        OpenControl {
            message_schema_version: "1.0".into(),
            request_id: Uuid::new_v4().to_string(),
            token,
            agent_version: AGENT_VERSION.to_owned(),
            platform_type: std::env::consts::OS.to_owned(),
            sortie: Some(SortieOpen::announcing(env!("CARGO_PKG_VERSION"))),
            sessions: Some(sessions),
            ..OpenControl::default()
        }
        .to_text()
    }

    /// Why it ended.
    async fn serve(&self, mut socket: Socket, stop: &CancellationToken) -> String {
        let mut attempts: HashMap<Uuid, u32> = HashMap::new();
        let mut resend = interval(RESEND_INTERVAL);
        resend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pushed = tokio::select! {
                event = socket.event(false) => match event {
                    SocketEvent::Binary(bytes) => {
                        self.act(bytes);
                        Ok(())
                    }
                    SocketEvent::Writable => Ok(()),
                    SocketEvent::Gone(reason) => Err(reason),
                },
                // The first tick comes at once: results of an earlier connection or agent.
                _ = resend.tick() => self.push_results(&mut socket, &mut attempts, true),
                () = self.sessions.changed() => self.push_results(&mut socket, &mut attempts, false),
                () = stop.cancelled() => {
                    let _ = tokio::time::timeout(Duration::from_secs(1), socket.close()).await;
                    return "the agent is stopping".to_owned();
                }
            };
            if let Err(reason) = pushed {
                return reason;
            }
        }
    }

    fn push_results(
        &self,
        socket: &mut Socket,
        attempts: &mut HashMap<Uuid, u32>,
        again: bool,
    ) -> Result<(), String> {
        for (session_id, result) in self.sessions.results() {
            let attempt = attempts.entry(result.message_id).or_default();
            if *attempt == 0 || again {
                *attempt = attempt.saturating_add(1);
                let frame = result.frame(&session_id, &self.node_id, *attempt, clock::wall());
                socket.push_binary(frame)?;
            }
        }
        Ok(())
    }

    fn act(&self, bytes: Bytes) {
        let message = match Frame::parse(bytes) {
            Ok(frame) => ControlMessage::parse(&frame),
            Err(error) => return tracing::debug!(%error, "ignored what is no frame"),
        };
        match message {
            Ok(ControlMessage::InteractiveShell(start)) => self.sessions.start(*start),
            Ok(ControlMessage::ChannelClosed(closed)) => match closed.session_id.parse() {
                Ok(session_id) => self.sessions.cancel(&session_id, "the server has ended it"),
                Err(error) => tracing::debug!(%error, "ignored the end of a session"),
            },
            Ok(ControlMessage::TaskAcknowledge(acknowledged)) => {
                if let Ok(message_id) = acknowledged.message_id.parse() {
                    self.sessions.acknowledged(message_id);
                }
            }
            Ok(other) => tracing::debug!(?other, "ignored a message"),
            Err(error) => tracing::warn!(%error, "ignored a message that cannot be read"),
        }
    }
}
