//! Errors as AWS sends them: what they consist of, how each protocol writes them, and the ones
//! that every operation can answer. Why an operation fails is the operation's.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::{Protocol, Service, XmlNode, XmlWriter};

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct AwsError {
    /// What programs switch on.
    pub code: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What people read.
    pub message: String,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server's.
    Receiver,
    /// The caller's.
    Sender,
}

impl AwsError {
    /// An error of these parts.
    #[must_use]
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        status: u16,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            status,
            message: message.into(),
        }
    }

    /// Refused by policy; `message` is AWS's sentence on who may not do what.
    #[must_use]
    pub fn access_denied(service: Service, message: impl Into<String>) -> Self {
        match (service, service.protocol()) {
            (Service::Sns, _) => Self::new("AuthorizationError", 403, message),
            (_, Protocol::Json11) => Self::new("AccessDeniedException", 400, message),
            (_, Protocol::Channel) => Self::new("AccessDeniedException", 403, message),
            (_, Protocol::Query | Protocol::Rest) => Self::new("AccessDenied", 403, message),
        }
    }

    /// Too many requests.
    #[must_use]
    pub fn throttling(service: Service) -> Self {
        match (service, service.protocol()) {
            (Service::Sns, _) => Self::new("Throttled", 429, "Rate exceeded"),
            (_, Protocol::Json11) => Self::new("ThrottlingException", 400, "Rate exceeded"),
            (_, Protocol::Channel) => Self::new("ThrottlingException", 429, "Rate exceeded"),
            (_, Protocol::Query) => Self::new("Throttling", 400, "Rate exceeded"),
            (_, Protocol::Rest) => Self::new("SlowDown", 503, "Please reduce your request rate."),
        }
    }

    /// No such operation here. Official nodes take the code as "not offered" and go on quietly.
    #[must_use]
    pub fn unknown_operation(protocol: Protocol, operation: &str, version: &str) -> Self {
        match protocol {
            Protocol::Json11 | Protocol::Channel => Self::new(
                "UnknownOperationException",
                400,
                "The requested operation is not known",
            ),
            Protocol::Query => Self::new(
                "InvalidAction",
                400,
                format!("Could not find operation {operation} for version {version}"),
            ),
            Protocol::Rest => Self::new(
                "NotImplemented",
                501,
                "A header you provided implies functionality that is not implemented",
            ),
        }
    }

    /// The server failed; what failed stays in its log.
    #[must_use]
    pub fn internal(protocol: Protocol) -> Self {
        let code = match protocol {
            Protocol::Json11 | Protocol::Query | Protocol::Channel => "InternalFailure",
            Protocol::Rest => "InternalError",
        };
        Self::new(
            code,
            500,
            "The request processing has failed because of an unknown error.",
        )
    }

    /// The server cannot answer now and a later attempt may succeed.
    #[must_use]
    pub fn unavailable(protocol: Protocol) -> Self {
        let code = match protocol {
            Protocol::Json11 | Protocol::Channel => "ServiceUnavailableException",
            Protocol::Query | Protocol::Rest => "ServiceUnavailable",
        };
        Self::new(code, 503, "Service is unable to handle request.")
    }

    /// The body is larger than is read.
    #[must_use]
    pub fn too_large(protocol: Protocol) -> Self {
        let code = match protocol {
            Protocol::Json11 | Protocol::Query | Protocol::Channel => "RequestEntityTooLarge",
            Protocol::Rest => "EntityTooLarge",
        };
        Self::new(code, 413, "Request size exceeded the limit.")
    }

    /// A constraint that no model states is broken.
    #[must_use]
    pub fn validation(protocol: Protocol, message: impl Into<String>) -> Self {
        let code = match protocol {
            Protocol::Json11 | Protocol::Channel => "ValidationException",
            Protocol::Query => "ValidationError",
            Protocol::Rest => "InvalidRequest",
        };
        Self::new(code, 400, message)
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        if self.status >= 500 {
            Fault::Receiver
        } else {
            Fault::Sender
        }
    }

    /// The body of JSON services.
    #[must_use]
    pub fn to_json_body(&self) -> String {
        json!({ "__type": self.code, "message": self.message }).to_string()
    }

    /// The body of query services.
    #[must_use]
    pub fn to_query_xml(&self, request_id: &str, xmlns: &str) -> String {
        let mut writer = XmlWriter::fragment();
        writer.element_in("ErrorResponse", xmlns, |writer| {
            writer.element("Error", |writer| {
                let fault = match self.fault() {
                    Fault::Receiver => "Receiver",
                    Fault::Sender => "Sender",
                };
                writer.text_element("Type", fault);
                writer.text_element("Code", &self.code);
                writer.text_element("Message", &self.message);
            });
            writer.text_element("RequestId", request_id);
        });
        writer.finish()
    }

    /// The body of S3.
    #[must_use]
    pub fn to_rest_xml(&self, request_id: &str, resource: &str) -> String {
        let mut writer = XmlWriter::document();
        writer.element("Error", |writer| {
            writer.text_element("Code", &self.code);
            writer.text_element("Message", &self.message);
            writer.text_element("Resource", resource);
            writer.text_element("RequestId", request_id);
        });
        writer.finish()
    }

    /// The body of the message gateway: an element named after the code, which is what official
    /// nodes look for.
    #[must_use]
    pub fn to_channel_xml(&self) -> String {
        let mut writer = XmlWriter::fragment();
        // Codes are ours or the models'; an element name must not depend on that.
        let name: String = self
            .code
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let name = if name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            name
        } else {
            "Error".to_owned()
        };
        writer.element(&name, |writer| {
            writer.text_element("Message", &self.message)
        });
        writer.finish()
    }

    /// Content type and body of the protocol.
    #[must_use]
    pub fn to_body(&self, service: Service, request_id: &str) -> (&'static str, String) {
        match service.protocol() {
            Protocol::Json11 => ("application/x-amz-json-1.1", self.to_json_body()),
            Protocol::Query => ("text/xml", self.to_query_xml(request_id, service.xmlns())),
            Protocol::Rest => ("application/xml", self.to_rest_xml(request_id, "")),
            Protocol::Channel => ("application/xml", self.to_channel_xml()),
        }
    }

    /// Reads an error of a JSON service. `error_type` is the header `x-amzn-ErrorType`. A body
    /// that cannot be read gives the code `Unknown`.
    #[must_use]
    pub fn parse_json_error(status: u16, error_type: Option<&str>, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |names: [&str; 2]| names.iter().find_map(|name| body.get(*name)?.as_str());
        let code = text(["__type", "code"]).or(error_type).unwrap_or("Unknown");
        // `namespace#Code` in bodies, `Code:address` in headers.
        let code = code.rsplit('#').next().unwrap_or(code);
        let code = code.split(':').next().unwrap_or(code);
        let message = text(["message", "Message"]).unwrap_or_default();
        Self::new(code.to_owned(), status, message)
    }

    /// Reads an error of a query or REST service, or of the message gateway. A body that cannot
    /// be read gives the code `Unknown`.
    #[must_use]
    pub fn parse_xml_error(status: u16, body: &str) -> Self {
        let unknown = || Self::new("Unknown", status, String::new());
        let Ok(root) = XmlNode::parse(body) else {
            return unknown();
        };
        let error = root.child("Error").unwrap_or(&root);
        let message = error
            .child_text("Message")
            .or(error.child_text("message"))
            .unwrap_or_default();
        match error.child_text("Code") {
            Some(code) => Self::new(code.to_owned(), status, message),
            None if root.child("Error").is_none() => Self::new(root.name.clone(), status, message),
            None => unknown(),
        }
    }
}
