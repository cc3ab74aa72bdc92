//! Shapes as data: what the codecs and the checking of constraints walk over. Built in constants
//! by the generated modules.

/// A type, with its constraints.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Bytes; base64 in text.
    Blob(Length),
    /// `true` or `false`.
    Boolean,
    /// A floating point number.
    Double,
    /// A whole number between two bounds (inclusive).
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
        /// The largest that the type can carry: beyond it a value is malformed, not out of range.
        limit: i64,
    },
    /// Values of one kind, in order.
    List {
        /// Of what kind.
        element: &'static Kind,
        /// How many.
        length: Length,
        /// The element's name in XML and forms.
        name: &'static str,
        /// Whether XML and forms have no wrapping element.
        flattened: bool,
    },
    /// Texts to values of one kind.
    Map {
        /// The kind of the keys, a text.
        key: &'static Kind,
        /// The kind of the values.
        value: &'static Kind,
        /// How many entries.
        length: Length,
    },
    /// Named members.
    Structure(fn() -> &'static Structure),
    /// Text.
    Text(Text),
    /// A point in time: epoch seconds in JSON, ISO 8601 elsewhere.
    Timestamp,
}

/// Smallest and largest length, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// The smallest.
    pub min: usize,
    /// The largest.
    pub max: usize,
}

impl Length {
    /// No limit.
    pub const ANY: Self = Self {
        min: 0,
        max: usize::MAX,
    };
}

/// The constraints of a text.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// Its length in characters.
    pub length: Length,
    /// What the whole of it must match.
    pub pattern: Option<Pattern>,
    /// The values allowed; empty when any is.
    pub values: &'static [&'static str],
    /// Whether it must not be shown.
    pub secret: bool,
}

/// A regular expression.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// As the model has it; shown to callers.
    pub shown: &'static str,
    /// The same in the dialect that we compile.
    pub compiled: &'static str,
    /// Whether the model's text names Unicode classes. `compiled` then has their ASCII parts, and
    /// letters, digits and spaces beyond ASCII are matched as `a`, `0` and a space.
    pub unicode: bool,
}

/// A shape with members.
#[derive(Debug)]
pub struct Structure {
    /// The model's name.
    pub name: &'static str,
    /// Whether this is an operation's output. Outputs are read forgivingly: a newer server may
    /// know more values than we do.
    pub output: bool,
    /// In the model's order.
    pub members: &'static [Member],
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// The name on the wire.
    pub name: &'static str,
    /// What it holds.
    pub kind: &'static Kind,
    /// Whether it must be there.
    pub required: bool,
}

/// A text without constraints.
pub static STRING: Kind = text();
/// A boolean.
pub static BOOLEAN: Kind = Kind::Boolean;
/// An integer of 32 bits.
pub static INTEGER: Kind = integer();
/// An integer of 64 bits.
pub static LONG: Kind = long();
/// A floating point number.
pub static DOUBLE: Kind = Kind::Double;
/// A point in time.
pub static TIMESTAMP: Kind = Kind::Timestamp;
/// Bytes.
pub static BLOB: Kind = Kind::Blob(Length::ANY);

/// A text.
#[must_use]
pub const fn text() -> Kind {
    Kind::Text(Text {
        length: Length::ANY,
        pattern: None,
        values: &[],
        secret: false,
    })
}

/// A text that must not be shown.
#[must_use]
pub const fn secret() -> Kind {
    Kind::Text(Text {
        length: Length::ANY,
        pattern: None,
        values: &[],
        secret: true,
    })
}

/// One of the texts that the model lists.
#[must_use]
pub const fn enumeration<T: crate::StringEnum>() -> Kind {
    Kind::Text(Text {
        length: Length::ANY,
        pattern: None,
        values: T::VALUES,
        secret: false,
    })
}

/// Bytes.
#[must_use]
pub const fn blob() -> Kind {
    Kind::Blob(Length::ANY)
}

/// An integer of 32 bits.
#[must_use]
pub const fn integer() -> Kind {
    Kind::Integer {
        min: i32::MIN as i64,
        max: i32::MAX as i64,
        limit: i32::MAX as i64,
    }
}

/// An integer of 64 bits.
#[must_use]
pub const fn long() -> Kind {
    Kind::Integer {
        min: i64::MIN,
        max: i64::MAX,
        limit: i64::MAX,
    }
}

/// A list whose elements are called `member`.
#[must_use]
pub const fn list(element: &'static Kind) -> Kind {
    Kind::List {
        element,
        length: Length::ANY,
        name: "member",
        flattened: false,
    }
}

/// A map.
#[must_use]
pub const fn map(key: &'static Kind, value: &'static Kind) -> Kind {
    Kind::Map {
        key,
        value,
        length: Length::ANY,
    }
}

/// A structure.
#[must_use]
pub const fn structure<T: crate::Shape>() -> Kind {
    Kind::Structure(T::schema)
}

impl Kind {
    /// The same with a length from `min` to `max`; of booleans, numbers and structures nothing.
    #[must_use]
    pub const fn length(self, min: usize, max: usize) -> Self {
        let length = Length { min, max };
        match self {
            Self::Blob(_) => Self::Blob(length),
            Self::List {
                element,
                name,
                flattened,
                ..
            } => Self::List {
                element,
                length,
                name,
                flattened,
            },
            Self::Map { key, value, .. } => Self::Map { key, value, length },
            Self::Text(text) => Self::Text(Text { length, ..text }),
            other => other,
        }
    }

    /// The same within a range; of anything but an integer nothing.
    #[must_use]
    pub const fn range(self, min: i64, max: i64) -> Self {
        match self {
            Self::Integer { limit, .. } => Self::Integer { min, max, limit },
            other => other,
        }
    }

    /// The same text with a pattern that compiles as the model has it.
    #[must_use]
    pub const fn pattern(self, shown: &'static str) -> Self {
        self.with_pattern(Pattern {
            shown,
            compiled: shown,
            unicode: false,
        })
    }

    /// The same text with a pattern that had to be translated.
    #[must_use]
    pub const fn pattern_as(self, shown: &'static str, compiled: &'static str) -> Self {
        self.with_pattern(Pattern {
            shown,
            compiled,
            unicode: false,
        })
    }

    /// The same text with a pattern that names Unicode classes.
    #[must_use]
    pub const fn pattern_unicode(self, shown: &'static str, compiled: &'static str) -> Self {
        self.with_pattern(Pattern {
            shown,
            compiled,
            unicode: true,
        })
    }

    const fn with_pattern(self, pattern: Pattern) -> Self {
        match self {
            Self::Text(text) => Self::Text(Text {
                pattern: Some(pattern),
                ..text
            }),
            other => other,
        }
    }

    /// The same list with elements of another name in XML and forms.
    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        match self {
            Self::List {
                element,
                length,
                flattened,
                ..
            } => Self::List {
                element,
                length,
                name,
                flattened,
            },
            other => other,
        }
    }

    /// The same list without a wrapping element in XML and forms.
    #[must_use]
    pub const fn flattened(self) -> Self {
        match self {
            Self::List {
                element,
                length,
                name,
                ..
            } => Self::List {
                element,
                length,
                name,
                flattened: true,
            },
            other => other,
        }
    }
}
