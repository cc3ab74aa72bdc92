//! Two ends of multiplexed streams whose users do what the input says, over an orderly session, beside
//! an end that is told anything at all. Between the two nobody breaks the rules, what comes out of a
//! stream is a prefix of what went in, and what is held stays bounded.
#![no_main]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sortie_channel::{
    frame::PayloadType,
    streams::{Destination, Event, Limits, Refusal, RefusalCode, Side, Streams},
};

const STREAMS: usize = 6;
/// The most that one stream's receiver lets be under way.
const LARGEST_WINDOW: usize = 4 << 20;

struct End {
    streams: Streams,
    wire: VecDeque<(PayloadType, Bytes)>,
    ids: Vec<u32>,
    /// How many bytes of each stream were sent and came. What they are follows from their places.
    sent: BTreeMap<u32, usize>,
    got: BTreeMap<u32, usize>,
    held: VecDeque<(u32, usize)>,
    refuses: bool,
}

impl End {
    fn new(side: Side) -> Self {
        let limits = Limits { streams: STREAMS, ..Limits::default() };
        Self {
            streams: Streams::new(side, limits),
            wire: VecDeque::new(),
            ids: Vec::new(),
            sent: BTreeMap::new(),
            got: BTreeMap::new(),
            held: VecDeque::new(),
            refuses: false,
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.streams.next_event() {
            match event {
                Event::Open(id, _) if self.refuses => {
                    let refusal = Refusal { code: RefusalCode::Refused, message: "no".to_owned() };
                    self.streams.refuse(id, refusal);
                }
                Event::Open(id, _) => {
                    self.streams.accept(id);
                    self.ids.push(id);
                }
                Event::Data(id, data) => {
                    let got = self.got.entry(id).or_default();
                    let in_order = data.iter().zip(*got..).all(|(byte, at)| *byte == byte_at(id, at));
                    assert!(in_order, "a byte was lost, doubled or moved");
                    *got += data.len();
                    self.held.push_back((id, data.len()));
                }
                Event::Accepted(_)
                | Event::Refused(..)
                | Event::Finished(_)
                | Event::Reset(_)
                | Event::Writable(_) => {}
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut client, mut node) = (End::new(Side::Client), End::new(Side::Node));
    let mut alone = Streams::new(Side::Node, Limits { streams: STREAMS, ..Limits::default() });
    let mut is_alone_sane = true;
    for chunk in data.chunks(3).take(2048) {
        let &[step, which, value] = chunk else { break };
        let (from, to) = if step & 0x80 == 0 {
            (&mut client, &mut node)
        } else {
            (&mut node, &mut client)
        };
        if step & 0x7f == 0x7f {
            let rest = data.get(usize::from(which)..).unwrap_or_default();
            let told = &rest[..rest.len().min(usize::from(value))];
            is_alone_sane = is_alone_sane && tell(&mut alone, which, told);
        } else {
            act(step & 0x7f, which, value, from, to);
        }
        for (one, other) in [(&client, &node), (&node, &client)] {
            for (id, got) in &one.got {
                assert!(Some(got) <= other.sent.get(id), "a byte was made up");
            }
            assert!(one.streams.count() <= STREAMS);
            let held: usize = one.held.iter().map(|(_, bytes)| bytes).sum();
            assert!(held <= 2 * STREAMS * LARGEST_WINDOW);
        }
    }
});

fn byte_at(id: u32, at: usize) -> u8 {
    (at ^ (at >> 8) ^ id as usize).to_le_bytes()[0]
}

fn act(step: u8, which: u8, value: u8, from: &mut End, to: &mut End) {
    let id = from.ids.get(usize::from(which) % from.ids.len().max(1)).copied().unwrap_or(0);
    match step % 10 {
        0 => from.ids.extend(from.streams.open(Destination::default())),
        1..=3 => {
            let length = (usize::from(value) << 10).min(from.streams.room(id));
            if from.streams.count() > 0 && length > 0 {
                let sent = from.sent.entry(id).or_default();
                let data: Vec<u8> = (*sent..*sent + length).map(|at| byte_at(id, at)).collect();
                *sent += length;
                from.streams.send(id, data.into());
            }
        }
        4 => from.streams.finish(id),
        5 if value == 0 => from.streams.reset(id),
        6 => from.refuses = value % 4 == 0,
        7 => {
            for (id, bytes) in from.held.drain(..usize::from(value).min(from.held.len())) {
                from.streams.consumed(id, bytes);
            }
        }
        8 => {
            while let Some(message) = from.streams.next_message(usize::from(value) << 8) {
                to.wire.push_back(message);
            }
            from.take_events();
        }
        _ => {
            while let Some((payload_type, payload)) = to.wire.pop_front() {
                to.streams.receive(payload_type, payload).expect("both keep the rules");
                to.take_events();
            }
        }
    }
}

/// Whether the end can still be told anything.
fn tell(alone: &mut Streams, kind: u8, payload: &[u8]) -> bool {
    let payload_type = PayloadType(0x5300 + u32::from(kind % 9));
    let told = alone.receive(payload_type, Bytes::copy_from_slice(payload));
    while let Some(event) = alone.next_event() {
        if let Event::Data(id, data) = event {
            alone.consumed(id, data.len());
        }
    }
    while alone.next_message(1000).is_some() {}
    told.is_ok()
}
