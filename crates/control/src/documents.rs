//! Session documents. For now there is one: the default shell, with its built-in settings.

use std::time::Duration;

use serde_json::{Value, json};
use sortie_types::Arn;

use crate::arns::Names;

/// The document of a session that names none.
pub(crate) const DEFAULT_DOCUMENT: &str = "SSM-SessionManagerRunShell";

/// The content of the document called `name` (a name, or an ARN of ours), if there is one. `idle`: the
/// installation's idle timeout, which our own agent also keeps while it is cut off.
pub(crate) fn content(name: &str, idle: Duration) -> Option<Value> {
    (name == DEFAULT_DOCUMENT).then(|| default_shell(idle))
}

/// The name of a document that was given by name or by ARN; `None` for an ARN that is of no document
/// here: another region's or account's, or with an account where AWS is the owner.
pub(crate) fn name<'a>(names: &Names, given: &'a str) -> Option<&'a str> {
    if !given.starts_with("arn:") {
        return Some(given);
    }
    given.parse::<Arn>().ok()?;
    let (_, name) = given.split_once(":document/")?;
    let is_here = !name.starts_with("arn:") && names.document(name).as_str() == given;
    is_here.then_some(name)
}

/// The default document as a node gets it. Every member is there and of the type that the official
/// agent reads: one that does not parse makes it drop the start without a word.
fn default_shell(idle: Duration) -> Value {
    json!({
        "schemaVersion": "1.0",
        "description": "Document to hold regional settings for Session Manager",
        "sessionType": "Standard_Stream",
        "inputs": {
            "s3BucketName": "",
            "s3KeyPrefix": "",
            "s3EncryptionEnabled": false,
            "cloudWatchLogGroupName": "",
            "cloudWatchStreamingEnabled": false,
            "cloudWatchEncryptionEnabled": false,
            "kmsKeyId": "",
            "runAsEnabled": false,
            "runAsDefaultUser": "",
            "idleSessionTimeout": idle.as_secs().div_ceil(60).to_string(),
            "shellProfile": {"windows": "", "linux": ""},
        },
        "parameters": {},
        "properties": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iam::testing::names;

    #[test]
    fn names_are_read_off_arns_of_documents_that_are_here() {
        let names = names();
        for name in [DEFAULT_DOCUMENT, "AWS-StartPortForwardingSession", "Mine"] {
            assert_eq!(super::name(&names, name), Some(name));
            let arn = names.document(name);
            assert_eq!(super::name(&names, arn.as_str()), Some(name));
        }
        let region = names.region.as_str();
        let account = names.account.as_str();
        for arn in [
            format!("arn:aws:ssm:{region}:{account}:document/AWS-StartPortForwardingSession"),
            format!("arn:aws:ssm:{region}:{account}:document/Amazon-Mine"),
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

    #[test]
    fn the_nodes_copy_names_the_idle_timeout_in_whole_minutes() {
        let content = content(DEFAULT_DOCUMENT, Duration::from_secs(61)).unwrap();
        assert_eq!(content["inputs"]["idleSessionTimeout"], "2");
    }
}
