//! Writes a profile's temporary keys into the shared credentials file, and takes them out again.
//! Everything that is not a key of ours in that profile's section stays byte for byte: comments,
//! other sections, odd spacing, line ends.

use std::{
    io,
    path::{Path, PathBuf},
};

use sortie_types::Timestamp;
use sortie_wire::sigv4::Credentials;

use crate::{assume_role, ini::Document, private_file};

/// The keys of temporary credentials in a profile. The last two are the names under which other
/// sign-in tools keep the same facts.
const KEYS: [&str; 5] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    EXPIRES,
    PRINCIPAL,
];

/// The key with the end of the credentials' life.
pub(crate) const EXPIRES: &str = "x_security_token_expires";

/// The key with the ARN of who signed in.
pub(crate) const PRINCIPAL: &str = "x_principal_arn";

/// What signing in leaves in a profile.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The keys.
    pub credentials: Credentials,
    /// Until when they are good.
    pub expires: Timestamp,
    /// Whose they are.
    pub principal_arn: String,
    /// Settings that the profile lacks and that were given for signing in, such as `region`.
    pub settings: Vec<(&'static str, String)>,
}

/// Where signing in and out writes. Comes from [`crate::ClientConfig::sign_in_place`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInPlace {
    pub(crate) profile: String,
    pub(crate) file: PathBuf,
    /// Where the credentials of assumed roles are kept.
    pub(crate) role_cache: Option<PathBuf>,
}

impl SignInPlace {
    /// The profile's name.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// The shared credentials file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Writes the keys. What was assumed with those before is removed.
    ///
    /// # Errors
    /// When the file can not be read or written.
    pub fn write(&self, signed_in: &SignedIn) -> io::Result<()> {
        let credentials = &signed_in.credentials;
        let token = credentials.session_token.as_ref();
        let expires = signed_in.expires.iso_seconds();
        let mut values = vec![
            (KEYS[0], credentials.access_key_id.as_str()),
            (KEYS[1], credentials.secret_access_key.expose()),
            (KEYS[2], token.map_or("", sortie_types::Secret::expose)),
            (EXPIRES, &expires),
            (PRINCIPAL, &signed_in.principal_arn),
        ];
        let settings = signed_in.settings.iter();
        values.extend(settings.map(|(name, value)| (*name, value.as_str())));
        if values.iter().any(|(_, value)| value.contains(['\n', '\r'])) {
            return Err(io::Error::other("a value has more than one line"));
        }
        let before = read(&self.file)?;
        private_file::replace(&self.file, &with_values(&before, &self.profile, &values))?;
        self.forget_roles(&before)
    }

    /// Takes the keys out, and removes what was assumed with them; false when there were none.
    ///
    /// # Errors
    /// When a file can not be read or written.
    pub fn clear(&self) -> io::Result<bool> {
        let before = read(&self.file)?;
        let after = without_keys(&before, &self.profile, &KEYS);
        if after == before {
            return Ok(false);
        }
        private_file::replace(&self.file, &after)?;
        self.forget_roles(&before)?;
        Ok(true)
    }

    /// Removes the credentials of roles that were assumed with the profile's keys in this text.
    fn forget_roles(&self, text: &[u8]) -> io::Result<()> {
        let document = Document::parse(&String::from_utf8_lossy(text));
        let key = document
            .section(&self.profile)
            .and_then(|section| section.text(KEYS[0]));
        match (key, &self.role_cache) {
            (Some(key), Some(folder)) => assume_role::forget(folder, key),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// A line with its end, and what it is to the section that is edited.
struct Line<'a> {
    bytes: &'a [u8],
    /// Of the section's title or inside the section.
    inside: bool,
    is_title: bool,
    /// The key whose value this line starts or goes on with.
    key: Option<String>,
}

impl Line<'_> {
    fn is_blank(&self) -> bool {
        self.bytes.iter().all(u8::is_ascii_whitespace)
    }

    fn is_of(&self, keys: &[&str]) -> bool {
        let key = self.key.as_deref();
        self.inside && key.is_some_and(|key| keys.contains(&key))
    }
}

/// The lines as [`crate::ini`] understands them.
fn lines<'a>(text: &'a [u8], section: &str) -> Vec<Line<'a>> {
    let mut inside = false;
    let mut key: Option<String> = None;
    let mut lines = Vec::new();
    for bytes in text.split_inclusive(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(bytes);
        let line = line.trim_start_matches('\u{feff}');
        let content = line.trim();
        let is_comment = content.is_empty() || content.starts_with(['#', ';']);
        let goes_on = key.is_some() && line.starts_with([' ', '\t']);
        let title = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .map(|(title, _)| title.trim());
        if let Some(title) = title {
            (inside, key) = (title == section, None);
        } else if !(is_comment || goes_on) {
            key = content
                .split_once(['=', ':'])
                .map(|(key, _)| key.trim().to_lowercase());
        }
        lines.push(Line {
            bytes,
            inside,
            is_title: title.is_some(),
            key: key.clone().filter(|_| !is_comment),
        });
    }
    lines
}

/// The text with these values in the section, which is made when it is missing.
fn with_values(text: &[u8], section: &str, values: &[(&str, &str)]) -> Vec<u8> {
    let end: &[u8] = if text.windows(2).any(|pair| pair == b"\r\n") {
        b"\r\n"
    } else {
        b"\n"
    };
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let lines = lines(text, section);
    let mut added = Vec::new();
    for (name, value) in values {
        added.extend_from_slice(name.as_bytes());
        added.extend_from_slice(b" = ");
        added.extend_from_slice(value.as_bytes());
        added.extend_from_slice(end);
    }
    let mut result = Vec::with_capacity(text.len() + added.len() + section.len() + 8);
    let mut is_written = false;
    for line in &lines {
        if line.is_of(&names) {
            continue;
        }
        push_line(&mut result, line.bytes, end);
        if line.inside && line.is_title && !is_written {
            result.extend_from_slice(&added);
            is_written = true;
        }
    }
    if !is_written {
        // The last line of a file need not have an end.
        if result.last().is_some_and(|last| *last != b'\n') {
            result.extend_from_slice(end);
        }
        if lines.last().is_some_and(|line| !line.is_blank()) {
            result.extend_from_slice(end);
        }
        result.extend_from_slice(format!("[{section}]").as_bytes());
        result.extend_from_slice(end);
        result.extend_from_slice(&added);
    }
    result
}

/// A title that ends the file gets a line end before something follows it.
fn push_line(result: &mut Vec<u8>, line: &[u8], end: &[u8]) {
    result.extend_from_slice(line);
    if line.starts_with(b"[") && !line.ends_with(b"\n") {
        result.extend_from_slice(end);
    }
}

/// The text without these keys in the section; a section that has nothing else goes too.
fn without_keys(text: &[u8], section: &str, keys: &[&str]) -> Vec<u8> {
    let lines = lines(text, section);
    if !lines.iter().any(|line| line.is_of(keys)) {
        return text.to_vec();
    }
    let is_left = |line: &&Line<'_>| !line.is_of(keys);
    let is_empty = lines
        .iter()
        .filter(is_left)
        .filter(|line| line.inside)
        .all(|line| line.is_title || line.is_blank());
    lines
        .iter()
        .filter(is_left)
        .filter(|line| !(is_empty && line.inside))
        .flat_map(|line| line.bytes)
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] =
        b"# mine \xff\n[work]\naws_access_key_id=AKIA1\n  aws_secret_access_key : odd\n\n; note\n\
        [default]\r\nregion = local-1\nAWS_Session_Token = old\n  going on\n# kept\n[last]\nkey = v";

    fn set(text: &[u8], section: &str, values: &[(&str, &str)]) -> String {
        String::from_utf8_lossy(&with_values(text, section, values)).into_owned()
    }

    #[test]
    fn only_our_keys_of_the_section_change() {
        let after = with_values(FILE, "default", &[("aws_session_token", "new")]);
        let expected: &[u8] =
            b"# mine \xff\n[work]\naws_access_key_id=AKIA1\n  aws_secret_access_key : odd\n\n; note\n\
            [default]\r\naws_session_token = new\r\nregion = local-1\n# kept\n[last]\nkey = v";
        assert_eq!(
            String::from_utf8_lossy(&after),
            String::from_utf8_lossy(expected)
        );
        assert_eq!(after, expected);
        let again = with_values(&after, "default", &[("aws_session_token", "new")]);
        assert_eq!(again, after);
    }

    #[test]
    fn a_missing_section_is_put_behind_the_others() {
        assert_eq!(set(b"", "a", &[("k", "v")]), "[a]\nk = v\n");
        assert_eq!(
            set(b"[b]\nx = 1", "a", &[("k", "v")]),
            "[b]\nx = 1\n\n[a]\nk = v\n"
        );
        assert_eq!(set(b"[a]", "a", &[("k", "v")]), "[a]\nk = v\n");
        assert_eq!(set(b"[b]\n\n", "a", &[("k", "v")]), "[b]\n\n[a]\nk = v\n");
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let text = set(FILE, "new one", &[("aws_access_key_id", "ASIA=1")]);
        let document = crate::ini::Document::parse(&text);
        let section = document.section("new one").unwrap();
        assert_eq!(section.text("aws_access_key_id"), Some("ASIA=1"));
        assert_eq!(document.section("last").unwrap().text("key"), Some("v"));
    }

    #[test]
    fn a_repeated_section_does_not_keep_an_older_key() {
        let text = b"[a]\nk = 1\n[b]\nk = 2\n[a]\nk = 3\n";
        assert_eq!(
            set(text, "a", &[("k", "4")]),
            "[a]\nk = 4\n[b]\nk = 2\n[a]\n"
        );
    }

    #[test]
    fn taking_keys_out_undoes_putting_them_in() {
        let put = with_values(FILE, "new", &[("k", "v"), ("l", "w")]);
        let taken = without_keys(&put, "new", &["k", "l"]);
        assert_eq!(
            String::from_utf8_lossy(&taken).trim_end(),
            String::from_utf8_lossy(FILE)
        );
        assert_eq!(without_keys(FILE, "new", &["k"]), FILE);
        let region = without_keys(b"[a]\nregion = r\nk = v\n", "a", &["k"]);
        assert_eq!(region, b"[a]\nregion = r\n");
    }
}
