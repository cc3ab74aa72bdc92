//! The XML of query and REST answers: a writer, a small tree for reading, and shapes in both.

use std::{borrow::Cow, collections::BTreeMap};

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use crate::{
    InvalidInput, query,
    schema::{Kind, Structure},
    tree::Tree,
};

/// Elements nested deeper than this are refused.
const DEEPEST: usize = 64;

/// Writes elements; closes what it opens.
#[derive(Debug, Default)]
pub struct XmlWriter {
    text: String,
}

impl XmlWriter {
    /// A document with its declaration and nothing else yet.
    #[must_use]
    pub fn document() -> Self {
        Self {
            text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(),
        }
    }

    /// Without a declaration.
    #[must_use]
    pub fn fragment() -> Self {
        Self::default()
    }

    /// An element whose content `content` writes.
    pub fn element(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.element_in(name, "", content);
    }

    /// An element with a default namespace; an empty one is left out.
    pub fn element_in(&mut self, name: &str, xmlns: &str, content: impl FnOnce(&mut Self)) {
        self.text.extend(["<", name]);
        if !xmlns.is_empty() {
            self.text.push_str(" xmlns=\"");
            self.characters(xmlns);
            self.text.push('"');
        }
        self.text.push('>');
        content(self);
        self.text.extend(["</", name, ">"]);
    }

    /// An element that holds text.
    pub fn text_element(&mut self, name: &str, text: &str) {
        self.element(name, |writer| writer.characters(text));
    }

    /// Text, escaped. Characters that XML 1.0 cannot hold become U+FFFD.
    pub fn characters(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                // A reader would turn a bare one into a line feed.
                '\r' => self.text.push_str("&#xD;"),
                '\t' | '\n' => self.text.push(letter),
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => self.text.push('\u{fffd}'),
                _ => self.text.push(letter),
            }
        }
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

/// An element that was read. Attributes, comments and name prefixes are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XmlNode {
    /// The name without prefix.
    pub name: String,
    /// The elements inside.
    pub children: Vec<XmlNode>,
    /// The text right inside.
    pub text: String,
}

impl XmlNode {
    /// Reads a document. Entities that a document defines itself are refused, so that no
    /// document grows while it is read.
    ///
    /// # Errors
    /// Malformed when it is not XML with one root element, or nested deeper than 64.
    pub fn parse(text: &str) -> Result<Self, InvalidInput> {
        let refused = || InvalidInput::Malformed("The XML is not well-formed".to_owned());
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Self> = Vec::new();
        let mut root = None;
        loop {
            let closed = match reader.read_event().map_err(|_| refused())? {
                Event::Start(start) if open.len() < DEEPEST && root.is_none() => {
                    open.push(Self::opened(&start));
                    None
                }
                Event::Empty(start) if open.len() < DEEPEST && root.is_none() => {
                    Some(Self::opened(&start))
                }
                Event::Start(_) | Event::Empty(_) | Event::DocType(_) => return Err(refused()),
                Event::End(_) => Some(open.pop().ok_or_else(refused)?),
                Event::Eof => break,
                other => {
                    if let Some(text) = characters(&other).ok_or_else(refused)? {
                        match open.last_mut() {
                            Some(node) => node.text.push_str(&text),
                            None if text.trim().is_empty() => {}
                            None => return Err(refused()),
                        }
                    }
                    None
                }
            };
            match (closed, open.last_mut()) {
                (Some(node), Some(parent)) => parent.children.push(node),
                (Some(node), None) => root = Some(node),
                (None, _) => {}
            }
        }
        root.filter(|_| open.is_empty()).ok_or_else(refused)
    }

    fn opened(start: &BytesStart<'_>) -> Self {
        Self {
            name: start.local_name().as_ref().to_owned(),
            ..Self::default()
        }
    }

    /// The first child of a name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child of a name.
    #[must_use]
    pub fn child_text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }
}

/// The text of an event; the inner `None` for events that carry none, the outer for broken ones.
fn characters<'a>(event: &'a Event<'a>) -> Option<Option<Cow<'a, str>>> {
    match event {
        Event::Text(text) => Some(Some(text.xml10_content())),
        Event::CData(text) => Some(Some(text.xml10_content())),
        Event::GeneralRef(reference) => {
            if let Some(letter) = reference.resolve_char_ref().ok()? {
                return Some(Some(letter.to_string().into()));
            }
            let entity = quick_xml::escape::resolve_xml_entity(reference);
            entity.map(|text| Some(text.into()))
        }
        _ => Some(None),
    }
}

/// Writes a structure's members into the element that is open.
pub(crate) fn encode(tree: &Tree, writer: &mut XmlWriter) {
    if let Tree::Structure(schema, slots) = tree {
        for (member, slot) in schema.members.iter().zip(slots) {
            if let Some(value) = slot {
                encode_value(value, member.kind, member.name, writer);
            }
        }
    }
}

fn encode_value(tree: &Tree, kind: &Kind, name: &str, writer: &mut XmlWriter) {
    match (kind, tree) {
        (_, Tree::Structure(..)) => writer.element(name, |writer| encode(tree, writer)),
        (
            Kind::List {
                element,
                flattened: true,
                ..
            },
            Tree::List(values),
        ) => {
            for value in values {
                encode_value(value, element, name, writer);
            }
        }
        (
            Kind::List {
                element,
                name: inner,
                ..
            },
            Tree::List(values),
        ) => writer.element(name, |writer| {
            for value in values {
                encode_value(value, element, inner, writer);
            }
        }),
        (Kind::Map { value: inner, .. }, Tree::Map(entries)) => writer.element(name, |writer| {
            for (key, value) in entries {
                writer.element("entry", |writer| {
                    writer.text_element("key", key);
                    encode_value(value, inner, "value", writer);
                });
            }
        }),
        _ => writer.text_element(name, &query::leaf_text(tree).unwrap_or_default()),
    }
}

/// Reads a structure from an element's children.
pub(crate) fn decode(node: &XmlNode, schema: &'static Structure) -> Result<Tree, InvalidInput> {
    let slot = |name: &str, kind: &Kind| {
        if let Kind::List {
            element,
            flattened: true,
            ..
        } = kind
        {
            let values: Vec<&XmlNode> = node
                .children
                .iter()
                .filter(|child| child.name == name)
                .collect();
            let values: Result<Vec<Tree>, _> = values
                .into_iter()
                .map(|child| decode_kind(child, element))
                .collect();
            return values.map(|values| (!values.is_empty()).then_some(Tree::List(values)));
        }
        node.child(name)
            .map(|child| decode_kind(child, kind))
            .transpose()
    };
    let slots: Result<_, _> = schema
        .members
        .iter()
        .map(|member| slot(member.name, member.kind))
        .collect();
    Ok(Tree::Structure(schema, slots?))
}

fn decode_kind(node: &XmlNode, kind: &Kind) -> Result<Tree, InvalidInput> {
    match kind {
        Kind::Structure(schema) => decode(node, schema()),
        Kind::List { element, .. } => node
            .children
            .iter()
            .map(|child| decode_kind(child, element))
            .collect::<Result<_, _>>()
            .map(Tree::List),
        Kind::Map { value, .. } => {
            let mut entries = BTreeMap::new();
            for entry in &node.children {
                if let (Some(key), Some(inner)) = (entry.child_text("key"), entry.child("value")) {
                    entries.insert(key.to_owned(), decode_kind(inner, value)?);
                }
            }
            Ok(Tree::Map(entries))
        }
        _ => query::leaf(&node.text, kind, &node.name),
    }
}
