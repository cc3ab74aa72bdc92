//! The names of what two ends of ours can do together. Behaviour follows these, never versions.

/// The node reports a command's exit status and the client ends with it, also where the official
/// protocol only prints a text.
pub const EXIT_STATUS: &str = "exit-status";

/// Stream frames carry an all-zero digest and the receiver does not look at it: each leg is TLS.
pub const NO_DIGEST: &str = "no-digest";

/// An `acknowledge` with `Cumulative` true speaks for its number and every smaller one.
pub const CUMULATIVE_ACK: &str = "cumulative-ack";

/// Sessions of type `Port` carry the messages of [`crate::streams`].
pub const STREAMS: &str = "streams";

/// A command takes a raw standard input, its end, and signals by name.
pub const STDIN: &str = "stdin";

/// All that this version of the crate implements.
pub const ALL: [&str; 5] = [EXIT_STATUS, NO_DIGEST, CUMULATIVE_ACK, STREAMS, STDIN];

/// What both sides have named, in the order of `a`, each once.
#[must_use]
pub fn common(a: &[String], b: &[String]) -> Vec<String> {
    let mut common: Vec<String> = Vec::new();
    for name in a {
        if b.contains(name) && !common.contains(name) {
            common.push(name.clone());
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_keeps_the_first_order_and_drops_repeats() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            common(&names(&["c", "a", "b", "a"]), &names(&["a", "x", "c"])),
            names(&["c", "a"])
        );
        assert!(common(&names(&["a"]), &[]).is_empty());
    }
}
