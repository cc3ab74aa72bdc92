//! Whole requests and answers of an operation: which codec, what wraps it, which content type.
//! For both ends; HTTP itself is elsewhere.

use crate::{AwsError, Form, InvalidInput, Operation, Protocol, Shape, XmlNode, XmlWriter, json};

/// The content type of JSON 1.1.
pub const JSON_CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// The content type of forms.
pub const FORM_CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// The content type of query answers.
pub const XML_CONTENT_TYPE: &str = "text/xml";

/// A request or answer without its path, method and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `X-Amz-Target`, in requests of JSON services.
    pub target: Option<String>,
    /// The body.
    pub body: String,
}

/// Reads an operation's input from a request's body. What REST services put into paths and headers
/// is not in it.
///
/// # Errors
/// When it cannot be read, or breaks constraints of the model.
pub fn decode_request<O: Operation>(body: &[u8]) -> Result<O::Input, InvalidInput> {
    match O::SERVICE.protocol() {
        Protocol::Query => O::Input::from_query(&Form::parse(body)?),
        Protocol::Json11 | Protocol::Channel => O::Input::from_json(&json::parse(body)?),
        Protocol::Rest if body.is_empty() => O::Input::from_xml(&XmlNode::default()),
        Protocol::Rest => O::Input::from_xml(&xml_of(body)?),
    }
}

/// Writes an operation's request.
#[must_use]
pub fn encode_request<O: Operation>(input: &O::Input) -> Message {
    let service = O::SERVICE;
    match (service.protocol(), service.api_version()) {
        (Protocol::Query, version) => {
            let mut form = Form::new();
            form.push("Action", O::NAME);
            form.push("Version", version.unwrap_or_default());
            input.to_query(&mut form);
            Message {
                content_type: FORM_CONTENT_TYPE,
                target: None,
                body: form.encode(),
            }
        }
        (Protocol::Channel, _) => Message {
            content_type: "application/json",
            target: None,
            body: input.to_json().to_string(),
        },
        (Protocol::Json11, _) => Message {
            content_type: JSON_CONTENT_TYPE,
            target: service
                .target_prefix()
                .map(|prefix| format!("{prefix}.{}", O::NAME)),
            body: input.to_json().to_string(),
        },
        (Protocol::Rest, _) => {
            let mut writer = XmlWriter::document();
            let name = O::Input::schema().name;
            writer.element_in(name, service.xmlns(), |writer| input.to_xml(writer));
            Message {
                content_type: "application/xml",
                target: None,
                body: writer.finish(),
            }
        }
    }
}

/// Writes an operation's answer.
#[must_use]
pub fn encode_response<O: Operation>(output: &O::Output, request_id: &str) -> Message {
    let mut writer = XmlWriter::fragment();
    match O::SERVICE.protocol() {
        Protocol::Json11 => {
            let body = output.to_json().to_string();
            return Message {
                content_type: JSON_CONTENT_TYPE,
                target: None,
                body,
            };
        }
        Protocol::Query => writer.element_in(
            &format!("{}Response", O::NAME),
            O::SERVICE.xmlns(),
            |writer| {
                // An output that the model has without members is there all the same.
                let schema = O::Output::schema();
                if schema.output || !schema.members.is_empty() {
                    writer.element(&format!("{}Result", O::NAME), |writer| {
                        output.to_xml(writer)
                    });
                }
                writer.element("ResponseMetadata", |writer| {
                    writer.text_element("RequestId", request_id)
                });
            },
        ),
        Protocol::Channel | Protocol::Rest => {
            writer.element_in(
                &format!("{}Response", O::NAME),
                O::SERVICE.xmlns(),
                |writer| output.to_xml(writer),
            );
        }
    }
    Message {
        content_type: XML_CONTENT_TYPE,
        target: None,
        body: writer.finish(),
    }
}

/// Reads an operation's answer of status 2xx.
///
/// # Errors
/// When it cannot be read.
pub fn decode_response<O: Operation>(body: &[u8]) -> Result<O::Output, InvalidInput> {
    if O::SERVICE.protocol() == Protocol::Json11 {
        return O::Output::from_json(&json::parse(body)?);
    }
    let root = xml_of(body)?;
    O::Output::from_xml(root.child(&format!("{}Result", O::NAME)).unwrap_or(&root))
}

fn xml_of(body: &[u8]) -> Result<XmlNode, InvalidInput> {
    let text = std::str::from_utf8(body)
        .map_err(|_| InvalidInput::Malformed("The XML is not UTF-8".to_owned()))?;
    XmlNode::parse(text)
}

/// Reads an operation's answer of another status. `error_type` is the header `x-amzn-ErrorType`.
#[must_use]
pub fn decode_error<O: Operation>(status: u16, error_type: Option<&str>, body: &[u8]) -> AwsError {
    match O::SERVICE.protocol() {
        Protocol::Json11 => AwsError::parse_json_error(status, error_type, body),
        _ => AwsError::parse_xml_error(status, &String::from_utf8_lossy(body)),
    }
}
