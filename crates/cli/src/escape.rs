//! The escapes of an interactive session, as in `ssh`: a `~` typed at the start of a line is held
//! back until the next key says what it means. Pure.

/// What a person asked of the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// `~?`: list the escapes.
    Help,
    /// `~.`: leave and end the session.
    Leave,
    /// `~^Z`: stop the program, as a shell's job.
    Suspend,
}

/// The text of `~?`, for a raw terminal.
pub(crate) const HELP: &str = "~?\r\n\
    Escapes, typed at the start of a line:\r\n \
    ~.   leave and end the session\r\n \
    ~^Z  suspend this program\r\n \
    ~?   this list\r\n \
    ~~   send one ~\r\n";

/// Where in a line the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    LineStart,
    AfterTilde,
    InLine,
}

/// Finds escapes in what is typed.
#[derive(Debug)]
pub(crate) struct Escapes {
    position: Position,
}

impl Escapes {
    pub(crate) fn new() -> Self {
        Self {
            position: Position::LineStart,
        }
    }

    /// Takes typed bytes: what is meant for the session is added to `forward`, escapes come back in
    /// their order.
    pub(crate) fn feed(&mut self, typed: &[u8], forward: &mut Vec<u8>) -> Vec<Escape> {
        let mut escapes = Vec::new();
        for &byte in typed {
            match (self.position, byte) {
                (Position::LineStart, b'~') => {
                    self.position = Position::AfterTilde;
                    continue;
                }
                (Position::AfterTilde, b'.') => escapes.push(Escape::Leave),
                (Position::AfterTilde, b'?') => escapes.push(Escape::Help),
                (Position::AfterTilde, 0x1a) => escapes.push(Escape::Suspend),
                (Position::AfterTilde, b'~') => forward.push(b'~'),
                (Position::AfterTilde, _) => forward.extend([b'~', byte]),
                (_, _) => forward.push(byte),
            }
            self.position = match (self.position, byte) {
                // After an escape the line is as empty as before it.
                (Position::AfterTilde, b'?' | 0x1a) | (_, b'\r' | b'\n') => Position::LineStart,
                _ => Position::InLine,
            };
        }
        escapes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tilde_at_the_start_of_a_line_is_an_escape() {
        let cases: [(&str, &str, &[Escape]); 9] = [
            ("~.", "", &[Escape::Leave]),
            ("ls\r~.", "ls\r", &[Escape::Leave]),
            ("ls ~.", "ls ~.", &[]),
            ("~~.", "~.", &[]),
            ("~/bin\r", "~/bin\r", &[]),
            ("~?~\x1ax", "x", &[Escape::Help, Escape::Suspend]),
            ("~\r~.", "~\r", &[Escape::Leave]),
            ("\n~?", "\n", &[Escape::Help]),
            ("a~\r", "a~\r", &[]),
        ];
        for (typed, forwarded, expected) in cases {
            let mut escapes = Escapes::new();
            let (mut forward, mut found) = (Vec::new(), Vec::new());
            // Key by key, as a person types, must give what one read gives.
            for byte in typed.bytes() {
                found.extend(escapes.feed(&[byte], &mut forward));
            }
            let mut at_once = Vec::new();
            let found_at_once = Escapes::new().feed(typed.as_bytes(), &mut at_once);
            assert_eq!(
                (forward.as_slice(), found.as_slice()),
                (forwarded.as_bytes(), expected),
                "{typed:?}"
            );
            assert_eq!((at_once, found_at_once), (forward, found), "{typed:?}");
        }
    }
}
