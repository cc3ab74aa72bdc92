//! The codecs over every operation that we know: random values of each shape must come back
//! unchanged through JSON, forms and XML, and no bytes may make a reader panic.

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{
    Form, InvalidInput, Protocol, Shape, Tree, XmlNode, XmlWriter, call, json, query,
    schema::{Kind, Structure, Text},
    shapes::{self, cloudtrail, node, ssm, sts},
    trail, validate, xml,
};

/// A small generator: the values must follow a schema that is only known when the test runs.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).expect("it is small")
    }

    fn structure(&mut self, schema: &'static Structure) -> Value {
        let mut object = Map::new();
        for member in schema.members {
            // Whole: a form cannot show an empty structure.
            if member.required
                || schema.members.len() == 1
                || self.below(4) > 0
                || object.is_empty()
            {
                object.insert(member.name.to_owned(), self.value(member.kind));
            }
        }
        Value::Object(object)
    }

    fn value(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Blob(length) => {
                let bytes: Vec<u8> = (0..length.min.max(3))
                    .map(|_| self.below(256) as u8)
                    .collect();
                Value::from(BASE64_STANDARD.encode(bytes))
            }
            Kind::Boolean => Value::from(self.below(2) == 0),
            Kind::Double => Value::from(self.below(1000) as f64 / 8.0),
            Kind::Integer { min, max, .. } => {
                let room = usize::try_from(max.saturating_sub(*min))
                    .unwrap_or(1000)
                    .min(1000);
                let low = if *min < -1000 { -7 } else { *min };
                Value::from(low + self.below(room) as i64)
            }
            Kind::List {
                element, length, ..
            } => {
                let count = length.min.max(1) + self.below(2).min(length.max - length.min.max(1));
                (0..count).map(|_| self.value(element)).collect()
            }
            Kind::Map { key, value, .. } => {
                let key = self.value(key).as_str().expect("keys are texts").to_owned();
                Value::Object(Map::from_iter([(key, self.value(value))]))
            }
            Kind::Structure(schema) => self.structure(schema()),
            Kind::Text(text) => Value::from(self.text(text)),
            Kind::Timestamp => Value::from(1_700_000_000 + self.below(100_000_000)),
        }
    }

    fn text(&mut self, text: &Text) -> String {
        if !text.values.is_empty() {
            return text.values[self.below(text.values.len())].to_owned();
        }
        if text.pattern.is_some() {
            return matching(text).to_owned();
        }
        const LETTERS: [char; 12] = [
            'a', 'Z', '0', ' ', '&', '<', '"', '\n', '\r', '=', '+', '한',
        ];
        let room = text.length.max.min(40) - text.length.min.min(40);
        let count = text.length.min + self.below(room + 1);
        (0..count)
            .map(|_| LETTERS[self.below(LETTERS.len())])
            .collect()
    }
}

/// A text that a pattern takes. A new pattern may need another candidate here.
fn matching(text: &Text) -> &'static str {
    const CANDIDATES: [&str; 15] = [
        "mi-0123456789abcdef0",
        "01234567-89ab-cdef-0123-456789abcdef",
        "1440",
        "123456",
        "3.1.1511.0",
        "arn:aws:iam::111122223333:root",
        "SSM-SessionManagerRunShell",
        "운영 서버 1",
        "ABCDEFGHIJKLMNOPQRSTUVWX",
        "/ops/",
        "v1",
        "1.0",
        "$LATEST",
        "all",
        "x",
    ];
    let takes = |candidate: &&&str| {
        validate::all_hold(&Tree::Text((**candidate).to_owned()), &Kind::Text(*text))
    };
    CANDIDATES
        .iter()
        .find(takes)
        .unwrap_or_else(|| panic!("no candidate for {text:?}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_shape_comes_back_through_every_codec(seed in 1u64..) {
        let mut random = Random(seed);
        for operation in shapes::operations() {
            for schema in [(operation.input)(), (operation.output)()] {
                let value = random.structure(schema);
                let tree = json::decode(&value, schema).expect("it follows the schema");
                prop_assert_eq!(&json::encode(&tree), &value);
                validate::check(&tree).expect("it follows the constraints");

                let mut form = Form::new();
                query::encode(&tree, &mut form);
                let form = Form::parse(form.encode().as_bytes()).expect("what is written can be read");
                let from_form = query::decode(&form, schema).expect("it follows the schema");
                prop_assert_eq!(&json::encode(&from_form), &value);

                let mut writer = XmlWriter::document();
                writer.element_in("Result", "urn:x", |writer| xml::encode(&tree, writer));
                let text = writer.finish();
                let node = XmlNode::parse(&text).expect("what is written can be read");
                let from_xml = xml::decode(&node, schema).expect("it follows the schema");
                prop_assert_eq!(&json::encode(&from_xml), &value, "{}", text);
            }
        }
    }

    #[test]
    fn every_type_comes_back_as_it_was(seed in 1u64..) {
        let mut random = Random(seed);
        for operation in shapes::operations() {
            if operation.service.protocol() == Protocol::Json11 {
                let input = random.structure((operation.input)());
                prop_assert_eq!((operation.read_request)(input.to_string().as_bytes()), Ok(input));
                let output = random.structure((operation.output)());
                prop_assert_eq!((operation.read_response)(output.to_string().as_bytes()), Ok(output));
            }
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(body: Vec<u8>, text in ".*", value in any_json()) {
        for operation in shapes::operations() {
            for body in [body.as_slice(), text.as_bytes(), value.to_string().as_bytes()] {
                let _ = (operation.read_request)(body);
                let _ = (operation.read_response)(body);
            }
        }
        let _ = XmlNode::parse(&text);
    }
}

/// JSON that uses the models' member names with values of any type.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let names = prop_oneof![
            Just("Target"),
            Just("Filters"),
            Just("key"),
            Just("Parameters"),
            Just("Tags"),
            Just("Key"),
            Just("MaxResults"),
            Just("StartTime"),
            Just("RegistrationMetadata"),
            Just("InstanceId"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..6).prop_map(|pairs| pairs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

fn message<T: Shape + std::fmt::Debug>(value: Value) -> String {
    match T::from_json(&value) {
        Err(invalid @ InvalidInput::Violations(_)) => invalid.message(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn violations_are_told_in_the_words_of_aws() {
    assert_eq!(
        message::<ssm::StartSessionRequest>(json!({})),
        "1 validation error detected: Value null at 'target' failed to satisfy constraint: Member must not be null"
    );
    assert_eq!(
        message::<ssm::DescribeSessionsRequest>(json!({
            "State": "active",
            "MaxResults": 201,
            "Filters": [{"key": "Owner", "value": "x"}, {"key": "Colour", "value": ""}],
        })),
        "4 validation errors detected: \
         Value 'active' at 'state' failed to satisfy constraint: Member must satisfy enum value set: [Active, History]; \
         Value '201' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 200; \
         Value 'Colour' at 'filters.2.member.key' failed to satisfy constraint: Member must satisfy enum value set: \
         [InvokedAfter, InvokedBefore, Target, Owner, Status, SessionId, AccessType]; \
         Value '' at 'filters.2.member.value' failed to satisfy constraint: Member must have length greater than or equal to 1"
    );
    assert_eq!(
        message::<ssm::DescribeInstanceInformationRequest>(json!({"MaxResults": 4})),
        "1 validation error detected: Value '4' at 'maxResults' failed to satisfy constraint: Member must have \
         value greater than or equal to 5"
    );
    assert_eq!(
        message::<ssm::StartSessionRequest>(
            json!({"Target": "t", "DocumentName": "a b", "Parameters": {"": ["v"], "k": [""]}})
        ),
        "3 validation errors detected: \
         Value 'a b' at 'documentName' failed to satisfy constraint: Member must satisfy regular expression pattern: \
         ^[a-zA-Z0-9_\\-.:/]{3,128}$; \
         Value '{=[v], k=[]}' at 'parameters' failed to satisfy constraint: Map keys must satisfy constraint: [Member must \
         have length less than or equal to 255, Member must have length greater than or equal to 1]; \
         Value '{=[v], k=[]}' at 'parameters' failed to satisfy constraint: Map value must satisfy constraint: [Member \
         must satisfy constraint: [Member must have length less than or equal to 65535, Member must have length greater \
         than or equal to 1]]"
    );
    assert_eq!(
        message::<ssm::RemoveTagsFromResourceRequest>(
            json!({"ResourceType": "ManagedInstance", "ResourceId": "x", "TagKeys": ["<"]})
        ),
        "1 validation error detected: Value '[<]' at 'tagKeys' failed to satisfy constraint: Member must satisfy \
         constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal \
         to 1, Member must satisfy regular expression pattern: ^([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)$]"
    );
}

#[test]
fn secrets_are_not_echoed() {
    let value =
        json!({"ActivationCode": "hunter2", "Fingerprint": "f", "PublicKey": "k".repeat(392)});
    let text = message::<node::RegisterManagedInstanceRequest>(value);
    assert_eq!(
        text,
        "1 validation error detected: Value at 'activationCode' failed to satisfy constraint: Member must have \
         length greater than or equal to 20"
    );
}

#[test]
fn patterns_hold_for_the_whole_text_and_for_all_letters() {
    let tags = |key: &str| {
        ssm::RemoveTagsFromResourceRequest::from_json(&json!({
            "ResourceType": "ManagedInstance", "ResourceId": "x", "TagKeys": [key],
        }))
    };
    assert!(tags("환경 1/운영").is_ok());
    assert!(tags("naïve\u{2003}Ⅷ").is_ok());
    assert!(tags("a\nb").is_err());
    assert!(tags("emoji 🙂").is_err());
    let limited =
        |id: &str| ssm::DeregisterManagedInstanceRequest::from_json(&json!({"InstanceId": id}));
    assert!(limited("mi-0123456789abcdef0").is_ok());
    for id in [
        "mi-0123456789abcdef0\n",
        " mi-0123456789abcdef0",
        "mi-0123456789ABCDEF0",
        "mi-0123456789abcdef",
    ] {
        assert!(limited(id).is_err(), "{id:?}");
    }
}

#[test]
fn lengths_count_characters() {
    let reason = |reason: String| {
        ssm::StartSessionRequest::from_json(&json!({"Target": "t", "Reason": reason}))
    };
    assert!(reason("한".repeat(256)).is_ok());
    assert!(reason("한".repeat(257)).is_err());
}

#[test]
fn other_json_types_are_malformed() {
    for value in [
        json!([]),
        json!("x"),
        json!({"Target": 1}),
        json!({"Target": ["x"]}),
        json!({"Target": "x", "Parameters": []}),
        json!({"Target": "x", "Parameters": {"a": "b"}}),
        json!({"Target": "x", "Parameters": {"a": [null]}}),
    ] {
        let read = ssm::StartSessionRequest::from_json(&value);
        assert!(
            matches!(read, Err(InvalidInput::Malformed(_))),
            "{value} {read:?}"
        );
    }
    for value in [
        json!(2_147_483_648_u64),
        json!(1.5),
        json!("5"),
        json!(true),
        json!(1e300),
    ] {
        let read = ssm::DescribeSessionsRequest::from_json(
            &json!({"State": "Active", "MaxResults": value}),
        );
        assert!(
            matches!(read, Err(InvalidInput::Malformed(_))),
            "{value} {read:?}"
        );
    }
    for value in [
        json!(-1),
        json!(1e18),
        json!("yesterday"),
        json!({}),
        json!(true),
    ] {
        let read = cloudtrail::LookupEventsRequest::from_json(&json!({"StartTime": value}));
        assert!(
            matches!(read, Err(InvalidInput::Malformed(_))),
            "{value} {read:?}"
        );
    }
    for value in [
        json!(1_777_881_600),
        json!(1_777_881_600.5),
        json!("2026-05-04T08:00:00Z"),
    ] {
        assert!(cloudtrail::LookupEventsRequest::from_json(&json!({"StartTime": value})).is_ok());
    }
    assert!(
        ssm::DescribeSessionsRequest::from_json(&json!({"State": "Active", "MaxResults": 5.0}))
            .is_ok()
    );
}

#[test]
fn null_is_absence() {
    let read = ssm::StartSessionRequest::from_json(&json!({"Target": "t", "Reason": null}))
        .expect("it is read");
    assert_eq!(read.reason, None);
    assert!(
        message::<ssm::StartSessionRequest>(json!({"Target": null}))
            .contains("Value null at 'target'")
    );
}

#[test]
fn deep_and_huge_bodies_are_refused_without_harm() {
    for open in ["[", "{\"Parameters\":", "{\"a\":["] {
        let body = open.repeat(500_000);
        assert!(matches!(
            json::parse(body.as_bytes()),
            Err(InvalidInput::Malformed(_))
        ));
    }
    let many = json!({"ResourceType": "ManagedInstance", "ResourceId": "x", "Tags": vec![json!({}); 200_000]});
    let Err(invalid) = ssm::AddTagsToResourceRequest::from_json(&many) else {
        panic!("it is not valid")
    };
    assert!(
        invalid.message().len() < 20_000,
        "{}",
        invalid.message().len()
    );
    let long = "x".repeat(1_000_000);
    assert!(message::<ssm::StartSessionRequest>(json!({"Target": long})).len() < 1_200);
    let deep = format!("Action=X&{}=1", ["Tags.member.1"; 5000].join("."));
    assert!(call::decode_request::<sts::GetCallerIdentity>(deep.as_bytes()).is_ok());
}

#[test]
fn bodies_that_are_no_objects_are_malformed() {
    for body in [
        "[]",
        "1",
        "\"x\"",
        "null",
        "{",
        "{}{}",
        "{\"a\":}",
        "\u{feff}{}",
        "{'a':1}",
    ] {
        assert!(
            matches!(
                json::parse(body.as_bytes()),
                Err(InvalidInput::Malformed(_))
            ),
            "{body}"
        );
    }
    assert!(json::parse(b"\xff").is_err());
    assert_eq!(json::parse(b""), Ok(json!({})));
    assert_eq!(json::parse(b" {} "), Ok(json!({})));
}

#[test]
fn outputs_are_read_forgivingly() {
    let answer = json!({"Sessions": [{"SessionId": "s", "Status": "Sleeping", "New": {}}]});
    let read =
        ssm::DescribeSessionsResponse::from_json(&answer).expect("a newer server may say so");
    let status = read
        .sessions
        .and_then(|sessions| sessions[0].status.clone());
    assert_eq!(status, Some("Sleeping".into()));
}

#[test]
fn the_trail_shows_names_in_lower_camel_case_and_no_secret() {
    let input = json!({
        "Target": "mi-1", "DocumentName": "AWS-StartSSHSession", "Parameters": {"PortNumber": ["80"]},
    });
    let input = ssm::StartSessionRequest::from_json(&input).expect("it is valid");
    assert_eq!(
        input.to_trail(),
        json!({"target": "mi-1", "documentName": "AWS-StartSSHSession", "parameters": {"PortNumber": ["80"]}})
    );
    let output = ssm::StartSessionResponse {
        session_id: Some("s".into()),
        token_value: Some("AAEA".into()),
        stream_url: Some("wss://x".into()),
    };
    assert_eq!(
        output.to_trail(),
        json!({"sessionId": "s", "tokenValue": "Value hidden due to security reasons.", "streamUrl": "wss://x"})
    );
    assert_eq!(output.to_json()["TokenValue"], "AAEA");
    assert!(!format!("{output:?}").contains("AAEA"));
    assert_eq!(trail::lower_first("IPAddress"), "iPAddress");
}

#[test]
fn a_query_answer_is_wrapped_as_clients_expect() {
    let output = sts::GetCallerIdentityResponse {
        user_id: Some("AIDA".into()),
        account: Some("111122223333".into()),
        arn: Some("arn:aws:iam::111122223333:user/a&b".into()),
    };
    let answer = call::encode_response::<sts::GetCallerIdentity>(&output, "r-1");
    assert_eq!(
        answer.body,
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <UserId>AIDA</UserId><Account>111122223333</Account><Arn>arn:aws:iam::111122223333:user/a&amp;b</Arn>\
         </GetCallerIdentityResult><ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata>\
         </GetCallerIdentityResponse>"
    );
    let read = call::decode_response::<sts::GetCallerIdentity>(answer.body.as_bytes());
    assert_eq!(read, Ok(output));
}

#[test]
fn xml_that_grows_or_nests_is_refused() {
    for text in [
        "",
        "x",
        "<a>",
        "<a></b>",
        "<a/><b/>",
        "<a/>x",
        "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
        "<a>&unknown;</a>",
        "<a>&#xD800;</a>",
    ] {
        assert!(XmlNode::parse(text).is_err(), "{text}");
    }
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert!(XmlNode::parse(&deep).is_err());
    let node = XmlNode::parse(
        "<?xml version=\"1.0\"?><p:a xmlns:p=\"u\" x='1'>&lt;<!-- c -->&#65;<![CDATA[<b>]]></p:a>\n",
    );
    assert_eq!(
        node,
        Ok(XmlNode {
            name: "a".into(),
            text: "<A<b>".into(),
            children: Vec::new()
        })
    );
}

#[test]
fn empty_lists_of_forms_are_lists() {
    let form = Form::parse(b"Tags=&Name=a+b%20c&Name2").expect("it is text");
    let schema = <ssm::AddTagsToResourceRequest as Shape>::schema();
    let read = json::encode(&query::decode(&form, schema).expect("it is read"));
    assert_eq!(read, json!({"Tags": []}));
    assert_eq!(form.get("Name"), Some("a b c"));
    assert_eq!(form.get("Name2"), Some(""));
    assert!(Form::parse(b"a=%ff").is_err());
}

mod errors {
    use super::*;
    use crate::{AwsError, Service, sigv4::SigError};

    #[test]
    fn each_protocol_writes_what_it_can_read() {
        let error = AwsError::new("TargetNotConnected", 400, "mi-<1> is \"not\" connected.");
        assert_eq!(
            error.to_json_body(),
            "{\"__type\":\"TargetNotConnected\",\"message\":\"mi-<1> is \\\"not\\\" connected.\"}"
        );
        assert_eq!(
            AwsError::parse_json_error(400, None, error.to_json_body().as_bytes()),
            error
        );
        for service in Service::ALL {
            let (_, body) = error.to_body(service, "r-1");
            let read = match service.protocol() {
                Protocol::Json11 => AwsError::parse_json_error(400, None, body.as_bytes()),
                _ => AwsError::parse_xml_error(400, &body),
            };
            assert_eq!(read, error, "{service:?} {body}");
        }
        assert_eq!(
            AwsError::new("NoSuchEntity", 404, "x").to_query_xml("r", "u"),
            "<ErrorResponse xmlns=\"u\"><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>x</Message></Error>\
             <RequestId>r</RequestId></ErrorResponse>"
        );
        assert_eq!(
            AwsError::access_denied(Service::SsmMessages, "no").to_channel_xml(),
            "<AccessDeniedException><Message>no</Message></AccessDeniedException>"
        );
    }

    #[test]
    fn codes_are_found_where_servers_put_them() {
        let code =
            |header, body: &str| AwsError::parse_json_error(400, header, body.as_bytes()).code;
        assert_eq!(
            code(None, r#"{"__type":"com.amazon#Denied","Message":"m"}"#),
            "Denied"
        );
        assert_eq!(code(Some("Denied:http://x/"), "not json"), "Denied");
        assert_eq!(code(None, ""), "Unknown");
        assert_eq!(AwsError::parse_xml_error(500, "<html>").code, "Unknown");
    }

    #[test]
    fn signature_errors_have_each_protocols_code() {
        let table = [
            (
                SigError::Missing,
                "MissingAuthenticationTokenException",
                ("MissingAuthenticationToken", 403),
                ("AccessDenied", 403),
            ),
            (
                SigError::Incomplete("x".into()),
                "IncompleteSignatureException",
                ("IncompleteSignature", 400),
                ("AuthorizationHeaderMalformed", 400),
            ),
            (
                SigError::UnknownKey,
                "UnrecognizedClientException",
                ("InvalidClientTokenId", 403),
                ("InvalidAccessKeyId", 403),
            ),
            (
                SigError::InvalidToken,
                "UnrecognizedClientException",
                ("InvalidClientTokenId", 403),
                ("InvalidToken", 400),
            ),
            (
                SigError::SignatureDoesNotMatch,
                "InvalidSignatureException",
                ("SignatureDoesNotMatch", 403),
                ("SignatureDoesNotMatch", 403),
            ),
            (
                SigError::ExpiredToken,
                "ExpiredTokenException",
                ("ExpiredToken", 403),
                ("ExpiredToken", 400),
            ),
            (
                SigError::PresignedOver,
                "InvalidSignatureException",
                ("RequestExpired", 400),
                ("AccessDenied", 403),
            ),
        ];
        for (error, json, query, rest) in table {
            let of = |protocol| {
                let error = error.code_for(protocol);
                (error.code.into_owned(), error.status)
            };
            assert_eq!(of(Protocol::Json11), (json.to_owned(), 400));
            assert_eq!(of(Protocol::Query), (query.0.to_owned(), query.1));
            assert_eq!(of(Protocol::Rest), (rest.0.to_owned(), rest.1));
        }
    }

    #[test]
    fn invalid_input_has_each_protocols_code() {
        let malformed = InvalidInput::Malformed("x".into());
        assert_eq!(
            malformed.to_error(Protocol::Json11).code,
            "SerializationException"
        );
        let Err(violations) = ssm::StartSessionRequest::from_json(&json!({})) else {
            panic!("it is not valid")
        };
        assert_eq!(
            violations.to_error(Protocol::Json11).code,
            "ValidationException"
        );
        assert_eq!(violations.to_error(Protocol::Query).code, "ValidationError");
    }
}
