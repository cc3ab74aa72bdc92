//! Policy variables: `${key}`, `${key, 'default'}`, and the escapes `${*}`, `${?}`, `${$}`. What is
//! inserted is literal text and never a wildcard.

use crate::{
    context::{Facts, Key},
    pattern::{Pattern, Symbol, symbols},
};

/// A piece of a text with variables.
#[derive(Clone, Debug)]
pub(crate) enum Token {
    Literal(Box<str>),
    One,
    Star,
    Variable(Variable),
}

/// A variable and what stands in for it when its key is absent.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) key: Key,
    pub(crate) default: Option<Box<str>>,
}

/// How a text is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// `${…}` has a meaning: policies of version 2012-10-17.
    pub(crate) variables: bool,
    /// `*` and `?` are wildcards.
    pub(crate) wildcards: bool,
}

/// Cuts a text into its pieces.
pub(crate) fn tokens(text: &str, reading: Reading) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((plain, inside, after)) = next_variable(rest, reading) {
        push_plain(&mut tokens, plain, reading);
        tokens.push(match inside {
            "*" | "?" | "$" => Token::Literal(inside.into()),
            _ => Token::Variable(Variable::parse(inside)),
        });
        rest = after;
    }
    push_plain(&mut tokens, rest, reading);
    tokens
}

/// Text before the next variable, its inside, and what follows. An unclosed `${` is plain text.
fn next_variable(text: &str, reading: Reading) -> Option<(&str, &str, &str)> {
    if !reading.variables {
        return None;
    }
    let (plain, rest) = text.split_once("${")?;
    let (inside, after) = rest.split_once('}')?;
    Some((plain, inside, after))
}

fn push_plain(tokens: &mut Vec<Token>, text: &str, reading: Reading) {
    if !reading.wildcards {
        if !text.is_empty() {
            tokens.push(Token::Literal(text.into()));
        }
        return;
    }
    for symbol in symbols(text) {
        match symbol {
            Symbol::Literal("") => {}
            Symbol::Literal(text) => tokens.push(Token::Literal(text.into())),
            Symbol::One => tokens.push(Token::One),
            Symbol::Star => tokens.push(Token::Star),
        }
    }
}

impl Variable {
    fn parse(inside: &str) -> Self {
        // A tag key may itself hold a comma, so only the full form counts as a default.
        let with_default = inside
            .strip_suffix('\'')
            .and_then(|inside| inside.split_once(", '"));
        match with_default {
            Some((key, default)) => Self {
                key: Key::new(key),
                default: Some(default.into()),
            },
            None => Self {
                key: Key::new(inside),
                default: None,
            },
        }
    }
}

/// Whether a text has variables when read so.
pub(crate) fn has_variables(tokens: &[Token]) -> bool {
    tokens
        .iter()
        .any(|token| matches!(token, Token::Variable(_)))
}

/// The keys of a text's variables, as written.
pub(crate) fn variable_keys(tokens: &[Token]) -> Vec<&str> {
    let keys = tokens.iter().filter_map(|token| match token {
        Token::Variable(variable) => Some(&*variable.key.name),
        Token::Literal(_) | Token::One | Token::Star => None,
    });
    keys.collect()
}

/// A literal value of a condition.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Fixed(Box<str>),
    Variable(Vec<Token>),
}

impl Text {
    pub(crate) fn parse(text: &str, variables: bool) -> Self {
        let tokens = tokens(
            text,
            Reading {
                variables,
                wildcards: false,
            },
        );
        if has_variables(&tokens) {
            return Self::Variable(tokens);
        }
        let text: String = tokens.iter().map(Token::literal).collect();
        Self::Fixed(text.into())
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::Variable(tokens) => variable_keys(tokens),
        }
    }

    /// Whether a value equals this. A variable without value equals nothing.
    pub(crate) fn equals(&self, value: &str, ignore_case: bool, facts: &Facts<'_>) -> bool {
        match self {
            Self::Fixed(text) => equal(text, value, ignore_case),
            Self::Variable(tokens) => {
                let mut whole = String::new();
                for token in tokens {
                    match token {
                        Token::Variable(variable) => match facts.variable(variable) {
                            Some(text) => whole.push_str(text),
                            None => return false,
                        },
                        token => whole.push_str(token.literal()),
                    }
                }
                equal(&whole, value, ignore_case)
            }
        }
    }
}

fn equal(left: &str, right: &str, ignore_case: bool) -> bool {
    if !ignore_case || (left.is_ascii() && right.is_ascii()) {
        return left == right || (ignore_case && left.eq_ignore_ascii_case(right));
    }
    let left = left.chars().flat_map(char::to_lowercase);
    left.eq(right.chars().flat_map(char::to_lowercase))
}

impl Token {
    /// The text of a literal; wildcards and variables have none.
    fn literal(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::One | Self::Star | Self::Variable(_) => "",
        }
    }
}

/// A pattern that may hold variables.
#[derive(Clone, Debug)]
pub(crate) enum Glob {
    Fixed(Pattern),
    Variable(Vec<Token>),
}

/// What a pattern with variables says of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    No,
    Yes,
    /// A variable has no value and no default.
    Unresolved,
}

impl From<bool> for Fit {
    fn from(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }
}

impl Glob {
    pub(crate) fn parse(text: &str, variables: bool) -> Self {
        Self::new(tokens(
            text,
            Reading {
                variables,
                wildcards: true,
            },
        ))
    }

    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        if has_variables(&tokens) {
            return Self::Variable(tokens);
        }
        Self::Fixed(compile(tokens.iter()))
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::Variable(tokens) => variable_keys(tokens),
        }
    }

    /// Whether it fits; a variable without value fits nothing.
    pub(crate) fn matches(&self, text: &str, facts: &Facts<'_>) -> bool {
        match self {
            Self::Fixed(pattern) => pattern.matches(text),
            // Most texts fail in the literal in front, before any variable is looked up.
            Self::Variable(tokens) => match tokens.first() {
                Some(Token::Literal(front)) if !text.starts_with(&**front) => false,
                _ => self.fits(text, facts) == Fit::Yes,
            },
        }
    }

    /// Like [`Self::matches`], telling a variable without value apart.
    pub(crate) fn fits(&self, text: &str, facts: &Facts<'_>) -> Fit {
        match self {
            Self::Fixed(pattern) => pattern.matches(text).into(),
            Self::Variable(tokens) => {
                // All first: an unresolved variable counts also where the text fails before it.
                let resolved: Option<Vec<Symbol<'_>>> =
                    tokens.iter().map(|token| token.resolve(facts)).collect();
                match resolved {
                    Some(symbols) => fits_symbols(&symbols, text).into(),
                    None => Fit::Unresolved,
                }
            }
        }
    }
}

impl Token {
    /// This token with its variable filled in; `None` when that has no value.
    pub(crate) fn resolve<'a>(&'a self, facts: &Facts<'a>) -> Option<Symbol<'a>> {
        Some(match self {
            Self::Literal(text) => Symbol::Literal(text),
            Self::One => Symbol::One,
            Self::Star => Symbol::Star,
            Self::Variable(variable) => Symbol::Literal(facts.variable(variable)?),
        })
    }
}

fn compile<'a>(tokens: impl Iterator<Item = &'a Token>) -> Pattern {
    Pattern::new(tokens.map(|token| match token {
        Token::One => Symbol::One,
        Token::Star => Symbol::Star,
        token => Symbol::Literal(token.literal()),
    }))
}

/// Matches without compiling as far as the first `*`, which is as far as most texts get.
pub(crate) fn fits_symbols(symbols: &[Symbol<'_>], text: &str) -> bool {
    let mut text = text;
    for (at, symbol) in symbols.iter().enumerate() {
        match symbol {
            Symbol::Literal(literal) => match text.strip_prefix(literal) {
                Some(rest) => text = rest,
                None => return false,
            },
            Symbol::One => {
                let mut characters = text.chars();
                if characters.next().is_none() {
                    return false;
                }
                text = characters.as_str();
            }
            Symbol::Star => {
                let rest = symbols.get(at..).unwrap_or_default();
                return rest.len() == 1 || Pattern::new(rest.iter().cloned()).matches(text);
            }
        }
    }
    text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Context;

    fn fits(pattern: &str, text: &str, context: &Context) -> Fit {
        Glob::parse(pattern, true).fits(text, &Facts::of(context))
    }

    #[test]
    fn variables_defaults_and_escapes_are_filled_in() {
        let context = Context::new()
            .with("aws:username", "alice")
            .with("aws:PrincipalTag/empty", "");
        let cases = [
            ("session/${aws:username}-*", "session/alice-1", Fit::Yes),
            ("session/${AWS:UserName}-*", "session/alice-1", Fit::Yes),
            ("session/${aws:username}-*", "session/bob-1", Fit::No),
            ("${aws:userid}", "alice", Fit::Unresolved),
            ("x${aws:userid}", "alice", Fit::Unresolved),
            ("${aws:userid, 'nobody'}", "nobody", Fit::Yes),
            ("${aws:PrincipalTag/empty, 'default'}x", "x", Fit::Yes),
            ("a${*}b", "a*b", Fit::Yes),
            ("a${*}b", "axb", Fit::No),
            ("a${?}b", "a?b", Fit::Yes),
            ("${$}{aws:username}", "${aws:username}", Fit::Yes),
            ("${aws:username", "${aws:username", Fit::Yes),
            ("${aws:userid,'x'}", "x", Fit::Unresolved),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                fits(pattern, text, &context),
                expected,
                "{pattern} on {text}"
            );
        }
    }

    #[test]
    fn what_is_inserted_is_never_a_wildcard() {
        let context = Context::new().with("aws:username", "a*");
        assert_eq!(fits("${aws:username}", "abc", &context), Fit::No);
        assert_eq!(fits("*${aws:username}?", "xa*y", &context), Fit::Yes);
        assert_eq!(fits("*${aws:username}?", "xaby", &context), Fit::No);
    }

    #[test]
    fn a_list_cannot_be_inserted() {
        let context = Context::new().with_many("aws:TagKeys", ["a"]);
        assert_eq!(fits("${aws:TagKeys}", "a", &context), Fit::Unresolved);
        assert_eq!(fits("${aws:TagKeys, 'a'}", "a", &context), Fit::Unresolved);
    }

    #[test]
    fn old_policies_have_no_variables() {
        let context = Context::new().with("aws:username", "alice");
        let glob = Glob::parse("${aws:username}*", false);
        assert_eq!(glob.fits("alice", &Facts::of(&context)), Fit::No);
        assert_eq!(
            glob.fits("${aws:username}-1", &Facts::of(&context)),
            Fit::Yes
        );
    }
}
