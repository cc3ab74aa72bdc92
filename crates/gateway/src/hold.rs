//! The pause that the official client needs after a multiplexed port session's handshake. Pure.
//!
//! Right after HandshakeComplete the client builds what it multiplexes with. A frame that it reads in
//! that moment kills its reader. The node's acknowledgement of the HandshakeResponse is written
//! at the same time as HandshakeComplete and hits the moment regularly. So the acknowledgement
//! is waited for a little, and everything behind HandshakeComplete is held for a tenth of a second,
//! which is less than the node's resend timer.

use std::time::Duration;

use sortie_channel::frame::{Frame, PayloadType};

/// How long the client is left alone.
const HOLD: Duration = Duration::from_millis(100);
/// How long HandshakeComplete waits for the acknowledgement that should precede it.
const ACK_WAIT: Duration = Duration::from_millis(20);

/// What has happened of the handshake.
#[derive(Debug, Default)]
pub(crate) struct MuxHold {
    /// Number of the client's HandshakeResponse.
    response: Option<i64>,
    response_acknowledged: bool,
    /// Until when HandshakeComplete waits for the acknowledgement.
    ack_wait: Option<Duration>,
    complete_passed: bool,
    hold: Option<Duration>,
}

impl MuxHold {
    /// The client sent this.
    pub(crate) fn input(&mut self, frame: &Frame) {
        if frame.payload_type() == PayloadType::HANDSHAKE_RESPONSE {
            self.response = Some(frame.sequence_number());
        }
    }

    /// The node acknowledged this number. Whether that acknowledgement should overtake what waits.
    pub(crate) fn acknowledged(&mut self, number: i64) -> bool {
        let awaited = self.response == Some(number) && !self.complete_passed;
        self.response_acknowledged |= awaited;
        awaited
    }

    /// Whether a message of this type may go to the client now; otherwise until when it waits.
    pub(crate) fn admit(
        &mut self,
        payload_type: Option<PayloadType>,
        now: Duration,
    ) -> Result<(), Duration> {
        if let Some(until) = self.hold.filter(|until| now < *until) {
            return Err(until);
        }
        self.hold = None;
        if self.complete_passed || payload_type != Some(PayloadType::HANDSHAKE_COMPLETE) {
            return Ok(());
        }
        let until = *self.ack_wait.get_or_insert(now + ACK_WAIT);
        if !self.response_acknowledged && now < until {
            return Err(until);
        }
        self.complete_passed = true;
        self.hold = Some(now + HOLD);
        Ok(())
    }
}

impl MuxHold {
    /// Until when a message of this type waits; `None` when it may go, or nothing is decided yet.
    pub(crate) fn admit_at(
        &self,
        payload_type: Option<PayloadType>,
        now: Duration,
    ) -> Option<Duration> {
        let completes = payload_type == Some(PayloadType::HANDSHAKE_COMPLETE);
        let waits = completes && !self.complete_passed && !self.response_acknowledged;
        let ack_wait = self.ack_wait.filter(|_| waits);
        self.hold.or(ack_wait).filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use sortie_channel::frame::MessageType;

    use super::*;
    use crate::pairing::testing::frame;

    const COMPLETE: Option<PayloadType> = Some(PayloadType::HANDSHAKE_COMPLETE);
    const OUTPUT: Option<PayloadType> = Some(PayloadType::OUTPUT);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn answered() -> MuxHold {
        let mut hold = MuxHold::default();
        hold.input(&frame(
            MessageType::InputStreamData,
            0,
            PayloadType::HANDSHAKE_RESPONSE,
            b"{}",
        ));
        hold
    }

    #[test]
    fn what_follows_the_handshake_is_held_for_a_tenth_of_a_second() {
        let mut hold = answered();
        assert!(hold.acknowledged(0));
        assert_eq!(hold.admit(OUTPUT, ms(5)), Ok(()));
        assert_eq!(hold.admit(COMPLETE, ms(5)), Ok(()));
        assert_eq!(hold.admit(None, ms(6)), Err(ms(105)));
        assert_eq!(hold.admit(OUTPUT, ms(104)), Err(ms(105)));
        assert_eq!(hold.admit(OUTPUT, ms(105)), Ok(()));
        assert_eq!(
            hold.admit(COMPLETE, ms(300)),
            Ok(()),
            "a repeat is not held again"
        );
        assert_eq!(hold.admit(OUTPUT, ms(301)), Ok(()));
    }

    #[test]
    fn completion_waits_for_the_acknowledgement_but_not_for_long() {
        let mut hold = answered();
        assert_eq!(hold.admit(COMPLETE, ms(5)), Err(ms(25)));
        assert!(hold.acknowledged(0), "it overtakes");
        assert_eq!(hold.admit(COMPLETE, ms(7)), Ok(()));
        assert!(!hold.acknowledged(0), "a repeat does not");

        let mut hold = answered();
        assert_eq!(hold.admit(COMPLETE, ms(5)), Err(ms(25)));
        assert_eq!(hold.admit(COMPLETE, ms(25)), Ok(()));
    }
}
