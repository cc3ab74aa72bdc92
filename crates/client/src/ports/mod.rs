//! The client's end of a port session: byte streams between this machine and the node, over one
//! [`DataChannel`] that comes and goes.
//!
//! [`PortSession`] finds out with the node how streams are carried: by the messages of
//! [`sortie_channel::streams`] where everything between here and the node is ours, and towards
//! official agents as their own client would, by smux or one connection at a time. A [`PortStream`]
//! looks the same in all cases: `AsyncRead` and `AsyncWrite`, where `shutdown` ends one direction. What
//! an official agent cannot do is told by [`Carrier`].
//!
//! Flow is controlled from socket to socket: a stream that nobody reads holds back its far sender, and
//! a write waits while the stream's queue is full. Listening, dialling and what a person is told are
//! the caller's; [`splice`] joins a stream with a local connection.

mod carrier;
mod driver;
mod one;
mod smux;
mod splice;
mod state;
mod stream;

use std::sync::Arc;

use serde_json::Value;
use sortie_channel::{
    features,
    handshake::{Session, SessionType},
    streams::{Destination, Refusal, RefusalCode},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    DataChannel, StartedSession, Tls,
    data_channel::{self, End, Resume},
};

pub use self::{
    carrier::Carrier,
    splice::{SpliceError, splice, splice_halves},
    stream::{PortReader, PortStream, PortWriter},
};
use self::{carrier::Machine, driver::Driver, state::Shared};

/// Events that wait for the caller.
const EVENT_QUEUE: usize = 16;

/// The value of the property `type` with which a session forwards local connections.
const LOCAL_PORT_FORWARDING: &str = "LocalPortForwarding";

/// An open port session. Dropping it drops the connection and leaves the session to its server; streams
/// fail from then on.
#[derive(Debug)]
pub struct PortSession {
    events: mpsc::Receiver<Event>,
    connector: Connector,
    close: CancellationToken,
    task: JoinHandle<()>,
}

/// What happens in a port session.
#[derive(Debug)]
pub enum Event {
    /// The connection was lost; the session goes on and is being returned to. Streams wait.
    Away {
        /// Why, for people.
        reason: String,
    },
    /// The connection is back.
    Back,
    /// The node is there: streams can be opened. Comes once.
    Begun(Begun),
    /// An official agent could not connect to the destination. It does not say for which stream.
    ConnectFailed,
    /// The node opened a stream.
    Incoming(IncomingStream),
    /// The session is over, and with it every stream. The last event.
    Ended(End),
}

/// What is known of a session once the node is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Begun {
    /// The resolved properties of the session's document.
    pub properties: Value,
    /// How streams are carried, and so what they can do.
    pub carrier: Carrier,
    /// What the node tells the person; empty for nothing.
    pub customer_message: String,
}

impl Begun {
    /// A property that is a text and not empty.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        text_property(&self.properties, name)
    }

    /// Whether the session forwards local connections; else it is one stream.
    #[must_use]
    pub fn is_forwarding(&self) -> bool {
        is_forwarding(&self.properties)
    }
}

fn text_property<'a>(properties: &'a Value, name: &str) -> Option<&'a str> {
    properties
        .get(name)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn is_forwarding(properties: &Value) -> bool {
    text_property(properties, "type") == Some(LOCAL_PORT_FORWARDING)
}

/// Why a stream cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// As many as there may be are open: 1 or 1024, as the [`Carrier`] has it.
    #[error("too many connections are open")]
    TooMany,
    /// The session is over, or has not begun.
    #[error("the session is not open")]
    NotOpen,
    /// Streams to destinations of their own need our ends and server.
    #[error("the node's agent connects to the session's own destination only")]
    OwnDestinationOnly,
}

/// Opens streams of a session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    shared: Arc<Shared>,
}

impl Connector {
    /// Opens a stream. It can be written to at once: what is written goes out behind the request. Whether
    /// the destination is there is told by [`PortStream::connected`], and by the first read.
    ///
    /// # Errors
    /// When no stream can be opened here; the node's refusal is told by the stream.
    pub fn open(&self, destination: Destination) -> Result<PortStream, OpenError> {
        self.shared.open(destination)
    }

    /// Opens a stream to the session's own destination.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_own(&self) -> Result<PortStream, OpenError> {
        self.open(Destination::default())
    }
}

/// A stream that the node wants. Dropping it refuses it.
#[derive(Debug)]
pub struct IncomingStream {
    stream: Option<PortStream>,
    shared: Arc<Shared>,
    /// Where the node says it goes; the session's own destination as a rule.
    pub destination: Destination,
}

impl IncomingStream {
    /// Says that the destination is connected.
    #[must_use]
    pub fn accept(mut self) -> Option<PortStream> {
        let stream = self.stream.take()?;
        self.shared.accept(stream.id());
        Some(stream)
    }

    /// Says that it is not, and why.
    pub fn refuse(mut self, refusal: Refusal) {
        if let Some(stream) = self.stream.take() {
            self.shared.refuse(stream.id(), refusal);
        }
    }
}

impl Drop for IncomingStream {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            let refusal = Refusal {
                code: RefusalCode::Forbidden,
                message: "nobody takes connections here".to_owned(),
            };
            self.shared.refuse(stream.id(), refusal);
        }
    }
}

impl PortSession {
    /// Joins the session. Its document has to be one of ports.
    #[must_use]
    pub fn open(
        session: StartedSession,
        resume: impl Resume,
        tls: &Tls,
        options: data_channel::Options,
    ) -> Self {
        Self::over(DataChannel::open(session, resume, tls, options), None)
    }

    /// Goes on with a channel whose session turned out to be one of ports.
    #[must_use]
    pub fn of_begun(channel: DataChannel, session: Session) -> Self {
        Self::over(channel, Some(session))
    }

    fn over(channel: DataChannel, session: Option<Session>) -> Self {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let shared = Arc::new(Shared::new());
        let close = CancellationToken::new();
        let driver = Driver::new(channel, shared.clone(), sender, close.clone());
        let task = tokio::spawn(driver.run(session));
        Self {
            events,
            connector: Connector { shared },
            close,
            task,
        }
    }

    /// The next event; `None` after [`Event::Ended`].
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// What opens streams.
    #[must_use]
    pub fn connector(&self) -> Connector {
        self.connector.clone()
    }

    /// Asks the node to end the session, and ends the connection when that is delivered.
    /// [`Event::Ended`] follows, within seconds also where nobody answers. What streams have not
    /// delivered is lost.
    pub fn close(&self) {
        self.close.cancel();
    }
}

impl Drop for PortSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The machine for a session that has begun.
fn machine(session: &Session, features: &[String]) -> Result<Machine, String> {
    if session.session_type != SessionType::Port {
        return Err(format!(
            "the session is of type {}, which has no ports",
            session.session_type.as_str()
        ));
    }
    let has_streams = features.iter().any(|name| name == features::STREAMS);
    let is_forwarding = is_forwarding(&session.properties);
    Machine::choose(has_streams, is_forwarding, &session.agent_version)
}
