//! Session documents: what a session may be. How they are written and checked is in [`parse`],
//! [`schema`], [`parameters`], [`inputs`], [`properties`] and [`destination`]; those that every
//! installation has in [`builtin`]; what a session is made of them in [`resolve`]. The operations on
//! documents are in [`operations`].

mod builtin;
pub(crate) mod destination;
mod inputs;
pub(crate) mod operations;
mod parameters;
mod parse;
pub(crate) mod permissions;
mod properties;
mod resolve;
mod schema;
mod start;

use sortie_types::Arn;

pub(crate) use builtin::owner;
pub use resolve::run_as_of;
pub(crate) use resolve::{Resolved, Unresolved, condition_keys};
pub(crate) use schema::SessionType;
pub(crate) use start::Resolution;

use crate::arns::Names;

/// The document of a session that names none, in which the account keeps its preferences.
pub(crate) const DEFAULT_DOCUMENT: &str = "SSM-SessionManagerRunShell";

/// The name of a document that was given by name or by ARN; `None` for an ARN that is of no document
/// here: another region's or account's, or with an account where the account is not the owner.
pub(crate) fn name<'a>(names: &Names, given: &'a str) -> Option<&'a str> {
    if !given.starts_with("arn:") {
        return Some(given);
    }
    given.parse::<Arn>().ok()?;
    let (_, name) = given.split_once(":document/")?;
    let is_here = !name.starts_with("arn:") && names.document(name).as_str() == given;
    is_here.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iam::testing::names;

    #[test]
    fn names_are_read_off_arns_of_documents_that_are_here() {
        let names = names();
        for name in [
            DEFAULT_DOCUMENT,
            "AWS-StartPortForwardingSession",
            "Sortie-CopyFile",
            "Mine",
        ] {
            assert_eq!(super::name(&names, name), Some(name));
            let arn = names.document(name);
            assert_eq!(super::name(&names, arn.as_str()), Some(name));
        }
        let region = names.region.as_str();
        let account = names.account.as_str();
        for arn in [
            format!("arn:aws:ssm:{region}:{account}:document/AWS-StartPortForwardingSession"),
            format!("arn:aws:ssm:{region}:{account}:document/Amazon-Mine"),
            format!("arn:aws:ssm:{region}:{account}:document/Sortie-CopyFile"),
            format!("arn:aws:ssm:{region}::document/Mine"),
            format!("arn:aws:ssm:{region}:999988887777:document/Mine"),
            format!("arn:aws:ssm:elsewhere-1:{account}:document/Mine"),
            format!("arn:aws:ssm:{region}:{account}:session/Mine"),
            format!("arn:aws:iam:{region}:{account}:document/Mine"),
            format!("arn:aws:ssm:{region}:{account}:document/arn:aws:ssm:::document/Mine"),
            "arn:".to_owned(),
        ] {
            assert_eq!(super::name(&names, &arn), None, "{arn}");
        }
    }
}
