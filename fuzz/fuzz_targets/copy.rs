//! Any bytes as the stream of a copy: messages that are read are written back the same, and the rules
//! of their order hold whatever comes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie_channel::copy::{Decoder, Incoming, LARGEST_DATA, Message, WINDOW};

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::default();
    let mut incoming = Incoming::default();
    let mut is_legal = true;
    let mut unsettled = 0;
    for piece in data.chunks(97) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            let message = match decoder.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => return,
            };
            check_round_trip(&message);
            is_legal = is_legal && incoming.take(&message).is_ok();
            if is_legal {
                act(&message, &mut incoming, &mut unsettled);
            }
        }
        assert!(decoder.buffer().len() < LARGEST_DATA + 64);
    }
});

fn check_round_trip(message: &Message) {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(&bytes);
    assert_eq!(decoder.next_message().as_ref(), Ok(&Some(message.clone())));
    assert_eq!(decoder.finish(), Ok(()));
}

/// Wants every other file, having a part of it, and settles every third entry.
fn act(message: &Message, incoming: &mut Incoming, unsettled: &mut usize) {
    let is_file = matches!(message, Message::File { .. });
    if !is_file && !matches!(message, Message::Enter(..) | Message::Link { .. }) {
        return;
    }
    *unsettled += 1;
    assert!(*unsettled <= WINDOW);
    let entry = incoming.last_entry();
    if is_file && entry % 2 == 0 {
        incoming.wanted(entry, entry % 5);
    } else if entry % 3 == 0 {
        incoming.settled(entry);
        *unsettled -= 1;
    }
}
