//! Questions to the person at the terminal: user names, passwords, MFA codes. Asked on the
//! controlling terminal, so that standard input and output stay what they are.

use std::{fs::File, io, io::Write, pin::Pin};

use sortie_client::MfaPrompt;
use sortie_types::Secret;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroize;

use crate::{output, stdio::Input, terminal::RawTerminal};

/// The longest answer that is taken, in bytes.
const LONGEST: usize = 1024;

/// Whether the person sees what is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Nothing is shown.
    Hidden,
    /// It is shown.
    Shown,
}

/// Asks on the terminal for codes that roles of profiles need.
pub(crate) struct OnTerminal;

impl MfaPrompt for OnTerminal {
    fn ask(&self, serial: &str) -> Pin<Box<dyn Future<Output = Result<Secret, String>> + Send>> {
        let question = format!("MFA code for {}: ", output::plain(serial));
        Box::pin(async move {
            let answer = ask(&question, Echo::Hidden).await;
            answer.map_err(|error| error.to_string())
        })
    }
}

/// Asks one question. The terminal is as it was when this returns, whatever comes in between.
pub(crate) async fn ask(question: &str, echo: Echo) -> io::Result<Secret> {
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| io::Error::other("there is no terminal to ask on"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let raw = RawTerminal::of(&terminal)?;
    let mut input = Input::of(terminal.try_clone()?)?;
    (&terminal).write_all(question.as_bytes())?;
    let mut answer = Answer::default();
    let ended = loop {
        let piece = tokio::select! {
            piece = input.next() => piece,
            _ = terminate.recv() => break Err(interrupted()),
            _ = hang_up.recv() => break Err(interrupted()),
        };
        let Some(piece) = piece else {
            break Err(io::ErrorKind::UnexpectedEof.into());
        };
        let shown = answer.type_in(&piece);
        if echo == Echo::Shown {
            (&terminal).write_all(shown.as_bytes())?;
        }
        if let Some(end) = answer.end {
            break end.map_err(io::Error::from);
        }
    };
    (&terminal).write_all(b"\r\n")?;
    drop(input);
    drop(raw);
    ended.map(|()| answer.into_secret())
}

fn interrupted() -> io::Error {
    io::ErrorKind::Interrupted.into()
}

/// A line as it is typed: a raw terminal leaves its editing to us.
#[derive(Default)]
struct Answer {
    line: Vec<u8>,
    end: Option<Result<(), io::ErrorKind>>,
}

impl Answer {
    /// Takes keys up to the end of the line; gives back what a terminal has to show for them.
    fn type_in(&mut self, keys: &[u8]) -> String {
        let mut shown = Vec::new();
        for key in keys {
            match key {
                b'\r' | b'\n' => self.end = Some(Ok(())),
                3 => self.end = Some(Err(io::ErrorKind::Interrupted)),
                4 if self.line.is_empty() => self.end = Some(Err(io::ErrorKind::UnexpectedEof)),
                4 => self.end = Some(Ok(())),
                8 | 0x7f => {
                    if self.rub_out() {
                        shown.extend_from_slice(b"\x08 \x08");
                    }
                }
                0x15 => {
                    while self.rub_out() {
                        shown.extend_from_slice(b"\x08 \x08");
                    }
                }
                key if *key < b' ' => {}
                _ if self.line.len() >= LONGEST => {}
                key => {
                    self.line.push(*key);
                    shown.push(*key);
                }
            }
            if self.end.is_some() {
                break;
            }
        }
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Takes back the last character, all its bytes; false when there is none.
    fn rub_out(&mut self) -> bool {
        while let Some(byte) = self.line.pop() {
            let goes_on = byte & 0xc0 == 0x80;
            if !goes_on {
                return true;
            }
        }
        false
    }

    fn into_secret(mut self) -> Secret {
        let text = String::from_utf8_lossy(&self.line).into_owned();
        self.line.zeroize();
        Secret::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> (String, Option<Result<(), io::ErrorKind>>) {
        let mut answer = Answer::default();
        answer.type_in(keys.as_bytes());
        let end = answer.end;
        (answer.into_secret().expose().to_owned(), end)
    }

    #[test]
    fn a_line_is_edited_as_on_a_terminal() {
        assert_eq!(typed("secret\r"), ("secret".to_owned(), Some(Ok(()))));
        assert_eq!(typed("a\u{7f}é서\u{8}b\n").0, "éb");
        assert_eq!(typed("wrong\u{15}right\r").0, "right");
        assert_eq!(typed("\u{7f}\u{15}x\r").0, "x");
        assert_eq!(typed("a\u{1b}\tb").0, "ab");
        assert_eq!(typed("half").1, None);
        assert_eq!(typed("one\rtwo\r").0, "one");
    }

    #[test]
    fn leaving_is_no_answer() {
        assert_eq!(typed("abc\u{3}").1, Some(Err(io::ErrorKind::Interrupted)));
        assert_eq!(typed("\u{4}").1, Some(Err(io::ErrorKind::UnexpectedEof)));
        assert_eq!(typed("x\u{4}").1, Some(Ok(())));
    }

    #[test]
    fn there_is_an_end_to_what_is_taken() {
        let (text, _) = typed(&"x".repeat(5000));
        assert_eq!(text.len(), LONGEST);
    }
}
