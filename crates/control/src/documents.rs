//! Session documents. For now there is one: the default shell, with its built-in settings.

use serde_json::{Value, json};

/// The document of a session that names none.
pub(crate) const DEFAULT_DOCUMENT: &str = "SSM-SessionManagerRunShell";

/// The content of the document called `name` (a name, or an ARN of ours), if there is one.
pub(crate) fn content(name: &str) -> Option<Value> {
    (name == DEFAULT_DOCUMENT).then(default_shell)
}

/// The default document as a node gets it. Every member is there and of the type that the official
/// agent reads: one that does not parse makes it drop the start without a word.
fn default_shell() -> Value {
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
            "shellProfile": {"windows": "", "linux": ""},
        },
        "parameters": {},
        "properties": null,
    })
}
