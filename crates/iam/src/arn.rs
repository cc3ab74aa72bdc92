//! Patterns for ARNs: the six parts are compared one to one, and a wildcard does not leave its part,
//! except in the last one, which may itself hold `/` and `:`.

use crate::{
    context::Facts,
    pattern::{Pattern, Symbol},
    template::{Fit, Glob, Reading, Token, fits_symbols, has_variables, tokens, variable_keys},
    word::{Word, WordRef},
};

/// A text cut at its first five colons, when it is an ARN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArnParts<'a> {
    /// Partition, service, region, account.
    pub(crate) middle: [&'a str; 4],
    /// All after the fifth colon.
    pub(crate) rest: &'a str,
}

impl<'a> ArnParts<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
        Some(Self {
            middle: [parts.next()?, parts.next()?, parts.next()?, parts.next()?],
            rest: parts.next()?,
        })
    }

    pub(crate) fn service(&self) -> &'a str {
        let [_, service, ..] = self.middle;
        service
    }

    pub(crate) fn account(&self) -> &'a str {
        let [.., account] = self.middle;
        account
    }
}

/// A resource as a request names it: an ARN, or `*` where the action has no resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    /// `None` for `*` and for what is no ARN.
    pub(crate) parts: Option<ArnParts<'a>>,
    words: [WordRef<'a>; 4],
}

impl<'a> Named<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let parts = ArnParts::parse(text);
        Self {
            words: parts.map_or_else(Default::default, |parts| parts.middle.map(WordRef::new)),
            parts,
        }
    }
}

/// A pattern that ARNs are compared with.
#[derive(Clone, Debug)]
pub(crate) enum ArnPattern {
    /// `*`: also what is no ARN.
    Everything,
    Parts(Box<Parts>),
    /// Variables before the last part, which only the values of conditions may have: the parts are
    /// known when the variables are.
    Variable(Vec<Token>),
    /// Not shaped like an ARN.
    Nothing,
}

#[derive(Clone, Debug)]
pub(crate) struct Parts {
    middle: [Part; 4],
    rest: Glob,
}

#[derive(Clone, Debug)]
enum Part {
    Any,
    Exact(Word),
    Pattern(Pattern),
}

impl Part {
    fn new(text: &str) -> Self {
        let pattern = Pattern::parse(text);
        if pattern.is_any() {
            Self::Any
        } else if text.contains(['*', '?']) {
            Self::Pattern(pattern)
        } else {
            Self::Exact(Word::new(text))
        }
    }

    fn fits(&self, word: WordRef<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact.is(word),
            Self::Pattern(pattern) => pattern.matches(word.text),
        }
    }
}

/// Why a text is no pattern for a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAPattern {
    NotAnArn,
    Partition,
    Service,
    /// A variable before the fifth colon.
    Variable,
}

impl ArnPattern {
    /// Reads an entry of `Resource` or `NotResource`. `short` allows an ARN that stops early with a
    /// `*`, whose missing parts are then `*` as well.
    pub(crate) fn resource(text: &str, variables: bool, short: bool) -> Result<Self, NotAPattern> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let Some((middle, rest)) = cut(text, short) else {
            return Err(NotAPattern::NotAnArn);
        };
        if variables && middle.iter().any(|part| part.contains("${")) {
            return Err(NotAPattern::Variable);
        }
        let [partition, service, ..] = middle;
        if partition.is_empty() {
            return Err(NotAPattern::Partition);
        }
        // The service is compared literally; only a whole `*` can stand for all of them.
        if service.is_empty() || (service != "*" && service.contains(['*', '?'])) {
            return Err(NotAPattern::Service);
        }
        Ok(Self::Parts(Box::new(Parts {
            middle: middle.map(Part::new),
            rest: Glob::parse(rest, variables),
        })))
    }

    /// Reads a value of an ARN operator. Every text is a value; one that is no ARN matches nothing.
    pub(crate) fn value(text: &str, variables: bool) -> Self {
        if text == "*" {
            return Self::Everything;
        }
        if variables {
            let reading = Reading {
                variables,
                wildcards: true,
            };
            let tokens = tokens(text, reading);
            if has_variables(&tokens) {
                return Self::Variable(tokens);
            }
        }
        match cut(text, true) {
            Some((middle, rest)) => Self::Parts(Box::new(Parts {
                middle: middle.map(Part::new),
                rest: Glob::parse(rest, variables),
            })),
            None => Self::Nothing,
        }
    }

    /// The keys of the variables in it, as written.
    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Everything | Self::Nothing => Vec::new(),
            Self::Parts(parts) => parts.rest.keys(),
            Self::Variable(tokens) => variable_keys(tokens),
        }
    }

    /// Whether it fits; a variable without value fits nothing.
    pub(crate) fn matches(&self, named: &Named<'_>, facts: &Facts<'_>) -> bool {
        match (self, &named.parts) {
            (Self::Everything, _) => true,
            (Self::Nothing, _) | (_, None) => false,
            (Self::Parts(pattern), Some(parts)) => {
                pattern.fits_middle(named) && pattern.rest.matches(parts.rest, facts)
            }
            (Self::Variable(_), _) => self.fits(named, facts) == Fit::Yes,
        }
    }

    /// Like [`Self::matches`], telling a variable without value apart.
    pub(crate) fn fits(&self, named: &Named<'_>, facts: &Facts<'_>) -> Fit {
        match self {
            Self::Everything => Fit::Yes,
            Self::Nothing => Fit::No,
            Self::Parts(pattern) => {
                let Some(parts) = &named.parts else {
                    return pattern.unresolved(facts);
                };
                if pattern.fits_middle(named) {
                    pattern.rest.fits(parts.rest, facts)
                } else {
                    pattern.unresolved(facts)
                }
            }
            Self::Variable(tokens) => {
                let resolved: Option<Vec<Symbol<'_>>> =
                    tokens.iter().map(|token| token.resolve(facts)).collect();
                match (resolved, &named.parts) {
                    (None, _) => Fit::Unresolved,
                    (Some(_), None) => Fit::No,
                    (Some(symbols), Some(parts)) => fits_parts(&symbols, parts).into(),
                }
            }
        }
    }
}

impl Parts {
    fn fits_middle(&self, named: &Named<'_>) -> bool {
        let mut middle = self.middle.iter().zip(named.words);
        middle.all(|(pattern, word)| pattern.fits(word))
    }

    /// What a pattern that fails says: an unresolved variable in it still counts as such.
    fn unresolved(&self, facts: &Facts<'_>) -> Fit {
        match &self.rest {
            Glob::Fixed(_) => Fit::No,
            Glob::Variable(tokens) => {
                if tokens.iter().all(|token| token.resolve(facts).is_some()) {
                    Fit::No
                } else {
                    Fit::Unresolved
                }
            }
        }
    }
}

/// The parts of a pattern. With `short`, parts missing after a final `*` are `*`.
fn cut(text: &str, short: bool) -> Option<([&str; 4], &str)> {
    let after = text.strip_prefix("arn:")?;
    let mut parts = after.splitn(5, ':');
    let mut next = || match parts.next() {
        Some(part) => Some(part),
        None if short && text.ends_with('*') => Some("*"),
        None => None,
    };
    Some(([next()?, next()?, next()?, next()?], next()?))
}

/// Matches a pattern whose variables are filled in, cut at its first five colons.
fn fits_parts(symbols: &[Symbol<'_>], arn: &ArnParts<'_>) -> bool {
    let mut pieces: Vec<Vec<Symbol<'_>>> = vec![Vec::new()];
    for symbol in symbols {
        let mut literal = match symbol {
            Symbol::Literal(text) => *text,
            wildcard => {
                if let Some(piece) = pieces.last_mut() {
                    piece.push(wildcard.clone());
                }
                continue;
            }
        };
        while pieces.len() < 6
            && let Some((before, after)) = literal.split_once(':')
        {
            if let Some(piece) = pieces.last_mut() {
                piece.push(Symbol::Literal(before));
            }
            pieces.push(Vec::new());
            literal = after;
        }
        if let Some(piece) = pieces.last_mut()
            && !literal.is_empty()
        {
            piece.push(Symbol::Literal(literal));
        }
    }
    let [partition, service, region, account] = arn.middle;
    let parts = ["arn", partition, service, region, account, arn.rest];
    if symbols.last() == Some(&Symbol::Star) {
        pieces.resize_with(6, || vec![Symbol::Star]);
    }
    pieces.len() == 6
        && pieces
            .iter()
            .zip(parts)
            .all(|(piece, part)| fits_symbols(piece, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Context;

    fn resource(pattern: &str, arn: &str) -> bool {
        let pattern = ArnPattern::resource(pattern, true, true).expect(pattern);
        let context = Context::new().with("aws:username", "al");
        pattern.fits(&Named::new(arn), &Facts::of(&context)) == Fit::Yes
    }

    fn value(pattern: &str, arn: &str) -> bool {
        let context = Context::new()
            .with("aws:username", "al")
            .with("aws:PrincipalArn", "arn:aws:iam::111122223333:role/a/Dev");
        let pattern = ArnPattern::value(pattern, true);
        pattern.fits(&Named::new(arn), &Facts::of(&context)) == Fit::Yes
    }

    const INSTANCE: &str = "arn:aws:ec2:us-east-1:111122223333:instance/i-0123";

    #[test]
    fn parts_are_compared_one_to_one() {
        for pattern in [
            "*",
            "arn:aws:ec2:*:*:instance/*",
            "arn:aws:ec2:us-*:1111????3333:instance/i-*",
            "arn:aws:ec2:us-east-1:111122223333:*",
            "arn:aws:ec2:*",
            "arn:aws:ec2:us-east-1:*",
            "arn:*:ec2:*:*:*",
            "arn:aws:*:*:*:instance/i-0123",
        ] {
            assert!(resource(pattern, INSTANCE), "{pattern}");
        }
        for pattern in [
            "arn:aws:ec2:*:instance/*:x",
            "arn:aws:ssm:*:*:*",
            "arn:aws:ec2:us-east-1:*:instance",
            "arn:aws:ec2::*:instance/*",
            "arn:aws:ec2:*:*:Instance/*",
            "arn:aws:ec2:us-east-?:11112222333:instance/*",
        ] {
            assert!(!resource(pattern, INSTANCE), "{pattern}");
        }
    }

    #[test]
    fn an_empty_part_is_matched_by_an_empty_part_or_a_star() {
        let document = "arn:aws:ssm:us-east-1::document/AWS-StartSSHSession";
        assert!(resource(
            "arn:aws:ssm:*:*:document/AWS-StartSSHSession",
            document
        ));
        assert!(resource("arn:aws:ssm:*::document/AWS-*", document));
        assert!(!resource(
            "arn:aws:ssm:*:111122223333:document/AWS-*",
            document
        ));
        assert!(!resource("arn:aws:ssm:*:?:document/AWS-*", document));
    }

    #[test]
    fn only_a_star_covers_a_call_without_resource() {
        assert!(resource("*", "*"));
        for pattern in ["arn:aws:ssm:*:*:*", "arn:*:*:*:*:*"] {
            assert!(!resource(pattern, "*"), "{pattern}");
        }
    }

    #[test]
    fn the_last_part_crosses_slashes_and_colons() {
        let stream = "arn:aws:logs:us-east-1:111122223333:log-group:a/b:log-stream:c";
        assert!(resource("arn:aws:logs:*:*:log-group:a*c", stream));
        assert!(resource(
            "arn:aws:logs:*:*:log-group:*:log-stream:?",
            stream
        ));
    }

    #[test]
    fn a_request_is_never_a_pattern() {
        let object = "arn:aws:s3:::bucket/*";
        assert!(resource("arn:aws:s3:::bucket/*", object));
        assert!(!resource("arn:aws:s3:::bucket/a", object));
    }

    #[test]
    fn texts_that_are_no_resource_patterns_are_refused() {
        let refuse = |text| ArnPattern::resource(text, true, true).expect_err(text);
        for text in [
            "",
            "**",
            "instance/*",
            "arn",
            "arn:aws:ec2",
            "arn:aws:ec2:us-east-1:1",
            "a*",
        ] {
            assert_eq!(refuse(text), NotAPattern::NotAnArn, "{text}");
        }
        assert_eq!(refuse("arn::s3:::b"), NotAPattern::Partition);
        assert_eq!(refuse("arn:aws::::b"), NotAPattern::Service);
        assert_eq!(refuse("arn:aws:s*:::b"), NotAPattern::Service);
        assert_eq!(
            refuse("arn:aws:ssm:*:${aws:PrincipalAccount}:x"),
            NotAPattern::Variable
        );
        assert!(ArnPattern::resource("arn:aws:ssm:*", true, false).is_err());
        assert!(ArnPattern::resource("arn:aws:ssm:*:${x}:x", false, false).is_ok());
    }

    #[test]
    fn values_of_arn_operators_may_be_variables_in_any_part() {
        let role = "arn:aws:iam::111122223333:role/a/Dev";
        for pattern in [
            "*",
            role,
            "${aws:PrincipalArn}",
            "arn:aws:iam::*:role/*",
            "arn:aws:iam::${aws:PrincipalAccount, '111122223333'}:role/*",
            "arn:aws:iam::${none, '1111'}*:*",
            "arn:aws:${none, 'iam'}*",
        ] {
            assert!(value(pattern, role), "{pattern}");
        }
        for pattern in [
            "role/*",
            "",
            "${none}",
            "arn:aws:iam::${aws:username}:role/*",
            "${aws:username}",
        ] {
            assert!(!value(pattern, role), "{pattern}");
        }
        assert!(!value("arn:aws:iam::*:*", "not an arn"));
    }
}
