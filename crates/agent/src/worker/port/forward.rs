//! A session of many connections: joins the session's messages to the hub, and makes a task of each
//! connection.

use std::{sync::Arc, time::Duration};

use sortie_channel::{
    features::STREAMS,
    link::Delivery,
    streams::{Destination, RefusalCode, TooManyStreams},
};
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{
    destination::{Connection, connect, refusal},
    hub::{Hub, Multiplexer},
    listen::Listener,
    plan::{LOCALHOST, PortKind, Target, absolute},
};
use crate::worker::{
    channel::ChannelEvent,
    outside::{End, Outside},
};

/// What a message has besides its data.
const OVERHEAD: usize = 64;
/// Connections being made at a time. Further ones wait.
const CONNECTS: usize = 64;
/// Connections being made or carried at a time, those that the client has given up already among them:
/// a client that opens and closes at once does not make more than these wait.
const CONNECTIONS: usize = 4096;
/// How often a client that listens for it is told that the node is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long nothing is accepted after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest name of a host that there is.
const LONGEST_HOST: usize = 255;

/// How one connection ended.
enum Carried {
    /// It was there, and is over.
    Over,
    /// It was refused, in these words.
    Refused(String),
}

/// A session of many connections.
pub(super) struct Forward<'a, M> {
    kind: &'a PortKind,
    outside: &'a mut Outside,
    hub: Hub<M>,
    listener: Option<Listener>,
    accepts_from: Instant,
    connections: JoinSet<Carried>,
    connects: Arc<Semaphore>,
    needs_streams: bool,
}

impl<'a, M: Multiplexer> Forward<'a, M> {
    pub(super) fn new(
        kind: &'a PortKind,
        outside: &'a mut Outside,
        multiplexer: M,
        listener: Option<Listener>,
    ) -> Self {
        Self {
            needs_streams: outside.channel.has_feature(STREAMS),
            kind,
            outside,
            hub: Hub::new(multiplexer),
            listener,
            accepts_from: Instant::now(),
            connections: JoinSet::new(),
            connects: Arc::new(Semaphore::new(CONNECTS)),
        }
    }

    /// Runs until the session is to end. All connections end with it.
    pub(super) async fn run(mut self) -> Result<(), End> {
        let ended = self.relay().await;
        self.listener = None;
        self.connections.shutdown().await;
        ended
    }

    async fn relay(&mut self) -> Result<(), End> {
        let mut keep_alive = ticks();
        loop {
            self.give()?;
            let takes_input = self.hub.takes_input();
            tokio::select! {
                event = self.outside.event(takes_input) => self.take_event(event?)?,
                () = self.hub.changed() => {}
                Some(carried) = self.connections.join_next() => {
                    if self.is_over(carried)? {
                        return self.leave().await;
                    }
                }
                accepted = accept(self.listener.as_ref(), self.accepts_from) => match accepted {
                    Ok(connection) => self.carry_back(connection),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        // Out of files, mostly: it would fail again at once.
                        self.accepts_from = Instant::now() + ACCEPT_PAUSE;
                    }
                },
                _ = keep_alive.tick() => self.hub.keep_alive(),
            }
        }
    }

    /// Sends what there is room for. What goes is chosen here and no sooner.
    fn give(&mut self) -> Result<(), End> {
        while self.outside.channel.has_room() {
            let room = self.outside.channel.portion().saturating_sub(OVERHEAD);
            let Some((payload_type, payload)) = self.hub.next_message(room) else {
                break;
            };
            if self.outside.channel.send(payload_type, payload).is_err() {
                // Cannot be: no more than the room was taken.
                return Err(End::Failed("the data channel lost a message".to_owned()));
            }
        }
        Ok(())
    }

    fn take_event(&mut self, event: ChannelEvent) -> Result<(), End> {
        match event {
            ChannelEvent::Input(delivery) => {
                self.take(delivery)?;
                while self.hub.takes_input()
                    && let Some(delivery) = self.outside.next_input()?
                {
                    self.take(delivery)?;
                }
                Ok(())
            }
            ChannelEvent::Features
                if self.needs_streams != self.outside.channel.has_feature(STREAMS) =>
            {
                Err(End::Failed(
                    "the session's connections cannot go on with another kind of client".to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self, delivery: Delivery) -> Result<(), End> {
        let asked = self
            .hub
            .receive(delivery.payload_type, delivery.payload)
            .map_err(End::Failed)?;
        for (id, destination) in asked {
            self.open(id, destination);
        }
        Ok(())
    }

    fn open(&mut self, id: u32, destination: Destination) {
        let hub = self.hub.clone();
        if self.connections.len() >= CONNECTIONS {
            let why = TooManyStreams.to_string();
            return hub.refuse(id, refusal(RefusalCode::Limit, why));
        }
        let target = match self.target(destination) {
            Ok(target) => target,
            Err(why) => return hub.refuse(id, refusal(RefusalCode::Forbidden, why.to_owned())),
        };
        let connects = Arc::clone(&self.connects);
        self.connections.spawn(async move {
            let connected = tokio::select! {
                connected = async {
                    let _permit = connects.acquire().await;
                    connect(&target).await
                } => connected,
                () = hub.gone(id) => return Carried::Over,
            };
            match connected {
                Ok(connection) => {
                    hub.accept(id);
                    hub.carry(id, connection).await;
                    Carried::Over
                }
                Err(refusal) => {
                    let why = refusal.message.clone();
                    hub.refuse(id, refusal);
                    Carried::Refused(why)
                }
            }
        });
    }

    /// Where a stream of the client goes.
    fn target(&self, destination: Destination) -> Result<Target, &'static str> {
        let is_own = destination == Destination::default();
        match self.kind {
            PortKind::Stdio(target) | PortKind::Local(target) if is_own => Ok(target.clone()),
            PortKind::Socks if !is_own => chosen(destination),
            PortKind::Reverse(_) => Err("this session takes no connections from the client"),
            _ => Err("this session does not connect to other destinations"),
        }
    }

    fn carry_back(&mut self, connection: Connection) {
        // Who comes while there are too many is sent away.
        let Ok(id) = self.hub.open() else { return };
        let hub = self.hub.clone();
        self.connections.spawn(async move {
            hub.carry(id, connection).await;
            Carried::Over
        });
    }

    /// Whether the session was for one connection, and that one has ended.
    fn is_over(&self, carried: Result<Carried, JoinError>) -> Result<bool, End> {
        let carried = carried.map_err(|error| End::Failed(error.to_string()))?;
        match (self.kind, carried) {
            (PortKind::Stdio(_), Carried::Refused(why)) => {
                tracing::info!(why, "the session's connection was refused");
                Ok(true)
            }
            (PortKind::Stdio(_), Carried::Over) => Ok(true),
            _ => Ok(false),
        }
    }

    /// Sends what is left, and that may have to wait for the client to read.
    async fn leave(&mut self) -> Result<(), End> {
        loop {
            self.give()?;
            if self.hub.is_done() {
                return self.outside.drain().await;
            }
            let takes_input = self.hub.takes_input();
            let event = self.outside.event(takes_input).await?;
            self.take_event(event)?;
        }
    }
}

/// A destination that a stream names itself.
fn chosen(destination: Destination) -> Result<Target, &'static str> {
    match destination {
        Destination {
            host: None,
            port: None,
            socket: Some(path),
        } => absolute(path.as_ref())
            .map(Target::Socket)
            .map_err(|_| "the path of a socket must be absolute"),
        Destination {
            host,
            port: Some(port @ 1..),
            socket: None,
        } => {
            let host = host.unwrap_or_else(|| LOCALHOST.to_owned());
            let is_plain = host.bytes().all(|byte| byte.is_ascii_graphic());
            if host.is_empty() || host.len() > LONGEST_HOST || !is_plain {
                return Err("that is no name of a host");
            }
            Ok(Target::Tcp { host, port })
        }
        _ => Err("that is no destination"),
    }
}

async fn accept(listener: Option<&Listener>, from: Instant) -> std::io::Result<Connection> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    if Instant::now() < from {
        tokio::time::sleep_until(from).await;
    }
    listener.accept().await
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_may_name_a_host_an_address_or_a_socket() {
        let to = |host: Option<&str>, port: Option<u16>, socket: Option<&str>| {
            chosen(Destination {
                host: host.map(str::to_owned),
                port,
                socket: socket.map(str::to_owned),
            })
            .map(|target| target.to_string())
        };
        assert_eq!(to(Some("db"), Some(5432), None), Ok("db:5432".into()));
        assert_eq!(to(Some("::1"), Some(22), None), Ok("[::1]:22".into()));
        assert_eq!(to(None, Some(22), None), Ok("localhost:22".into()));
        assert_eq!(to(None, None, Some("/a")), Ok("/a".into()));
        for (host, port, socket) in [
            (Some("db"), None, None),
            (Some("db"), Some(0), None),
            (Some("db"), Some(1), Some("/a")),
            (Some("a\nb"), Some(1), None),
            (Some(""), Some(1), None),
            (None, None, Some("a")),
            (None, None, None),
        ] {
            assert!(to(host, port, socket).is_err());
        }
    }
}
