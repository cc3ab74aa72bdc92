//! Reads what a caller presents: an `Authorization` header, or the parameters of a presigned
//! request.

use std::{fmt::Write as _, time::Duration};

use sortie_types::{Secret, Timestamp};

use super::{ALGORITHM, LONGEST_PRESIGNED, RequestParts, SigError, TERMINATION};
use crate::percent;

/// What a request presents.
#[derive(Clone, Debug)]
pub enum Presented {
    /// Nothing.
    Anonymous,
    /// An `Authorization` header.
    Header(Authorization),
    /// The parameters of a presigned request.
    Presigned(Authorization),
}

/// A claim of who sent a request; not believed until verified.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// `AKIA…`, `ASIA…`, or a node's id.
    pub access_key: String,
    /// The scope's date, `20150830`; that of `time`.
    pub date: String,
    /// The scope's region.
    pub region: String,
    /// The scope's service.
    pub service: String,
    /// The token of temporary credentials.
    pub session_token: Option<Secret>,
    /// The headers under the signature: lower case, sorted, each once, `host` among them.
    pub signed_headers: Vec<String>,
    /// The signature's text: hex, or base64 for nodes.
    pub signature: String,
    /// When it says it was signed; whole seconds.
    pub time: Timestamp,
    /// How long a presigned request lives.
    pub expires: Option<Duration>,
}

/// Reads what a request presents.
///
/// # Errors
/// `Incomplete` when something is presented that cannot be read; `Invalid` when the scope's date
/// or the signed headers are not what they must be.
pub fn parse(parts: &RequestParts<'_>) -> Result<Presented, SigError> {
    let header = parts.single("authorization")?;
    let parameters = Parameters::of(parts.query);
    match (header, parameters.present) {
        (None, false) => Ok(Presented::Anonymous),
        (Some(_), true) => Err(SigError::Incomplete(
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter or the Authorization \
             header should be specified"
                .to_owned(),
        )),
        (Some(header), false) => from_header(parts, header).map(Presented::Header),
        (None, true) => from_query(parts, &parameters).map(Presented::Presigned),
    }
}

fn incomplete(text: impl Into<String>) -> SigError {
    SigError::Incomplete(text.into())
}

fn text_of(value: &[u8]) -> Result<&str, SigError> {
    std::str::from_utf8(value).map_err(|_| incomplete("A header of the signature is not text."))
}

fn from_header(parts: &RequestParts<'_>, header: &[u8]) -> Result<Authorization, SigError> {
    let header = text_of(header)?.trim();
    let (algorithm, rest) = header.split_once(' ').unwrap_or((header, ""));
    if algorithm != ALGORITHM {
        return Err(incomplete(format!(
            "Unsupported AWS 'algorithm': '{}'.",
            shortened(algorithm)
        )));
    }
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for pair in rest
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
    {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(incomplete(
                "Invalid key=value pair (missing equal-sign) in Authorization header.",
            ));
        };
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(incomplete(format!(
                "Authorization header has parameter '{name}' more than once."
            )));
        }
    }
    let time = header_time(parts)?;
    let (Some(credential), Some(signed_headers), Some(signature), Some(time)) =
        (credential, signed_headers, signature, time)
    else {
        return Err(missing_parts(credential, signed_headers, signature, time));
    };
    let session_token = parts
        .single("x-amz-security-token")?
        .map(|token| text_of(token).map(Secret::new))
        .transpose()?;
    let claim = Claim {
        credential,
        signed_headers,
        signature,
        time,
        session_token,
        expires: None,
    };
    claim.checked()
}

fn missing_parts(
    credential: Option<&str>,
    signed_headers: Option<&str>,
    signature: Option<&str>,
    time: Option<Timestamp>,
) -> SigError {
    let mut text = String::new();
    for (name, there) in [
        ("Credential", credential.is_some()),
        ("Signature", signature.is_some()),
        ("SignedHeaders", signed_headers.is_some()),
    ] {
        if !there {
            let _ = write!(text, "Authorization header requires '{name}' parameter. ");
        }
    }
    if time.is_none() {
        text.push_str(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
        );
    }
    incomplete(text.trim_end())
}

/// The time of `X-Amz-Date`, or else of `Date`.
fn header_time(parts: &RequestParts<'_>) -> Result<Option<Timestamp>, SigError> {
    if let Some(value) = parts.single("x-amz-date")? {
        return basic_time(text_of(value)?.trim()).map(Some);
    }
    let Some(value) = parts.single("date")? else {
        return Ok(None);
    };
    let text = text_of(value)?.trim();
    match jiff::fmt::rfc2822::parse(text) {
        Ok(time) => Ok(Some(Timestamp::from_millis(
            time.timestamp().as_second().saturating_mul(1000),
        ))),
        Err(_) => basic_time(text).map(Some),
    }
}

/// `20150830T123600Z` and no other spelling: the text is part of what is signed.
fn basic_time(text: &str) -> Result<Timestamp, SigError> {
    text.parse::<Timestamp>()
        .ok()
        .filter(|time| time.iso_basic() == text)
        .ok_or_else(|| {
            incomplete(format!(
                "Date must be in ISO-8601 'basic format'. Got '{}'.",
                shortened(text)
            ))
        })
}

/// Enough of a stranger's text to recognise it in a message.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The parameters of a presigned request.
struct Parameters {
    present: bool,
    values: Vec<(String, Option<String>)>,
}

impl Parameters {
    fn of(query: &str) -> Self {
        let pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let values: Vec<_> = pairs
            .filter_map(|(name, value)| {
                let name = percent::decode_text(name, true)?;
                let value = || percent::decode_text(value, true).map(Into::into);
                name.starts_with("X-Amz-")
                    .then(|| (name.clone().into_owned(), value()))
            })
            .collect();
        let present = values
            .iter()
            .any(|(name, _)| name == "X-Amz-Algorithm" || name == "X-Amz-Signature");
        Self { present, values }
    }

    fn get(&self, name: &str) -> Result<Option<&str>, SigError> {
        let mut found = self
            .values
            .iter()
            .filter(|(parameter, _)| parameter == name);
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some((_, Some(value))), None) => Ok(Some(value)),
            _ => Err(incomplete(format!(
                "Query-string parameter '{name}' is not one text."
            ))),
        }
    }

    fn required(&self, name: &str) -> Result<&str, SigError> {
        self.get(name)?.ok_or_else(|| {
            incomplete(format!(
                "AWS query-string parameters must include '{name}'."
            ))
        })
    }
}

fn from_query(
    parts: &RequestParts<'_>,
    parameters: &Parameters,
) -> Result<Authorization, SigError> {
    let algorithm = parameters.required("X-Amz-Algorithm")?;
    if algorithm != ALGORITHM {
        return Err(incomplete(format!(
            "Unsupported AWS 'algorithm': '{}'.",
            shortened(algorithm)
        )));
    }
    let seconds = parameters.required("X-Amz-Expires")?;
    let expires = seconds
        .parse()
        .map(Duration::from_secs)
        .ok()
        .filter(|expires| *expires <= LONGEST_PRESIGNED);
    let expires = expires.ok_or_else(|| {
        incomplete(
            "X-Amz-Expires must be a non-negative number of seconds, at most a week (604800).",
        )
    })?;
    let session_token = parameters.get("X-Amz-Security-Token")?;
    if session_token.is_some() && parts.single("x-amz-security-token")?.is_some() {
        return Err(incomplete(
            "The security token is given in the query and in a header.",
        ));
    }
    let claim = Claim {
        credential: parameters.required("X-Amz-Credential")?,
        signed_headers: parameters.required("X-Amz-SignedHeaders")?,
        signature: parameters.required("X-Amz-Signature")?,
        time: basic_time(parameters.required("X-Amz-Date")?)?,
        session_token: session_token.map(Secret::new),
        expires: Some(expires),
    };
    claim.checked()
}

/// The parts of either form, before they are looked at.
struct Claim<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    time: Timestamp,
    session_token: Option<Secret>,
    expires: Option<Duration>,
}

impl Claim<'_> {
    fn checked(self) -> Result<Authorization, SigError> {
        let elements: Vec<&str> = self.credential.split('/').collect();
        let &[access_key, date, region, service, termination] = elements.as_slice() else {
            return Err(incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, \
                 got '{}'.",
                shortened(self.credential)
            )));
        };
        if [access_key, region, service]
            .iter()
            .any(|element| element.is_empty())
        {
            return Err(incomplete("Credential has an empty element."));
        }
        if termination != TERMINATION {
            return Err(SigError::Invalid(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATION}', not '{}'.",
                shortened(termination)
            )));
        }
        let time = self.time.iso_basic();
        if !time.starts_with(date) || date.len() != 8 {
            return Err(SigError::Invalid(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
                 '{}' != '{}', from '{time}'.",
                shortened(date),
                time.get(..8).unwrap_or_default(),
            )));
        }
        Ok(Authorization {
            access_key: access_key.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            session_token: self.session_token,
            signed_headers: signed_headers(self.signed_headers)?,
            signature: self.signature.to_owned(),
            time: self.time,
            expires: self.expires,
        })
    }
}

fn signed_headers(text: &str) -> Result<Vec<String>, SigError> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    let is_name = |name: &String| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
    };
    // One spelling only, so that no two lists mean the same request.
    if !names.iter().all(is_name) || !names.is_sorted_by(|before, after| before < after) {
        return Err(incomplete(
            "SignedHeaders must be lower-case header names in order, each once.",
        ));
    }
    if !names.iter().any(|name| name == "host") {
        return Err(SigError::Invalid(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
        ));
    }
    Ok(names)
}
