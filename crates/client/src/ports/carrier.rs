//! How streams are carried, and what is the same for all ways: one machine without IO that takes
//! stream messages of the session and gives events and messages.

use std::time::Duration;

use bytes::Bytes;
use sortie_channel::{
    frame::PayloadType,
    streams::{self, Destination, Limits, Refusal, Side, Streams},
    version,
};

use super::{OpenError, one::One, smux::Muxed};

/// How streams are carried, and so what they can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Everything between here and the node is ours: many streams, each with its own flow control,
    /// ended one direction at a time, opened by either end and to destinations of their own.
    Streams,
    /// An official agent, or a server in between that is not ours: many streams that are opened here.
    /// When one direction ends so does the other; an answer that comes without a pause is still read.
    Smux,
    /// One connection at a time, as the first agents and raw sessions of official ones have it. Neither
    /// the end of a direction nor a refusal is told.
    One,
}

/// What a machine tells. Ids are its own.
#[derive(Debug)]
pub(super) enum Told {
    /// The node wants a stream.
    Open(u32, Destination),
    /// The destination of a stream of ours is connected.
    Accepted(u32),
    Refused(u32, Refusal),
    /// Bytes, to be reported as consumed.
    Data(u32, Bytes),
    /// Nothing more comes; what is sent still goes.
    Finished(u32),
    /// Nothing more comes and nothing more is taken.
    Closed(u32),
    /// Over at once.
    Reset(u32),
    /// There is room again in a stream that was full.
    Writable(u32),
    /// A destination could not be connected, nobody knows which.
    ConnectFailed,
}

/// One of the three.
pub(super) enum Machine {
    Streams(Box<Streams>),
    Smux(Box<Muxed>),
    One(Box<One>),
}

impl Machine {
    /// The way that both ends choose independently, each from what it knows of the other.
    pub(super) fn choose(
        has_streams: bool,
        is_forwarding: bool,
        agent_version: &str,
    ) -> Result<Self, String> {
        if has_streams {
            let streams = Streams::new(Side::Client, Limits::default());
            return Ok(Self::Streams(Box::new(streams)));
        }
        let gates = version::client_gates(agent_version);
        if is_forwarding && gates.mux {
            return Ok(Self::Smux(Box::new(Muxed::new(
                !gates.smux_keepalive_disabled,
            ))));
        }
        Ok(Self::One(Box::new(One::new(is_forwarding))))
    }

    pub(super) fn carrier(&self) -> Carrier {
        match self {
            Self::Streams(_) => Carrier::Streams,
            Self::Smux(_) => Carrier::Smux,
            Self::One(_) => Carrier::One,
        }
    }

    pub(super) fn open(&mut self, destination: Destination) -> Result<u32, OpenError> {
        if let Self::Streams(streams) = self {
            return streams.open(destination).map_err(|_| OpenError::TooMany);
        }
        if destination != Destination::default() {
            return Err(OpenError::OwnDestinationOnly);
        }
        match self {
            Self::Smux(smux) => smux.open(),
            Self::One(one) => one.open(),
            Self::Streams(_) => Err(OpenError::NotOpen),
        }
    }

    pub(super) fn accept(&mut self, id: u32) {
        if let Self::Streams(streams) = self {
            streams.accept(id);
        }
    }

    pub(super) fn refuse(&mut self, id: u32, refusal: Refusal) {
        if let Self::Streams(streams) = self {
            streams.refuse(id, refusal);
        }
    }

    /// Bytes that a stream takes now; after 0, [`Told::Writable`] tells of room.
    pub(super) fn room(&mut self, id: u32) -> usize {
        match self {
            Self::Streams(streams) => streams.room(id),
            Self::Smux(smux) => smux.room(id),
            Self::One(one) => one.room(id),
        }
    }

    pub(super) fn send(&mut self, id: u32, data: Bytes) {
        match self {
            Self::Streams(streams) => streams.send(id, data),
            Self::Smux(smux) => smux.send(id, &data),
            Self::One(one) => one.send(id, data),
        }
    }

    /// Ends the direction to the node, behind what was sent.
    pub(super) fn finish(&mut self, id: u32, now: Duration) {
        match self {
            Self::Streams(streams) => streams.finish(id),
            Self::Smux(smux) => smux.finish(id, now),
            Self::One(one) => one.finish(id, now),
        }
    }

    /// Ends both directions at once.
    pub(super) fn reset(&mut self, id: u32) {
        match self {
            Self::Streams(streams) => streams.reset(id),
            Self::Smux(smux) => smux.reset(id),
            Self::One(one) => one.reset(id),
        }
    }

    pub(super) fn consumed(&mut self, id: u32, bytes: usize) {
        match self {
            Self::Streams(streams) => streams.consumed(id, bytes),
            Self::Smux(smux) => smux.consumed(id, bytes),
            Self::One(one) => one.consumed(id, bytes),
        }
    }

    /// Whether more may be given to [`Self::receive`]; else what came has to be consumed first.
    pub(super) fn takes_more(&self) -> bool {
        match self {
            // Data is bounded by the credit that was given, but not what has to be answered.
            Self::Streams(streams) => !streams.is_backed_up(),
            Self::Smux(smux) => smux.takes_more(),
            Self::One(one) => one.takes_more(),
        }
    }

    /// Takes a stream message of the session. An error is the end of the session.
    pub(super) fn receive(
        &mut self,
        payload_type: PayloadType,
        payload: Bytes,
        now: Duration,
    ) -> Result<(), String> {
        match self {
            Self::Streams(streams) => streams
                .receive(payload_type, payload)
                .map_err(|violation| violation.to_string()),
            Self::Smux(smux) => smux.receive(payload_type, payload, now),
            Self::One(one) => {
                one.receive(payload_type, payload, now);
                Ok(())
            }
        }
    }

    pub(super) fn next_told(&mut self) -> Option<Told> {
        match self {
            Self::Streams(streams) => streams.next_event().map(told),
            Self::Smux(smux) => smux.next_told(),
            Self::One(one) => one.next_told(),
        }
    }

    pub(super) fn has_message(&self) -> bool {
        match self {
            Self::Streams(streams) => streams.has_message(),
            Self::Smux(smux) => smux.has_message(),
            Self::One(one) => one.has_message(),
        }
    }

    /// The next message; between our ends of at most about `portion` bytes.
    pub(super) fn next_message(&mut self, portion: usize) -> Option<(PayloadType, Bytes)> {
        match self {
            Self::Streams(streams) => streams.next_message(portion),
            Self::Smux(smux) => smux.next_message(),
            Self::One(one) => one.next_message(),
        }
    }

    /// Not everything has arrived: nobody is silent who has not heard all yet.
    pub(super) fn still_sending(&mut self, now: Duration) {
        match self {
            Self::Streams(_) => {}
            Self::Smux(smux) => smux.still_sending(now),
            Self::One(one) => one.still_sending(now),
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Streams(_) => None,
            Self::Smux(smux) => smux.deadline(),
            Self::One(one) => one.deadline(),
        }
    }

    pub(super) fn on_time(&mut self, now: Duration) {
        match self {
            Self::Streams(_) => {}
            Self::Smux(smux) => smux.on_time(now),
            Self::One(one) => one.on_time(now),
        }
    }
}

/// The most in one message towards an official agent.
pub(super) const LARGEST_OFFICIAL: usize = 32 << 10;

/// How long after the end of the direction to an official agent its own must have been silent for the
/// connection to be ended. Nothing tells whether more would have come.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

fn told(event: streams::Event) -> Told {
    match event {
        streams::Event::Open(id, destination) => Told::Open(id, destination),
        streams::Event::Accepted(id) => Told::Accepted(id),
        streams::Event::Refused(id, refusal) => Told::Refused(id, refusal),
        streams::Event::Data(id, data) => Told::Data(id, data),
        streams::Event::Finished(id) => Told::Finished(id),
        streams::Event::Reset(id) => Told::Reset(id),
        streams::Event::Writable(id) => Told::Writable(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_the_one_that_the_other_end_chooses() {
        let chosen = |has_streams, is_forwarding, agent_version| {
            Machine::choose(has_streams, is_forwarding, agent_version)
                .unwrap()
                .carrier()
        };
        assert_eq!(chosen(true, true, "3.3.9999.0"), Carrier::Streams);
        assert_eq!(chosen(true, false, ""), Carrier::Streams);
        assert_eq!(chosen(false, true, "3.3.987.0"), Carrier::Smux);
        assert_eq!(chosen(false, true, "3.0.196.0"), Carrier::One);
        assert_eq!(chosen(false, true, "3.3.0"), Carrier::One);
        assert_eq!(chosen(false, false, "3.3.987.0"), Carrier::One);
    }
}
