//! Streams between our ends, as a [`Multiplexer`].

use bytes::Bytes;
use sortie_channel::{
    frame::PayloadType,
    streams::{Destination, Event, Limits, Refusal, Side, Streams, TooManyStreams, payload},
};

use super::hub::{Happened, Multiplexer};

/// The node's end.
pub(super) struct OurStreams(Streams);

impl OurStreams {
    pub(super) fn new() -> Self {
        Self(Streams::new(Side::Node, Limits::default()))
    }
}

impl Multiplexer for OurStreams {
    const HALF_CLOSE: bool = true;

    fn receive(&mut self, payload_type: PayloadType, data: Bytes) -> Result<(), String> {
        // What else a client may send is nothing that a stream waits for.
        if !(payload::OPEN.0..=payload::CREDIT.0).contains(&payload_type.0) {
            return Ok(());
        }
        self.0
            .receive(payload_type, data)
            .map_err(|violation| format!("the client does not keep the rules: {violation}"))
    }

    fn next_happened(&mut self) -> Option<Happened> {
        loop {
            return Some(match self.0.next_event()? {
                Event::Open(id, destination) => Happened::Open(id, destination),
                Event::Data(id, data) => Happened::Data(id, data),
                Event::Finished(id) => Happened::Finished(id),
                Event::Reset(id) => Happened::Gone(id),
                Event::Refused(id, refusal) => {
                    tracing::debug!(id, %refusal, "the client refuses a connection");
                    Happened::Gone(id)
                }
                Event::Writable(id) => Happened::Writable(id),
                Event::Accepted(_) => continue,
            });
        }
    }

    fn next_message(&mut self, limit: usize) -> Option<(PayloadType, Bytes)> {
        self.0.next_message(limit)
    }

    fn has_message(&self) -> bool {
        self.0.has_message()
    }

    fn count(&self) -> usize {
        self.0.count()
    }

    fn takes_input(&self) -> bool {
        !self.0.is_backed_up()
    }

    fn open(&mut self) -> Result<u32, TooManyStreams> {
        self.0.open(Destination::default())
    }

    fn accept(&mut self, id: u32) {
        self.0.accept(id);
    }

    fn refuse(&mut self, id: u32, refusal: Refusal) {
        self.0.refuse(id, refusal);
    }

    fn room(&mut self, id: u32) -> usize {
        self.0.room(id)
    }

    fn send(&mut self, id: u32, data: Bytes) {
        self.0.send(id, data);
    }

    fn finish(&mut self, id: u32) {
        self.0.finish(id);
    }

    fn reset(&mut self, id: u32) {
        self.0.reset(id);
    }

    fn consumed(&mut self, id: u32, bytes: usize) {
        self.0.consumed(id, bytes);
    }
}
