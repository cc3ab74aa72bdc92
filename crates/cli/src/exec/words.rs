//! A command's words as one text that a POSIX shell, or a reader of shell words, takes apart again into
//! exactly these words. Pure.

use std::ffi::{OsStr, OsString};

/// Why words cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordError {
    #[error("word {0} of the command has a NUL byte in it")]
    Nul(usize),
    #[error("word {0} of the command is not UTF-8, which is all that the service takes")]
    NotText(usize),
}

/// What a shell does something with where a command's name is expected.
const RESERVED: [&str; 21] = [
    "case", "coproc", "do", "done", "elif", "else", "esac", "export", "fi", "for", "function",
    "if", "in", "local", "readonly", "select", "then", "time", "typeset", "until", "while",
];

/// The words, each quoted where it needs to be, with blanks between them. Words are numbered from 1 in
/// errors.
pub(crate) fn join(words: &[OsString]) -> Result<String, WordError> {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        quote(checked(word, index + 1)?, index == 0, &mut text);
    }
    Ok(text)
}

fn checked(word: &OsStr, number: usize) -> Result<&str, WordError> {
    let word = word.to_str().ok_or(WordError::NotText(number))?;
    if word.contains('\0') {
        return Err(WordError::Nul(number));
    }
    Ok(word)
}

fn quote(word: &str, is_first: bool, text: &mut String) {
    let is_plain = !word.is_empty() && word.bytes().all(is_plain);
    // `a=b` before a command is an assignment.
    let is_special = is_first && (word.contains('=') || RESERVED.contains(&word));
    if is_plain && !is_special {
        text.push_str(word);
        return;
    }
    text.push('\'');
    let mut before = ' ';
    for c in word.chars() {
        match c {
            '\'' => text.push_str("'\\''"),
            // Nobody on the way may take it for the name of a parameter: the quotes end and begin.
            '{' if before == '{' => text.push_str("''{"),
            c => text.push(c),
        }
        before = c;
    }
    text.push('\'');
}

/// What no shell does anything with, anywhere in a word that is not the first.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&byte)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn joined(words: &[&str]) -> String {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        join(&words).unwrap()
    }

    #[test]
    fn plain_words_stay_readable_and_all_others_are_quoted() {
        for (words, text) in [
            (
                &["tail", "-f", "/var/log/x.log"][..],
                "tail -f /var/log/x.log",
            ),
            (&["echo", "a b", ""], "echo 'a b' ''"),
            (&["echo", "it's"], r"echo 'it'\''s'"),
            (&["A=b", "A=b"], "'A=b' A=b"),
            (&["if", "if"], "'if' if"),
            (
                &["echo", "~", "*", "$HOME", "a\nb"],
                "echo '~' '*' '$HOME' 'a\nb'",
            ),
            (&["echo", "서버"], "echo '서버'"),
            (&["echo", "{{ssm:x}}"], "echo '{''{ssm:x}}'"),
        ] {
            assert_eq!(joined(words), text);
        }
    }

    #[test]
    fn what_the_service_cannot_carry_is_an_error_that_names_the_word() {
        use std::os::unix::ffi::OsStringExt;
        let words = |second: &[u8]| [OsString::from("echo"), OsString::from_vec(second.to_vec())];
        assert_eq!(join(&words(b"a\0b")), Err(WordError::Nul(2)));
        assert_eq!(join(&words(b"a\xff")), Err(WordError::NotText(2)));
    }

    /// What `sh` makes of the text: it runs `printf` with the words, of which each ends with NUL.
    fn taken_apart(text: &str) -> Vec<u8> {
        let script = format!("printf '%s\\0' {text}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn a_shell_gives_back_the_very_words(
            words in proptest::collection::vec(
                prop_oneof![
                    "[^\\x00]{0,12}",
                    "[ \\t\\n'\"\\\\$`!*?#~=%{}()<>|;&\\[\\]^-]{0,10}",
                    "[a-z=-]{0,6}",
                ],
                1..6,
            )
        ) {
            let given: Vec<_> = words.iter().map(OsString::from).collect();
            let expected: Vec<u8> = words
                .iter()
                .flat_map(|word| word.bytes().chain([0]))
                .collect();
            prop_assert_eq!(taken_apart(&join(&given).unwrap()), expected);
        }

        #[test]
        fn a_shell_takes_the_first_word_for_the_command(word in "[a-z=]{1,8}") {
            // As the first word of a command it must be looked up as a command, whatever it is.
            let text = join(&[OsString::from(&word)]).unwrap();
            let script = format!("command -v {text} >/dev/null 2>&1; printf %s {text}");
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(output.stdout, word.into_bytes());
        }
    }
}
