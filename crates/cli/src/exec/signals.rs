//! The signals that are a command's rather than this program's. Those that whoever started the program
//! ignores, as `nohup` and `&` do, stay ignored.

use std::{io, task::Poll};

use rustix::process::Signal;
use sortie_client::data_channel::CommandSignal;
use tokio::signal::unix::{SignalKind, signal};

const PASSED_ON: [(Signal, CommandSignal); 6] = [
    (Signal::INT, CommandSignal::Int),
    (Signal::TERM, CommandSignal::Term),
    (Signal::HUP, CommandSignal::Hup),
    (Signal::QUIT, CommandSignal::Quit),
    (Signal::USR1, CommandSignal::Usr1),
    (Signal::USR2, CommandSignal::Usr2),
];

/// A signal that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caught {
    pub(super) number: i32,
    pub(super) meaning: CommandSignal,
}

/// Whether a person who sends it wants the program to end.
pub(super) fn is_ending(signal: CommandSignal) -> bool {
    !matches!(signal, CommandSignal::Usr1 | CommandSignal::Usr2)
}

/// The signals, from when this is made.
pub(super) struct Signals(Vec<(Caught, tokio::signal::unix::Signal)>);

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let ignored = ignored();
        let listen = |(raw, meaning): (Signal, CommandSignal)| {
            let number = raw.as_raw();
            let caught = Caught { number, meaning };
            Ok((caught, signal(SignalKind::from_raw(number))?))
        };
        PASSED_ON
            .into_iter()
            .filter(|(raw, _)| !is_in(ignored, raw.as_raw()))
            .map(listen)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Caught {
        std::future::poll_fn(|context| {
            for (caught, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*caught);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The set of signals that this process ignores, bit by bit; empty where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    mask(&status)
}

fn mask(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn is_in(mask: u64, number: i32) -> bool {
    (1..=64).contains(&number) && mask >> (number - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_read_from_the_systems_words() {
        let mask = mask("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\n");
        assert!(is_in(mask, 1) && is_in(mask, 2) && is_in(mask, 13));
        assert!(!is_in(mask, 15) && !is_in(mask, 0) && !is_in(mask, 65));
        assert_eq!(super::mask("nothing"), 0);
    }
}
