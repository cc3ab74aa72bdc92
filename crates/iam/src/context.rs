//! The condition keys of a request and what they hold. Which keys a request has is decided by its
//! caller; here they are only kept and found.

use std::{net::IpAddr, sync::OnceLock};

use crate::{template::Variable, value::Instant, word};

/// Condition keys with their values. Keys are found without regard to case; a key holds one value
/// or a list of them, and the difference counts: only the former can be used as a variable.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Sorted by key, and by name where names differ in case alone.
    entries: Vec<Entry>,
    /// The hash of each entry's key, close together: this is what every condition searches.
    hashes: Vec<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    key: Key,
    pub(crate) values: Vec<String>,
    pub(crate) many: bool,
    pub(crate) parsed: Parsed,
}

/// What the first of a key's values is when read as a type that is costly to read: many conditions
/// ask for the time or the address, so each is read once for a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) address: OnceLock<Option<IpAddr>>,
    pub(crate) instant: OnceLock<Option<Instant>>,
}

impl Entry {
    /// The name as it was given.
    pub(crate) fn name(&self) -> &str {
        &self.key.name
    }
}

/// A condition key's name, prepared for being found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Of `lower`: one number to compare instead of two texts.
    hash: u64,
    lower: Box<str>,
    pub(crate) name: Box<str>,
}

impl Key {
    pub(crate) fn new(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        Self {
            hash: word::hash(&lower),
            lower: lower.into(),
            name: name.into(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.hash == other.hash && self.lower == other.lower
    }
}

impl Context {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one value for a key, replacing what the key of exactly this name held.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.set(key, value);
        self
    }

    /// With a list for a key, replacing what the key of exactly this name held.
    #[must_use]
    pub fn with_many<V: Into<String>>(
        mut self,
        key: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.set_many(key, values);
        self
    }

    /// Sets a key to one value.
    ///
    /// Names that differ in case alone are kept apart, because tags may: where a condition asks for
    /// such a key, a Deny looks at all of them and an Allow only at the one written the same way.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.put(key, vec![value.into()], false);
    }

    /// Sets a key to a list. An empty list is as if the key were absent.
    pub fn set_many<V: Into<String>>(&mut self, key: &str, values: impl IntoIterator<Item = V>) {
        self.put(key, values.into_iter().map(Into::into).collect(), true);
    }

    fn put(&mut self, name: &str, values: Vec<String>, many: bool) {
        let entry = Entry {
            key: Key::new(name),
            values,
            many,
            parsed: Parsed::default(),
        };
        match self.entries.binary_search_by(|old| old.key.cmp(&entry.key)) {
            Ok(at) => {
                if let Some(old) = self.entries.get_mut(at) {
                    *old = entry;
                }
            }
            Err(at) => {
                self.hashes.insert(at, entry.key.hash);
                self.entries.insert(at, entry);
            }
        }
    }

    /// Removes a key, however it is written.
    pub fn remove(&mut self, key: &str) {
        let key = Key::new(key);
        self.entries.retain(|entry| !entry.key.is(&key));
        self.hashes = self.entries.iter().map(|entry| entry.key.hash).collect();
    }

    /// The values of a key: of the one written the same way, else of the first that differs in case.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[String]> {
        let key = Key::new(key);
        let entries = self.entries(&key);
        let entry = exact(entries, &key).or(entries.first())?;
        Some(&entry.values)
    }

    /// The keys' names as they were given, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(Entry::name)
    }

    fn entries(&self, key: &Key) -> &[Entry] {
        let start = self.hashes.partition_point(|hash| *hash < key.hash);
        if self.hashes.get(start) != Some(&key.hash) {
            return &[];
        }
        let mut rest = self.entries.get(start..).unwrap_or_default();
        // Other keys of the same hash, should there ever be any.
        while let [first, others @ ..] = rest
            && first.key.hash == key.hash
            && first.key.lower != key.lower
        {
            rest = others;
        }
        match rest {
            [first, ..] if first.key.hash == key.hash => {}
            _ => return &[],
        }
        let more = rest.iter().skip(1).take_while(|entry| entry.key.is(key));
        rest.get(..=more.count()).unwrap_or_default()
    }
}

fn exact<'a>(entries: &'a [Entry], key: &Key) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key.name == key.name)
}

/// What is known when one resource of a request is judged: the resource's own keys before the
/// request's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    request: &'a Context,
    resource: Option<&'a Context>,
}

/// What a condition finds under its key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    Absent,
    One(&'a Entry),
    /// Names that differ in case alone, and the one written as in the condition.
    Several(&'a [Entry], Option<&'a Entry>),
}

impl<'a> Facts<'a> {
    pub(crate) fn new(request: &'a Context, resource: Option<&'a Context>) -> Self {
        Self { request, resource }
    }

    #[cfg(test)]
    pub(crate) fn of(context: &'a Context) -> Self {
        Self::new(context, None)
    }

    pub(crate) fn find(&self, key: &Key) -> Found<'a> {
        let mut entries: &[Entry] = &[];
        if let Some(resource) = self.resource {
            entries = resource.entries(key);
        }
        if entries.is_empty() {
            entries = self.request.entries(key);
        }
        match entries {
            [] => Found::Absent,
            [entry] if entry.values.is_empty() => Found::Absent,
            [entry] => Found::One(entry),
            several => Found::Several(several, exact(several, key)),
        }
    }

    /// The text that a variable inserts. The default stands in for an absent key only.
    pub(crate) fn variable(&self, variable: &'a Variable) -> Option<&'a str> {
        let entry = match self.find(&variable.key) {
            Found::Absent => return variable.default.as_deref(),
            Found::One(entry) => entry,
            Found::Several(_, exact) => exact?,
        };
        match &*entry.values {
            [value] if !entry.many => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_without_regard_to_case() {
        let context = Context::new()
            .with("aws:SourceIp", "192.0.2.1")
            .with_many("aws:TagKeys", ["a", "b"]);
        assert_eq!(
            context.get("AWS:sourceip"),
            Some(&["192.0.2.1".to_owned()][..])
        );
        assert_eq!(context.get("aws:tagkeys").map(<[String]>::len), Some(2));
        assert_eq!(context.get("aws:username"), None);
    }

    #[test]
    fn a_resource_speaks_before_the_request() {
        let request = Context::new().with("k", "request").with("other", "request");
        let resource = Context::new().with("K", "resource");
        let facts = Facts::new(&request, Some(&resource));
        let value = |name: &str| match facts.find(&Key::new(name)) {
            Found::One(entry) => Some(entry.values.clone()),
            _ => None,
        };
        assert_eq!(value("k"), Some(vec!["resource".to_owned()]));
        assert_eq!(value("other"), Some(vec!["request".to_owned()]));
        assert_eq!(value("none"), None);
    }

    #[test]
    fn tags_that_differ_in_case_are_kept_apart() {
        let context = Context::new()
            .with("aws:ResourceTag/Env", "prod")
            .with("aws:ResourceTag/env", "dev");
        let facts = Facts::of(&context);
        let Found::Several(all, Some(exact)) = facts.find(&Key::new("aws:ResourceTag/env")) else {
            panic!("two tags");
        };
        assert_eq!(all.len(), 2);
        assert_eq!(exact.values, ["dev"]);
        assert!(matches!(
            facts.find(&Key::new("aws:ResourceTag/ENV")),
            Found::Several(_, None)
        ));
    }
}
