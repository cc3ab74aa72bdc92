//! Answers: status, content type and body by the service's protocol, and the request id on each.

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use sortie_wire::{AwsError, Operation, Protocol, Service, call::encode_response};
use uuid::Uuid;

/// The header that carries the request id.
const REQUEST_ID: &str = "x-amzn-requestid";

/// Where S3's SDKs look for it.
const S3_REQUEST_ID: &str = "x-amz-request-id";

/// The answer of an operation that succeeded.
pub(crate) fn success<O: Operation>(output: &O::Output, request_id: Uuid) -> Response {
    let message = encode_response::<O>(output, &request_id.to_string());
    let status = match O::SERVICE.protocol() {
        // The official node takes any other success for a failure.
        Protocol::Channel => StatusCode::CREATED,
        Protocol::Json11 | Protocol::Query | Protocol::Rest => StatusCode::OK,
    };
    build(status, message.content_type, message.body, request_id)
}

/// The answer of a call that failed.
pub(crate) fn failure(error: &AwsError, service: Service, request_id: Uuid) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (content_type, body) = error.to_body(service, &request_id.to_string());
    let mut response = build(status, content_type, body, request_id);
    let headers = response.headers_mut();
    if let Ok(code) = HeaderValue::from_str(&error.code) {
        headers.insert("x-amzn-errortype", code);
    }
    if service == Service::S3
        && let Some(id) = headers.get(REQUEST_ID).cloned()
    {
        headers.insert(S3_REQUEST_ID, id);
    }
    response
}

/// A plain text answer.
pub(crate) fn text(status: StatusCode, body: &'static str, request_id: Uuid) -> Response {
    build(
        status,
        "text/plain; charset=utf-8",
        body.to_owned(),
        request_id,
    )
}

/// An answer with this body.
pub(crate) fn build(
    status: StatusCode,
    content_type: &'static str,
    body: String,
    request_id: Uuid,
) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    put_request_id(headers, request_id);
    response
}

/// Puts the request id where SDKs look for it.
pub(crate) fn put_request_id(headers: &mut http::HeaderMap, request_id: Uuid) {
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
}
