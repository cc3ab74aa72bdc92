//! What every generated type can do, and the macros that the generated modules consist of.

use crate::{
    Form, InvalidInput, XmlNode, XmlWriter, json, query,
    schema::Structure,
    trail,
    tree::{Field, Mismatch, Slots, Tree},
    validate, xml,
};

/// A structure of a service's model.
///
/// The readers check the model's constraints, except for outputs: a client takes what its server
/// says, as long as it can be read.
pub trait Shape: Field {
    /// The structure as data.
    fn schema() -> &'static Structure;

    /// Reads the JSON form.
    ///
    /// # Errors
    /// Malformed when a member is of another JSON type; otherwise every broken constraint.
    fn from_json(value: &serde_json::Value) -> Result<Self, InvalidInput> {
        checked(json::decode(value, Self::schema())?)
    }

    /// The JSON form; absent members are left out.
    fn to_json(&self) -> serde_json::Value {
        json::encode(&self.to_tree())
    }

    /// CloudTrail's form: member names in lower camel case, secrets replaced.
    fn to_trail(&self) -> serde_json::Value {
        trail::encode(&self.to_tree())
    }

    /// Reads the members from a form.
    ///
    /// # Errors
    /// As `from_json`.
    fn from_query(form: &Form) -> Result<Self, InvalidInput> {
        checked(query::decode(form, Self::schema())?)
    }

    /// Adds the members to a form.
    fn to_query(&self, form: &mut Form) {
        query::encode(&self.to_tree(), form);
    }

    /// Writes the members into the element that is open.
    fn to_xml(&self, writer: &mut XmlWriter) {
        xml::encode(&self.to_tree(), writer);
    }

    /// Reads the members from an element's children.
    ///
    /// # Errors
    /// As `from_json`.
    fn from_xml(node: &XmlNode) -> Result<Self, InvalidInput> {
        checked(xml::decode(node, Self::schema())?)
    }
}

fn checked<T: Shape>(tree: Tree) -> Result<T, InvalidInput> {
    if !T::schema().output {
        validate::check(&tree)?;
    }
    Ok(T::from_tree(tree)?)
}

/// A text of which the model lists the values.
pub trait StringEnum {
    /// The model's values.
    const VALUES: &'static [&'static str];
}

/// The input or output of an operation that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Empty {}

impl Field for Empty {
    fn to_tree(&self) -> Tree {
        Tree::Structure(Self::schema(), Vec::new())
    }

    fn from_tree(tree: Tree) -> Result<Self, Mismatch> {
        Slots::of(tree).map(|_| Self {})
    }
}

impl Shape for Empty {
    fn schema() -> &'static Structure {
        static SCHEMA: Structure = Structure {
            name: "Empty",
            output: false,
            members: &[],
        };
        &SCHEMA
    }
}

/// The kinds of a module, under the model's names.
macro_rules! kinds {
    ($($name:ident = $kind:expr;)*) => {
        $(static $name: $crate::schema::Kind = $kind;)*
    };
}

/// One structure: its fields, with whether the model requires them, their names on the wire, and
/// their kinds.
macro_rules! shape {
    (
        $(#[$meta:meta])*
        $role:ident $name:ident {
            $($presence:ident $field:ident: $type:ty = $wire:literal $kind:ident;)*
        }
    ) => {
        #[doc = concat!("The model's `", stringify!($name), "`.")]
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $(
                #[doc = concat!("`", $wire, "`.")]
                pub $field: $crate::shape::member_type!($presence $type),
            )*
        }

        impl $crate::tree::Field for $name {
            fn to_tree(&self) -> $crate::tree::Tree {
                $crate::tree::Tree::Structure(
                    <Self as $crate::shape::Shape>::schema(),
                    vec![$($crate::shape::member_tree!($presence self.$field)),*],
                )
            }

            fn from_tree(tree: $crate::tree::Tree) -> Result<Self, $crate::tree::Mismatch> {
                #[allow(unused_mut, unused_variables, reason = "a structure may have no members")]
                let mut slots = $crate::tree::Slots::of(tree)?;
                Ok(Self { $($field: slots.$presence($wire)?,)* })
            }
        }

        impl $crate::shape::Shape for $name {
            fn schema() -> &'static $crate::schema::Structure {
                static SCHEMA: $crate::schema::Structure = $crate::schema::Structure {
                    name: stringify!($name),
                    output: $crate::shape::is_output!($role),
                    members: &[$($crate::schema::Member {
                        name: $wire,
                        kind: &$kind,
                        required: $crate::shape::is_required!($presence),
                    }),*],
                };
                &SCHEMA
            }
        }
    };
}

macro_rules! member_type {
    (required $type:ty) => { $type };
    (optional $type:ty) => { Option<$type> };
}

macro_rules! member_tree {
    (required $($member:tt)*) => { Some($crate::tree::Field::to_tree(&$($member)*)) };
    (optional $($member:tt)*) => { $($member)*.as_ref().map($crate::tree::Field::to_tree) };
}

macro_rules! is_required {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

macro_rules! is_output {
    (output) => {
        true
    };
    (structure) => {
        false
    };
}

/// A text of which the model lists the values. Others can be held, because a newer server may
/// send them; as input they break a constraint.
macro_rules! string_enum {
    ($name:ident { $($constant:ident = $value:literal,)* }) => {
        #[doc = concat!("The model's `", stringify!($name), "`.")]
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::borrow::Cow<'static, str>);

        impl $name {
            $(
                #[doc = concat!("`", $value, "`.")]
                pub const $constant: Self = Self(std::borrow::Cow::Borrowed($value));
            )*

            /// The text on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl $crate::shape::StringEnum for $name {
            const VALUES: &'static [&'static str] = &[$($value),*];
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned().into())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::tree::Field for $name {
            fn to_tree(&self) -> $crate::tree::Tree {
                $crate::tree::Tree::Text(self.0.clone().into_owned())
            }

            fn from_tree(tree: $crate::tree::Tree) -> Result<Self, $crate::tree::Mismatch> {
                <String as $crate::tree::Field>::from_tree(tree).map(Self::from)
            }
        }
    };
}

/// The operations of a module, and the table of them.
macro_rules! operations {
    ($($service:ident $access:ident $name:ident($input:ident) -> $output:ident [$($error:literal),*];)*) => {
        $(
            #[doc = concat!("The operation `", stringify!($name), "`.")]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl $crate::Operation for $name {
                type Input = $input;
                type Output = $output;
                const SERVICE: $crate::Service = $crate::Service::$service;
                const NAME: &'static str = stringify!($name);
                const READ_ONLY: bool = $crate::shape::is_read_only!($access);
                const ERRORS: &'static [&'static str] = &[$($error),*];
            }
        )*

        /// Every operation above.
        pub const OPERATIONS: &[$crate::OperationInfo] =
            &[$($crate::OperationInfo::of::<$name>()),*];
    };
}

macro_rules! is_read_only {
    (read) => {
        true
    };
    (write) => {
        false
    };
}

/// The errors of a service, each with its status.
macro_rules! errors {
    ($($function:ident = $code:literal $status:literal;)*) => {
        /// The errors that the model lists for the operations above.
        pub mod errors {
            use crate::AwsError;

            $(
                #[doc = concat!("`", $code, "`.")]
                #[must_use]
                pub fn $function(message: impl Into<String>) -> AwsError {
                    AwsError::new($code, $status, message)
                }
            )*
        }
    };
}

pub(crate) use {
    errors, is_output, is_read_only, is_required, kinds, member_tree, member_type, operations,
    shape, string_enum,
};
