//! The inputs of a session document: encryption, logs, run-as, timers, shell profile. Checked when a
//! document is saved, as far as its placeholders allow, and again when they are filled. Pure.

use serde_json::{Map, Value, json};

use super::parameters::placeholders;

/// The inputs there are.
const INPUTS: [&str; 12] = [
    "s3BucketName",
    "s3KeyPrefix",
    "s3EncryptionEnabled",
    "cloudWatchLogGroupName",
    "cloudWatchEncryptionEnabled",
    "cloudWatchStreamingEnabled",
    "kmsKeyId",
    "runAsEnabled",
    "runAsDefaultUser",
    "idleSessionTimeout",
    "maxSessionDuration",
    "shellProfile",
];
/// Bounds of the idle timeout, in minutes.
const IDLE_MINUTES: std::ops::RangeInclusive<u32> = 1..=60;
/// Bounds of the maximum duration, in minutes.
const DURATION_MINUTES: std::ops::RangeInclusive<u32> = 1..=1440;

/// What the inputs of a document say. Placeholders that are not filled yet count as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(crate) s3_bucket_name: String,
    pub(crate) s3_key_prefix: String,
    pub(crate) s3_encryption_enabled: bool,
    pub(crate) cloud_watch_log_group_name: String,
    pub(crate) cloud_watch_encryption_enabled: bool,
    pub(crate) cloud_watch_streaming_enabled: bool,
    pub(crate) kms_key_id: String,
    pub(crate) run_as_enabled: bool,
    pub(crate) run_as_default_user: String,
    /// In minutes.
    pub(crate) idle_session_timeout: Option<u32>,
    /// In minutes.
    pub(crate) max_session_duration: Option<u32>,
    pub(crate) shell_profile_linux: String,
    pub(crate) shell_profile_windows: String,
}

impl Inputs {
    /// Reads inputs.
    ///
    /// # Errors
    /// What is wrong, for the document's author.
    pub(crate) fn read(inputs: &Value) -> Result<Self, String> {
        Self::read_with(inputs, true)
    }

    /// The same when the placeholders are filled: what looks like one is part of a value.
    ///
    /// # Errors
    /// As [`Inputs::read`].
    pub(crate) fn read_filled(inputs: &Value) -> Result<Self, String> {
        Self::read_with(inputs, false)
    }

    fn read_with(inputs: &Value, may_be_open: bool) -> Result<Self, String> {
        let members = inputs.as_object().ok_or("inputs must be an object")?;
        if let Some(unknown) = members.keys().find(|key| !INPUTS.contains(&key.as_str())) {
            return Err(format!("inputs has no element {unknown}"));
        }
        let texts = Texts {
            members,
            may_be_open,
        };
        let (linux, windows) = shell_profile(members)?;
        Ok(Self {
            s3_bucket_name: texts.checked("s3BucketName", is_bucket, "the name of a bucket")?,
            s3_key_prefix: texts.checked(
                "s3KeyPrefix",
                is_prefix,
                "a prefix without slash first",
            )?,
            s3_encryption_enabled: texts.flag("s3EncryptionEnabled")?,
            cloud_watch_log_group_name: texts.checked(
                "cloudWatchLogGroupName",
                is_log_group,
                "the name of a log group",
            )?,
            cloud_watch_encryption_enabled: texts.flag("cloudWatchEncryptionEnabled")?,
            cloud_watch_streaming_enabled: texts.flag("cloudWatchStreamingEnabled")?,
            kms_key_id: texts.checked("kmsKeyId", is_key, "the id, alias or ARN of a key")?,
            run_as_enabled: texts.flag("runAsEnabled")?,
            run_as_default_user: texts.checked(
                "runAsDefaultUser",
                |name| run_as_user(name).is_ok(),
                "the name of a user who is not root",
            )?,
            idle_session_timeout: texts.minutes("idleSessionTimeout", &IDLE_MINUTES)?,
            max_session_duration: texts.minutes("maxSessionDuration", &DURATION_MINUTES)?,
            shell_profile_linux: linux,
            shell_profile_windows: windows,
        })
    }

    /// All of them, each of the type that official agents read: one of another type makes them drop
    /// the start without a word.
    pub(crate) fn to_json(&self) -> Value {
        let minutes = |minutes: Option<u32>| minutes.map_or_else(String::new, |n| n.to_string());
        json!({
            "s3BucketName": self.s3_bucket_name,
            "s3KeyPrefix": self.s3_key_prefix,
            "s3EncryptionEnabled": self.s3_encryption_enabled,
            "cloudWatchLogGroupName": self.cloud_watch_log_group_name,
            "cloudWatchStreamingEnabled": self.cloud_watch_streaming_enabled,
            "cloudWatchEncryptionEnabled": self.cloud_watch_encryption_enabled,
            "kmsKeyId": self.kms_key_id,
            "runAsEnabled": self.run_as_enabled,
            "runAsDefaultUser": self.run_as_default_user,
            "idleSessionTimeout": minutes(self.idle_session_timeout),
            "maxSessionDuration": minutes(self.max_session_duration),
            "shellProfile": {
                "windows": self.shell_profile_windows,
                "linux": self.shell_profile_linux,
            },
        })
    }

    /// What is asked for and not offered here.
    pub(crate) fn not_offered(&self) -> Option<&'static str> {
        if !self.kms_key_id.is_empty() {
            Some("encryption with a KMS key (kmsKeyId)")
        } else if !self.s3_bucket_name.is_empty() {
            Some("a log in S3 (s3BucketName)")
        } else if !self.cloud_watch_log_group_name.is_empty() {
            Some("a log in CloudWatch Logs (cloudWatchLogGroupName)")
        } else {
            None
        }
    }
}

/// Members of inputs that are text, or may be written as text.
struct Texts<'a> {
    members: &'a Map<String, Value>,
    may_be_open: bool,
}

impl Texts<'_> {
    /// The text of a member; `None` while a placeholder in it is not filled.
    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(Some("")),
            Some(Value::String(text))
                if self.may_be_open && placeholders(text).next().is_some() =>
            {
                Ok(None)
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{name} must be text")),
        }
    }

    fn checked(
        &self,
        name: &str,
        fits: impl Fn(&str) -> bool,
        what: &str,
    ) -> Result<String, String> {
        match self.text(name)? {
            None | Some("") => Ok(String::new()),
            Some(text) if fits(text) => Ok(text.to_owned()),
            Some(_) => Err(format!("{name} must be {what}")),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        if let Some(Value::Bool(flag)) = self.members.get(name) {
            return Ok(*flag);
        }
        let wrong = || format!("{name} must be true or false");
        let Some(text) = self.text(name).map_err(|_| wrong())? else {
            return Ok(false);
        };
        match text.to_ascii_lowercase().as_str() {
            "" | "false" => Ok(false),
            "true" => Ok(true),
            _ => Err(wrong()),
        }
    }

    fn minutes(
        &self,
        name: &str,
        bounds: &std::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, String> {
        let (least, most) = (bounds.start(), bounds.end());
        let wrong = || format!("{name} must be {least} to {most} minutes");
        let minutes = match self.members.get(name) {
            Some(Value::Number(number)) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
            _ => match self.text(name).map_err(|_| wrong())? {
                None | Some("") => return Ok(None),
                Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
                Some(_) => None,
            },
        };
        minutes
            .filter(|minutes| bounds.contains(minutes))
            .map(Some)
            .ok_or_else(wrong)
    }
}

/// The profiles of Linux and of Windows.
fn shell_profile(members: &Map<String, Value>) -> Result<(String, String), String> {
    let profile = match members.get("shellProfile") {
        None | Some(Value::Null) => return Ok((String::new(), String::new())),
        Some(Value::String(text)) if text.is_empty() => return Ok((String::new(), String::new())),
        Some(Value::Object(profile)) => profile,
        Some(_) => return Err("shellProfile must be an object".to_owned()),
    };
    let known = ["linux", "windows"];
    if let Some(unknown) = profile.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("shellProfile has no element {unknown}"));
    }
    let of = |system: &str| match profile.get(system) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("shellProfile.{system} must be text")),
    };
    Ok((of("linux")?, of("windows")?))
}

/// A user as whom a session may run: no number, which systems take for an id, and never root.
pub(crate) fn run_as_user(name: &str) -> Result<(), String> {
    let fits = (1..=256).contains(&name.len())
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || br"._@\-$+".contains(&byte))
        && !name.bytes().all(|byte| byte.is_ascii_digit());
    if name.eq_ignore_ascii_case("root") {
        return Err("sessions do not run as root".to_owned());
    }
    fits.then_some(())
        .ok_or_else(|| "the user to run as is not the name of a user".to_owned())
}

fn is_bucket(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && !name.contains("..")
}

fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= 500 && !prefix.starts_with('/') && !prefix.chars().any(char::is_control)
}

fn is_log_group(name: &str) -> bool {
    name.len() <= 512
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_/.#-".contains(&b))
}

fn is_key(name: &str) -> bool {
    name.len() <= 2048
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":/_-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_form() {
        let all = json!({
            "s3BucketName": "amzn-s3-demo-bucket",
            "s3KeyPrefix": "logs/sessions",
            "s3EncryptionEnabled": true,
            "cloudWatchLogGroupName": "/aws/ssm/logs",
            "cloudWatchEncryptionEnabled": "false",
            "cloudWatchStreamingEnabled": "True",
            "kmsKeyId": "arn:aws:kms:eu-1:111122223333:alias/sessions",
            "runAsEnabled": true,
            "runAsDefaultUser": "ssm.ops@corp",
            "idleSessionTimeout": 5,
            "maxSessionDuration": "1440",
            "shellProfile": {"linux": "exec bash", "windows": "date"},
        });
        let read = Inputs::read(&all).unwrap();
        assert!(read.s3_encryption_enabled && !read.cloud_watch_encryption_enabled);
        assert!(read.cloud_watch_streaming_enabled);
        assert_eq!(read.idle_session_timeout, Some(5));
        assert_eq!(read.max_session_duration, Some(1440));
        assert_eq!(Inputs::read(&read.to_json()).unwrap(), read);
        assert_eq!(Inputs::read(&json!({})).unwrap(), Inputs::default());
        let empty = Inputs::default().to_json();
        assert_eq!(Inputs::read(&empty).unwrap(), Inputs::default());
    }

    #[test]
    fn what_has_another_form_is_refused() {
        for (name, wrong) in [
            ("s3BucketName", json!("UPPER")),
            ("s3BucketName", json!("ab")),
            ("s3BucketName", json!(7)),
            ("s3KeyPrefix", json!("/logs")),
            ("s3EncryptionEnabled", json!("yes")),
            ("s3EncryptionEnabled", json!(1)),
            ("cloudWatchLogGroupName", json!("a b")),
            ("cloudWatchStreamingEnabled", json!({})),
            ("kmsKeyId", json!("$(id)")),
            ("runAsEnabled", json!("on")),
            ("runAsDefaultUser", json!("root")),
            ("runAsDefaultUser", json!("ROOT")),
            ("runAsDefaultUser", json!("0")),
            ("runAsDefaultUser", json!("a b")),
            ("runAsDefaultUser", json!("-u")),
            ("runAsDefaultUser", json!("a\nb")),
            ("idleSessionTimeout", json!("0")),
            ("idleSessionTimeout", json!("61")),
            ("idleSessionTimeout", json!(61)),
            ("idleSessionTimeout", json!("+5")),
            ("idleSessionTimeout", json!("5.5")),
            ("idleSessionTimeout", json!(true)),
            ("maxSessionDuration", json!("0")),
            ("maxSessionDuration", json!("1441")),
            ("maxSessionDuration", json!("abc")),
            ("shellProfile", json!("exec bash")),
            ("shellProfile", json!({"macos": ""})),
            ("shellProfile", json!({"linux": 1})),
            ("idleTimeout", json!("5")),
        ] {
            let inputs = json!({ name: wrong });
            let error = Inputs::read(&inputs).unwrap_err();
            assert!(error.contains(name), "{inputs}: {error}");
        }
        for inputs in [json!(null), json!([]), json!("x")] {
            assert!(Inputs::read(&inputs).is_err(), "{inputs}");
        }
    }

    #[test]
    fn placeholders_are_checked_when_they_are_filled() {
        let open = json!({"runAsDefaultUser": "{{ user }}", "idleSessionTimeout": "{{ idle }}"});
        assert_eq!(Inputs::read(&open).unwrap(), Inputs::default());
        assert!(Inputs::read_filled(&open).is_err());
    }
}
