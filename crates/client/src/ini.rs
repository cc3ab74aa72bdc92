//! Reads the INI dialect of AWS's shared config and credentials files, as forgiving as botocore:
//! unknown sections and keys stay, a line that makes no sense is skipped, a repeated section is
//! merged and a repeated key's last value holds.
//!
//! What sections and keys mean is not known here.

use std::collections::BTreeMap;

/// A parsed file: section title as written between the brackets, then its keys.
#[derive(Debug, Default)]
pub(crate) struct Document {
    sections: BTreeMap<String, Section>,
}

/// The keys of one section. Key names are lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    values: BTreeMap<String, Value>,
}

/// The value of a key: a text, or the indented keys that follow an empty one.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Nested(BTreeMap<String, String>),
}

impl Document {
    pub(crate) fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut section: Option<String> = None;
        let mut key: Option<String> = None;
        for line in text.trim_start_matches('\u{feff}').lines() {
            let content = line.trim();
            if content.is_empty() || content.starts_with(['#', ';']) {
                continue;
            }
            if let Some(title) = section_title(line) {
                document.sections.entry(title.clone()).or_default();
                (section, key) = (Some(title), None);
                continue;
            }
            // Keys before the first section belong to nothing.
            let Some(current) = section.as_ref().and_then(|s| document.sections.get_mut(s)) else {
                continue;
            };
            match &key {
                Some(key) if line.starts_with([' ', '\t']) => current.continue_value(key, content),
                _ => key = current.insert(content).or(key),
            }
        }
        document
    }

    /// The section titled exactly `title`.
    pub(crate) fn section(&self, title: &str) -> Option<&Section> {
        self.sections.get(title)
    }

    /// Every section whose title is `<kind> <name>`, the name possibly quoted, by that name.
    pub(crate) fn named(&self, kind: &str, name: &str) -> Option<&Section> {
        self.sections.iter().find_map(|(title, section)| {
            let rest = title.strip_prefix(kind)?;
            let written = rest.strip_prefix([' ', '\t'])?.trim();
            (unquote(written) == name).then_some(section)
        })
    }
}

impl Section {
    /// The text of a key; `None` when absent or nested.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key)? {
            Value::Text(text) => Some(text),
            Value::Nested(_) => None,
        }
    }

    /// A key below a nested one.
    pub(crate) fn nested(&self, key: &str, inner: &str) -> Option<&str> {
        match self.values.get(key)? {
            Value::Nested(values) => values.get(inner).map(String::as_str),
            Value::Text(_) => None,
        }
    }

    /// Takes over the keys of `other`; its values win.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (key, value) in &other.values {
            self.values.insert(key.clone(), value.clone());
        }
    }

    /// Adds a `key = value` line and returns the key; `None` for a line without a delimiter.
    fn insert(&mut self, content: &str) -> Option<String> {
        let (key, value) = split(content)?;
        self.values
            .insert(key.clone(), Value::Text(value.to_owned()));
        Some(key)
    }

    /// Adds an indented line to the value of `key`.
    fn continue_value(&mut self, key: &str, content: &str) {
        match self.values.get_mut(key) {
            Some(Value::Nested(values)) => {
                if let Some((inner, value)) = split(content) {
                    values.insert(inner, value.to_owned());
                }
            }
            Some(Value::Text(text)) if text.is_empty() => {
                let values = split(content)
                    .map(|(inner, value)| (inner, value.to_owned()))
                    .into_iter()
                    .collect();
                self.values.insert(key.to_owned(), Value::Nested(values));
            }
            Some(Value::Text(text)) => {
                text.push('\n');
                text.push_str(content);
            }
            None => {}
        }
    }
}

/// The title of a section line. Only a bracket in the first column opens one.
fn section_title(line: &str) -> Option<String> {
    let (title, _) = line.strip_prefix('[')?.split_once(']')?;
    Some(title.trim().to_owned())
}

/// Cuts at the first `=` or `:`.
fn split(content: &str) -> Option<(String, &str)> {
    let (key, value) = content.split_once(['=', ':'])?;
    let key = key.trim().to_lowercase();
    (!key.is_empty()).then(|| (key, value.trim()))
}

fn unquote(text: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_nested_keys_are_found() {
        let document = Document::parse(
            "\u{feff}stray = 1\r\n# note\r\n[default]\r\nRegion = local-1 ; kept\r\n\
             [profile \"two words\"]\nservices=mine\nnonsense\n\n[services mine]\nssm =\n  endpoint_url = http://a:1/x=y\n\
             sts =\n\tendpoint_url: http://b\n[default]\noutput: json\n",
        );
        let default = document.section("default").unwrap();
        assert_eq!(default.text("region"), Some("local-1 ; kept"));
        assert_eq!(default.text("output"), Some("json"));
        let profile = document.named("profile", "two words").unwrap();
        assert_eq!(profile.text("services"), Some("mine"));
        let services = document.named("services", "mine").unwrap();
        assert_eq!(
            services.nested("ssm", "endpoint_url"),
            Some("http://a:1/x=y")
        );
        assert_eq!(services.nested("sts", "endpoint_url"), Some("http://b"));
        assert_eq!(services.text("ssm"), None);
    }

    #[test]
    fn a_long_value_goes_on_over_indented_lines() {
        let document = Document::parse("[a]\nkey = one\n  two\nother = 3\n");
        let section = document.section("a").unwrap();
        assert_eq!(section.text("key"), Some("one\ntwo"));
        assert_eq!(section.text("other"), Some("3"));
    }
}
