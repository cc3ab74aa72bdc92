//! Amazon's wire, as values: shapes generated from the service models, the JSON 1.1 and query
//! protocols in both directions, AWS's error answers, and Signature Version 4.
//!
//! Pure: no sockets, no clock, no randomness. Reading a body with a limit and finding out which
//! service a request is for are the door's; what an operation does is nobody's here.

pub mod call;
pub mod error;
mod invalid;
pub mod json;
pub mod percent;
pub mod query;
pub mod schema;
mod service;
mod shape;
pub mod shapes;
pub mod sigv4;
#[cfg(test)]
mod tests;
mod trail;
mod tree;
mod validate;
pub mod xml;

pub use error::AwsError;
pub use invalid::{InvalidInput, Violation};
pub use query::Form;
pub use service::{Operation, OperationInfo, Protocol, ReadJson, Service};
pub use shape::{Empty, Shape, StringEnum};
pub use tree::{Field, Mismatch, Slots, Tree};
pub use xml::{XmlNode, XmlWriter};
