//! All that a session hears besides its own work: the client through the data channel, the agent through
//! the session's socket, the system through signals. Each of them can end it; what that means is here, so
//! that it is the same for every kind of session.

use std::time::Duration;

use bytes::Bytes;
use sortie_channel::{
    body,
    features::EXIT_STATUS,
    frame::{PayloadType, flag},
    handshake::{HandshakeError, NodeHandshake, NodeStep, RESPONSE_TIMEOUT},
    link::Delivery,
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    channel::{ChannelEvent, DataChannel},
    requests::{Asked, Request, Status},
};
use crate::os::{EndSignals, ExitCode};

/// How often it is looked whether the last output is to be given up.
const FLUSH_TICK: Duration = Duration::from_millis(100);
/// How long an official client may acknowledge nothing before its last output is given up.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its work ended and the output was sent.
    Exited,
    /// Somebody ended the session from outside.
    Cancelled,
    /// Nobody could be reached for the idle limit.
    CutOff,
    /// It could not be run.
    Failed(String),
}

/// The session's connections to everybody else.
pub(super) struct Outside {
    pub(super) channel: DataChannel,
    asked: mpsc::Receiver<Asked>,
    signals: EndSignals,
    /// The bound of every wait for a server or client that is away.
    idle_limit: Duration,
    /// Whether the session's work runs, for those who ask.
    pub(super) is_running: bool,
}

impl Outside {
    pub(super) fn new(
        channel: DataChannel,
        asked: mpsc::Receiver<Asked>,
        signals: EndSignals,
        idle_limit: Duration,
    ) -> Self {
        Self {
            channel,
            asked,
            signals,
            idle_limit,
            is_running: false,
        }
    }

    /// What the channel brings next, input only with `takes_input`; an error when the session is to end.
    /// Nothing is lost when the future is dropped.
    pub(super) async fn event(&mut self, takes_input: bool) -> Result<ChannelEvent, End> {
        loop {
            let event = tokio::select! {
                event = self.channel.event(takes_input) => event,
                Some(request) = self.asked.recv() => {
                    self.answer(request)?;
                    continue;
                }
                () = self.signals.ended() => return Err(End::Cancelled),
            };
            return match event {
                ChannelEvent::Input(delivery) if is_terminate_flag(&delivery) => {
                    Err(End::Cancelled)
                }
                ChannelEvent::Closed => Err(End::Cancelled),
                ChannelEvent::CutOff => Err(End::CutOff),
                other => Ok(other),
            };
        }
    }

    fn answer(&self, (request, reply): Asked) -> Result<(), End> {
        // An agent that has gone meanwhile needs no answer.
        let _ = reply.send(Status {
            connected: self.channel.is_connected(),
            running: self.is_running,
        });
        match request {
            Request::Cancel { reason } => {
                tracing::info!(reason, "the session is cancelled");
                Err(End::Cancelled)
            }
            Request::Status => Ok(()),
        }
    }

    /// Waits until it is known what the client can do. It sends nothing before.
    pub(super) async fn client_known(&mut self) -> Result<(), End> {
        while !matches!(self.event(false).await?, ChannelEvent::Features) {}
        Ok(())
    }

    /// Shakes hands with a client that is known, and says which version it has.
    ///
    /// An official client has the time that it has with an official node. One of ours may be cut off in
    /// the middle and come back.
    pub(super) async fn shake_hands(
        &mut self,
        mut handshake: NodeHandshake,
    ) -> Result<String, End> {
        let request = handshake.start(self.channel.now());
        let begun = Instant::now();
        self.send(request.payload_type, request.payload).await?;
        loop {
            let patience = if self.channel.is_client_ours() {
                self.idle_limit
            } else {
                RESPONSE_TIMEOUT
            };
            let event = tokio::select! {
                event = self.event(true) => event?,
                () = tokio::time::sleep_until(begun + patience) => {
                    return Err(End::Failed(HandshakeError::TimedOut.to_string()));
                }
            };
            let ChannelEvent::Input(delivery) = event else {
                continue;
            };
            let step = handshake.receive(&delivery, self.channel.now());
            match step.map_err(|error| End::Failed(error.to_string()))? {
                NodeStep::Complete {
                    send,
                    client_version,
                } => {
                    self.send(send.payload_type, send.payload).await?;
                    return Ok(client_version);
                }
                NodeStep::Waiting | NodeStep::Over => {}
            }
        }
    }

    /// Sends as soon as there is room.
    pub(super) async fn send(
        &mut self,
        payload_type: PayloadType,
        mut payload: Bytes,
    ) -> Result<(), End> {
        while let Err(refused) = self.channel.send(payload_type, payload) {
            payload = refused;
            while !matches!(self.event(false).await?, ChannelEvent::Room) {}
        }
        Ok(())
    }

    /// Sends the exit status, where the client wants it or `always`, and waits until everything has
    /// arrived.
    pub(super) async fn flush(&mut self, exit_code: ExitCode, always: bool) -> End {
        match self.try_flush(exit_code, always).await {
            Ok(()) => End::Exited,
            Err(end) => end,
        }
    }

    async fn try_flush(&mut self, exit_code: ExitCode, always: bool) -> Result<(), End> {
        self.is_running = false;
        let is_wanted = always || self.channel.has_feature(EXIT_STATUS);
        let mut last: Option<Bytes> = is_wanted.then(|| body::exit_code(exit_code.0));
        let begun = Instant::now();
        loop {
            if let Some(payload) = last.take() {
                last = self.channel.send(PayloadType::EXIT_CODE, payload).err();
            }
            if last.is_none() && self.channel.is_drained() || self.is_given_up(begun) {
                return Ok(());
            }
            tokio::select! {
                event = self.event(true) => drop(event?),
                () = tokio::time::sleep(FLUSH_TICK) => {}
            }
        }
    }

    /// Waits until everything that was sent has arrived.
    pub(super) async fn drain(&mut self) -> Result<(), End> {
        self.is_running = false;
        let begun = Instant::now();
        while !self.channel.is_drained() && !self.is_given_up(begun) {
            tokio::select! {
                event = self.event(true) => drop(event?),
                () = tokio::time::sleep(FLUSH_TICK) => {}
            }
        }
        Ok(())
    }

    /// The next message of the client, if one is there.
    pub(super) fn next_input(&mut self) -> Result<Option<Delivery>, End> {
        match self.channel.next_input() {
            Some(delivery) if is_terminate_flag(&delivery) => Err(End::Cancelled),
            other => Ok(other),
        }
    }

    /// A client of ours comes back and takes what is left; another one may be gone for good.
    fn is_given_up(&self, begun: Instant) -> bool {
        if self.channel.is_listened_to() && !self.channel.is_client_ours() {
            self.channel.ignored_for(begun) >= FLUSH_LIMIT
        } else {
            begun.elapsed() >= self.idle_limit
        }
    }
}

fn is_terminate_flag(delivery: &Delivery) -> bool {
    delivery.payload_type == PayloadType::FLAG
        && delivery.payload.as_ref() == flag::TERMINATE_SESSION.to_be_bytes()
}
