//! The node's agent beside its session worker: the control channel, and the result that it reports.

use std::time::Duration;

use super::{
    net::{Message, Place, Purpose},
    server::Context,
};

const RESEND_OURS: Duration = Duration::from_secs(5);
const RESEND_OFFICIAL: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_secs(27);
const SILENCE_LIMIT: Duration = Duration::from_secs(57);

/// What the agent hears about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Start,
    End,
}

/// The session's result, until the server has it.
struct Report {
    sent: u32,
    next_at: Duration,
    is_taken: bool,
}

/// The agent's process.
pub(super) struct Agent {
    ours: bool,
    wire: Option<u64>,
    heard: Duration,
    pinged: Duration,
    dial_at: Duration,
    failures: u32,
    report: Option<Report>,
    /// Not running until then.
    down_until: Duration,
}

impl Agent {
    pub(super) fn new(ours: bool) -> Self {
        Self {
            ours,
            wire: None,
            heard: Duration::ZERO,
            pinged: Duration::ZERO,
            dial_at: Duration::ZERO,
            failures: 0,
            report: None,
            down_until: Duration::ZERO,
        }
    }

    /// The process ends and another begins at `until`. Workers and results are kept.
    pub(super) fn restart(&mut self, until: Duration, cx: &mut Context<'_>) {
        if let Some(wire) = self.wire.take() {
            cx.net.release(wire, Place::Peer, cx.now);
        }
        self.down_until = until;
        self.dial_at = until;
        self.failures = 0;
    }

    /// The worker is over.
    pub(super) fn finished(&mut self, now: Duration) {
        self.report.get_or_insert(Report {
            sent: 0,
            next_at: now,
            is_taken: false,
        });
    }

    /// The server has the result, and the agent has forgotten it.
    pub(super) fn is_relieved(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.is_taken)
    }

    pub(super) fn is_online(&self) -> bool {
        self.wire.is_some()
    }

    /// Does whatever can be done now. `is_running`: whether there is a worker.
    pub(super) fn poll(&mut self, is_running: bool, cx: &mut Context<'_>) -> (bool, Vec<Order>) {
        let mut orders = Vec::new();
        if cx.now < self.down_until {
            return (false, orders);
        }
        let mut moved = false;
        while let Some(wire) = self.wire
            && let Some(message) = cx.net.receive(wire, Place::Peer, cx.now)
        {
            moved = true;
            self.heard = cx.now;
            match message {
                Message::Start => orders.push(Order::Start),
                Message::End => orders.push(Order::End),
                Message::CompleteTaken => {
                    if let Some(report) = &mut self.report {
                        report.is_taken = true;
                    }
                }
                Message::Ping(question) => {
                    cx.net
                        .send(wire, Place::Peer, Message::Pong(question), cx.now, cx.dice)
                }
                Message::Pong(_) => {}
                other => panic!("{other:?} on a control channel"),
            }
        }
        moved |= self.notice_loss(cx);
        moved |= self.connect(is_running, cx);
        moved |= self.say(cx);
        (moved, orders)
    }

    fn notice_loss(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(wire) = self.wire else { return false };
        let is_silent = cx.now >= self.heard + SILENCE_LIMIT;
        if !is_silent && !cx.net.is_gone(wire, Place::Peer, cx.now) {
            if cx.now >= self.pinged + PING_INTERVAL {
                self.pinged = cx.now;
                cx.net
                    .send(wire, Place::Peer, Message::Ping(0), cx.now, cx.dice);
            }
            return false;
        }
        cx.net.release(wire, Place::Peer, cx.now);
        self.wire = None;
        self.dial_at = cx.now + cx.dice.millis(0, 2500);
        true
    }

    fn connect(&mut self, is_running: bool, cx: &mut Context<'_>) -> bool {
        if self.wire.is_some() || cx.now < self.dial_at {
            return false;
        }
        let hello = Message::Hello {
            ours: self.ours,
            listed: self.ours.then_some(is_running),
        };
        self.wire = cx.net.dial(Purpose::Control, hello, cx.now);
        if self.wire.is_none() {
            let most = (500 << self.failures.min(10)).min(10_000);
            self.failures += 1;
            self.dial_at = cx.now + cx.dice.millis(most / 2, most);
            return true;
        }
        self.failures = 0;
        (self.heard, self.pinged) = (cx.now, cx.now);
        if let Some(report) = self.report.as_mut().filter(|_| self.ours) {
            report.next_at = cx.now;
        }
        true
    }

    /// An official agent says it three times, heard or not; ours until it is acknowledged.
    fn say(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(report) = self.report.as_mut() else {
            return false;
        };
        let is_done = report.is_taken || (!self.ours && report.sent >= 3);
        if is_done || cx.now < report.next_at {
            return false;
        }
        report.next_at = cx.now
            + if self.ours {
                RESEND_OURS
            } else {
                RESEND_OFFICIAL
            };
        report.sent += 1;
        if let Some(wire) = self.wire {
            let complete = Message::Complete { failed: false };
            cx.net.send(wire, Place::Peer, complete, cx.now, cx.dice);
        }
        true
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let is_connected = self.wire.is_some();
        let report = self.report.as_ref();
        [
            Some(self.down_until),
            Some(self.dial_at).filter(|_| !is_connected),
            Some(self.heard + SILENCE_LIMIT).filter(|_| is_connected),
            Some(self.pinged + PING_INTERVAL).filter(|_| is_connected),
            report
                .filter(|report| !report.is_taken)
                .map(|report| report.next_at),
        ]
        .into_iter()
        .flatten()
    }
}
