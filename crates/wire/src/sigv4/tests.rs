//! AWS's published vectors, and each of them changed in every way that must be refused.
//!
//! The vectors ship in the package of the crate `aws-sigv4`, a dev-dependency for their sake.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use aws_lc_rs::{rand::SystemRandom, rsa::KeySize, signature};
use serde_json::Value;

use super::{canonical::PathStyle, *};
use sortie_types::{Secret, Timestamp};

/// Where cargo unpacked `aws-sigv4`.
fn vectors() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    let metadata: Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata gives JSON");
    let packages = metadata["packages"]
        .as_array()
        .expect("metadata has packages");
    let package = packages
        .iter()
        .find(|package| package["name"] == "aws-sigv4")
        .expect("it is a dependency");
    let manifest = Path::new(
        package["manifest_path"]
            .as_str()
            .expect("a manifest has a path"),
    );
    manifest
        .parent()
        .expect("a manifest is in a folder")
        .join("aws-signing-test-suite/v4")
}

/// A request in a form that tests can change.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    fn read(text: &str) -> Self {
        let (head, body) = text
            .split_once("\n\n")
            .unwrap_or((text.trim_end_matches('\n'), ""));
        let (line, rest) = head.split_once('\n').unwrap_or((head, ""));
        let (method, target) = line.split_once(' ').expect("a request line has a target");
        let target = target
            .strip_suffix(" HTTP/1.1")
            .expect("a request line has a version");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
        for line in rest.lines() {
            match line.split_once(':') {
                Some((name, value)) if !line.starts_with(' ') => {
                    headers.push((name.to_owned(), value.as_bytes().to_vec()));
                }
                _ => {
                    let (_, value) = headers.last_mut().expect("a continued line continues one");
                    value.push(b'\n');
                    value.extend_from_slice(line.as_bytes());
                }
            }
        }
        let body = body.strip_suffix('\n').unwrap_or(body).as_bytes().to_vec();
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body,
        }
    }

    fn with<T>(&self, look: impl FnOnce(&RequestParts<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        look(&RequestParts {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &headers,
        })
    }

    fn add(&mut self, headers: Vec<(String, String)>) {
        self.headers.extend(
            headers
                .into_iter()
                .map(|(name, value)| (name, value.into_bytes())),
        );
    }

    fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = self.clone();
        change(&mut other);
        other
    }
}

struct Vector {
    name: String,
    folder: PathBuf,
    context: Value,
}

impl Vector {
    fn all() -> Vec<Self> {
        let entries = fs::read_dir(vectors()).expect("the vectors ship with the crate");
        let mut all: Vec<Self> = entries
            .map(|entry| entry.expect("a folder is readable").path())
            .filter_map(|folder| {
                let context = fs::read(folder.join("context.json")).ok()?;
                let name = folder.file_name()?.to_string_lossy().into_owned();
                Some(Self {
                    name,
                    folder,
                    context: serde_json::from_slice(&context).expect("it is JSON"),
                })
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        assert!(all.len() >= 35, "{} vectors found", all.len());
        all
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).expect("a vector has all its files")
    }

    fn request(&self, name: &str) -> Request {
        Request::read(&self.file(name))
    }

    fn text(&self, name: &str) -> &str {
        self.context[name].as_str().expect("the context has it")
    }

    fn secret(&self) -> Secret {
        Secret::new(
            self.context["credentials"]["secret_access_key"]
                .as_str()
                .expect("a vector has a key"),
        )
    }

    fn credentials(&self) -> Credentials {
        let credentials = &self.context["credentials"];
        let token = credentials["token"]
            .as_str()
            .filter(|_| self.context["omit_session_token"] != true);
        Credentials {
            access_key_id: credentials["access_key_id"]
                .as_str()
                .expect("a vector has a key")
                .to_owned(),
            secret_access_key: self.secret(),
            session_token: token.map(Secret::new),
        }
    }

    fn now(&self) -> Timestamp {
        self.text("timestamp").parse().expect("a vector has a time")
    }

    /// The vectors' requests have their paths encoded once, as S3's are.
    fn style(&self) -> PathStyle {
        PathStyle {
            normalize: self.context["normalize"] == true,
            encode_again: false,
        }
    }

    fn judge(&self, request: &Request) -> Result<(), SigError> {
        self.judge_at(request, self.now(), &self.secret())
    }

    fn judge_at(&self, request: &Request, now: Timestamp, secret: &Secret) -> Result<(), SigError> {
        request.with(|parts| {
            let claim = match parse(parts)? {
                Presented::Header(claim) | Presented::Presigned(claim) => claim,
                Presented::Anonymous => return Err(SigError::Missing),
            };
            let expect = Scope {
                service: self.text("service"),
                regions: &[self.text("region")],
            };
            claim.check(parts, now, &expect)?;
            claim.check_hmac(parts, &request.body, secret, self.style())
        })
    }

    /// Whether the rule of all services but S3 gives the same canonical path.
    fn fits_usual_style(&self, request: &Request) -> bool {
        self.context["normalize"] == true && !request.path.contains('%')
    }
}

#[test]
fn signed_headers_of_every_vector_verify_to_the_letter() {
    for vector in Vector::all() {
        let request = vector.request("header-signed-request.txt");
        assert_eq!(vector.judge(&request), Ok(()), "{}", vector.name);
        request.with(|parts| {
            let Ok(Presented::Header(claim)) = parse(parts) else {
                panic!("{} is in a header", vector.name)
            };
            let text = claim
                .string_to_sign_as(parts, &request.body, vector.style())
                .expect("all is there");
            assert_eq!(
                String::from_utf8_lossy(&text),
                vector.file("header-string-to-sign.txt").trim_end(),
                "{}",
                vector.name
            );
            assert_eq!(
                claim.signature,
                vector.file("header-signature.txt").trim_end(),
                "{}",
                vector.name
            );
        });
    }
}

#[test]
fn presigned_requests_of_every_vector_verify() {
    for vector in Vector::all() {
        let request = vector.request("query-signed-request.txt");
        // One service of AWS takes a token that was added to the query after signing; we serve
        // none that does, and a token that nobody signed is refused.
        let expected = if vector.name == "post-sts-header-after" {
            Err(SigError::SignatureDoesNotMatch)
        } else {
            Ok(())
        };
        assert_eq!(vector.judge(&request), expected, "{}", vector.name);
    }
}

#[test]
fn our_own_signatures_are_those_of_the_vectors() {
    let mut compared = 0;
    for vector in Vector::all() {
        let mut request = vector.request("request.txt");
        if !vector.fits_usual_style(&request) {
            continue;
        }
        let (service, region) = (vector.text("service"), vector.text("region"));
        let (credentials, now) = (vector.credentials(), vector.now());
        let expires = Duration::from_secs(
            vector.context["expiration_in_seconds"]
                .as_u64()
                .expect("a number"),
        );
        if vector.context["sign_body"] == true {
            request.add(vec![(
                "x-amz-content-sha256".to_owned(),
                canonical::sha256_hex(&request.body),
            )]);
        }
        let added =
            request.with(|parts| sign(parts, &request.body, &credentials, service, region, now));
        let (_, authorization) = added.last().expect("a signature is added");
        let signature = authorization
            .rsplit_once("Signature=")
            .expect("it is in the header")
            .1;
        assert_eq!(
            signature,
            vector.file("header-signature.txt").trim_end(),
            "{}",
            vector.name
        );
        if vector.context["sign_body"] == true {
            request.headers.pop();
        }
        if vector.context["sign_body"] != true
            || request.with(|parts| parts.values("x-amz-content-sha256").count()) > 0
        {
            let query = request.with(|parts| {
                presign(
                    parts,
                    &request.body,
                    &credentials,
                    service,
                    region,
                    now,
                    expires,
                )
            });
            let signature = query
                .rsplit_once("X-Amz-Signature=")
                .expect("it is in the query")
                .1;
            assert_eq!(
                signature,
                vector.file("query-signature.txt").trim_end(),
                "{}",
                vector.name
            );
        }
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}

/// Every change that a signature must not survive, with its name.
fn mutations(request: &Request) -> Vec<(String, Request)> {
    let mut all: Vec<(String, Request)> = vec![
        (
            "method".into(),
            request.changed(|r| r.method = if r.method == "GET" { "POST" } else { "GET" }.into()),
        ),
        ("path".into(), request.changed(|r| r.path.push_str("/more"))),
        (
            "query".into(),
            request.changed(|r| r.query.push_str("&more=1")),
        ),
        ("body".into(), request.changed(|r| r.body.push(b'x'))),
        (
            "second host".into(),
            request.changed(|r| r.add(vec![("host".into(), "other.example".into())])),
        ),
        (
            "operation".into(),
            request.changed(|r| r.add(vec![("X-Amz-Target".into(), "AmazonSSM.X".into())])),
        ),
        (
            "second signature".into(),
            request.changed(|r| {
                r.add(vec![(
                    "Authorization".into(),
                    "AWS4-HMAC-SHA256 x=y".into(),
                )])
            }),
        ),
    ];
    let signed: Vec<usize> = (0..request.headers.len())
        .filter(|&index| {
            let name = request.headers[index].0.to_ascii_lowercase();
            // The token is covered by the secret that belongs to it, which this test does not swap.
            name != "authorization"
                && name != "x-amz-security-token"
                && name != "x-amz-content-sha256"
        })
        .collect();
    for index in signed {
        let name = request.headers[index].0.clone();
        all.push((
            format!("{name} changed"),
            request.changed(|r| r.headers[index].1.push(b'1')),
        ));
        all.push((
            format!("{name} left out"),
            request.changed(|r| drop(r.headers.remove(index))),
        ));
    }
    for part in ["Credential=", "SignedHeaders=", "Signature="] {
        all.extend(authorization_mutations(request, part));
    }
    all
}

/// Changes inside one part of the Authorization header or the query.
fn authorization_mutations(request: &Request, part: &str) -> Vec<(String, Request)> {
    let mut all = Vec::new();
    type Edit = fn(&str, usize) -> String;
    let edits: [(&str, Edit); 3] = [
        ("dropped", |text, at| {
            format!("{}{}", &text[..at], &text[at + 1..])
        }),
        ("doubled", |text, at| {
            format!("{}{}", &text[..=at], &text[at..])
        }),
        ("altered", |text, at| {
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            format!("{}{other}{}", &text[..at], &text[at + 1..])
        }),
    ];
    for (name, edit) in edits {
        let header = request
            .headers
            .iter()
            .position(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let text = match header {
            Some(index) => String::from_utf8(request.headers[index].1.clone()).expect("it is text"),
            None => request.query.clone(),
        };
        let start = text.find(part).expect("every part is there") + part.len();
        // The access key itself only chooses the secret; what follows its first slash is signed.
        let skip = if part == "Credential=" {
            text[start..].find(['/', '%']).expect("a scope follows")
        } else {
            0
        };
        for offset in [1, 2, 3] {
            let changed = edit(&text, start + skip + offset);
            if changed == text {
                continue;
            }
            all.push((
                format!("{part} {name} at {offset}"),
                request.changed(|r| match header {
                    Some(index) => r.headers[index].1 = changed.into_bytes(),
                    None => r.query = changed,
                }),
            ));
        }
    }
    all
}

#[test]
fn every_change_to_a_vector_is_refused() {
    let mut refused = 0;
    for vector in Vector::all() {
        for form in ["header-signed-request.txt", "query-signed-request.txt"] {
            let request = vector.request(form);
            if vector.judge(&request).is_err() {
                continue;
            }
            for (change, mutated) in mutations(&request) {
                assert!(
                    vector.judge(&mutated).is_err(),
                    "{} {form}: {change}\n{mutated:?}",
                    vector.name
                );
                refused += 1;
            }
            let other = Secret::new("another");
            assert!(
                vector.judge_at(&request, vector.now(), &other).is_err(),
                "{}",
                vector.name
            );
        }
    }
    assert!(refused > 1500, "{refused}");
}

#[test]
fn five_minutes_either_way_are_tolerated_and_no_more() {
    let vectors = Vector::all();
    let vector = vectors
        .iter()
        .find(|vector| vector.name == "get-vanilla")
        .expect("it exists");
    let request = vector.request("header-signed-request.txt");
    let at = |now| vector.judge_at(&request, now, &vector.secret());
    let (now, minute) = (vector.now(), Duration::from_mins(1));
    assert_eq!(at(now.plus(minute * 5)), Ok(()));
    assert_eq!(at(now.minus(minute * 5)), Ok(()));
    let late = at(now.plus(minute * 5 + Duration::from_secs(1))).expect_err("it is too late");
    assert_eq!(
        late.to_string(),
        "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"
    );
    let early = at(now.minus(minute * 5 + Duration::from_secs(1))).expect_err("it is too early");
    assert_eq!(
        early.to_string(),
        "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)"
    );
    let request = vector.request("query-signed-request.txt");
    let at = |now| vector.judge_at(&request, now, &vector.secret());
    assert_eq!(at(now.plus(minute * 60)), Ok(()));
    assert_eq!(
        at(now.plus(minute * 60 + Duration::from_secs(1))),
        Err(SigError::PresignedOver)
    );
    assert!(matches!(
        at(now.minus(minute * 6)),
        Err(SigError::NotYetCurrent { .. })
    ));
}

#[test]
fn lambda_paths_are_encoded_twice() {
    for name in ["double-url-encode", "double-encode-path"] {
        let folder = vectors().join(name);
        let request =
            Request::read(&fs::read_to_string(folder.join("request.txt")).expect("it exists"));
        let expected =
            fs::read_to_string(folder.join("header-canonical-request.txt")).expect("it exists");
        let canonical =
            request.with(|parts| canonical::request(parts, &[], PathStyle::of("lambda"), ""));
        let path = String::from_utf8(canonical)
            .expect("it is text")
            .lines()
            .nth(1)
            .map(str::to_owned);
        assert_eq!(path.as_deref(), expected.lines().nth(1), "{name}");
    }
}

/// A node's key and its public half.
fn node_key(size: KeySize) -> (signature::RsaKeyPair, Vec<u8>) {
    use aws_lc_rs::encoding::AsDer;
    let key = signature::RsaKeyPair::generate(size).expect("a key is made");
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = signature::KeyPair::public_key(&key)
        .as_der()
        .expect("it has a form");
    let public = public.as_ref().to_vec();
    (key, public)
}

fn pss(key: &signature::RsaKeyPair, text: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &signature::RSA_PSS_SHA256,
        &SystemRandom::new(),
        text,
        &mut signature,
    )?;
    Ok(signature)
}

fn node_request(body: &[u8]) -> Request {
    Request {
        method: "POST".into(),
        path: "/".into(),
        query: String::new(),
        headers: vec![
            ("Host".into(), b"sortie.example:7443".to_vec()),
            (
                "Content-Type".into(),
                b"application/x-amz-json-1.1".to_vec(),
            ),
            (
                "X-Amz-Target".into(),
                b"AmazonSSM.RequestManagedInstanceRoleToken".to_vec(),
            ),
        ],
        body: body.to_vec(),
    }
}

#[test]
fn a_nodes_rsa_signature_verifies_and_no_changed_one_does() {
    const NODE: &str = "mi-0123456789abcdef0";
    let (key, public) = node_key(KeySize::Rsa2048);
    let now: Timestamp = "2026-05-04T08:00:00Z".parse().expect("a time");
    let mut request = node_request(br#"{"Fingerprint":"f"}"#);
    let added = request
        .with(|parts| {
            sign_rsa(parts, &request.body, NODE, "local-1", now, |text| {
                pss(&key, text)
            })
        })
        .expect("it is signed");
    request.add(added);
    // As official nodes do: present, unsigned, and here not even true.
    request.add(vec![(
        "X-Amz-Content-Sha256".into(),
        "UNSIGNED-PAYLOAD".into(),
    )]);
    let judge = |request: &Request, public: &[u8]| {
        request.with(|parts| match parse(parts)? {
            Presented::Header(claim) => {
                assert_eq!(claim.access_key, NODE);
                let expect = Scope {
                    service: "ssm",
                    regions: &["local-1"],
                };
                claim.verify_rsa(parts, &request.body, public, now, &expect)
            }
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(judge(&request, &public), Ok(()));
    for (change, mutated) in mutations(&request) {
        // A mutated scope can also be unreadable; it must only never pass.
        if !change.starts_with("Credential=") {
            assert!(judge(&mutated, &public).is_err(), "{change}");
        }
    }
    let (_, foreign) = node_key(KeySize::Rsa2048);
    assert_eq!(
        judge(&request, &foreign),
        Err(SigError::SignatureDoesNotMatch)
    );
    assert_eq!(
        judge(&request, b"no key"),
        Err(SigError::SignatureDoesNotMatch)
    );
}

/// An endpoint written `https://host:443`: official nodes sign the port and leave it out of the
/// header that they send.
#[test]
fn a_node_may_have_signed_the_default_port_that_it_does_not_send() {
    let (key, public) = node_key(KeySize::Rsa2048);
    let now: Timestamp = "2026-05-04T08:00:00Z".parse().expect("a time");
    for (signed, sent, passes) in [
        ("sortie.example:443", "sortie.example", true),
        ("[::1]:443", "[::1]", true),
        ("sortie.example:80", "sortie.example", true),
        ("sortie.example:8443", "sortie.example", false),
        ("sortie.example", "sortie.example:443", false),
        ("sortie.example:443", "other.example", false),
        ("sortie.example:443", "sortie.example:444", false),
    ] {
        let mut request = node_request(b"{}");
        request.headers[0].1 = signed.into();
        let added = request
            .with(|parts| {
                sign_rsa(
                    parts,
                    &request.body,
                    "mi-0123456789abcdef0",
                    "local-1",
                    now,
                    |text| pss(&key, text),
                )
            })
            .expect("it is signed");
        request.add(added);
        request.headers[0].1 = sent.into();
        let judged = request.with(|parts| match parse(parts)? {
            Presented::Header(claim) => {
                let expect = Scope {
                    service: "ssm",
                    regions: &["local-1"],
                };
                claim.verify_rsa(parts, &request.body, &public, now, &expect)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(judged.is_ok(), passes, "signed {signed}, sent {sent}");
    }
}

#[test]
fn public_keys_are_told_from_other_bytes() {
    let (_, public) = node_key(KeySize::Rsa2048);
    assert!(is_public_key(&public));
    assert!(!is_public_key(&public[..public.len() - 1]));
    assert!(!is_public_key(b""));
}

fn signed_request(headers: &[(&str, &str)], leave_out: &str) -> Request {
    let credentials = Credentials {
        access_key_id: "AKIDEXAMPLE".into(),
        secret_access_key: Secret::new("secret"),
        session_token: None,
    };
    let mut request = node_request(b"{}");
    request.add(
        headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    );
    let hidden = request.changed(|r| {
        r.headers
            .retain(|(name, _)| !name.eq_ignore_ascii_case(leave_out))
    });
    let now = Timestamp::from_millis(1_777_881_600_000);
    let added =
        hidden.with(|parts| sign(parts, &request.body, &credentials, "ssm", "local-1", now));
    request.add(added);
    request
}

fn judge_plain(request: &Request) -> Result<(), SigError> {
    request.with(|parts| match parse(parts)? {
        Presented::Header(claim) | Presented::Presigned(claim) => {
            let expect = Scope {
                service: "ssm",
                regions: &["local-1"],
            };
            let now = Timestamp::from_millis(1_777_881_600_000);
            claim.verify(parts, &request.body, &Secret::new("secret"), now, &expect)
        }
        Presented::Anonymous => Err(SigError::Missing),
    })
}

#[test]
fn amz_headers_must_be_signed() {
    assert_eq!(judge_plain(&signed_request(&[], "")), Ok(()));
    let unsigned = judge_plain(&signed_request(&[], "x-amz-target"));
    assert!(matches!(unsigned, Err(SigError::Invalid(text)) if text.contains("x-amz-target")));
    let hash = ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD");
    assert_eq!(
        judge_plain(&signed_request(&[hash], hash.0)),
        Ok(()),
        "computed, not believed"
    );
    let stranger = ("X-Amz-Meta-Thing", "1");
    assert!(judge_plain(&signed_request(&[stranger], stranger.0)).is_err());
}

#[test]
fn a_body_that_is_declared_unsigned_is_computed_all_the_same() {
    let mut request = signed_request(&[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "");
    assert_eq!(
        judge_plain(&request),
        Ok(()),
        "the header is signed; the hash is the body's"
    );
    request.body = b"{\"Target\":\"other\"}".to_vec();
    assert_eq!(judge_plain(&request), Err(SigError::SignatureDoesNotMatch));
}

#[test]
fn scopes_of_others_are_refused() {
    let request = signed_request(&[], "");
    let judge = |service, region| {
        request.with(|parts| match parse(parts) {
            Ok(Presented::Header(claim)) => {
                let now = Timestamp::from_millis(1_777_881_600_000);
                let expect = Scope {
                    service,
                    regions: &[region],
                };
                claim.verify(parts, &request.body, &Secret::new("secret"), now, &expect)
            }
            other => panic!("{other:?}"),
        })
    };
    assert!(matches!(judge("kms", "local-1"), Err(SigError::Invalid(_))));
    assert!(matches!(
        judge("ssm", "us-east-1"),
        Err(SigError::Invalid(_))
    ));
}

#[test]
fn headers_that_cannot_be_read_say_what_is_missing() {
    let parse_header = |headers: &[(&str, &[u8])]| {
        parse(&RequestParts {
            method: "POST",
            path: "/",
            query: "",
            headers,
        })
        .map(drop)
    };
    let date: (&str, &[u8]) = ("x-amz-date", b"20260504T080000Z");
    assert_eq!(
        parse_header(&[("authorization", b"AWS4-HMAC-SHA256 Credential=a")]),
        Err(SigError::Incomplete(
            "Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' \
             parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
                .into()
        ))
    );
    let good = "Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders=host, Signature=00";
    assert_eq!(
        parse_header(&[
            (
                "authorization",
                format!("AWS4-HMAC-SHA256 {good}").as_bytes()
            ),
            date
        ]),
        Ok(())
    );
    for bad in [
        "",
        "AWS4-HMAC-SHA256",
        "Bearer abc",
        "AWS4-HMAC-SHA512 Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=A/K/20260504/r/ssm/aws4_request, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=/20260504/r/ssm/aws4_request, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm/aws4, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260505/r/ssm/aws4_request, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/2026/r/ssm/aws4_request, SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders=Host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders=x;host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders=host;host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders=, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders=x-amz-date, Signature=00",
        "AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders=host, Signature=00, Signature=01",
    ] {
        assert!(
            parse_header(&[("authorization", bad.as_bytes()), date]).is_err(),
            "{bad}"
        );
    }
    assert!(parse_header(&[("authorization", b"\xff\xfe"), date]).is_err());
    for time in [
        "",
        "2026-05-04T08:00:00Z",
        "20260504T080060Z",
        "20260504",
        "99999999T999999Z",
    ] {
        let header = format!("AWS4-HMAC-SHA256 {good}");
        let headers = [
            ("authorization", header.as_bytes()),
            ("x-amz-date", time.as_bytes()),
        ];
        assert!(parse_header(&headers).is_err(), "{time}");
    }
    let header = format!("AWS4-HMAC-SHA256 {good}");
    let http_date: (&str, &[u8]) = ("date", b"Mon, 04 May 2026 08:00:00 GMT");
    assert_eq!(
        parse_header(&[("authorization", header.as_bytes()), http_date]),
        Ok(())
    );
}

#[test]
fn nothing_presented_is_anonymous() {
    let parts = RequestParts {
        method: "GET",
        path: "",
        query: "a=b&&%",
        headers: &[("host", b"h")],
    };
    assert!(matches!(parse(&parts), Ok(Presented::Anonymous)));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            path in ".*",
            query in ".*",
            authorization: Vec<u8>,
            tail in "[ -~]*",
            name in "[a-zA-Z-]{1,20}",
            value: Vec<u8>,
        ) {
            let formed = format!("AWS4-HMAC-SHA256 Credential=AK/20260504/r/ssm/aws4_request, SignedHeaders={name};host, Signature={tail}");
            for authorization in [authorization.as_slice(), formed.as_bytes()] {
                let headers: [(&str, &[u8]); 4] = [
                    ("authorization", authorization),
                    ("x-amz-date", b"20260504T080000Z"),
                    ("host", b"h"),
                    (&name, &value),
                ];
                let parts = RequestParts { method: "POST", path: &path, query: &query, headers: &headers };
                if let Ok(Presented::Header(claim) | Presented::Presigned(claim)) = parse(&parts) {
                    let expect = Scope { service: "ssm", regions: &["r"] };
                    let judged = claim.verify(&parts, b"", &Secret::new("s"), claim.time, &expect);
                    prop_assert!(judged.is_err());
                    prop_assert!(claim.verify_rsa(&parts, b"", b"", claim.time, &expect).is_err());
                }
            }
        }

        #[test]
        fn what_we_sign_we_verify(
            path in "/[ -~]{0,20}",
            query in "[ -~]{0,20}",
            value in "[ -~]{0,20}",
            body: Vec<u8>,
            token in proptest::option::of("[A-Za-z0-9+/=]{1,40}"),
        ) {
            let credentials = Credentials {
                access_key_id: "AKIDEXAMPLE".into(),
                secret_access_key: Secret::new("secret"),
                session_token: token.map(Secret::new),
            };
            let query = query.replace("X-Amz-", "");
            let now = Timestamp::from_millis(1_777_881_600_123);
            for service in ["ssm", "s3"] {
                let expect = Scope { service, regions: &["local-1"] };
                let mut request = Request {
                    method: "PUT".into(),
                    path: path.clone(),
                    query: query.clone(),
                    headers: vec![("host".into(), b"h".to_vec()), ("thing".into(), value.clone().into_bytes())],
                    body: body.clone(),
                };
                let presigned = request.with(|parts| {
                    presign(parts, &body, &credentials, service, "local-1", now, Duration::from_secs(60))
                });
                let plain = request.clone();
                request.add(plain.with(|parts| sign(parts, &body, &credentials, service, "local-1", now)));
                let presigned = plain.changed(|r| r.query = presigned);
                for request in [request, presigned] {
                    request.with(|parts| {
                        let claim = match parse(parts) {
                            Ok(Presented::Header(claim) | Presented::Presigned(claim)) => claim,
                            other => panic!("{other:?}"),
                        };
                        assert_eq!(claim.session_token.is_some(), credentials.session_token.is_some());
                        assert_eq!(claim.verify(parts, &body, &credentials.secret_access_key, now, &expect), Ok(()));
                    });
                }
            }
        }
    }
}
