//! A second judge of signatures: requests that botocore signed must verify, and not once changed.
//!
//! Needs a `python3` that can import botocore. Where there is none the test says so and ends;
//! with `SORTIE_REQUIRE_PEERS=1` it fails instead.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail in its helpers too"
)]

use std::{io::Write as _, process::Command};

use serde_json::Value;
use sortie_types::{Secret, Timestamp};
use sortie_wire::sigv4::{Presented, RequestParts, Scope, SigError, parse};

/// Signs requests of many kinds with botocore and prints what would be sent.
const SIGNER: &str = r#"
import json
from botocore.auth import SigV4Auth, SigV4QueryAuth, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

plain = Credentials("AKIDEXAMPLE", "secret/+=")
temporary = Credentials("ASIAEXAMPLE", "secret/+=", "token/+=%&")
target = {"X-Amz-Target": "AmazonSSM.StartSession", "Content-Type": "application/x-amz-json-1.1"}
odd = {"X-Amz-Meta-Odd": "  a   b\tc ", "Accept": "*/*"}
bodies = ["", "{}", '{"Target":"mi-\u00e9"}']
urls = [
    "https://sortie.example/",
    "https://sortie.example:7443/prefix/a%20b/c%2Fd@e;f",
    "https://sortie.example/a/./b/../c//d",
    "https://sortie.example/?b=2&a=1&a=0&empty&e%20f=%2F~&=x",
    "https://sortie.example/v1/data-channel/a@b-0123?role=publish_subscribe",
]

def show(request, kind, service, body):
    prepared = request.prepare()
    print(json.dumps({
        "kind": kind, "service": service, "method": prepared.method, "url": prepared.url, "body": body,
        "headers": [[k, v if isinstance(v, str) else v.decode()] for k, v in prepared.headers.items()],
    }))

for credentials in (plain, temporary):
    for url in urls:
        for body in bodies:
            for service in ("ssm", "s3"):
                request = AWSRequest("POST", url, {**target, **odd}, body.encode())
                signer = S3SigV4Auth if service == "s3" else SigV4Auth
                signer(credentials, service, "local-1").add_auth(request)
                show(request, "header", service, body)
        request = AWSRequest("GET", url)
        SigV4QueryAuth(credentials, "sts", "local-1", expires=60).add_auth(request)
        show(request, "query", "sts", "")
"#;

fn botocore_signed() -> Option<Vec<Value>> {
    let output = Command::new("python3").args(["-c", SIGNER]).output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).expect("JSON is text");
            Some(
                text.lines()
                    .map(|line| serde_json::from_str(line).expect("a line is JSON"))
                    .collect(),
            )
        }
        problem => {
            let reason = match problem {
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error.to_string(),
            };
            assert!(
                std::env::var("SORTIE_REQUIRE_PEERS").as_deref() != Ok("1")
                    && reason_is_absence(&reason),
                "botocore does not sign: {reason}"
            );
            // Past the capture of the test's output, so that a skip is seen.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: botocore cannot be imported by python3"
            );
            None
        }
    }
}

/// Whether the peer is missing, rather than broken by us.
fn reason_is_absence(reason: &str) -> bool {
    ["ModuleNotFoundError", "No such file"]
        .iter()
        .any(|mark| reason.contains(mark))
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    service: String,
}

impl Request {
    fn of(value: &Value) -> Self {
        let text = |name: &str| {
            value[name]
                .as_str()
                .expect("the signer prints it")
                .to_owned()
        };
        let url = text("url");
        let (_, rest) = url.split_once("://").expect("it is a URL");
        let (host, target) = rest.split_at(rest.find('/').expect("it has a path"));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let listed = value["headers"]
            .as_array()
            .expect("headers are a list")
            .iter();
        let mut headers: Vec<(String, Vec<u8>)> = listed
            .map(|pair| {
                let part =
                    |index: usize| pair[index].as_str().expect("headers are texts").to_owned();
                (part(0), part(1).into_bytes())
            })
            .collect();
        headers.push(("Host".into(), host.as_bytes().to_vec()));
        Self {
            method: text("method"),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: text("body").into_bytes(),
            service: text("service"),
        }
    }

    fn judge(&self, later_seconds: u64) -> Result<(), SigError> {
        let headers: Vec<(&str, &[u8])> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let parts = RequestParts {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &headers,
        };
        let (Presented::Header(claim) | Presented::Presigned(claim)) = parse(&parts)? else {
            panic!("botocore presents something")
        };
        assert_eq!(
            claim.session_token.is_some(),
            claim.access_key.starts_with("ASIA")
        );
        let now: Timestamp = claim
            .time
            .plus(std::time::Duration::from_secs(later_seconds));
        let scope = Scope {
            service: &self.service,
            regions: &["local-1"],
        };
        claim.verify(&parts, &self.body, &Secret::new("secret/+="), now, &scope)
    }
}

#[test]
fn requests_that_botocore_signed_verify_and_changed_ones_do_not() {
    let Some(signed) = botocore_signed() else {
        return;
    };
    assert!(signed.len() > 60, "{} requests", signed.len());
    for value in &signed {
        let request = || Request::of(value);
        assert_eq!(request().judge(0), Ok(()), "{value}");
        assert!(request().judge(16 * 60).is_err(), "{value}");

        let mut other = request();
        other.method = "PUT".into();
        assert_eq!(
            other.judge(0),
            Err(SigError::SignatureDoesNotMatch),
            "{value}"
        );
        let mut other = request();
        other.path.push('x');
        assert_eq!(
            other.judge(0),
            Err(SigError::SignatureDoesNotMatch),
            "{value}"
        );
        let mut other = request();
        other.query.push_str("&x");
        assert_eq!(
            other.judge(0),
            Err(SigError::SignatureDoesNotMatch),
            "{value}"
        );
        let mut other = request();
        other.body.push(b' ');
        assert!(other.judge(0).is_err(), "{value}");
        let mut other = request();
        other.headers.retain(|(name, _)| name != "Host");
        other
            .headers
            .push(("Host".into(), b"other.example".to_vec()));
        assert_eq!(
            other.judge(0),
            Err(SigError::SignatureDoesNotMatch),
            "{value}"
        );
    }
}
