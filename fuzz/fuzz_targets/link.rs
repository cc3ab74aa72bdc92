//! Two links joined by an adversary who reads the input: frames are delivered, dropped, doubled,
//! held back, or made up. Whatever happens, what comes out is a prefix of what went in, and memory
//! stays bounded.
#![no_main]

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sortie_channel::{
    frame::{Frame, PayloadType},
    link::{Link, Options, Role},
};
use sortie_types::{Now, Timestamp};

struct Direction {
    sent: Vec<u8>,
    received: Vec<u8>,
    wire: VecDeque<Bytes>,
}

fuzz_target!(|data: &[u8]| {
    let mut now = Now::new(Duration::ZERO, Timestamp::from_millis(1_700_000_000_000));
    let mut client = Link::new(Options::new(Role::Client, [1; 16]));
    let mut node = Link::new(Options::new(Role::Node, [2; 16]));
    client.connected(now);
    node.connected(now);
    let new = || Direction { sent: Vec::new(), received: Vec::new(), wire: VecDeque::new() };
    let (mut up, mut down) = (new(), new());
    for chunk in data.chunks(2).take(4096) {
        let &[step, value] = chunk else { break };
        now = now.after(Duration::from_millis(u64::from(value)));
        let (from, to, way) = if step & 0x80 == 0 {
            (&mut client, &mut node, &mut up)
        } else {
            (&mut node, &mut client, &mut down)
        };
        act(step & 0x7f, value, from, to, way, now);
        for (link, way) in [(&mut client, &mut down), (&mut node, &mut up)] {
            while let Some(delivery) = link.next_delivery() {
                way.received.extend_from_slice(&delivery.payload);
            }
            assert!(way.sent.starts_with(&way.received), "a byte was lost, doubled or moved");
        }
        let (held, waiting) = client.held_bytes();
        assert!(held <= 4 << 20 && waiting <= 16 << 20, "memory grew without bound");
    }
});

fn act(step: u8, value: u8, from: &mut Link, to: &mut Link, way: &mut Direction, now: Now) {
    match step % 8 {
        0 | 1 => {
            let payload = vec![value; usize::from(value % 7) + 1];
            if from.send(PayloadType::OUTPUT, Bytes::from(payload.clone()), now).is_ok() {
                way.sent.extend_from_slice(&payload);
            }
        }
        2 | 3 => {
            while let Some(frame) = from.poll_transmit(now) {
                way.wire.push_back(frame);
            }
        }
        4 => {
            while let Some(bytes) = way.wire.pop_front() {
                deliver(to, bytes, now);
            }
        }
        5 => {
            // One of the frames under way, out of its order and twice.
            let index = usize::from(value) % way.wire.len().max(1);
            if let Some(bytes) = way.wire.get(index).cloned() {
                deliver(to, bytes.clone(), now);
                deliver(to, bytes, now);
            }
        }
        6 => {
            way.wire.pop_front();
        }
        _ => {
            way.wire.clear();
            from.disconnected();
            from.connected(now);
        }
    }
}

fn deliver(link: &mut Link, bytes: Bytes, now: Now) {
    let frame = Frame::parse(bytes).expect("our own frames parse");
    let _ = link.receive(frame, now);
}
