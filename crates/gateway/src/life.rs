//! How a session starts and ends. Pure: events and times go in; what is due comes out.
//!
//! ```text
//! Waiting ──client opens──► Starting ──node opens──► Open ──cause──► Ending ──both done──► over
//!    └──────────────────────────┴─────────────────────cause────────────┘
//! ```
//!
//! An ending has two halves. The *client* is told in a text, behind all output that was there.
//! The *node* is told on every channel it has, unless it ended the session itself, and its
//! confirmation is awaited within bounds. The row is over when both halves are.

use std::time::Duration;

use sortie_control::{End, Side};
use sortie_ports::{Session, SessionState};
use sortie_types::Now;

use crate::{Options, pairing::earliest};

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The client never opened its data channel.
    ClientMissing { waited: Duration },
    /// The node reported a result.
    Completed { failed: bool, output: String },
    /// The process on the node ended and its output was sent.
    Exited,
    /// An end cannot do what the session is for.
    Incapable { side: Side },
    /// Nothing happened for too long.
    Idle { limit: Duration },
    /// The longest time that a session may take is over.
    Maximum { limit: Duration },
    /// The node's control channel is not open.
    NodeAway,
    /// The node's data channel went away and did not come back.
    NodeLost,
    /// The node did not open its data channel after it was told to start.
    NotStarted { waited: Duration },
    /// More output waited than is held.
    Overflow,
    /// The server stops and takes its sessions with it.
    Stopping,
    /// The row says so.
    Told { reason: String },
}

impl Cause {
    /// What a row means that says that its session ends. Who asks for the end gives a reason; without
    /// one the session ended by itself, and a server that is gone had begun to say so.
    pub(crate) fn of_row(row: &Session) -> Self {
        match &row.end_reason {
            Some(reason) => Self::Told {
                reason: reason.clone(),
            },
            None => Self::Exited,
        }
    }

    /// Whether the node itself ended the session, so that it need not be told.
    fn is_natural(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Exited)
    }

    /// What the person at the client reads; empty when the end is an ordinary one.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Completed {
                failed: true,
                output,
            } if output.trim().is_empty() => "The session failed on the node.".to_owned(),
            Self::Completed {
                failed: true,
                output,
            } => output.clone(),
            Self::Completed { failed: false, .. } | Self::Exited => String::new(),
            Self::Told { reason } => reason.clone(),
            other => other.reason(),
        }
    }

    /// What the row keeps as the reason.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::ClientMissing { waited } => {
                format!("The client did not connect within {}.", spoken(*waited))
            }
            Self::Completed {
                failed: true,
                output,
            } => plain(output),
            Self::Completed { failed: false, .. } | Self::Exited => {
                "The session ended on the node.".to_owned()
            }
            Self::Idle { limit } => {
                format!(
                    "The session was idle for {} and has been ended.",
                    spoken(*limit)
                )
            }
            Self::Incapable { side: Side::Client } => {
                "This kind of session needs the sortie command line; the AWS CLI and its plugin \
                 cannot do it."
                    .to_owned()
            }
            Self::Incapable { side: Side::Node } => {
                "This kind of session needs sortie-agent on the node; amazon-ssm-agent and older \
                 agents cannot do it."
                    .to_owned()
            }
            Self::Maximum { limit } => {
                format!(
                    "The session has reached its maximum duration of {}.",
                    spoken(*limit)
                )
            }
            Self::NodeAway => "The node is not connected.".to_owned(),
            Self::NodeLost => "The connection to the node was lost.".to_owned(),
            Self::NotStarted { waited } => {
                format!(
                    "The node did not start the session within {}.",
                    spoken(*waited)
                )
            }
            Self::Overflow => {
                "The session was ended because its output was not taken in time.".to_owned()
            }
            Self::Stopping => "The server is shutting down.".to_owned(),
            Self::Told { .. } => self.text(),
        }
    }

    fn failed(&self) -> bool {
        match self {
            Self::Completed { failed, .. } => *failed,
            Self::Incapable { .. } | Self::NodeAway | Self::NotStarted { .. } | Self::Overflow => {
                true
            }
            _ => false,
        }
    }
}

/// An official agent heads its error texts with a ruler.
fn plain(output: &str) -> String {
    let text = output
        .trim()
        .trim_start_matches("----------ERROR-------")
        .trim();
    if text.is_empty() {
        "The session failed on the node.".to_owned()
    } else {
        text.to_owned()
    }
}

/// `20 minutes`, `1 minute`, `90 seconds`.
fn spoken(time: Duration) -> String {
    let (count, unit) = match time.as_secs() {
        0 => (
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            "millisecond",
        ),
        seconds if seconds % 60 == 0 => (seconds / 60, "minute"),
        seconds => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// What is known about the two ends when a decision is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    pub(crate) client_attached: bool,
    /// Whether the client is one of ours; `None`: never came.
    pub(crate) client_ours: Option<bool>,
    /// The client has not taken everything.
    pub(crate) client_unfinished: bool,
    /// Everything that was queued for the client is written.
    pub(crate) client_flushed: bool,
    pub(crate) node_attached: bool,
    /// The node's control channel is open.
    pub(crate) node_online: bool,
    /// How long the session may be idle.
    pub(crate) idle_limit: Duration,
}

/// The client's half of an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientHalf {
    /// It is to be told now.
    Tell,
    /// Something is awaited, at most until then.
    Wait(Duration),
    /// It knows, or nobody is there to be told.
    Done,
}

/// The node's half of an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeHalf {
    /// Something is awaited, at most until then.
    Wait(Duration),
    /// It has ended the session, or nothing more can be done about it.
    Done,
}

#[derive(Debug)]
enum Phase {
    Waiting { until: Duration },
    Starting { until: Duration },
    Open,
    Ending(Box<Ending>),
}

#[derive(Debug)]
struct Ending {
    cause: Cause,
    since: Duration,
    /// The result that the node reported, when it came after the cause.
    result: Option<(bool, String)>,
    client_told: Option<Duration>,
    node_told: Option<Duration>,
}

/// The life of one session.
#[derive(Debug)]
pub(crate) struct Life {
    waits: Waits,
    phase: Phase,
    /// The node may have a worker for the session.
    node_may_run: bool,
    node_ours: Option<bool>,
    /// Until when an absent node may come back.
    node_return: Option<Duration>,
    node_left: Option<Duration>,
}

/// The waits among the options.
#[derive(Clone, Copy, Debug)]
struct Waits {
    start: Duration,
    client: Duration,
    node_return: Duration,
    client_return: Duration,
    unlisted: Duration,
    confirm: Duration,
    orphan: Duration,
    flush: Duration,
}

/// How long the last output of a session that ended by itself may take to a slow client.
const SLOW_CLIENT: Duration = Duration::from_secs(300);
/// How long a node that reported its result may take to close its data channel, which may still
/// hold output.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How long after the end of its process a node usually has reported the result.
const RESULT_SOON: Duration = Duration::from_secs(1);
/// A node whose data channel is still open is busy with its logs at most this long.
const LOGS: Duration = Duration::from_secs(60);

impl Life {
    /// Takes up a session as its row stands.
    pub(crate) fn new(session: &Session, options: &Options, now: Now) -> Self {
        let waits = Waits {
            start: options.start_timeout,
            client: options.client_wait,
            node_return: options.node_return,
            client_return: options.client_return,
            unlisted: options.unlisted_wait,
            confirm: options.confirm_wait,
            orphan: options.orphan_wait,
            flush: options.flush_wait,
        };
        let age = now.wall.since(session.started);
        let phase = match session.state {
            SessionState::Connecting => Phase::Waiting {
                until: now.monotonic + waits.client.saturating_sub(age),
            },
            _ => Phase::Open,
        };
        let may_run = session.state != SessionState::Connecting;
        Self {
            waits,
            phase,
            node_may_run: may_run,
            node_ours: None,
            node_return: None,
            node_left: None,
        }
    }

    /// The client opened its data channel. Whether the node is to be told to start.
    pub(crate) fn client_opened(&mut self, now: Duration) -> bool {
        if let Phase::Ending(ending) = &mut self.phase {
            ending.client_told = None;
        }
        let first = matches!(self.phase, Phase::Waiting { .. });
        if first {
            self.phase = Phase::Starting {
                until: now + self.waits.start,
            };
        }
        first
    }

    /// The node was told to start.
    pub(crate) fn start_sent(&mut self) {
        self.node_may_run = true;
    }

    /// Whether the node is to be told to start, once its control channel opens.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    /// The node opened its data channel.
    pub(crate) fn node_opened(&mut self, ours: bool) {
        self.node_may_run = true;
        self.node_ours = Some(ours);
        self.node_return = None;
        self.node_left = None;
        match &mut self.phase {
            Phase::Waiting { .. } | Phase::Starting { .. } => self.phase = Phase::Open,
            Phase::Open => {}
            // A worker that comes back in spite of what it was told is told again.
            Phase::Ending(ending) => ending.node_told = None,
        }
    }

    /// The node's data channel is gone.
    pub(crate) fn node_closed(&mut self, now: Duration) {
        self.node_left = Some(now);
        self.expect_node(now);
    }

    /// The node's control channel opened. `listed`: whether it named the session as running, where
    /// it names them at all. Whether the session ended and the node is to be told (again).
    pub(crate) fn node_online(
        &mut self,
        ours: bool,
        listed: Option<bool>,
        view: View,
        now: Duration,
    ) -> bool {
        self.node_ours = Some(ours);
        match &mut self.phase {
            Phase::Ending(ending) => {
                ending.node_told = None;
                true
            }
            Phase::Open if !view.node_attached => {
                if listed == Some(false) {
                    self.node_return.get_or_insert(now + self.waits.unlisted);
                } else {
                    self.expect_node(now);
                }
                false
            }
            _ => false,
        }
    }

    /// An official agent that does not come back at once never will.
    fn expect_node(&mut self, now: Duration) {
        if matches!(self.phase, Phase::Open) && self.node_ours == Some(false) {
            self.node_return.get_or_insert(now + self.waits.node_return);
        }
    }

    /// What has run out by now, before the ending.
    pub(crate) fn expired(&self, view: View, now: Duration) -> Option<Cause> {
        match &self.phase {
            Phase::Waiting { until } if now >= *until => Some(Cause::ClientMissing {
                waited: self.waits.client,
            }),
            Phase::Starting { until } if now >= *until => Some(if self.node_may_run {
                Cause::NotStarted {
                    waited: self.waits.start,
                }
            } else {
                Cause::NodeAway
            }),
            Phase::Open if !view.node_attached && self.node_return.is_some_and(|at| now >= at) => {
                Some(Cause::NodeLost)
            }
            _ => None,
        }
    }

    /// When something runs out next, before the ending.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Waiting { until } | Phase::Starting { until } => Some(*until),
            Phase::Open => self.node_return,
            Phase::Ending(_) => None,
        }
    }

    /// Whether the session is ending.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }

    /// Starts the ending, unless it has started; a result that comes later is kept for the row.
    /// Whether it started now.
    pub(crate) fn begin(&mut self, cause: Cause, now: Duration) -> bool {
        if let Phase::Ending(ending) = &mut self.phase {
            if let Cause::Completed { failed, output } = cause {
                ending.result.get_or_insert((failed, output));
            }
            return false;
        }
        let result = match &cause {
            Cause::Completed { failed, output } => Some((*failed, output.clone())),
            _ => None,
        };
        let ending = Ending {
            cause,
            since: now,
            result,
            client_told: None,
            node_told: None,
        };
        self.phase = Phase::Ending(Box::new(ending));
        true
    }

    /// Why the session is ending.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        match &self.phase {
            Phase::Ending(ending) => Some(&ending.cause),
            _ => None,
        }
    }

    /// Whether the row should say Terminating already: not while output waits for a client that may
    /// come back, since a terminating session cannot be resumed, and not when the session may turn
    /// out to have failed.
    pub(crate) fn shows_terminating(&self, client: ClientHalf, view: View, now: Duration) -> bool {
        let Phase::Ending(ending) = &self.phase else {
            return false;
        };
        let settled = !ending.cause.is_natural() || now >= ending.since + RESULT_SOON;
        // Nobody knows yet whether the websocket of a client that has not taken everything lives.
        let has_all = !(ending.cause.is_natural() && view.client_unfinished);
        let is_told = view.client_attached && has_all || client == ClientHalf::Done;
        settled && !ending.cause.failed() && is_told
    }

    /// The client's half.
    pub(crate) fn client_half(&self, view: View, now: Duration) -> ClientHalf {
        let Phase::Ending(ending) = &self.phase else {
            return ClientHalf::Done;
        };
        let natural = ending.cause.is_natural();
        let until = match ending.client_told {
            Some(_) if view.client_flushed => return ClientHalf::Done,
            Some(_) if !view.client_attached && !natural => return ClientHalf::Done,
            _ if !view.client_attached => {
                let patience = match view.client_ours {
                    Some(_) if !natural || !view.client_unfinished => return ClientHalf::Done,
                    Some(true) => view.idle_limit,
                    Some(false) => self.waits.client_return,
                    None => return ClientHalf::Done,
                };
                ending.since + patience
            }
            Some(told) => {
                told + if natural {
                    SLOW_CLIENT
                } else {
                    self.waits.flush
                }
            }
            // A websocket that takes output may be dead all the same, and what is told last is the end.
            None if natural && view.client_unfinished && now < ending.since + self.taking(view) => {
                ending.since + self.taking(view)
            }
            None if matches!(ending.cause, Cause::Completed { .. }) && view.node_attached => {
                // Its data channel may still hold output.
                let until = ending.since + LAST_OUTPUT;
                if now >= until {
                    return ClientHalf::Tell;
                }
                until
            }
            None => return ClientHalf::Tell,
        };
        if now >= until {
            ClientHalf::Done
        } else {
            ClientHalf::Wait(until)
        }
    }

    /// How long a client that is there may take to acknowledge the last output. The acknowledgement
    /// of an official one may be lost for good.
    fn taking(&self, view: View) -> Duration {
        match view.client_ours {
            Some(true) => SLOW_CLIENT,
            _ => self.waits.flush,
        }
    }

    /// The client's text is queued.
    pub(crate) fn client_told(&mut self, now: Duration) {
        if let Phase::Ending(ending) = &mut self.phase {
            ending.client_told = Some(now);
        }
    }

    /// Whether the node is to be told now that the session is over.
    pub(crate) fn node_due(&self, view: View) -> bool {
        let Phase::Ending(ending) = &self.phase else {
            return false;
        };
        ending.node_told.is_none()
            && ending.result.is_none()
            && !ending.cause.is_natural()
            && self.node_may_run
            && (view.node_attached || view.node_online)
    }

    /// The node was told that the session is over.
    pub(crate) fn node_told(&mut self, now: Duration) {
        if let Phase::Ending(ending) = &mut self.phase {
            ending.node_told = Some(now);
        }
    }

    /// The node's half.
    pub(crate) fn node_half(&self, view: View, now: Duration) -> NodeHalf {
        let Phase::Ending(ending) = &self.phase else {
            return NodeHalf::Done;
        };
        if ending.result.is_some() || !self.node_may_run {
            return NodeHalf::Done;
        }
        let natural = ending.cause.is_natural();
        // A row that failed says so at once; a worker that comes late is then turned away.
        let at_once = ending.cause == Cause::Stopping || (ending.cause.failed() && !natural);
        let until = match ending.node_told {
            _ if at_once && !self.node_due(view) => return NodeHalf::Done,
            None if !natural => {
                // Our own agent finds out when it lists its sessions.
                if self.node_ours == Some(true) && !self.node_due(view) {
                    return NodeHalf::Done;
                }
                ending.since + self.waits.orphan
            }
            told => {
                let since = told.unwrap_or(ending.since);
                if view.node_attached {
                    since + LOGS
                } else {
                    since.max(self.node_left.unwrap_or_default()) + self.waits.confirm
                }
            }
        };
        if now >= until {
            NodeHalf::Done
        } else {
            NodeHalf::Wait(until)
        }
    }

    /// When the ending moves on by the mere passing of time.
    pub(crate) fn ending_deadline(&self, view: View, now: Duration) -> Option<Duration> {
        let client = match self.client_half(view, now) {
            ClientHalf::Wait(until) => Some(until),
            _ => None,
        };
        let node = match self.node_half(view, now) {
            NodeHalf::Wait(until) => Some(until),
            NodeHalf::Done => None,
        };
        let Phase::Ending(ending) = &self.phase else {
            return None;
        };
        let result = Some(ending.since + RESULT_SOON).filter(|at| now < *at);
        earliest([client, node, result])
    }

    /// How the row ends: the node's own word, where it has one, tells whether the session failed.
    pub(crate) fn end(&self) -> Option<End> {
        let Phase::Ending(ending) = &self.phase else {
            return None;
        };
        let own = ending.result.as_ref().filter(|_| ending.cause.is_natural());
        Some(match own {
            Some((failed, output)) => {
                let cause = Cause::Completed {
                    failed: *failed,
                    output: output.clone(),
                };
                End {
                    failed: *failed,
                    reason: cause.reason(),
                }
            }
            None => End {
                failed: ending.cause.failed(),
                reason: ending.cause.reason(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use sortie_types::Timestamp;

    use super::*;
    use crate::pairing::testing::session;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn life_in(state: SessionState) -> Life {
        let row = Session {
            state,
            ..session(serde_json::json!({}))
        };
        Life::new(
            &row,
            &Options::default(),
            Now::new(s(0), Timestamp::from_millis(0)),
        )
    }

    fn told() -> Cause {
        Cause::Told {
            reason: "bye".to_owned(),
        }
    }

    #[test]
    fn a_row_that_ends_without_a_reason_ended_by_itself() {
        let row = |reason: Option<&str>| Session {
            end_reason: reason.map(ToOwned::to_owned),
            ..session(serde_json::json!({}))
        };
        assert_eq!(Cause::of_row(&row(Some("bye"))), told());
        assert_eq!(Cause::of_row(&row(None)), Cause::Exited);
    }

    fn both() -> View {
        View {
            client_attached: true,
            client_ours: Some(false),
            node_attached: true,
            node_online: true,
            idle_limit: s(1200),
            ..View::default()
        }
    }

    fn open(ours: bool) -> Life {
        let mut life = life_in(SessionState::Connecting);
        assert!(life.client_opened(s(1)));
        life.start_sent();
        life.node_opened(ours);
        life
    }

    fn done(life: &Life, view: View, now: u64) -> (bool, bool) {
        (
            life.client_half(view, s(now)) == ClientHalf::Done,
            life.node_half(view, s(now)) == NodeHalf::Done,
        )
    }

    #[test]
    fn who_does_not_come_in_time_is_named() {
        let none = View::default();
        let life = life_in(SessionState::Connecting);
        assert_eq!(life.expired(none, s(59)), None);
        assert_eq!(life.deadline(), Some(s(60)));
        assert_eq!(
            life.expired(none, s(60)),
            Some(Cause::ClientMissing { waited: s(60) })
        );

        let mut life = life_in(SessionState::Connecting);
        life.client_opened(s(10));
        assert_eq!(life.expired(none, s(25)), Some(Cause::NodeAway));
        life.start_sent();
        assert_eq!(life.expired(none, s(24)), None);
        let cause = life.expired(none, s(25)).unwrap();
        assert_eq!(
            cause.text(),
            "The node did not start the session within 15 seconds."
        );
        assert!(cause.failed());
    }

    #[test]
    fn a_client_that_comes_back_does_not_start_the_node_twice() {
        let mut life = life_in(SessionState::Connecting);
        assert!(life.client_opened(s(1)));
        assert!(!life.client_opened(s(2)));
        assert!(!life_in(SessionState::Disconnected).client_opened(s(1)));
    }

    #[test]
    fn an_official_node_that_stays_away_is_lost_and_ours_is_not() {
        for (ours, lost) in [(false, true), (true, false)] {
            let mut life = open(ours);
            life.node_closed(s(20));
            let away = View {
                node_attached: false,
                ..both()
            };
            assert_eq!(life.expired(away, s(29)), None);
            assert_eq!(life.expired(away, s(30)) == Some(Cause::NodeLost), lost);
            life.node_opened(ours);
            assert_eq!(life.expired(both(), s(31)), None);
        }
    }

    #[test]
    fn a_session_that_our_agent_does_not_list_is_lost_after_a_moment() {
        let mut life = life_in(SessionState::Connected);
        let away = View {
            node_attached: false,
            ..both()
        };
        assert!(!life.node_online(true, Some(true), away, s(1)));
        assert_eq!(life.deadline(), None);
        assert!(!life.node_online(true, Some(false), away, s(2)));
        assert_eq!(life.expired(away, s(7)), Some(Cause::NodeLost));
    }

    #[test]
    fn an_ordinary_exit_is_told_at_once_and_the_row_waits_for_the_result() {
        let mut life = open(false);
        assert!(life.begin(Cause::Exited, s(5)));
        assert_eq!(life.client_half(both(), s(5)), ClientHalf::Tell);
        assert_eq!(life.cause().unwrap().text(), "");
        assert!(!life.node_due(both()));
        life.client_told(s(5));
        let flushed = View {
            client_flushed: true,
            ..both()
        };
        assert_eq!(done(&life, flushed, 5), (true, false));
        assert!(!life.begin(
            Cause::Completed {
                failed: false,
                output: String::new()
            },
            s(6)
        ));
        assert_eq!(done(&life, flushed, 6), (true, true));
        assert!(!life.end().unwrap().failed);
    }

    #[test]
    fn a_failure_is_shown_and_kept_for_the_row() {
        let output = "\n----------ERROR-------\nno such user".to_owned();
        let mut life = life_in(SessionState::Connecting);
        life.client_opened(s(1));
        life.start_sent();
        let cause = Cause::Completed {
            failed: true,
            output: output.clone(),
        };
        assert!(life.begin(cause.clone(), s(2)));
        assert!(
            !life.begin(cause, s(2)),
            "the second report changes nothing"
        );
        let waiting = View {
            node_attached: false,
            ..both()
        };
        assert_eq!(life.client_half(waiting, s(2)), ClientHalf::Tell);
        assert_eq!(life.cause().unwrap().text(), output);
        let end = life.end().unwrap();
        assert_eq!((end.failed, end.reason.as_str()), (true, "no such user"));
    }

    #[test]
    fn output_that_the_node_still_sends_goes_before_the_text() {
        let mut life = open(false);
        life.begin(
            Cause::Completed {
                failed: false,
                output: String::new(),
            },
            s(5),
        );
        assert_eq!(life.client_half(both(), s(5)), ClientHalf::Wait(s(6)));
        let closed = View {
            node_attached: false,
            ..both()
        };
        assert_eq!(life.client_half(closed, s(5)), ClientHalf::Tell);
        assert_eq!(life.client_half(both(), s(6)), ClientHalf::Tell);
    }

    #[test]
    fn a_client_is_told_and_the_row_changed_when_the_client_has_taken_all() {
        let unfinished = View {
            client_unfinished: true,
            ..both()
        };
        let ours = View {
            client_ours: Some(true),
            ..unfinished
        };
        let mut life = open(false);
        life.begin(Cause::Exited, s(100));
        let half = life.client_half(ours, s(103));
        assert_eq!(half, ClientHalf::Wait(s(400)));
        assert!(
            !life.shows_terminating(half, ours, s(103)),
            "its websocket may be dead, and then it comes back"
        );
        assert_eq!(life.client_half(both(), s(103)), ClientHalf::Tell);
        assert!(life.shows_terminating(ClientHalf::Tell, both(), s(103)));
        // An official client's acknowledgement may be lost for good.
        assert_eq!(
            life.client_half(unfinished, s(103)),
            ClientHalf::Wait(s(105))
        );
        assert_eq!(life.client_half(unfinished, s(105)), ClientHalf::Tell);
    }

    #[test]
    fn output_is_kept_for_a_client_that_is_away_when_the_session_ends() {
        let away = View {
            client_attached: false,
            client_unfinished: true,
            ..both()
        };
        let ours = View {
            client_ours: Some(true),
            ..away
        };
        let taken = View {
            client_unfinished: false,
            ..away
        };
        let never = View {
            client_ours: None,
            ..away
        };
        let mut life = open(false);
        life.begin(Cause::Exited, s(100));
        assert_eq!(life.client_half(away, s(100)), ClientHalf::Wait(s(110)));
        assert_eq!(life.client_half(away, s(110)), ClientHalf::Done);
        assert_eq!(life.client_half(ours, s(110)), ClientHalf::Wait(s(1300)));
        assert_eq!(life.client_half(taken, s(100)), ClientHalf::Done);
        assert_eq!(life.client_half(never, s(100)), ClientHalf::Done);
        assert!(!life.shows_terminating(ClientHalf::Wait(s(110)), away, s(105)));
        assert!(life.shows_terminating(ClientHalf::Tell, both(), s(105)));
        assert!(
            !life.shows_terminating(ClientHalf::Tell, both(), s(100)),
            "the result is due"
        );

        let mut told = open(false);
        told.begin(
            Cause::Told {
                reason: "bye".to_owned(),
            },
            s(100),
        );
        assert_eq!(
            told.client_half(ours, s(100)),
            ClientHalf::Done,
            "nobody waits by force"
        );
    }

    #[test]
    fn a_forced_end_tells_the_node_and_waits_for_it_within_bounds() {
        let mut life = open(false);
        life.begin(Cause::Idle { limit: s(1200) }, s(50));
        assert!(life.node_due(both()));
        life.node_told(s(50));
        assert!(!life.node_due(both()));
        assert_eq!(life.node_half(both(), s(50)), NodeHalf::Wait(s(110)));
        life.node_closed(s(52));
        let closed = View {
            node_attached: false,
            ..both()
        };
        assert_eq!(life.node_half(closed, s(53)), NodeHalf::Wait(s(62)));
        life.begin(
            Cause::Completed {
                failed: true,
                output: "x".into(),
            },
            s(54),
        );
        assert_eq!(life.node_half(closed, s(54)), NodeHalf::Done);
        let end = life.end().unwrap();
        assert!(!end.failed, "it was ended, whatever the node says about it");
        assert_eq!(
            end.reason,
            "The session was idle for 20 minutes and has been ended."
        );
    }

    #[test]
    fn a_node_that_cannot_be_told_is_told_when_it_comes_back() {
        let gone = View {
            node_attached: false,
            node_online: false,
            ..both()
        };
        let mut life = open(false);
        life.begin(told(), s(50));
        assert!(!life.node_due(gone));
        assert_eq!(life.node_half(gone, s(60)), NodeHalf::Wait(s(650)));
        let online = View {
            node_online: true,
            ..gone
        };
        assert!(life.node_online(false, None, online, s(70)));
        assert!(life.node_due(online));
        life.node_told(s(70));
        assert_eq!(life.node_half(online, s(70)), NodeHalf::Wait(s(80)));
        assert_eq!(life.node_half(online, s(80)), NodeHalf::Done);

        let mut ours = open(true);
        ours.begin(told(), s(50));
        assert_eq!(
            ours.node_half(gone, s(50)),
            NodeHalf::Done,
            "its agent lists what runs"
        );
    }

    #[test]
    fn a_session_that_failed_does_not_wait_for_the_node_and_never_shows_terminating() {
        let gone = View {
            node_attached: false,
            node_online: false,
            ..both()
        };
        let online = View {
            node_online: true,
            ..gone
        };
        let mut life = life_in(SessionState::Connecting);
        life.client_opened(s(1));
        life.start_sent();
        life.begin(Cause::NotStarted { waited: s(15) }, s(16));
        assert_eq!(life.node_half(gone, s(16)), NodeHalf::Done);
        assert!(
            matches!(life.node_half(online, s(16)), NodeHalf::Wait(_)),
            "it can be told"
        );
        life.node_told(s(16));
        assert_eq!(life.node_half(online, s(16)), NodeHalf::Done);
        assert!(!life.shows_terminating(ClientHalf::Done, gone, s(20)));
    }

    #[test]
    fn a_session_that_never_started_has_no_node_to_wait_for() {
        let mut life = life_in(SessionState::Connecting);
        life.begin(told(), s(1));
        assert!(!life.node_due(both()));
        assert_eq!(life.node_half(both(), s(1)), NodeHalf::Done);
    }

    #[test]
    fn a_slow_client_gets_the_end_of_an_ordinary_session_but_not_of_a_forced_one() {
        for (cause, at_six) in [(Cause::Exited, false), (Cause::Overflow, true)] {
            let mut life = open(false);
            life.begin(cause, s(0));
            life.client_told(s(0));
            assert_eq!(done(&life, both(), 6).0, at_six);
            assert!(done(&life, both(), 300).0);
        }
    }

    #[test]
    fn times_are_spoken() {
        let texts = [1, 60, 90, 1200, 3600].map(|seconds| spoken(s(seconds)));
        assert_eq!(
            texts,
            [
                "1 second",
                "1 minute",
                "90 seconds",
                "20 minutes",
                "60 minutes"
            ]
        );
    }
}
