//! Splits a command into words by the quoting rules of shells, and does nothing else that shells do: no
//! operator, variable, pattern or substitution means anything here.

/// Why a text has no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordsError {
    #[error("a quotation mark is not closed")]
    OpenQuote,
    #[error("it ends in a backslash")]
    OpenEscape,
}

/// The words of `text`. As in a shell, `#` at the beginning of a word begins a comment, and a backslash
/// before a line break joins two lines.
pub(super) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut rest = text.chars();
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' if word.is_none() => while !matches!(rest.next(), None | Some('\n')) {},
            '\\' => match rest.next().ok_or(WordsError::OpenEscape)? {
                '\n' => {}
                escaped => word.get_or_insert_default().push(escaped),
            },
            '\'' => single_quoted(&mut rest, word.get_or_insert_default())?,
            '"' => double_quoted(&mut rest, word.get_or_insert_default())?,
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(
    rest: &mut impl Iterator<Item = char>,
    word: &mut String,
) -> Result<(), WordsError> {
    loop {
        match rest.next().ok_or(WordsError::OpenQuote)? {
            '\'' => return Ok(()),
            quoted => word.push(quoted),
        }
    }
}

fn double_quoted(
    rest: &mut impl Iterator<Item = char>,
    word: &mut String,
) -> Result<(), WordsError> {
    loop {
        match rest.next().ok_or(WordsError::OpenQuote)? {
            '"' => return Ok(()),
            '\\' => match rest.next().ok_or(WordsError::OpenQuote)? {
                '\n' => {}
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            quoted => word.push(quoted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell_that_expands_nothing() {
        let table: [(&str, &[&str]); 12] = [
            ("", &[]),
            ("  a\tb\r\nc ", &["a", "b", "c"]),
            ("'' \"\"", &["", ""]),
            ("a'b c'\"d e\"f", &["ab cd ef"]),
            (r"a\ b \' \\", &["a b", "'", r"\"]),
            (r#"'\n' "\n" "\"\\\$\`\x""#, &[r"\n", r"\n", r#""\$`\x"#]),
            ("a\\\nb \"c\\\nd\" \\\n e", &["ab", "cd", "e"]),
            ("a#b # c 'd\ne", &["a#b", "e"]),
            ("'it'\\''s'", &["it's"]),
            (
                "a;b|c&d >e $F `g` $(h) *",
                &["a;b|c&d", ">e", "$F", "`g`", "$(h)", "*"],
            ),
            ("'a\nb'", &["a\nb"]),
            ("\u{a0}ü😀", &["\u{a0}ü😀"]),
        ];
        for (text, words) in table {
            assert_eq!(split(text).unwrap(), words, "{text:?}");
        }
    }

    #[test]
    fn what_is_left_open_is_an_error() {
        for text in ["'a", "\"a", "\"a\\", "'"] {
            assert_eq!(split(text), Err(WordsError::OpenQuote), "{text:?}");
        }
        assert_eq!(split("a \\"), Err(WordsError::OpenEscape));
    }
}
