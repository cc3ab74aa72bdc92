//! Any bytes as what an official client multiplexes: nothing panics, memory is what the bytes were, and
//! however they are cut, the same comes of them.
#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sortie_channel::smux::{Event, MAX_STREAMS, Side, Smux, SmuxError};

/// What came of it: the streams in the order of opening, the data of each, how it ended, the answers.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    opened: Vec<u32>,
    data: BTreeMap<u32, Vec<u8>>,
    closed: Vec<u32>,
    answers: Vec<u8>,
    error: Option<SmuxError>,
}

fn feed(side: Side, bytes: &[u8], piece: usize) -> Outcome {
    let mut smux = Smux::new(side);
    let mut outcome = Outcome::default();
    if side == Side::Client {
        for _ in 0..3 {
            smux.open().expect("room for three");
        }
    }
    for piece in bytes.chunks(piece) {
        let received = smux.receive(Bytes::copy_from_slice(piece));
        while let Some(event) = smux.next_event() {
            match event {
                Event::Opened(id) => outcome.opened.push(id),
                Event::Data(id, data) => {
                    outcome.data.entry(id).or_default().extend_from_slice(&data);
                }
                Event::Closed(id) => outcome.closed.push(id),
            }
        }
        assert!(smux.streams() <= MAX_STREAMS);
        assert!(smux.unread() <= bytes.len(), "more is held than came");
        if let Err(error) = received {
            outcome.error = Some(error);
            break;
        }
    }
    while let Some(bytes) = smux.take_outgoing(1000) {
        outcome.answers.extend_from_slice(&bytes);
    }
    assert_eq!(smux.queued(), 0);
    for (id, data) in &outcome.data {
        smux.used(*id, data.len());
    }
    assert_eq!(smux.unread(), 0, "something is held that never came out");
    outcome
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else { return };
    for side in [Side::Node, Side::Client] {
        let whole = feed(side, bytes, bytes.len().max(1));
        let pieces = feed(side, bytes, usize::from(cut % 32) + 1);
        assert!(whole == pieces, "what came of it hangs on how it was cut");
    }
});
