//! Session documents. For now there is one: the default shell, with its built-in settings.

use std::time::Duration;

use serde_json::{Value, json};

/// The document of a session that names none.
pub(crate) const DEFAULT_DOCUMENT: &str = "SSM-SessionManagerRunShell";

/// The content of the document called `name` (a name, or an ARN of ours), if there is one. `idle`: the
/// installation's idle timeout, which our own agent also keeps while it is cut off.
pub(crate) fn content(name: &str, idle: Duration) -> Option<Value> {
    (name == DEFAULT_DOCUMENT).then(|| default_shell(idle))
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

    #[test]
    fn the_nodes_copy_names_the_idle_timeout_in_whole_minutes() {
        let content = content(DEFAULT_DOCUMENT, Duration::from_secs(61)).unwrap();
        assert_eq!(content["inputs"]["idleSessionTimeout"], "2");
    }
}
