//! What each official side decides from the other's version. Our own ends decide by features and show
//! constants; these rules serve them when the other end is official.

use std::cmp::Ordering;

/// What a client may do with an agent of some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientGates {
    /// The agent understands the TerminateSession flag.
    pub terminate_flag: bool,
    /// The agent multiplexes port sessions.
    pub mux: bool,
    /// The client leaves its multiplexer's keepalive off.
    pub smux_keepalive_disabled: bool,
}

/// What an agent may do with a client of some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentGates {
    /// The client multiplexes port sessions.
    pub mux: bool,
    /// The agent leaves its multiplexer's keepalive off.
    pub smux_keepalive_disabled: bool,
    /// The client is too old for separated output and is told so.
    pub separate_output_upgrade_message: bool,
}

/// A client's decisions.
#[must_use]
pub fn client_gates(agent_version: &str) -> ClientGates {
    ClientGates {
        terminate_flag: is_newer_of_four(agent_version, "2.3.722.0"),
        mux: is_newer_of_four(agent_version, "3.0.196.0"),
        smux_keepalive_disabled: is_newer_of_four(agent_version, "3.1.1511.0"),
    }
}

/// An agent's decisions.
#[must_use]
pub fn agent_gates(client_version: &str) -> AgentGates {
    AgentGates {
        mux: compare(client_version, "1.1.70") != Ordering::Less,
        smux_keepalive_disabled: compare(client_version, "1.2.331.0") == Ordering::Greater,
        separate_output_upgrade_message: compare(client_version, "1.2.295") != Ordering::Greater,
    }
}

/// The client's rule: both have exactly four parts, and the first that differ are numbers.
fn is_newer_of_four(version: &str, than: &str) -> bool {
    if version.split('.').count() != 4 || than.split('.').count() != 4 {
        return false;
    }
    for (a, b) in version.split('.').zip(than.split('.')) {
        let (Ok(a), Ok(b)) = (a.parse::<u64>(), b.parse::<u64>()) else {
            return false;
        };
        if a != b {
            return a > b;
        }
    }
    false
}

/// The agent's rule: part by part, numbers as numbers, anything else as text; a longer version is newer
/// than its own beginning.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a_parts, mut b_parts) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a_parts.next(), b_parts.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => compare_part(a, b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn compare_part(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    }
}
