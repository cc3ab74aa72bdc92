//! The query protocol's form: inputs flattened into `Name.member.1.Key=value` pairs.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use sortie_types::Secret;

use crate::{
    InvalidInput, percent,
    schema::{Kind, Structure},
    tree::Tree,
};

/// Structures nested deeper than this are refused: a long name could else nest a recursive shape
/// as deep as the stack.
const DEEPEST: usize = 32;

/// The fields of a form, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// A form without fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `application/x-www-form-urlencoded` text, a body or a query string.
    ///
    /// # Errors
    /// Malformed when it is not UTF-8 once decoded.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidInput> {
        let refused = || malformed("The request is not UTF-8".to_owned());
        let text = std::str::from_utf8(text).map_err(|_| refused())?;
        let decoded = |part| {
            percent::decode_text(part, true)
                .map(Cow::into_owned)
                .ok_or_else(refused)
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }

    /// Adds a field.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// As text, for a body or a query string.
    #[must_use]
    pub fn encode(&self) -> String {
        let pair = |(name, value): (&str, &str)| {
            format!(
                "{}={}",
                percent::encode(name.as_bytes(), b""),
                percent::encode(value.as_bytes(), b"")
            )
        };
        self.iter().map(pair).collect::<Vec<_>>().join("&")
    }
}

fn malformed(text: String) -> InvalidInput {
    InvalidInput::Malformed(text)
}

/// Reads a structure.
pub(crate) fn decode(form: &Form, schema: &'static Structure) -> Result<Tree, InvalidInput> {
    let fields = Fields(form.iter().collect());
    fields.structure(schema, "", 0)
}

/// The fields by name: of two with the same name the last holds.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl Fields<'_> {
    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .range(prefix..)
            .map(|(name, _)| *name)
            .take_while(move |name| name.starts_with(prefix))
    }

    fn structure(
        &self,
        schema: &'static Structure,
        prefix: &str,
        depth: usize,
    ) -> Result<Tree, InvalidInput> {
        if depth > DEEPEST {
            return Err(malformed("The request is nested too deeply".to_owned()));
        }
        let slots: Result<_, _> = schema
            .members
            .iter()
            .map(|member| self.value(member.kind, &joined(prefix, member.name), depth))
            .collect();
        Ok(Tree::Structure(schema, slots?))
    }

    fn value(&self, kind: &Kind, name: &str, depth: usize) -> Result<Option<Tree>, InvalidInput> {
        match kind {
            Kind::Structure(schema) => {
                let present = self.below(&format!("{name}.")).next().is_some();
                present
                    .then(|| self.structure(schema(), name, depth + 1))
                    .transpose()
            }
            Kind::List {
                element,
                name: inner,
                flattened,
                ..
            } => {
                let prefix = if *flattened {
                    format!("{name}.")
                } else {
                    format!("{name}.{inner}.")
                };
                let mut values = Vec::new();
                for index in self.indices(&prefix) {
                    values.extend(self.value(element, &format!("{prefix}{index}"), depth + 1)?);
                }
                // A client sends an empty list as a field without value.
                let present = !values.is_empty() || self.0.contains_key(name);
                Ok(present.then_some(Tree::List(values)))
            }
            Kind::Map { value, .. } => {
                let prefix = format!("{name}.entry.");
                let mut entries = BTreeMap::new();
                for index in self.indices(&prefix) {
                    let key = self.0.get(format!("{prefix}{index}.key").as_str());
                    let value = self.value(value, &format!("{prefix}{index}.value"), depth + 1)?;
                    if let (Some(key), Some(value)) = (key, value) {
                        entries.insert((*key).to_owned(), value);
                    }
                }
                Ok((!entries.is_empty()).then_some(Tree::Map(entries)))
            }
            _ => self
                .0
                .get(name)
                .map(|text| leaf(text, kind, name))
                .transpose(),
        }
    }

    /// The numbers that follow a prefix, in numeric order.
    fn indices(&self, prefix: &str) -> BTreeSet<u32> {
        let number = |name: &str| {
            let rest = name.get(prefix.len()..)?;
            let digits = rest.split('.').next()?;
            // Only the plain form: the field is looked up by the number again.
            digits
                .parse()
                .ok()
                .filter(|index: &u32| index.to_string() == digits)
        };
        self.below(prefix).filter_map(number).collect()
    }
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

/// Reads a value that is one text, as forms and XML have them.
pub(crate) fn leaf(text: &str, kind: &Kind, name: &str) -> Result<Tree, InvalidInput> {
    let tree = match kind {
        Kind::Text(rules) if rules.secret => Some(Tree::Secret(Secret::new(text))),
        Kind::Text(_) => Some(Tree::Text(text.to_owned())),
        Kind::Boolean => match text {
            "true" => Some(Tree::Boolean(true)),
            "false" => Some(Tree::Boolean(false)),
            _ => None,
        },
        Kind::Integer { limit, .. } => text
            .parse()
            .ok()
            .filter(|value| (-limit - 1..=*limit).contains(value))
            .map(Tree::Integer),
        Kind::Double => text.parse().ok().map(Tree::Double),
        Kind::Timestamp => text.parse().ok().map(Tree::Timestamp),
        Kind::Blob(_) => BASE64_STANDARD
            .decode(text)
            .ok()
            .map(|bytes| Tree::Blob(bytes.into())),
        Kind::List { .. } | Kind::Map { .. } | Kind::Structure(_) => None,
    };
    tree.ok_or_else(|| malformed(format!("The value of {name} cannot be read")))
}

/// The text of a value that is one text; `None` for the others.
pub(crate) fn leaf_text(tree: &Tree) -> Option<Cow<'_, str>> {
    match tree {
        Tree::Blob(bytes) => Some(BASE64_STANDARD.encode(bytes).into()),
        Tree::Boolean(value) => Some(value.to_string().into()),
        Tree::Double(value) => Some(value.to_string().into()),
        Tree::Integer(value) => Some(value.to_string().into()),
        Tree::Secret(secret) => Some(secret.expose().into()),
        Tree::Text(text) => Some(text.as_str().into()),
        Tree::Timestamp(time) => Some(time.iso_seconds().into()),
        Tree::List(_) | Tree::Map(_) | Tree::Structure(..) => None,
    }
}

/// Adds a structure's members.
pub(crate) fn encode(tree: &Tree, form: &mut Form) {
    if let Tree::Structure(schema, slots) = tree {
        encode_members(schema, slots, "", form);
    }
}

fn encode_members(schema: &Structure, slots: &[Option<Tree>], prefix: &str, form: &mut Form) {
    for (member, slot) in schema.members.iter().zip(slots) {
        if let Some(value) = slot {
            encode_value(value, member.kind, &joined(prefix, member.name), form);
        }
    }
}

fn encode_value(tree: &Tree, kind: &Kind, name: &str, form: &mut Form) {
    match (kind, tree) {
        (_, Tree::Structure(schema, slots)) => encode_members(schema, slots, name, form),
        (
            Kind::List {
                element,
                name: inner,
                flattened,
                ..
            },
            Tree::List(values),
        ) => {
            if values.is_empty() {
                form.push(name, "");
            }
            for (index, value) in values.iter().enumerate() {
                let index = index + 1;
                let name = if *flattened {
                    format!("{name}.{index}")
                } else {
                    format!("{name}.{inner}.{index}")
                };
                encode_value(value, element, &name, form);
            }
        }
        (Kind::Map { value: inner, .. }, Tree::Map(entries)) => {
            for (index, (key, value)) in entries.iter().enumerate() {
                let name = format!("{name}.entry.{}", index + 1);
                form.push(format!("{name}.key"), key.as_str());
                encode_value(value, inner, &format!("{name}.value"), form);
            }
        }
        _ => {
            if let Some(text) = leaf_text(tree) {
                form.push(name, text);
            }
        }
    }
}
