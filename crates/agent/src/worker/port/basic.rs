//! One connection at a time as official clients have it: the session's bytes are the connection's.
//!
//! A session that the client has on its standard input and output ends with its connection. One with a
//! local port goes on: the client says when its side has closed, and the next bytes are those of a new
//! connection.

use std::io;

use bytes::{Buf, Bytes};
use sortie_channel::{
    frame::{PayloadType, flag},
    link::Delivery,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    destination::{Connection, connect},
    plan::{PortKind, Target},
};
use crate::worker::{
    channel::ChannelEvent,
    outside::{End, Outside},
};

/// The most in one message. Official clients take any size, and this one nearly as fast as any.
const LARGEST_MESSAGE: usize = 64 << 10;

/// Runs until the session is to end.
pub(super) async fn run(
    kind: &PortKind,
    target: &Target,
    outside: &mut Outside,
) -> Result<(), End> {
    let connected = dial(target, outside).await?;
    let connection = connected
        .map_err(|why| End::Failed(format!("Unable to connect to specified port: {why}")))?;
    outside.is_running = true;
    let mut basic = Basic {
        target,
        outside,
        ends_with_connection: matches!(kind, PortKind::Stdio(_)),
        connection: Some(connection),
        input: Bytes::new(),
        buffer: vec![0; LARGEST_MESSAGE].into_boxed_slice(),
    };
    basic.relay().await?;
    outside.drain().await
}

/// Connects, unless the session ends before.
async fn dial(target: &Target, outside: &mut Outside) -> Result<Result<Connection, String>, End> {
    let mut connecting = Box::pin(connect(target));
    loop {
        tokio::select! {
            connected = &mut connecting => {
                return Ok(connected.map_err(|refusal| refusal.message));
            }
            // Input waits: the client is not told that it has arrived.
            event = outside.event(false) => drop(event?),
        }
    }
}

struct Basic<'a> {
    target: &'a Target,
    outside: &'a mut Outside,
    ends_with_connection: bool,
    connection: Option<Connection>,
    /// Came and is not written yet.
    input: Bytes,
    buffer: Box<[u8]>,
}

/// What happened.
enum Step {
    Event(ChannelEvent),
    Read(io::Result<usize>),
    Written(io::Result<usize>),
}

impl Basic<'_> {
    /// Moves bytes both ways until the connection is over and with it the session.
    async fn relay(&mut self) -> Result<(), End> {
        loop {
            let closed = match self.step().await? {
                Step::Event(ChannelEvent::Input(delivery)) => self.take(delivery).await?,
                Step::Event(_) => None,
                Step::Read(Ok(0)) => Some(Ok(())),
                Step::Read(Ok(length)) => {
                    let read = self.buffer.get(..length).unwrap_or_default();
                    let payload = Bytes::copy_from_slice(read);
                    self.outside.send(PayloadType::OUTPUT, payload).await?;
                    None
                }
                Step::Written(Ok(length)) => {
                    self.input.advance(length.min(self.input.len()));
                    None
                }
                Step::Read(Err(error)) | Step::Written(Err(error)) => Some(Err(error)),
            };
            let Some(closed) = closed else { continue };
            self.close().await;
            if self.ends_with_connection {
                return closed.map_err(|error| End::Failed(error.to_string()));
            }
        }
    }

    async fn step(&mut self) -> Result<Step, End> {
        let channel = &self.outside.channel;
        let room = if channel.has_room() {
            channel.portion().min(self.buffer.len())
        } else {
            0
        };
        let takes_input = self.input.is_empty();
        let Some(connection) = &mut self.connection else {
            return Ok(Step::Event(self.outside.event(takes_input).await?));
        };
        let buffer = self.buffer.get_mut(..room).unwrap_or_default();
        tokio::select! {
            event = self.outside.event(takes_input) => Ok(Step::Event(event?)),
            read = connection.reader.read(buffer), if room > 0 => Ok(Step::Read(read)),
            written = connection.writer.write(&self.input), if !takes_input => {
                Ok(Step::Written(written))
            }
        }
    }

    /// `Some` when the connection has ended with this message.
    async fn take(&mut self, delivery: Delivery) -> Result<Option<io::Result<()>>, End> {
        match delivery.payload_type {
            PayloadType::OUTPUT => {
                if self.connection.is_none() {
                    self.reconnect().await?;
                }
                // Without a connection there is nobody to take it.
                if self.connection.is_some() {
                    self.input = delivery.payload;
                }
                Ok(None)
            }
            PayloadType::FLAG if is_disconnect(&delivery) => Ok(Some(Ok(()))),
            _ => Ok(None),
        }
    }

    async fn reconnect(&mut self) -> Result<(), End> {
        match dial(self.target, self.outside).await? {
            Ok(connection) => {
                self.connection = Some(connection);
                Ok(())
            }
            Err(why) => {
                tracing::info!(why, "a connection was not made");
                let payload = Bytes::copy_from_slice(&flag::CONNECT_TO_PORT_ERROR.to_be_bytes());
                self.outside.send(PayloadType::FLAG, payload).await
            }
        }
    }

    async fn close(&mut self) {
        self.input.clear();
        if let Some(mut connection) = self.connection.take() {
            // A peer that has gone needs no goodbye.
            let _ = connection.writer.shutdown().await;
        }
    }
}

fn is_disconnect(delivery: &Delivery) -> bool {
    delivery.payload.as_ref() == flag::DISCONNECT_TO_PORT.to_be_bytes()
}
