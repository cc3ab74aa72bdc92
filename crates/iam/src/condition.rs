//! The `Condition` element: operators, what they compare, and what an absent key means.

use std::net::IpAddr;

use crate::{
    arn::{ArnPattern, Named},
    context::{Entry, Facts, Found, Key, Parsed},
    policy::Effect,
    template::{Glob, Text},
    value::{Decimal, Instant, Network, parse_base64, parse_bool},
};

/// One operator with one key and its values.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// As written, for explanations.
    pub(crate) operator: Box<str>,
    pub(crate) key: Key,
    /// As written, for explanations.
    pub(crate) wanted: Box<[String]>,
    rule: Rule,
    test: Test,
}

/// How an operator reads the request's values.
#[derive(Clone, Copy, Debug)]
struct Rule {
    set: Option<Set>,
    if_exists: bool,
    negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    All,
    Any,
}

/// The values a request's value is compared with.
#[derive(Clone, Debug)]
enum Test {
    Arn(Vec<ArnPattern>),
    Binary(Vec<Vec<u8>>),
    Bool(Vec<bool>),
    Date(Order, Vec<Instant>),
    Ip(Vec<Network>),
    Like(Vec<Glob>),
    /// `true`: the key must be absent.
    Null(Vec<bool>),
    Numeric(Order, Vec<Decimal>),
    Text {
        values: Vec<Text>,
        ignore_case: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Order {
    fn holds<T: Ord>(self, value: &T, wanted: &T) -> bool {
        match self {
            Self::Equal => value == wanted,
            Self::Greater => value > wanted,
            Self::GreaterOrEqual => value >= wanted,
            Self::Less => value < wanted,
            Self::LessOrEqual => value <= wanted,
        }
    }
}

/// Why a condition cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadCondition {
    /// The operator does not exist.
    Operator,
    /// The value at this place does not parse for the operator.
    Value(usize),
}

/// What a single value of the request says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Matches,
    Differs,
    /// Not of the operator's type.
    WrongType,
}

impl From<bool> for Said {
    fn from(matches: bool) -> Self {
        if matches {
            Self::Matches
        } else {
            Self::Differs
        }
    }
}

impl Condition {
    pub(crate) fn parse(
        operator: &str,
        key: &str,
        wanted: Vec<String>,
        variables: bool,
    ) -> Result<Self, BadCondition> {
        let lower = operator.to_ascii_lowercase();
        let (set, name) = match lower.split_once(':') {
            Some(("forallvalues", name)) => (Some(Set::All), name),
            Some(("foranyvalue", name)) => (Some(Set::Any), name),
            Some(_) => return Err(BadCondition::Operator),
            None => (None, &*lower),
        };
        let (name, if_exists) = match name.strip_suffix("ifexists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        // `Null` asks for the key itself: neither suffix nor prefix can mean anything.
        if name == "null" && (if_exists || set.is_some()) {
            return Err(BadCondition::Operator);
        }
        let (test, negated) = Test::parse(name, &wanted, variables)?;
        Ok(Self {
            operator: operator.into(),
            key: Key::new(key),
            wanted: wanted.into(),
            rule: Rule {
                set,
                if_exists,
                negated,
            },
            test,
        })
    }

    /// The keys that are asked for: the condition's own and those of its variables.
    pub(crate) fn keys(&self) -> Vec<&str> {
        let mut keys = vec![&*self.key.name];
        match &self.test {
            Test::Arn(patterns) => keys.extend(patterns.iter().flat_map(ArnPattern::keys)),
            Test::Like(globs) => keys.extend(globs.iter().flat_map(Glob::keys)),
            Test::Text { values, .. } => keys.extend(values.iter().flat_map(Text::keys)),
            _ => {}
        }
        keys
    }

    /// Whether the condition holds for a statement of this effect.
    pub(crate) fn holds(&self, effect: Effect, facts: &Facts<'_>) -> bool {
        match facts.find(&self.key) {
            Found::Absent => self.holds_absent(),
            Found::One(entry) => self.holds_for(entry, effect, facts),
            // Keys that differ in case alone: a Deny looks at all, an Allow at the one it names.
            Found::Several(entries, exact) => match effect {
                Effect::Allow => exact.is_some_and(|entry| self.holds_for(entry, effect, facts)),
                Effect::Deny => entries
                    .iter()
                    .any(|entry| self.holds_for(entry, effect, facts)),
            },
        }
    }

    fn holds_absent(&self) -> bool {
        if let Test::Null(absent) = &self.test {
            return absent.contains(&true);
        }
        match self.rule.set {
            Some(Set::All) => true,
            Some(Set::Any) => self.rule.if_exists,
            None => self.rule.if_exists || self.rule.negated,
        }
    }

    fn holds_for(&self, entry: &Entry, effect: Effect, facts: &Facts<'_>) -> bool {
        if entry.values.is_empty() {
            return self.holds_absent();
        }
        if let Test::Null(absent) = &self.test {
            return absent.contains(&false);
        }
        let mut values = entry.values.iter();
        match (self.rule.set, &*entry.values) {
            (Some(Set::All), _) => values.all(|value| self.holds_value(value, effect, facts)),
            (Some(Set::Any), _) => values.any(|value| self.holds_value(value, effect, facts)),
            (None, [value]) => {
                self.holds_said(self.test.say(value, Some(&entry.parsed), facts), effect)
            }
            // A list without a set operator has no agreed meaning.
            (None, _) => {
                effect == Effect::Deny && values.any(|value| self.holds_value(value, effect, facts))
            }
        }
    }

    fn holds_value(&self, value: &str, effect: Effect, facts: &Facts<'_>) -> bool {
        self.holds_said(self.test.say(value, None, facts), effect)
    }

    fn holds_said(&self, said: Said, effect: Effect) -> bool {
        match (said, self.rule.negated) {
            (Said::Matches, negated) => !negated,
            (Said::Differs, negated) => negated,
            (Said::WrongType, negated) => negated && effect == Effect::Deny,
        }
    }
}

impl Test {
    /// Reads the values for an operator's name in lower case, and whether it is a negated one.
    fn parse(name: &str, wanted: &[String], variables: bool) -> Result<(Self, bool), BadCondition> {
        let text = |ignore_case| Self::Text {
            values: wanted
                .iter()
                .map(|text| Text::parse(text, variables))
                .collect(),
            ignore_case,
        };
        let like = || {
            let patterns = wanted.iter().map(|text| Glob::parse(text, variables));
            Self::Like(patterns.collect())
        };
        let arn = || {
            let patterns = wanted.iter().map(|text| ArnPattern::value(text, variables));
            Self::Arn(patterns.collect())
        };
        Ok(match name {
            "stringequals" => (text(false), false),
            "stringnotequals" => (text(false), true),
            "stringequalsignorecase" => (text(true), false),
            "stringnotequalsignorecase" => (text(true), true),
            "stringlike" => (like(), false),
            "stringnotlike" => (like(), true),
            "arnequals" | "arnlike" => (arn(), false),
            "arnnotequals" | "arnnotlike" => (arn(), true),
            "bool" => (Self::Bool(all(wanted, parse_bool)?), false),
            "null" => (Self::Null(all(wanted, parse_bool)?), false),
            "binaryequals" => (Self::Binary(all(wanted, parse_base64)?), false),
            "ipaddress" => (Self::Ip(all(wanted, Network::parse)?), false),
            "notipaddress" => (Self::Ip(all(wanted, Network::parse)?), true),
            _ => return Self::parse_ordered(name, wanted),
        })
    }

    fn parse_ordered(name: &str, wanted: &[String]) -> Result<(Self, bool), BadCondition> {
        let (numeric, name) = match (name.strip_prefix("numeric"), name.strip_prefix("date")) {
            (Some(name), _) => (true, name),
            (None, Some(name)) => (false, name),
            (None, None) => return Err(BadCondition::Operator),
        };
        let (order, negated) = match name {
            "equals" => (Order::Equal, false),
            "notequals" => (Order::Equal, true),
            "lessthan" => (Order::Less, false),
            "lessthanequals" => (Order::LessOrEqual, false),
            "greaterthan" => (Order::Greater, false),
            "greaterthanequals" => (Order::GreaterOrEqual, false),
            _ => return Err(BadCondition::Operator),
        };
        let test = if numeric {
            Self::Numeric(order, all(wanted, Decimal::parse)?)
        } else {
            Self::Date(order, all(wanted, Instant::parse)?)
        };
        Ok((test, negated))
    }

    /// `parsed` is where readings of the value are kept, if anywhere.
    fn say(&self, value: &str, parsed: Option<&Parsed>, facts: &Facts<'_>) -> Said {
        match self {
            Self::Text {
                values,
                ignore_case,
            } => values
                .iter()
                .any(|text| text.equals(value, *ignore_case, facts))
                .into(),
            Self::Like(globs) => globs.iter().any(|glob| glob.matches(value, facts)).into(),
            Self::Arn(patterns) => {
                let named = Named::new(value);
                patterns
                    .iter()
                    .any(|pattern| pattern.matches(&named, facts))
                    .into()
            }
            Self::Numeric(order, wanted) => compare(*order, Decimal::parse(value), wanted),
            Self::Date(order, wanted) => {
                let read = || Instant::parse(value);
                let instant = match parsed {
                    Some(parsed) => *parsed.instant.get_or_init(read),
                    None => read(),
                };
                compare(*order, instant, wanted)
            }
            Self::Bool(wanted) => compare(Order::Equal, parse_bool(value), wanted),
            Self::Binary(wanted) => compare(Order::Equal, parse_base64(value), wanted),
            Self::Ip(networks) => {
                let read = || value.parse::<IpAddr>().ok();
                let address = match parsed {
                    Some(parsed) => *parsed.address.get_or_init(read),
                    None => read(),
                };
                address.map_or(Said::WrongType, |address| {
                    networks
                        .iter()
                        .any(|network| network.contains(address))
                        .into()
                })
            }
            // Asked for the key alone, before its values are looked at.
            Self::Null(_) => Said::Differs,
        }
    }
}

fn compare<T: Ord>(order: Order, value: Option<T>, wanted: &[T]) -> Said {
    match value {
        Some(value) => wanted
            .iter()
            .any(|wanted| order.holds(&value, wanted))
            .into(),
        None => Said::WrongType,
    }
}

fn all<T>(wanted: &[String], parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, BadCondition> {
    let parsed = wanted
        .iter()
        .enumerate()
        .map(|(at, text)| parse(text).ok_or(BadCondition::Value(at)));
    parsed.collect()
}
