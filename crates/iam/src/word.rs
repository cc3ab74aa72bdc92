//! Short texts that are compared with many others: their first sixteen bytes are kept as one number,
//! which is all of most of them.

/// Bytes that the number holds.
const FRONT: usize = 16;

/// A text of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WordRef<'a> {
    pub(crate) front: u128,
    pub(crate) text: &'a str,
}

impl<'a> WordRef<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            front: front(text),
            text,
        }
    }
}

/// A text of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) front: u128,
    text: Box<str>,
}

impl Word {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            front: front(text),
            text: text.into(),
        }
    }

    pub(crate) fn is(&self, word: WordRef<'_>) -> bool {
        self.front == word.front
            && self.text.len() == word.text.len()
            && (self.text.len() <= FRONT || *self.text == *word.text)
    }
}

fn front(text: &str) -> u128 {
    let bytes = text.bytes().take(FRONT);
    bytes.fold(0, |front, byte| front << 8 | u128::from(byte))
}

/// A number made of a text, to tell most texts apart; FNV-1a.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_equal_when_their_texts_are() {
        let texts = [
            "",
            "\0",
            "a",
            "a\0",
            "startsession",
            "updateinstanceinformation",
            "updateinstanceinf",
        ];
        for left in texts {
            for right in texts {
                assert_eq!(
                    Word::new(left).is(WordRef::new(right)),
                    left == right,
                    "{left} {right}"
                );
            }
        }
    }
}
