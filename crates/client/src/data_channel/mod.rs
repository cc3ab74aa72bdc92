//! The client's end of a session: one stream of events, one of input, whole and in order over
//! websockets that come and go.
//!
//! [`DataChannel::open`] starts a task that dials, announces itself to servers of ours, shakes hands
//! where the node asks for it, and comes back after a lost connection: with the ticket that our
//! server gave it, or through [`Resume`] elsewhere. What a person sees of all this is the caller's.

mod command;
mod keep_alive;
mod sending;
mod socket;
mod task;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use sortie_channel::{body::Size, features, frame::PayloadType, handshake::Session};
use sortie_types::Secret;
use sortie_wire::shapes::ssm;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{Api, CallError, Tls};
pub use command::CommandSignal;
pub use keep_alive::KeepAliveOptions;
use sending::Sending;

/// The longest piece of input that is sent as one message.
pub const MAX_INPUT: usize = 32 << 10;

/// Events that wait for the caller.
const EVENT_QUEUE: usize = 64;

/// Pieces of input that wait for the channel.
const INPUT_QUEUE: usize = 16;

/// Messages of the caller's own making that wait for the channel. Only one: what goes out next is
/// best chosen late, and more wait in the link.
const MESSAGE_QUEUE: usize = 1;

/// A session that a server has agreed to, not dialled yet.
#[derive(Clone, Debug)]
pub struct StartedSession {
    /// Its id.
    pub session_id: String,
    /// What opens its data channel, once.
    pub token_value: Secret,
    /// Where its data channel is, dialled exactly as it stands.
    pub stream_url: String,
}

/// A StartSession answer without one of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the StartSession response has no {0}")]
pub struct IncompleteResponse(pub &'static str);

impl TryFrom<ssm::StartSessionResponse> for StartedSession {
    type Error = IncompleteResponse;

    fn try_from(response: ssm::StartSessionResponse) -> Result<Self, Self::Error> {
        let filled = |text: Option<String>, name| {
            text.filter(|text| !text.is_empty())
                .ok_or(IncompleteResponse(name))
        };
        Ok(Self {
            session_id: filled(response.session_id, "SessionId")?,
            stream_url: filled(response.stream_url, "StreamUrl")?,
            token_value: response
                .token_value
                .filter(|token| !token.expose().is_empty())
                .ok_or(IncompleteResponse("TokenValue"))?,
        })
    }
}

/// Gets a new token for a session whose connection was lost.
pub trait Resume: Send + 'static {
    /// The new token; `None` when the session is over.
    fn resume(
        &mut self,
        session_id: &str,
    ) -> impl Future<Output = Result<Option<Secret>, ResumeError>> + Send;
}

/// Why no new token was to be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot resume the session: {reason}")]
pub struct ResumeError {
    /// For people.
    pub reason: String,
    /// Whether another try may succeed.
    pub is_transient: bool,
}

impl Resume for Api {
    async fn resume(&mut self, session_id: &str) -> Result<Option<Secret>, ResumeError> {
        let request = ssm::ResumeSessionRequest {
            session_id: session_id.to_owned(),
        };
        match self.call::<ssm::ResumeSession>(&request).await {
            Ok(response) => Ok(response
                .token_value
                .filter(|token| !token.expose().is_empty())),
            // A terminated session is unknown to AWS's ResumeSession.
            Err(error) if error.code() == Some("DoesNotExistException") => Ok(None),
            Err(error) => Err(ResumeError {
                is_transient: error.is_transient(),
                reason: error.to_string(),
            }),
        }
    }
}

/// Ends a session on its server.
///
/// # Errors
/// As any call; an ended session is no error.
pub async fn terminate(api: &Api, session_id: &str) -> Result<(), CallError> {
    let request = ssm::TerminateSessionRequest {
        session_id: session_id.to_owned(),
    };
    api.call::<ssm::TerminateSession>(&request)
        .await
        .map(|_| ())
}

/// How a data channel behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is announced to servers of ours, and to no others.
    pub features: Vec<String>,
    /// How long to try to come back to a server of ours. The longest idle time that a session can
    /// have: the server itself says when it is over sooner.
    pub patience: Duration,
    /// How long one try to open the websocket may take.
    pub dial_timeout: Duration,
    /// How a connection is kept alive and found dead.
    pub keep_alive: KeepAliveOptions,
    /// Whether a session that shakes hands begins only when the caller says so with
    /// [`Commands::agree`], so that it can look at what the other end can do before anything happens.
    pub asks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            features: features::ALL.iter().map(ToString::to_string).collect(),
            patience: Duration::from_secs(3600),
            dial_timeout: Duration::from_secs(15),
            keep_alive: KeepAliveOptions::default(),
            asks: false,
        }
    }
}

/// What happens in a session.
#[derive(Debug)]
pub enum Event {
    /// The session waits for [`Commands::agree`]; only where [`Options::asks`] is set. An official
    /// agent waits for 15 seconds.
    Asked {
        /// What both ends can do; empty when the other end or the server is not ours.
        features: Vec<String>,
    },
    /// The connection was lost; the session goes on and is being returned to.
    Away {
        /// Why, for people.
        reason: String,
    },
    /// The connection is back.
    Back,
    /// The session's type is known. Comes before any output.
    Begun(Session),
    /// The session is over. The last event.
    Ended(End),
    /// A command ended.
    ExitStatus {
        /// Its exit status, when the text names one.
        code: Option<i32>,
        /// The node's text.
        text: Bytes,
    },
    /// A stream message that is none of the others, such as those of ports.
    Message {
        /// What it is.
        payload_type: PayloadType,
        /// Its bytes.
        payload: Bytes,
    },
    /// The other end is there and takes input. Comes once, possibly before [`Event::Begun`].
    Joined,
    /// Output of the terminal or the command.
    Output(Bytes),
    /// The command's separated error output.
    StdErr(Bytes),
}

/// How a session ended for this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The server closed it.
    Closed {
        /// What the server tells the person; empty after an ordinary end.
        output: String,
    },
    /// This client left.
    Left,
    /// The connection was lost and could not be restored.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// The session could not be joined at all.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// The connection was lost, and meanwhile the session ended.
    TimedOut,
}

/// An open session. Dropping it drops the connection and leaves the session to its server.
#[derive(Debug)]
pub struct DataChannel {
    /// What happens.
    pub events: Events,
    /// What the caller wants.
    pub commands: Commands,
}

/// The events of a session.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    features: watch::Receiver<Vec<String>>,
    task: JoinHandle<()>,
}

/// The way into a session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Commands {
    input: mpsc::Sender<Bytes>,
    messages: mpsc::Sender<OwnMessage>,
    size: watch::Sender<Option<Size>>,
    leave: CancellationToken,
    finish: CancellationToken,
    to_command: command::ToCommand,
    sending: Arc<Sending>,
}

/// A stream message of the caller's own making.
pub(crate) type OwnMessage = (PayloadType, Bytes);

/// The session is over: nothing takes input any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub struct Over;

impl DataChannel {
    /// Joins the session. What comes of it is told by the events.
    pub fn open(session: StartedSession, resume: impl Resume, tls: &Tls, options: Options) -> Self {
        let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
        let (input, input_receiver) = mpsc::channel(INPUT_QUEUE);
        let (messages, message_receiver) = mpsc::channel(MESSAGE_QUEUE);
        let (size, size_receiver) = watch::channel(None);
        let (tell_features, features) = watch::channel(Vec::new());
        let (leave, finish) = (CancellationToken::new(), CancellationToken::new());
        let (to_command, from_caller) = command::pair();
        let sending = Arc::new(Sending::default());
        let ends = task::Ends {
            events: event_sender,
            input: input_receiver,
            messages: message_receiver,
            features: tell_features,
            size: size_receiver,
            leave: leave.clone(),
            finish: finish.clone(),
            from_caller,
            sending: sending.clone(),
        };
        let channel = task::Channel::new(session, resume, tls.clone(), options, ends);
        let task = tokio::spawn(channel.run());
        Self {
            events: Events {
                events,
                features,
                task,
            },
            commands: Commands {
                input,
                messages,
                size,
                leave,
                finish,
                to_command,
                sending,
            },
        }
    }
}

impl Events {
    /// The next event; `None` after [`Event::Ended`].
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next event that has come already.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// What both ends and the server between them can do; complete once the session has begun, and
    /// empty where one of them is not ours.
    #[must_use]
    pub fn features(&self) -> Vec<String> {
        self.features.borrow().clone()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Commands {
    /// Queues input, waiting while the queue is full. Input is kept while the connection is away.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn send(&self, mut input: Bytes) -> Result<(), Over> {
        while !input.is_empty() {
            let piece = input.split_to(input.len().min(MAX_INPUT));
            self.input.send(piece).await.map_err(|_| Over)?;
        }
        Ok(())
    }

    /// Waits until there is room for a piece of input. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn ready(&self) -> Result<(), Over> {
        self.input.reserve().await.map(drop).map_err(|_| Over)
    }

    /// Queues a piece of input if there is room, else gives it back. A piece of more than
    /// [`MAX_INPUT`] bytes is sent as several messages.
    #[must_use = "what comes back was not queued"]
    pub fn offer(&self, input: Bytes) -> Option<Bytes> {
        self.input
            .try_send(input)
            .err()
            .map(mpsc::error::TrySendError::into_inner)
    }

    /// Room for one stream message of the caller's own making, of any type and size. It goes out as
    /// soon as the connection takes it: until then there is no more room, so that the caller chooses
    /// what is next as late as it can be chosen. Only once the session has begun.
    ///
    /// # Errors
    /// When the session is over.
    pub(crate) async fn message_room(&self) -> Result<mpsc::Permit<'_, OwnMessage>, Over> {
        self.messages.reserve().await.map_err(|_| Over)
    }

    /// Whether the other end has acknowledged every message that was sent.
    pub(crate) fn is_delivered(&self) -> bool {
        let has_queued = self.messages.capacity() < self.messages.max_capacity();
        !has_queued && self.sending.is_delivered()
    }

    /// Bytes that one such message should have at most.
    pub(crate) fn portion(&self) -> usize {
        self.sending.portion()
    }

    /// Tells the terminal's size. Only the latest size is sent, and before any input that follows.
    pub fn resize(&self, size: Size) {
        self.size.send_replace(Some(size));
    }

    /// Ends the connection now; the session is the server's to end.
    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// Ends the connection as soon as all queued input and messages have been acknowledged.
    pub fn leave_when_delivered(&self) {
        self.finish.cancel();
    }
}
