//! How long the gateway waits for what, and how much it holds. Decides nothing itself.

use std::{path::PathBuf, time::Duration};

/// Waits and bounds. [`Options::default`] is what an installation runs with; tests shorten waits.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the first text frame of a channel.
    pub open_message_timeout: Duration,
    /// From the client's opening until the node has opened its data channel. Neither kind of node
    /// acknowledges a start message, so only this tells that it was lost or not understood.
    pub start_timeout: Duration,
    /// From the start of a session until its client has opened its data channel.
    pub client_wait: Duration,
    /// How long an official node's data channel may be away: its agent gives up after about 3 s.
    /// Our own agent may be away as long as the session may be idle.
    pub node_return: Duration,
    /// How long output is kept for an official client that was away when the session ended.
    pub client_return: Duration,
    /// How long a worker that our agent does not list as running may take to report its result.
    pub unlisted_wait: Duration,
    /// How long a node's control channel may be away before the node counts as lost. Official
    /// agents come back within 2.5 s when nothing is wrong.
    pub node_grace: Duration,
    /// How long a node has to confirm the end of a session that it was told to end.
    pub confirm_wait: Duration,
    /// How long a session whose node cannot be told stays Terminating, so that the node is told
    /// when it comes back: an official worker that lost its channels keeps its shell alive.
    pub orphan_wait: Duration,
    /// How long the last bytes may take to a client of a session that was ended by force.
    pub flush_wait: Duration,
    /// A silent peer is pinged this often.
    pub ping_interval: Duration,
    /// A control channel silent for this long, pings unanswered, is dead.
    pub control_silence: Duration,
    /// A data channel silent for this long, pings unanswered, is dead. Above 5 minutes, because an
    /// official peer answers nothing while a write to its terminal blocks.
    pub data_silence: Duration,
    /// An absent client is given this long before an official node is paused, since a client that
    /// merely reconnects is back sooner and every pause costs a slow resend.
    pub pause_delay: Duration,
    /// An official node is paused above this many bytes that the client has not taken.
    pub pause_above: usize,
    /// A paused node resumes below this many bytes.
    pub resume_below: usize,
    /// A client is not read above this many bytes that the node has not taken.
    pub input_limit: usize,
    /// Above this many bytes that the client has not taken, the session ends with a reason.
    pub output_limit: usize,
    /// Where output goes that an official agent sends and must not be paused for; `None`: nowhere, and the
    /// session ends when it is too much to hold.
    pub spool_directory: Option<PathBuf>,
    /// Bytes of a session's output on disk; above it the session ends with a reason.
    pub spool_limit: u64,
    /// How often all rows are looked at, since signals are only hints.
    pub sweep_interval: Duration,
    /// How long stopping may take.
    pub drain: Duration,
    /// Whether stopping the gateway ends the sessions, rather than leaving them to be taken up
    /// after a restart.
    pub end_sessions_on_stop: bool,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            open_message_timeout: Duration::from_secs(10),
            start_timeout: Duration::from_secs(15),
            client_wait: Duration::from_secs(60),
            node_return: Duration::from_secs(10),
            client_return: Duration::from_secs(10),
            unlisted_wait: Duration::from_secs(5),
            node_grace: Duration::from_secs(5),
            confirm_wait: Duration::from_secs(10),
            orphan_wait: Duration::from_secs(600),
            flush_wait: Duration::from_secs(5),
            ping_interval: Duration::from_secs(60),
            control_silence: Duration::from_secs(180),
            data_silence: Duration::from_secs(400),
            pause_delay: Duration::from_millis(250),
            pause_above: 4 * MIB,
            resume_below: MIB,
            input_limit: 16 * MIB,
            output_limit: 16 * MIB,
            spool_directory: None,
            spool_limit: 1 << 30,
            sweep_interval: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            end_sessions_on_stop: false,
        }
    }
}
