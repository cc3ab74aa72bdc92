//! Checks the model's constraints on what was read, and says which are broken in AWS's words.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use regex_lite::Regex;

use crate::{
    InvalidInput, Violation,
    schema::{Kind, Length, Pattern, Structure, Text},
    trail::lower_first,
    tree::Tree,
};

/// More violations than these are not reported: a request of a megabyte could hold hundreds of
/// thousands, and the answer would be a multiple of it.
const MOST_VIOLATIONS: usize = 100;
/// More characters of a refused value than these are not shown.
const MOST_SHOWN: usize = 1000;
/// More characters of a map's key in a path than these are not shown.
const MOST_OF_A_KEY: usize = 100;

/// Checks a structure and everything inside.
pub(crate) fn check(tree: &Tree) -> Result<(), InvalidInput> {
    let mut violations = Violations(Vec::new());
    if let Tree::Structure(schema, slots) = tree {
        violations.structure(schema, slots, "");
    }
    if violations.0.is_empty() {
        Ok(())
    } else {
        Err(InvalidInput::Violations(violations.0))
    }
}

struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, value: Option<&Tree>, path: &str, constraint: String) {
        if self.0.len() < MOST_VIOLATIONS {
            let secret = matches!(value, Some(Tree::Secret(_)));
            let value = value.filter(|_| !secret).map(shown);
            self.0.push(Violation {
                value,
                secret,
                path: path.to_owned(),
                constraint,
            });
        }
    }

    fn structure(&mut self, schema: &Structure, slots: &[Option<Tree>], path: &str) {
        for (member, slot) in schema.members.iter().zip(slots) {
            let name = lower_first(member.name);
            let path = if path.is_empty() {
                name
            } else {
                format!("{path}.{name}")
            };
            match slot {
                Some(value) => self.value(value, member.kind, &path),
                None if member.required => {
                    self.add(None, &path, "Member must not be null".to_owned())
                }
                None => {}
            }
            if self.0.len() >= MOST_VIOLATIONS {
                return;
            }
        }
    }

    fn value(&mut self, value: &Tree, kind: &Kind, path: &str) {
        for rule in rules(kind).filter(|rule| !rule.holds(value)) {
            self.add(Some(value), path, rule.to_string());
        }
        match (kind, value) {
            (Kind::Structure(schema), Tree::Structure(_, slots)) => {
                self.structure(schema(), slots, path)
            }
            (Kind::List { element, .. }, Tree::List(values)) => {
                self.list(value, values, element, path)
            }
            (
                Kind::Map {
                    key, value: inner, ..
                },
                Tree::Map(_),
            ) => self.map(value, key, inner, path),
            _ => {}
        }
    }

    fn list(&mut self, list: &Tree, values: &[Tree], element: &Kind, path: &str) {
        if !holds_structures(element) {
            if values.iter().any(|value| !all_hold(value, element)) {
                self.add(
                    Some(list),
                    path,
                    format!("Member must satisfy constraint: {}", all_rules(element)),
                );
            }
            return;
        }
        for (index, value) in values.iter().enumerate() {
            self.value(value, element, &format!("{path}.{}.member", index + 1));
            if self.0.len() >= MOST_VIOLATIONS {
                return;
            }
        }
    }

    fn map(&mut self, map: &Tree, key: &Kind, inner: &Kind, path: &str) {
        let Tree::Map(entries) = map else { return };
        if entries
            .keys()
            .any(|text| !all_hold(&Tree::Text(text.clone()), key))
        {
            self.add(
                Some(map),
                path,
                format!("Map keys must satisfy constraint: {}", all_rules(key)),
            );
        }
        if !holds_structures(inner) {
            if entries.values().any(|value| !all_hold(value, inner)) {
                self.add(
                    Some(map),
                    path,
                    format!("Map value must satisfy constraint: {}", all_rules(inner)),
                );
            }
            return;
        }
        for (name, value) in entries {
            self.value(
                value,
                inner,
                &format!("{path}.{}.member", cut(name, MOST_OF_A_KEY)),
            );
            if self.0.len() >= MOST_VIOLATIONS {
                return;
            }
        }
    }
}

fn holds_structures(kind: &Kind) -> bool {
    match kind {
        Kind::Structure(_) => true,
        Kind::List { element, .. } => holds_structures(element),
        Kind::Map { value, .. } => holds_structures(value),
        _ => false,
    }
}

/// Whether a value without structures inside keeps every rule of its kind.
pub(crate) fn all_hold(value: &Tree, kind: &Kind) -> bool {
    rules(kind).all(|rule| rule.holds(value))
        && match (kind, value) {
            (Kind::List { element, .. }, Tree::List(values)) => {
                values.iter().all(|value| all_hold(value, element))
            }
            (
                Kind::Map {
                    key, value: inner, ..
                },
                Tree::Map(entries),
            ) => entries.iter().all(|(name, value)| {
                all_hold(&Tree::Text(name.clone()), key) && all_hold(value, inner)
            }),
            _ => true,
        }
}

/// Every rule of a kind, as AWS lists them for what is inside lists and maps.
fn all_rules(kind: &Kind) -> String {
    let mut texts: Vec<String> = rules(kind).map(|rule| rule.to_string()).collect();
    match kind {
        Kind::List { element, .. } => {
            texts.push(format!(
                "Member must satisfy constraint: {}",
                all_rules(element)
            ));
        }
        Kind::Map { key, value, .. } => {
            texts.push(format!(
                "Map keys must satisfy constraint: {}",
                all_rules(key)
            ));
            texts.push(format!(
                "Map value must satisfy constraint: {}",
                all_rules(value)
            ));
        }
        _ => {}
    }
    format!("[{}]", texts.join(", "))
}

/// One rule of a kind on a value itself.
#[derive(Clone, Copy)]
enum Rule {
    LengthAtMost(usize),
    LengthAtLeast(usize),
    Pattern(Pattern),
    OneOf(&'static [&'static str]),
    AtMost(i64),
    AtLeast(i64),
}

fn rules(kind: &Kind) -> impl Iterator<Item = Rule> + use<> {
    let (length, text) = match kind {
        Kind::Text(text) => (text.length, Some(*text)),
        Kind::Blob(length) | Kind::List { length, .. } | Kind::Map { length, .. } => {
            (*length, None)
        }
        _ => (Length::ANY, None),
    };
    let (min, max) = match kind {
        Kind::Integer { min, max, .. } => (Some(*min), Some(*max)),
        _ => (None, None),
    };
    let pattern = text.and_then(|Text { pattern, .. }| pattern);
    let values = text
        .map(|Text { values, .. }| values)
        .filter(|values| !values.is_empty());
    [
        (length.max < usize::MAX).then_some(Rule::LengthAtMost(length.max)),
        (length.min > 0).then_some(Rule::LengthAtLeast(length.min)),
        pattern.map(Rule::Pattern),
        values.map(Rule::OneOf),
        max.map(Rule::AtMost),
        min.map(Rule::AtLeast),
    ]
    .into_iter()
    .flatten()
}

impl Rule {
    fn holds(self, value: &Tree) -> bool {
        match self {
            Self::LengthAtMost(max) => length(value).is_none_or(|length| length <= max),
            Self::LengthAtLeast(min) => length(value).is_none_or(|length| length >= min),
            Self::Pattern(pattern) => text(value).is_none_or(|text| matches_pattern(text, pattern)),
            Self::OneOf(values) => text(value).is_none_or(|text| values.contains(&text)),
            Self::AtMost(max) => !matches!(value, Tree::Integer(value) if *value > max),
            Self::AtLeast(min) => !matches!(value, Tree::Integer(value) if *value < min),
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LengthAtMost(max) => {
                write!(f, "Member must have length less than or equal to {max}")
            }
            Self::LengthAtLeast(min) => {
                write!(f, "Member must have length greater than or equal to {min}")
            }
            Self::Pattern(pattern) => {
                write!(
                    f,
                    "Member must satisfy regular expression pattern: {}",
                    pattern.shown
                )
            }
            Self::OneOf(values) => write!(
                f,
                "Member must satisfy enum value set: [{}]",
                values.join(", ")
            ),
            Self::AtMost(max) => write!(f, "Member must have value less than or equal to {max}"),
            Self::AtLeast(min) => {
                write!(f, "Member must have value greater than or equal to {min}")
            }
        }
    }
}

fn text(value: &Tree) -> Option<&str> {
    match value {
        Tree::Text(text) => Some(text),
        Tree::Secret(secret) => Some(secret.expose()),
        _ => None,
    }
}

fn length(value: &Tree) -> Option<usize> {
    match value {
        Tree::Blob(bytes) => Some(bytes.len()),
        Tree::List(values) => Some(values.len()),
        Tree::Map(map) => Some(map.len()),
        _ => text(value).map(|text| text.chars().count()),
    }
}

/// Whether the whole text matches, as AWS's services demand.
fn matches_pattern(text: &str, pattern: Pattern) -> bool {
    let Some(regex) = compiled(pattern.compiled) else {
        return false;
    };
    if pattern.unicode && !text.is_ascii() {
        regex.is_match(&ascii_classes(text))
    } else {
        regex.is_match(text)
    }
}

/// The text with letters, digits and spaces beyond ASCII replaced by ones of the same class.
fn ascii_classes(text: &str) -> String {
    let class = |letter: char| match letter {
        _ if letter.is_ascii() => letter,
        _ if letter.is_alphabetic() => 'a',
        _ if letter.is_numeric() => '0',
        _ if letter.is_whitespace() => ' ',
        _ => letter,
    };
    text.chars().map(class).collect()
}

/// Each pattern is compiled once. `None` is not expected: the generator compiles them all.
fn compiled(pattern: &'static str) -> Option<Arc<Regex>> {
    static COMPILED: Mutex<Option<HashMap<&'static str, Arc<Regex>>>> = Mutex::new(None);
    let mut patterns = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let patterns = patterns.get_or_insert_default();
    if let Some(regex) = patterns.get(pattern) {
        return Some(Arc::clone(regex));
    }
    let regex = Arc::new(Regex::new(&format!("^(?:{pattern})$")).ok()?);
    patterns.insert(pattern, Arc::clone(&regex));
    Some(regex)
}

/// A refused value as AWS shows it, shortened, without secrets.
fn shown(value: &Tree) -> String {
    let mut text = String::new();
    show(value, &mut text);
    cut(&text, MOST_SHOWN)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn show(value: &Tree, text: &mut String) {
    // Enough is shown already; the rest would be cut off.
    if text.len() > MOST_SHOWN * 4 {
        return;
    }
    let separate = |text: &mut String, index: usize| {
        if index > 0 {
            text.push_str(", ");
        }
    };
    match value {
        Tree::Blob(bytes) => text.push_str(&format!("{} bytes", bytes.len())),
        Tree::Boolean(value) => text.push_str(&value.to_string()),
        Tree::Double(value) => text.push_str(&value.to_string()),
        Tree::Integer(value) => text.push_str(&value.to_string()),
        Tree::List(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                separate(text, index);
                show(value, text);
            }
            text.push(']');
        }
        Tree::Map(map) => {
            text.push('{');
            for (index, (key, value)) in map.iter().enumerate() {
                separate(text, index);
                text.push_str(key);
                text.push('=');
                show(value, text);
            }
            text.push('}');
        }
        Tree::Secret(_) => text.push_str("***"),
        Tree::Structure(schema, slots) => {
            text.push_str(schema.name);
            text.push('(');
            let present = schema
                .members
                .iter()
                .zip(slots)
                .filter_map(|(m, slot)| Some((m, slot.as_ref()?)));
            for (index, (member, value)) in present.enumerate() {
                separate(text, index);
                text.push_str(&lower_first(member.name));
                text.push('=');
                show(value, text);
            }
            text.push(')');
        }
        Tree::Text(value) => text.push_str(value),
        Tree::Timestamp(time) => text.push_str(&time.iso_seconds()),
    }
}
