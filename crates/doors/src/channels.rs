//! The message gateway's door: the calls that give out channel tokens, and the websocket upgrades.
//! A node signs both. A client's upgrade is unsigned as a rule, because the token in its first frame
//! says everything; a signature that is there must still be right. After an upgrade the socket is
//! the gateway's.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sortie_control::{Call, Caller};
use sortie_gateway::{Gateway, Io, Peer};
use sortie_wire::{AwsError, Protocol, Service};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    Connection, House, answer,
    authenticate::Refused,
    errors::Failure,
    operations::{OPEN_CONTROL_CHANNEL, OPEN_DATA_CHANNEL, OperationEntry, find},
    perform::Outcome,
    request::Received,
    route::Channel,
};

/// How long after our answer the connection may take to become a websocket.
const UPGRADE_TIME: Duration = Duration::from_secs(10);

/// How many control channels are created, and how many opened, at the same time.
const TURNS: usize = 64;

/// Whose turn it is. When a whole fleet comes back, one node after the other is served, and each
/// gets on with it: served all together they would all be ready at the very end, and should that be
/// later than they wait, they would all begin again, and none would ever come back. A turn is
/// waited for when everything that a stranger can be slow with has come.
pub(crate) struct Turns {
    create: Semaphore,
    /// Of their own: a node that is half through does not wait behind all that begin.
    open: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            create: Semaphore::new(TURNS),
            open: Semaphore::new(TURNS),
        }
    }
}

impl Turns {
    /// Waits for the turn of what this channel's request does. Data channels are people's, and do not
    /// wait for nodes.
    async fn take(&self, channel: Channel) -> Option<SemaphorePermit<'_>> {
        let turns = match channel {
            Channel::CreateControl => &self.create,
            Channel::OpenControl => &self.open,
            Channel::CreateData | Channel::OpenData => return None,
        };
        // Never closed.
        turns.acquire().await.ok()
    }
}

/// The channel's name in a request's path: a node or session id. What is no id stays as it is;
/// nothing is called that.
pub(crate) fn name(received: &Received) -> String {
    let last = received.path.rsplit('/').next().unwrap_or_default();
    decoded(last).unwrap_or_else(|| last.to_owned())
}

/// Session ids may hold `@`, which some clients escape.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

impl House {
    pub(crate) async fn channel(
        self: &Arc<Self>,
        received: Received,
        channel: Channel,
        body: Body,
        upgrade: Option<OnUpgrade>,
    ) -> Outcome {
        let operation = match channel {
            Channel::CreateControl => "CreateControlChannel",
            Channel::CreateData => "CreateDataChannel",
            Channel::OpenControl => OPEN_CONTROL_CHANNEL,
            Channel::OpenData => OPEN_DATA_CHANNEL,
        };
        let Some(entry) = find(Service::SsmMessages, operation) else {
            let error = AwsError::internal(Protocol::Channel);
            return answer::failure(&error, Service::SsmMessages, received.request_id).into();
        };
        match channel {
            Channel::CreateControl | Channel::CreateData => {
                self.create(&received, channel, entry, body).await
            }
            Channel::OpenControl | Channel::OpenData => {
                self.open(received, channel, entry, upgrade).await
            }
        }
    }

    async fn create(
        &self,
        received: &Received,
        channel: Channel,
        entry: &'static OperationEntry,
        body: Body,
    ) -> Outcome {
        let body = match self.bodies.read(body, received.source()).await {
            Ok(body) => body,
            Err(error) => {
                return self
                    .unread(received, Service::SsmMessages, entry.name, error)
                    .await;
            }
        };
        let _turn = self.turns.take(channel).await;
        let service = Service::SsmMessages;
        match self.caller(received, &body, service, Some(entry)).await {
            Ok(caller) => {
                let call = self.call_of(received, entry, caller);
                entry.run(self, received, call, &body).await
            }
            Err(refused) => self.refuse(received, service, Some(entry), refused).await,
        }
    }

    async fn open(
        self: &Arc<Self>,
        received: Received,
        channel: Channel,
        entry: &'static OperationEntry,
        upgrade: Option<OnUpgrade>,
    ) -> Outcome {
        let _turn = self.turns.take(channel).await;
        let service = Service::SsmMessages;
        let caller = match self.opener(&received, channel).await {
            Ok(caller) => caller,
            Err(refused) => return self.refuse(&received, service, Some(entry), refused).await,
        };
        let mut call = self.call_of(&received, entry, caller);
        let name = name(&received);
        call.request_parameters = channel_parameters(&name, Value::Null);
        if let Some(failure) = foreign_channel(channel, &name, &call.caller) {
            return self.failed(&received, service, &call, failure).await;
        }
        let accept = match websocket_key(&received.headers) {
            Ok(key) => derive_accept_key(key),
            Err(why) => {
                let error = AwsError::new("BadRequest", 400, why);
                return self
                    .failed(&received, service, &call, Failure::of(error))
                    .await;
            }
        };
        let Some(upgrade) = upgrade.filter(|_| !self.stop.is_cancelled()) else {
            let failure = Failure::of(AwsError::unavailable(Protocol::Channel));
            return self.failed(&received, service, &call, failure).await;
        };
        let response = switching(&accept, &received);
        // The request ends here: its headers hold the whole buffer that it was read into, which a
        // channel would keep as long as it is open.
        let opened = Opened {
            channel,
            name,
            call,
            connection: received.connection,
        };
        self.tasks
            .spawn(opened.hand_over(upgrade, self.gateway.clone()));
        response.into()
    }

    /// Who opens a channel. A control channel needs a signature. A data channel may be opened by
    /// whoever has its token, and a client that signs with another installation's credentials,
    /// because they are its default ones, counts as one that does not sign.
    async fn opener(&self, received: &Received, channel: Channel) -> Result<Caller, Refused> {
        let service = Service::SsmMessages;
        if channel == Channel::OpenData && authorizes_otherwise(received) {
            return Ok(Caller::Anonymous { access_key: None });
        }
        let caller = match self.authenticate(received, b"", service).await {
            Err(refused) if refused.foreign && channel == Channel::OpenData => {
                tracing::debug!(access_key = refused.access_key, "signed with a foreign key");
                return Ok(Caller::Anonymous { access_key: None });
            }
            authenticated => authenticated?,
        };
        match (&caller, channel) {
            (Caller::Anonymous { .. }, Channel::OpenControl) => {
                Err(Refused::unsigned(service.protocol()))
            }
            _ => Ok(caller),
        }
    }
}

/// Whether an `Authorization` header is of another scheme than AWS's. Some clients send their channel
/// token there, as a bearer's, besides the first frame; the frame is what counts.
fn authorizes_otherwise(received: &Received) -> bool {
    let header = received.headers.get(http::header::AUTHORIZATION);
    header.is_some_and(|value| !value.as_bytes().starts_with(b"AWS4-"))
}

/// A control channel is its node's own. Said here already, where the answer can still be an HTTP
/// error; the gateway asks control again with the token.
fn foreign_channel(channel: Channel, name: &str, caller: &Caller) -> Option<Failure> {
    let code = match caller {
        _ if channel != Channel::OpenControl => return None,
        Caller::Node(node) if node.node_id.as_str() == name => return None,
        // Another node must not see the access-denied tag, see `CreateControlChannel`.
        Caller::Node(_) => "InvalidInstanceId",
        Caller::Anonymous { .. } | Caller::Role(_) | Caller::User(_) => "AccessDeniedException",
    };
    let text = "Only the managed node itself may open its control channel.";
    Some(Failure::denied_as(AwsError::new(code, 403, text)))
}

/// The trail's view of a channel call.
pub(crate) fn channel_parameters(name: &str, input: Value) -> Value {
    let mut parameters = json!({ "channelId": name });
    if let (Value::Object(all), Value::Object(input)) = (&mut parameters, input) {
        all.extend(input);
    }
    parameters
}

/// The key of a websocket upgrade, or what is wrong with it. Subprotocols and extensions that are
/// offered are not taken, by not naming them in the answer.
fn websocket_key(headers: &HeaderMap) -> Result<&[u8], &'static str> {
    let has = |name: header::HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|given| given.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err("a websocket upgrade is required");
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err("websocket version 13 is required");
    }
    headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .ok_or("the websocket key is missing")
}

fn switching(accept: &str, received: &Received) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer::put_request_id(headers, received.request_id);
    response
}

/// A channel whose upgrade was answered.
struct Opened {
    channel: Channel,
    name: String,
    call: Call,
    connection: Connection,
}

impl Opened {
    /// Waits for the socket and gives it to the gateway, until the channel ends.
    async fn hand_over(self, upgrade: OnUpgrade, gateway: Gateway) {
        let upgraded = match timeout(UPGRADE_TIME, upgrade).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => {
                tracing::debug!(request_id = %self.call.request_id, %error, "no upgrade");
                return;
            }
            Err(_) => {
                tracing::debug!(request_id = %self.call.request_id, "the upgrade took too long");
                return;
            }
        };
        let io: Box<dyn Io> = Box::new(Held {
            io: TokioIo::new(upgraded),
            _connection: self.connection,
        });
        // Boxed: what a channel needs while it opens must not stay in the task of one that idles.
        match self.channel {
            Channel::OpenControl | Channel::CreateControl => {
                let socket = Gateway::control_websocket(io).await;
                Box::pin(gateway.control_channel(self.call, self.name, socket)).await;
            }
            Channel::OpenData | Channel::CreateData => {
                let socket = Gateway::websocket(io).await;
                let peer = Peer {
                    source_ip: self.call.source_ip,
                    user_agent: self.call.user_agent,
                    secure_transport: self.call.secure_transport,
                    signed_by: match self.call.caller {
                        Caller::Anonymous { .. } => None,
                        caller => Some(caller),
                    },
                };
                Box::pin(gateway.data_channel(self.name, peer, socket)).await;
            }
        }
    }
}

/// An upgraded socket that keeps its connection, and with it the server's permit, as long as it
/// is open.
struct Held {
    io: TokioIo<Upgraded>,
    _connection: Connection,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_once_and_broken_ones_stay() {
        assert_eq!(decoded("a%40b-0").as_deref(), Some("a@b-0"));
        assert_eq!(decoded("a%2540b").as_deref(), Some("a%40b"));
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }
}
