//! The form between Rust types and bytes: every codec writes and reads trees, every type turns
//! into one and back. That keeps the generated code to one small impl a shape.

use std::collections::BTreeMap;

use bytes::Bytes;
use sortie_types::{Secret, Timestamp};

use crate::{InvalidInput, schema::Structure};

/// A value of any shape.
#[derive(Clone, Debug)]
pub enum Tree {
    /// Bytes.
    Blob(Bytes),
    /// `true` or `false`.
    Boolean(bool),
    /// A floating point number.
    Double(f64),
    /// A whole number.
    Integer(i64),
    /// Values in order.
    List(Vec<Tree>),
    /// Texts to values.
    Map(BTreeMap<String, Tree>),
    /// A text that must not be shown.
    Secret(Secret),
    /// One slot a member of the schema.
    Structure(&'static Structure, Vec<Option<Tree>>),
    /// Text.
    Text(String),
    /// A point in time.
    Timestamp(Timestamp),
}

/// A tree that is not of the type it is read as; names the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing or of another type")]
pub struct Mismatch(pub &'static str);

impl From<Mismatch> for InvalidInput {
    fn from(mismatch: Mismatch) -> Self {
        Self::Malformed(mismatch.to_string())
    }
}

/// A type that a member can have.
pub trait Field: Sized {
    /// As a tree.
    fn to_tree(&self) -> Tree;
    /// From a tree.
    ///
    /// # Errors
    /// When the tree holds something else.
    fn from_tree(tree: Tree) -> Result<Self, Mismatch>;
}

macro_rules! leaf {
    ($($type:ty, $variant:ident, $what:literal;)*) => {$(
        impl Field for $type {
            fn to_tree(&self) -> Tree {
                Tree::$variant(self.clone())
            }

            fn from_tree(tree: Tree) -> Result<Self, Mismatch> {
                match tree {
                    Tree::$variant(value) => Ok(value),
                    _ => Err(Mismatch($what)),
                }
            }
        }
    )*};
}

leaf! {
    Bytes, Blob, "a blob";
    bool, Boolean, "a boolean";
    f64, Double, "a number";
    i64, Integer, "an integer";
    Secret, Secret, "a text";
    String, Text, "a text";
    Timestamp, Timestamp, "a timestamp";
}

impl Field for i32 {
    fn to_tree(&self) -> Tree {
        Tree::Integer(i64::from(*self))
    }

    fn from_tree(tree: Tree) -> Result<Self, Mismatch> {
        i64::from_tree(tree)
            .and_then(|value| Self::try_from(value).map_err(|_| Mismatch("an integer")))
    }
}

impl<T: Field> Field for Vec<T> {
    fn to_tree(&self) -> Tree {
        Tree::List(self.iter().map(Field::to_tree).collect())
    }

    fn from_tree(tree: Tree) -> Result<Self, Mismatch> {
        match tree {
            Tree::List(list) => list.into_iter().map(T::from_tree).collect(),
            _ => Err(Mismatch("a list")),
        }
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn to_tree(&self) -> Tree {
        Tree::Map(
            self.iter()
                .map(|(key, value)| (key.clone(), value.to_tree()))
                .collect(),
        )
    }

    fn from_tree(tree: Tree) -> Result<Self, Mismatch> {
        match tree {
            Tree::Map(map) => map
                .into_iter()
                .map(|(key, value)| Ok((key, T::from_tree(value)?)))
                .collect(),
            _ => Err(Mismatch("a map")),
        }
    }
}

/// The members of a structure, taken one after the other in the schema's order.
#[derive(Debug)]
pub struct Slots(std::vec::IntoIter<Option<Tree>>);

impl Slots {
    /// The slots of a structure.
    ///
    /// # Errors
    /// When the tree is no structure.
    pub fn of(tree: Tree) -> Result<Self, Mismatch> {
        match tree {
            Tree::Structure(_, slots) => Ok(Self(slots.into_iter())),
            _ => Err(Mismatch("a structure")),
        }
    }

    /// The next member, which may be absent.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn optional<T: Field>(&mut self, _name: &'static str) -> Result<Option<T>, Mismatch> {
        self.0.next().flatten().map(T::from_tree).transpose()
    }

    /// The next member, which must be there.
    ///
    /// # Errors
    /// When it is absent or of another type.
    pub fn required<T: Field>(&mut self, name: &'static str) -> Result<T, Mismatch> {
        self.optional(name)?.ok_or(Mismatch(name))
    }
}
