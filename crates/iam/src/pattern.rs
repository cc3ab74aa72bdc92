//! Wildcards: `*` is any run of characters, also an empty one, `?` is exactly one character.
//!
//! A pattern is cut at its `*` when it is compiled. The first piece must begin the text, the last one
//! must end it, and each piece between is taken where it occurs first, which is never wrong: a later
//! place only leaves less text for the pieces after it. So nothing is tried twice, there is no
//! recursion, and time grows with the length of the text, whatever the pattern. Only a piece that has
//! `?` between other characters needs more: a machine word of work for every 64 of its characters.

use std::collections::BTreeMap;

/// What a pattern is made of before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Symbol<'a> {
    /// These characters; a `*` or `?` in them has no meaning.
    Literal(&'a str),
    /// Exactly one character.
    One,
    /// Any run of characters.
    Star,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// `*`
    Any,
    /// No wildcard.
    Exact(Box<str>),
    /// Literal text, then one `*`.
    Prefix(Box<str>),
    /// One `*`, then literal text.
    Suffix(Box<str>),
    /// `?` but no `*`.
    Fixed(Piece),
    /// Pieces with a `*` between each two.
    Starred {
        first: Piece,
        middle: Vec<Search>,
        last: Piece,
    },
}

/// A run of pattern without `*`.
type Piece = Vec<Item>;

#[derive(Clone, Debug)]
enum Item {
    Literal(String),
    /// So many `?`.
    Skip(usize),
}

/// A piece between two `*`, prepared for being searched.
#[derive(Clone, Debug)]
struct Search {
    /// `?` at the piece's front: they may as well be taken before the search (`*?a` is `?*a`).
    before: usize,
    what: What,
    /// `?` at the piece's end.
    after: usize,
}

#[derive(Clone, Debug)]
enum What {
    Nothing,
    Literal(String),
    Mixed(Mixed),
}

impl Pattern {
    /// Compiles symbols.
    pub(crate) fn new<'a>(symbols: impl IntoIterator<Item = Symbol<'a>>) -> Self {
        let mut pieces: Vec<Piece> = vec![Vec::new()];
        for symbol in symbols {
            let Some(piece) = pieces.last_mut() else {
                continue;
            };
            match symbol {
                Symbol::Literal("") => {}
                Symbol::Literal(text) => match piece.last_mut() {
                    Some(Item::Literal(before)) => before.push_str(text),
                    _ => piece.push(Item::Literal(text.to_owned())),
                },
                Symbol::One => match piece.last_mut() {
                    Some(Item::Skip(count)) => *count += 1,
                    _ => piece.push(Item::Skip(1)),
                },
                Symbol::Star => pieces.push(Vec::new()),
            }
        }
        Self(Kind::of(pieces))
    }

    /// Compiles a text in which `*` and `?` are wildcards and everything else is itself.
    pub(crate) fn parse(text: &str) -> Self {
        Self::new(symbols(text))
    }

    /// Whether this is `*`.
    pub(crate) fn is_any(&self) -> bool {
        matches!(self.0, Kind::Any)
    }

    /// Whether the whole of `text` fits.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match &self.0 {
            Kind::Any => true,
            Kind::Exact(exact) => **exact == *text,
            Kind::Prefix(prefix) => text.starts_with(&**prefix),
            Kind::Suffix(suffix) => text.ends_with(&**suffix),
            Kind::Fixed(piece) => strip_front(piece, text).is_some_and(str::is_empty),
            Kind::Starred {
                first,
                middle,
                last,
            } => {
                let Some(mut rest) = strip_front(first, text) else {
                    return false;
                };
                for search in middle {
                    match search.run(rest) {
                        Some(after) => rest = after,
                        None => return false,
                    }
                }
                ends_with(last, rest)
            }
        }
    }
}

impl Kind {
    fn of(mut pieces: Vec<Piece>) -> Self {
        let last = pieces.pop().unwrap_or_default();
        if pieces.is_empty() {
            return match &*last {
                [] => Self::Exact("".into()),
                [Item::Literal(text)] => Self::Exact(text.as_str().into()),
                _ => Self::Fixed(last),
            };
        }
        let first = pieces.remove(0);
        let middle: Vec<Search> = pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .map(Search::new)
            .collect();
        match (&*first, &*middle, &*last) {
            ([], [], []) => Self::Any,
            ([Item::Literal(text)], [], []) => Self::Prefix(text.as_str().into()),
            ([], [], [Item::Literal(text)]) => Self::Suffix(text.as_str().into()),
            _ => Self::Starred {
                first,
                middle,
                last,
            },
        }
    }
}

impl Search {
    fn new(mut piece: Piece) -> Self {
        let after = match piece.last() {
            Some(Item::Skip(count)) => *count,
            _ => 0,
        };
        if after > 0 {
            piece.pop();
        }
        let before = match piece.first() {
            Some(Item::Skip(count)) => *count,
            _ => 0,
        };
        if before > 0 {
            piece.remove(0);
        }
        let what = match &mut *piece {
            [] => What::Nothing,
            [Item::Literal(text)] => What::Literal(std::mem::take(text)),
            _ => What::Mixed(Mixed::new(&piece)),
        };
        Self {
            before,
            what,
            after,
        }
    }

    /// What is left of `text` after the first place where the piece fits.
    fn run<'t>(&self, text: &'t str) -> Option<&'t str> {
        let text = skip_front(text, self.before)?;
        let rest = match &self.what {
            What::Nothing => text,
            What::Literal(literal) => {
                let at = text.find(literal.as_str())?;
                text.get(at + literal.len()..)?
            }
            What::Mixed(mixed) => mixed.run(text)?,
        };
        skip_front(rest, self.after)
    }
}

/// Literals with `?` between them: all places are followed at once, one bit for each character of
/// the piece that has been reached (the Shift-And method).
#[derive(Clone, Debug)]
struct Mixed {
    /// Number of characters.
    length: usize,
    /// For a character of the piece, the places where it or a `?` stands.
    places: BTreeMap<char, Vec<u64>>,
    /// The places of `?` alone, for all other characters.
    others: Vec<u64>,
}

impl Mixed {
    fn new(piece: &[Item]) -> Self {
        let mut characters: Vec<Option<char>> = Vec::new();
        for item in piece {
            match item {
                Item::Literal(text) => characters.extend(text.chars().map(Some)),
                Item::Skip(count) => characters.extend(std::iter::repeat_n(None, *count)),
            }
        }
        let words = characters.len().div_ceil(64);
        let mut others = vec![0; words];
        for (at, _) in (0..)
            .zip(&characters)
            .filter(|(_, wanted)| wanted.is_none())
        {
            set_bit(&mut others, at);
        }
        let mut places = BTreeMap::new();
        for (at, wanted) in (0..).zip(&characters) {
            if let Some(wanted) = wanted {
                let places = places.entry(*wanted).or_insert_with(|| others.clone());
                set_bit(places, at);
            }
        }
        Self {
            length: characters.len(),
            places,
            others,
        }
    }

    fn run<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut reached = vec![0_u64; self.others.len()];
        let last = self.length.checked_sub(1)?;
        for (at, character) in text.char_indices() {
            let places = self.places.get(&character).unwrap_or(&self.others);
            let mut carry = 1;
            for (word, places) in reached.iter_mut().zip(places) {
                let out = *word >> 63;
                *word = ((*word << 1) | carry) & places;
                carry = out;
            }
            if reached.get(last / 64)? >> (last % 64) & 1 == 1 {
                return text.get(at + character.len_utf8()..);
            }
        }
        None
    }
}

fn set_bit(words: &mut [u64], at: usize) {
    if let Some(word) = words.get_mut(at / 64) {
        *word |= 1 << (at % 64);
    }
}

/// The text without its first `count` characters.
fn skip_front(text: &str, count: usize) -> Option<&str> {
    if count == 0 {
        return Some(text);
    }
    let mut characters = text.chars();
    characters.nth(count - 1)?;
    Some(characters.as_str())
}

fn skip_back(text: &str, count: usize) -> Option<&str> {
    if count == 0 {
        return Some(text);
    }
    let mut characters = text.chars();
    characters.nth_back(count - 1)?;
    Some(characters.as_str())
}

fn strip_front<'t>(piece: &[Item], text: &'t str) -> Option<&'t str> {
    piece.iter().try_fold(text, |text, item| match item {
        Item::Literal(literal) => text.strip_prefix(literal.as_str()),
        Item::Skip(count) => skip_front(text, *count),
    })
}

fn ends_with(piece: &[Item], text: &str) -> bool {
    let rest = piece.iter().rev().try_fold(text, |text, item| match item {
        Item::Literal(literal) => text.strip_suffix(literal.as_str()),
        Item::Skip(count) => skip_back(text, *count),
    });
    rest.is_some()
}

/// The symbols of a text in which `*` and `?` are wildcards.
pub(crate) fn symbols(text: &str) -> impl Iterator<Item = Symbol<'_>> {
    text.split_inclusive(['*', '?']).flat_map(|part| {
        let (literal, wildcard) = if let Some(literal) = part.strip_suffix('*') {
            (literal, Some(Symbol::Star))
        } else if let Some(literal) = part.strip_suffix('?') {
            (literal, Some(Symbol::One))
        } else {
            (part, None)
        };
        [Some(Symbol::Literal(literal)), wildcard]
            .into_iter()
            .flatten()
    })
}

/// Whether `text` fits `pattern`, where `*` is any run of characters and `?` exactly one.
#[must_use]
pub fn wildcard_matches(pattern: &str, text: &str) -> bool {
    Pattern::parse(pattern).matches(text)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn stars_and_question_marks_mean_what_they_should() {
        let fits = [
            ("", ""),
            ("*", ""),
            ("*", "anything / at:all"),
            ("**", ""),
            ("a*", "a"),
            ("a?c", "abc"),
            ("a?c", "aüc"),
            ("*?", "ü"),
            ("?*?", "ab"),
            ("a*b*c", "a-b-b-c"),
            ("*ab?d*", "xxabababcdyy"),
            ("a*?b", "a-b"),
            ("*a?a?b*", "aaaaaabz"),
            ("a*a", "aa"),
        ];
        for (pattern, text) in fits {
            assert!(wildcard_matches(pattern, text), "`{pattern}` on `{text}`");
        }
        let misses = [
            ("", "a"),
            ("?", ""),
            ("?", "ab"),
            ("a*a", "a"),
            ("a*b", "abc"),
            ("ab*ba", "aba"),
            ("*ab?d*", "abd"),
            ("A", "a"),
            ("*?*?*", "a"),
        ];
        for (pattern, text) in misses {
            assert!(!wildcard_matches(pattern, text), "`{pattern}` on `{text}`");
        }
    }

    #[test]
    fn hostile_patterns_take_no_longer_than_others() {
        let text = "a".repeat(100_000);
        let bombs = [
            "a*".repeat(20_000) + "b",
            "*a".repeat(20_000) + "b*",
            format!("*{}b*", "a".repeat(20_000)),
            format!("*{}b*", "a?".repeat(2_000)),
            format!("*{}b", "?".repeat(20_000)),
            "*?".repeat(20_000) + "*b*",
        ];
        let started = Instant::now();
        for bomb in &bombs {
            assert!(!wildcard_matches(bomb, &text));
        }
        // A matcher that tries places again needs minutes for these, also in a debug build.
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
