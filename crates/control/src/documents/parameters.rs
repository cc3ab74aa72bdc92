//! The parameters of a session document: how they are declared, which values they take, and how they
//! are put into the document. Pure.
//!
//! Values reach shells as text, so what a declaration says is all that stands between a caller and the
//! command: every rule is checked here, before a session exists. A pattern is looked for anywhere in
//! the value, as the original service does, and `$` is the very end of it, not the place before a last
//! line feed. `\w`, `\d` and `\s` are of ASCII, as they are there. Patterns are matched in linear time.

use std::{collections::BTreeMap, sync::OnceLock};

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// The longest pattern, in bytes.
const LONGEST_PATTERN: usize = 4096;
/// What a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 1024 * 1024;
/// The longest name of a parameter.
const LONGEST_NAME: usize = 255;
/// The members of a declaration.
const MEMBERS: [&str; 10] = [
    "type",
    "description",
    "default",
    "allowedValues",
    "allowedPattern",
    "minChars",
    "maxChars",
    "minItems",
    "maxItems",
    "displayType",
];

/// What kind of values a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Integer,
    MapList,
    String,
    StringList,
    StringMap,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Boolean" => Self::Boolean,
            "Integer" => Self::Integer,
            "MapList" => Self::MapList,
            "String" => Self::String,
            "StringList" => Self::StringList,
            "StringMap" => Self::StringMap,
            _ => return None,
        })
    }

    /// AWS's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::MapList => "MapList",
            Self::String => "String",
            Self::StringList => "StringList",
            Self::StringMap => "StringMap",
        }
    }

    fn is_list(self) -> bool {
        matches!(self, Self::MapList | Self::StringList)
    }
}

/// A parameter as its document declares it.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) kind: Kind,
    pub(crate) description: Option<String>,
    /// As text, the form in which it is put into the document and shown.
    pub(crate) default: Option<String>,
    allowed_values: Option<Vec<String>>,
    allowed_pattern: Option<Pattern>,
    chars: Bounds,
    items: Bounds,
}

/// How many, at least and at most.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    least: Option<u64>,
    most: Option<u64>,
}

impl Bounds {
    fn of(declaration: &Map<String, Value>, least: &str, most: &str) -> Result<Self, String> {
        let read = |name: &str| match declaration.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_u64().map(Some).ok_or(()),
            Some(Value::String(text)) => text.parse().map(Some).map_err(|_| ()),
            Some(_) => Err(()),
        };
        let told = |name: &str| format!("{name} must be a whole number, at least 0");
        let bounds = Self {
            least: read(least).map_err(|()| told(least))?,
            most: read(most).map_err(|()| told(most))?,
        };
        match bounds {
            Self {
                least: Some(low),
                most: Some(high),
            } if low > high => Err(format!("{least} is greater than {most}")),
            bounds => Ok(bounds),
        }
    }

    fn check(self, count: usize, what: &str) -> Result<(), String> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        match self {
            Self {
                least: Some(least), ..
            } if count < least => Err(format!("must have at least {least} {what}")),
            Self {
                most: Some(most), ..
            } if count > most => Err(format!("must have at most {most} {what}")),
            _ => Ok(()),
        }
    }
}

/// Whether a parameter may be called so: what can stand between the braces.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

impl Parameter {
    /// Reads a new declaration, and checks all of it.
    ///
    /// # Errors
    /// What is wrong with it, for its author.
    pub(crate) fn declared(declaration: &Value) -> Result<Self, String> {
        let parameter = Self::stored(declaration)?;
        if let Some(pattern) = &parameter.allowed_pattern {
            pattern.compiled()?;
        }
        if let Some(default) = declaration.get("default") {
            let given = default_values(parameter.kind, default)?;
            let judged = parameter.judge(&given);
            judged.map_err(|why| format!("default {why}"))?;
        }
        Ok(parameter)
    }

    /// Reads a declaration that was checked when it was new. Patterns are not compiled before they are
    /// needed: a listing needs none.
    ///
    /// # Errors
    /// As [`Parameter::declared`].
    pub(crate) fn stored(declaration: &Value) -> Result<Self, String> {
        let members = declaration.as_object().ok_or("must be an object")?;
        if let Some(unknown) = members.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
            return Err(format!("{unknown} is not an element of parameters"));
        }
        let kind = text(members, "type")?.ok_or("type is missing")?;
        let kind = Kind::named(kind).ok_or_else(|| format!("there is no type {kind}"))?;
        if let Some(display) = text(members, "displayType")?
            && !["textfield", "textarea"].contains(&display)
        {
            return Err("displayType must be textfield or textarea".to_owned());
        }
        let mut parameter = Self {
            kind,
            description: text(members, "description")?.map(str::to_owned),
            default: None,
            allowed_values: allowed_values(members)?,
            allowed_pattern: text(members, "allowedPattern")?.map(Pattern::new),
            chars: Bounds::of(members, "minChars", "maxChars")?,
            items: Bounds::of(members, "minItems", "maxItems")?,
        };
        if let Some(default) = members.get("default") {
            let given = default_values(kind, default)?;
            let values = given.iter().map(|value| parameter.typed(value));
            let values = values.collect::<Result<_, _>>();
            let values = values.map_err(|why| format!("default {why}"))?;
            parameter.default = Some(parameter.put_together(values));
        }
        Ok(parameter)
    }

    /// Judges the values that were given, and makes of them the text that is put into the document.
    ///
    /// # Errors
    /// What is wrong, as it follows the parameter's name. Names no value: it may be a secret.
    pub(crate) fn judge(&self, given: &[String]) -> Result<String, String> {
        if given.is_empty() {
            return Err("must have a value".to_owned());
        }
        if self.kind.is_list() {
            self.items.check(given.len(), "items")?;
        } else if given.len() > 1 {
            return Err("must have one value".to_owned());
        }
        let values: Result<Vec<String>, String> =
            given.iter().map(|value| self.judge_one(value)).collect();
        Ok(self.put_together(values?))
    }

    /// The text of values that each have their form.
    fn put_together(&self, values: Vec<String>) -> String {
        match self.kind {
            Kind::StringList => Value::from(values).to_string(),
            Kind::MapList => format!("[{}]", values.join(",")),
            _ => values.into_iter().next().unwrap_or_default(),
        }
    }

    fn judge_one(&self, value: &str) -> Result<String, String> {
        if value.contains('\0') {
            return Err("must not contain a zero byte".to_owned());
        }
        if refers_to_parameter_store(value) {
            let why = "must not refer to Parameter Store, which is not offered here";
            return Err(why.to_owned());
        }
        let value = self.typed(value)?;
        self.chars.check(value.chars().count(), "characters")?;
        if let Some(allowed) = &self.allowed_values
            && !allowed.contains(&value)
        {
            return Err("is not one of the allowed values".to_owned());
        }
        if let Some(pattern) = &self.allowed_pattern
            && !pattern.compiled()?.is_match(&value)
        {
            return Err(format!("does not match the pattern {}", pattern.text));
        }
        Ok(value)
    }

    /// The value in the one form that its kind has.
    fn typed(&self, value: &str) -> Result<String, String> {
        let object = || {
            serde_json::from_str::<Map<String, Value>>(value)
                .map_err(|_| "must be a JSON object".to_owned())
        };
        match self.kind {
            Kind::String | Kind::StringList => Ok(value.to_owned()),
            Kind::Boolean => match value {
                "true" | "True" => Ok("true".to_owned()),
                "false" | "False" => Ok("false".to_owned()),
                _ => Err("must be true or false".to_owned()),
            },
            Kind::Integer => {
                let number: Result<i64, _> = value.parse();
                let number = number.map_err(|_| "must be a whole number".to_owned())?;
                Ok(number.to_string())
            }
            Kind::MapList => Ok(Value::Object(object()?).to_string()),
            Kind::StringMap => {
                let map = object()?;
                if !map.values().all(Value::is_string) {
                    return Err("must be a JSON object of texts".to_owned());
                }
                Ok(Value::Object(map).to_string())
            }
        }
    }
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} must be text")),
    }
}

/// A pattern as its author wrote it, compiled when it is first needed.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            compiled: OnceLock::new(),
        }
    }

    fn compiled(&self) -> Result<&Regex, String> {
        if self.text.len() > LONGEST_PATTERN {
            return Err(format!(
                "allowedPattern is longer than {LONGEST_PATTERN} bytes"
            ));
        }
        let compile = || {
            let compiled = RegexBuilder::new(&ascii_classes(&self.text))
                .size_limit(LARGEST_PATTERN)
                .build();
            compiled.ok()
        };
        self.compiled.get_or_init(compile).as_ref().ok_or_else(|| {
            "allowedPattern is no regular expression that can be matched in linear time: \
             look-around and back references are not offered"
                .to_owned()
        })
    }
}

/// A pattern with the classes of AWS's dialect in ours, where they would hold letters and digits of all
/// scripts.
fn ascii_classes(pattern: &str) -> String {
    let mut made = String::with_capacity(pattern.len());
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            made.push(c);
            continue;
        }
        match rest.next() {
            Some('d') => made.push_str("[0-9]"),
            Some('D') => made.push_str("[^0-9]"),
            Some('s') => made.push_str(r"[\t\n\x0B\f\r\x20]"),
            Some('S') => made.push_str(r"[^\t\n\x0B\f\r\x20]"),
            Some('w') => made.push_str("[0-9A-Za-z_]"),
            Some('W') => made.push_str("[^0-9A-Za-z_]"),
            Some('b') => made.push_str(r"(?-u:\b)"),
            Some(other) => made.extend(['\\', other]),
            None => made.push('\\'),
        }
    }
    made
}

fn allowed_values(members: &Map<String, Value>) -> Result<Option<Vec<String>>, String> {
    let Some(values) = members.get("allowedValues") else {
        return Ok(None);
    };
    let values = values.as_array().ok_or("allowedValues must be a list")?;
    if values.is_empty() {
        return Err("allowedValues is empty".to_owned());
    }
    let scalar = |value: &Value| {
        scalar(value).ok_or_else(|| "allowedValues must be texts, numbers or booleans".to_owned())
    };
    values
        .iter()
        .map(scalar)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A default in the form in which callers give values.
fn default_values(kind: Kind, default: &Value) -> Result<Vec<String>, String> {
    match (kind, default) {
        (Kind::StringList, Value::Array(items)) => {
            let items: Option<Vec<String>> = items.iter().map(scalar).collect();
            items.ok_or_else(|| "default must be a list of texts".to_owned())
        }
        (Kind::MapList, Value::Array(items)) => Ok(items.iter().map(Value::to_string).collect()),
        (Kind::StringMap, Value::Object(_)) => Ok(vec![default.to_string()]),
        (_, default) => scalar(default)
            .map(|default| vec![default])
            .ok_or_else(|| format!("default must be of type {}", kind.as_str())),
    }
}

/// Judges all that was given, and fills in the defaults.
///
/// # Errors
/// The first thing that is wrong, for the caller.
pub(crate) fn values(
    declared: &BTreeMap<String, Parameter>,
    given: &BTreeMap<String, Vec<String>>,
    document: &str,
) -> Result<BTreeMap<String, String>, String> {
    if let Some(unknown) = given.keys().find(|name| !declared.contains_key(*name)) {
        return Err(format!(
            "Parameter {unknown} is not defined in document {document}."
        ));
    }
    let value = |(name, parameter): (&String, &Parameter)| {
        let value = match (given.get(name), &parameter.default) {
            (Some(given), _) => parameter
                .judge(given)
                .map_err(|why| format!("Parameter {name} {why}."))?,
            (None, Some(default)) => default.clone(),
            (None, None) => {
                return Err(format!(
                    "Parameter {name} is required by document {document}."
                ));
            }
        };
        Ok((name.clone(), value))
    };
    declared.iter().map(value).collect()
}

/// One piece of a text with placeholders.
enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

/// Cuts a text at its placeholders `{{ name }}`. Braces around anything but a name are text.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    // Searched for from here in `rest`: what stands before is text.
    let mut from = 0;
    while let Some(open) = rest.get(from..).and_then(|ahead| ahead.find("{{")) {
        let open = from + open;
        let inside = rest.get(open + 2..).unwrap_or_default();
        // No further than a name with space around it goes, or many braces would take long.
        let window = inside.get(..inside.floor_char_boundary(2 * LONGEST_NAME));
        let name = window
            .unwrap_or_default()
            .split_once("}}")
            .map(|(name, _)| name)
            .filter(|name| is_name(name.trim_matches([' ', '\t'])));
        let Some(name) = name else {
            from = open + 1;
            continue;
        };
        pieces.push(Piece::Text(rest.get(..open).unwrap_or_default()));
        pieces.push(Piece::Placeholder(name.trim_matches([' ', '\t'])));
        rest = inside.get(name.len() + 2..).unwrap_or_default();
        from = 0;
    }
    pieces.push(Piece::Text(rest));
    pieces
}

/// The names of the placeholders in a text.
pub(crate) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Placeholder(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// Whether a text has a reference `{{ssm:name}}` in it, which official agents would resolve.
pub(crate) fn refers_to_parameter_store(text: &str) -> bool {
    text.match_indices("{{").any(|(at, _)| {
        let inside = text.get(at + 2..).unwrap_or_default().trim_start();
        inside.starts_with("ssm:") || inside.starts_with("ssm-secure:")
    })
}

/// Puts values in the place of the placeholders in every text of `value`, once: what a value brings
/// along is not looked at again. `room` is how many more bytes may be made; `None` when they do not do.
pub(crate) fn substitute(
    value: &Value,
    values: &BTreeMap<String, String>,
    room: &mut usize,
) -> Option<Value> {
    Some(match value {
        Value::String(text) => {
            let mut filled = String::new();
            for piece in pieces(text) {
                let piece = match piece {
                    Piece::Text(text) => text,
                    // Names that nothing declares do not get into documents.
                    Piece::Placeholder(name) => values.get(name).map_or("", String::as_str),
                };
                *room = room.checked_sub(piece.len())?;
                filled.push_str(piece);
            }
            Value::String(filled)
        }
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| substitute(item, values, room))
                .collect::<Option<_>>()?,
        ),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, member)| Some((key.clone(), substitute(member, values, room)?)))
                .collect::<Option<_>>()?,
        ),
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        /// What is filled in is the value, no more and no less, whatever stands around or in it.
        #[test]
        fn a_value_is_put_in_as_it_is(before in "[a{} ]{0,8}", value in "[ay{} \n$]{0,12}") {
            let text = format!("{before}|{{{{ x }}}}|");
            let values = BTreeMap::from([("x".to_owned(), value.clone())]);
            let filled = substitute(&json!(text), &values, &mut 1000).unwrap();
            let filled = filled.as_str().unwrap();
            let expected = format!("|{value}|");
            prop_assert!(filled.ends_with(&expected), "{}", filled);
        }

        /// A value that an anchored pattern lets through is made of what the pattern allows.
        #[test]
        fn an_anchored_pattern_allows_nothing_else(value in "[a-c;\n\r/. ]{0,6}") {
            let letters = json!({"type": "String", "allowedPattern": "^[a-c]+$"});
            let all_letters = !value.is_empty() && value.chars().all(|c| ('a'..='c').contains(&c));
            prop_assert_eq!(takes(&letters, &[&value]), all_letters);
        }
    }

    fn judge(declaration: Value, given: &[&str]) -> Result<String, String> {
        let parameter = Parameter::declared(&declaration).unwrap();
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        parameter.judge(&given)
    }

    fn takes(declaration: &Value, given: &[&str]) -> bool {
        judge(declaration.clone(), given).is_ok()
    }

    #[test]
    fn lengths_values_and_patterns_are_rules_each_for_itself() {
        let lengths = json!({"type": "String", "minChars": 2, "maxChars": "3"});
        for (value, fits) in [("a", false), ("ab", true), ("äöü", true), ("abcd", false)] {
            assert_eq!(takes(&lengths, &[value]), fits, "{value}");
        }
        let values = json!({"type": "String", "allowedValues": ["on", 1, true]});
        for (value, fits) in [
            ("on", true),
            ("1", true),
            ("true", true),
            ("On", false),
            ("on ", false),
            ("", false),
        ] {
            assert_eq!(takes(&values, &[value]), fits, "{value}");
        }
        let pattern = json!({"type": "String", "allowedPattern": "^[a-z]+$"});
        for (value, fits) in [
            ("abc", true),
            ("abc\n", false),
            ("abc\r\n", false),
            ("\nabc", false),
            ("abc\nid", false),
            ("abc\u{2028}", false),
            ("abc\u{85}", false),
            ("ABC", false),
            ("", false),
            ("abc\0", false),
        ] {
            assert_eq!(takes(&pattern, &[value]), fits, "{value:?}");
        }
        let unanchored = json!({"type": "String", "allowedPattern": "[a-z]"});
        assert!(
            takes(&unanchored, &["; a"]),
            "anchors are the author's matter"
        );
    }

    #[test]
    fn classes_are_of_ascii() {
        let fits = |pattern: &str, value: &str| {
            takes(
                &json!({"type": "String", "allowedPattern": pattern}),
                &[value],
            )
        };
        for (pattern, value) in [
            (r"^\d+$", "42"),
            (r"^[\w.-]+$", "a_b.c-9"),
            (r"^[^\s;]+$", "a/b"),
            (r"^\\d$", r"\d"),
            (r"\bid\b", "an id"),
            (r"^\D\W\S$", "a-b"),
            (r"^\p{L}$", "é"),
        ] {
            assert!(fits(pattern, value), "{pattern} {value}");
        }
        for (pattern, value) in [
            (r"^\d+$", "\u{0664}\u{0662}"),
            (r"^\w+$", "é"),
            (r"^[\w.-]+$", "a\u{2028}b"),
            (r"^[^\s;]+$", "a\tb"),
            (r"^\w+$", "a b"),
        ] {
            assert!(!fits(pattern, value), "{pattern} {value}");
        }
    }

    #[test]
    fn each_kind_has_its_form() {
        let kind = |name: &str| json!({"type": name});
        for (name, given, text) in [
            ("String", vec![" x "], Some(" x ")),
            ("String", vec!["a", "b"], None),
            ("String", vec![], None),
            ("Boolean", vec!["True"], Some("true")),
            ("Boolean", vec!["yes"], None),
            ("Integer", vec!["+7"], Some("7")),
            ("Integer", vec!["-07"], Some("-7")),
            ("Integer", vec!["7.0"], None),
            ("Integer", vec!["99999999999999999999"], None),
            ("StringList", vec!["a", "b\"c"], Some(r#"["a","b\"c"]"#)),
            (
                "MapList",
                vec![r#"{"a": 1}"#, "{}"],
                Some(r#"[{"a":1},{}]"#),
            ),
            ("MapList", vec!["[]"], None),
            ("StringMap", vec![r#"{"a":"b"}"#], Some(r#"{"a":"b"}"#)),
            ("StringMap", vec![r#"{"a":1}"#], None),
        ] {
            let judged = judge(kind(name), &given).ok();
            assert_eq!(judged.as_deref(), text, "{name} {given:?}");
        }
        let list =
            json!({"type": "StringList", "minItems": 2, "maxItems": 2, "allowedPattern": "^a"});
        assert!(takes(&list, &["a", "ab"]));
        for given in [vec!["a"], vec!["a", "a", "a"], vec!["a", "b"]] {
            assert!(!takes(&list, &given), "{given:?}");
        }
    }

    #[test]
    fn declarations_that_make_no_sense_are_refused() {
        for declaration in [
            json!("String"),
            json!({}),
            json!({"type": "string"}),
            json!({"type": "String", "allowed": 1}),
            json!({"type": "String", "minChars": -1}),
            json!({"type": "String", "minChars": 1.5}),
            json!({"type": "String", "minChars": 5, "maxChars": 4}),
            json!({"type": "String", "allowedPattern": "("}),
            json!({"type": "String", "allowedPattern": "(?=x)"}),
            json!({"type": "String", "allowedPattern": r"(a)\1"}),
            json!({"type": "String", "allowedPattern": "(a{1000}){1000}"}),
            json!({"type": "String", "allowedPattern": "a".repeat(5000)}),
            json!({"type": "String", "allowedValues": []}),
            json!({"type": "String", "allowedValues": "x"}),
            json!({"type": "String", "allowedValues": [{}]}),
            json!({"type": "String", "allowedValues": ["a"], "default": "b"}),
            json!({"type": "String", "allowedPattern": "^a$", "default": "b"}),
            json!({"type": "Integer", "default": "x"}),
            json!({"type": "String", "default": ["a", "b"]}),
            json!({"type": "StringList", "default": [{}]}),
            json!({"type": "String", "description": 1}),
            json!({"type": "String", "displayType": "slider"}),
            json!({"type": "String", "default": "{{ ssm:secret }}"}),
        ] {
            assert!(Parameter::declared(&declaration).is_err(), "{declaration}");
        }
    }

    #[test]
    fn defaults_are_kept_as_text() {
        for (declaration, text) in [
            (json!({"type": "String", "default": ""}), ""),
            (json!({"type": "String", "default": 22}), "22"),
            (json!({"type": "Boolean", "default": false}), "false"),
            (
                json!({"type": "StringList", "default": ["a", 1]}),
                r#"["a","1"]"#,
            ),
            (
                json!({"type": "StringMap", "default": {"a": "b"}}),
                r#"{"a":"b"}"#,
            ),
        ] {
            let parameter = Parameter::declared(&declaration).unwrap();
            assert_eq!(parameter.default.as_deref(), Some(text), "{declaration}");
        }
    }

    #[test]
    fn missing_and_unknown_values_are_named() {
        let declare = |declaration| Parameter::declared(&declaration).unwrap();
        let declared = BTreeMap::from([
            ("a".to_owned(), declare(json!({"type": "String"}))),
            (
                "b".to_owned(),
                declare(json!({"type": "String", "default": "B"})),
            ),
        ]);
        let given = |pairs: &[(&str, &str)]| -> BTreeMap<String, Vec<String>> {
            let pair = |(name, value): &(&str, &str)| ((*name).into(), vec![(*value).into()]);
            pairs.iter().map(pair).collect()
        };
        let filled = values(&declared, &given(&[("a", "A")]), "D").unwrap();
        assert_eq!(filled["a"], "A");
        assert_eq!(filled["b"], "B");
        let missing = values(&declared, &given(&[("b", "x")]), "D").unwrap_err();
        assert_eq!(missing, "Parameter a is required by document D.");
        let unknown = values(&declared, &given(&[("a", "x"), ("c", "x")]), "D").unwrap_err();
        assert_eq!(unknown, "Parameter c is not defined in document D.");
    }

    fn fill(text: &str) -> String {
        let values = BTreeMap::from([
            ("x".to_owned(), "{{ y }}".to_owned()),
            ("y".to_owned(), "Y".to_owned()),
        ]);
        let filled = substitute(&json!(text), &values, &mut 1000).unwrap();
        filled.as_str().unwrap().to_owned()
    }

    #[test]
    fn placeholders_are_filled_once() {
        for (text, filled) in [
            ("{{ y }}", "Y"),
            ("{{y}}{{\ty }}", "YY"),
            ("a {{ x }} b", "a {{ y }} b"),
            ("{{ {{ y }} }}", "{{ Y }}"),
            ("{{{ y }}}", "{Y}"),
            ("{{.Name}} {{json .}}", "{{.Name}} {{json .}}"),
            ("{{ y", "{{ y"),
            ("{{ y }", "{{ y }"),
            ("{ { y } }", "{ { y } }"),
            ("", ""),
            ("é{{y}}é", "éYé"),
        ] {
            assert_eq!(fill(text), filled, "{text}");
        }
    }

    #[test]
    fn what_is_made_is_bounded() {
        let values = BTreeMap::from([("x".to_owned(), "v".repeat(100))]);
        let many = json!({"a": ["{{x}}", {"b": "{{x}}{{x}}"}]});
        assert!(substitute(&many, &values, &mut 300).is_some());
        assert!(substitute(&many, &values, &mut 299).is_none());
    }

    #[test]
    fn references_to_parameter_store_are_seen() {
        for text in [
            "{{ssm:x}}",
            "a {{ ssm:x }}",
            "{{\n ssm-secure:x}}",
            "{{{{ssm:x",
        ] {
            assert!(refers_to_parameter_store(text), "{text}");
        }
        for text in ["ssm:x", "{{ x }}", "{ssm:x}", "{{ssmx}}"] {
            assert!(!refers_to_parameter_store(text), "{text}");
        }
    }
}
