//! The wrapper around every request: read, route, authenticate, parse, operate, record what
//! failed, answer. A call runs in a task of its own, so that a caller who hangs up neither stops
//! its change half way nor takes its audit record along.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::Value;
use sortie_control::{Access, Call, Caller};
use sortie_wire::{AwsError, Form, Protocol, Service};
use uuid::Uuid;

use crate::{
    Connection, House, Listener, answer,
    authenticate::Refused,
    errors::Failure,
    operations::{OperationEntry, find},
    request::{BodyError, Received},
    route::{Route, route},
};

/// An answer, and how long to keep it back: polls of nodes are held, as the original service does,
/// because an immediate answer would only make them ask again.
pub(crate) struct Outcome {
    pub(crate) response: Response,
    pub(crate) hold: Option<Duration>,
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Self {
        Self {
            response,
            hold: None,
        }
    }
}

/// Answers one request.
pub(crate) async fn serve(house: Arc<House>, via: Listener, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(connection) = parts.extensions.get::<Connection>().cloned() else {
        tracing::error!("a request came without its connection");
        return answer::text(StatusCode::INTERNAL_SERVER_ERROR, "", Uuid::new_v4());
    };
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let received = Received::new(parts, connection, via, &house.options.trusted_proxies);
    let request_id = received.request_id;
    let stop = house.stop.clone();
    let work = house
        .tasks
        .spawn(Arc::clone(&house).outcome(received, body, upgrade));
    let Ok(outcome) = work.await else {
        tracing::error!(%request_id, "a call ended without an answer");
        let error = AwsError::internal(Protocol::Json11);
        return answer::failure(&error, Service::Ssm, request_id);
    };
    if let Some(hold) = outcome.hold {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(hold) => {}
        }
    }
    outcome.response
}

impl House {
    async fn outcome(
        self: Arc<Self>,
        received: Received,
        body: Body,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Outcome {
        let request_id = received.request_id;
        match route(&received, self.options.domain.as_deref()) {
            Route::Channel(channel) => self.channel(received, channel, body, upgrade).await,
            Route::Form { service } => self.form(&received, service, body).await,
            Route::Health => self.health(request_id).into(),
            Route::Json { service, operation } => {
                let target = Target {
                    service,
                    operation: &operation,
                };
                self.call(&received, target, body).await
            }
            Route::NotFound => {
                answer::text(StatusCode::NOT_FOUND, "not found\n", request_id).into()
            }
            Route::NotOffered(service) => not_offered(service, request_id).into(),
        }
    }

    fn health(&self, request_id: Uuid) -> Response {
        if self.stop.is_cancelled() {
            return answer::text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n", request_id);
        }
        answer::text(StatusCode::OK, "ok\n", request_id)
    }

    /// A call of a query service: the form names action and version, the version the service.
    async fn form(&self, received: &Received, own: Option<Service>, body: Body) -> Outcome {
        let body = self.bodies.read(body, received.source()).await;
        let guess = own.unwrap_or(Service::Sts);
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.unread(received, guess, "", error).await,
        };
        // A presigned call has its form in the query.
        let fields = if received.is_form() && !body.is_empty() {
            body.clone()
        } else {
            Bytes::copy_from_slice(received.query.as_bytes())
        };
        let form = match Form::parse(&fields) {
            Ok(form) => form,
            Err(error) => {
                let error = error.to_error(Protocol::Query);
                return answer::failure(&error, guess, received.request_id).into();
            }
        };
        let version = form.get("Version").unwrap_or_default();
        let named = Service::from_api_version(version);
        let service = own.or(named).unwrap_or(guess);
        let action = form.get("Action").unwrap_or_default();
        // On its own host, or with a version of no service, nothing is offered by that name.
        let operation = if named == Some(service) { action } else { "" };
        let target = Target { service, operation };
        let input = Input {
            signed: &body,
            parsed: &fields,
        };
        self.read_call(received, target, input).await
    }

    /// A call of a JSON service.
    async fn call(&self, received: &Received, target: Target<'_>, body: Body) -> Outcome {
        match self.bodies.read(body, received.source()).await {
            Ok(body) => {
                let input = Input {
                    signed: &body,
                    parsed: &body,
                };
                self.read_call(received, target, input).await
            }
            Err(error) => {
                self.unread(received, target.service, target.operation, error)
                    .await
            }
        }
    }

    /// A call whose body could not be read: nothing of it was verified.
    pub(crate) async fn unread(
        &self,
        received: &Received,
        service: Service,
        operation: &str,
        error: BodyError,
    ) -> Outcome {
        let protocol = service.protocol();
        let error = match error {
            BodyError::TooLarge => AwsError::too_large(protocol),
            BodyError::Incomplete => {
                AwsError::new("RequestTimeout", 408, "The body did not arrive in time.")
            }
        };
        if let Some(entry) = find(service, operation) {
            let call = self.call_of(received, entry, Caller::Anonymous { access_key: None });
            self.record(&call, &Failure::of(error.clone())).await;
        }
        let mut response = answer::failure(&error, service, received.request_id);
        // What is left of the body must not be read as the next request.
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        response.into()
    }

    async fn read_call(
        &self,
        received: &Received,
        target: Target<'_>,
        input: Input<'_>,
    ) -> Outcome {
        let Target { service, operation } = target;
        let request_id = received.request_id;
        let entry = find(service, operation);
        let caller = match self.caller(received, input.signed, service, entry).await {
            Ok(caller) => caller,
            Err(refused) => return self.refuse(received, service, entry, refused).await,
        };
        let Some(entry) = entry else {
            tracing::debug!(%request_id, operation, "unknown operation");
            let version = service.api_version().unwrap_or_default();
            let error = AwsError::unknown_operation(service.protocol(), operation, version);
            return answer::failure(&error, service, request_id).into();
        };
        let call = self.call_of(received, entry, caller);
        entry.run(self, received, call, input.parsed).await
    }

    /// The caller of an operation: nobody will do only where the input itself is the proof.
    pub(crate) async fn caller(
        &self,
        received: &Received,
        body: &[u8],
        service: Service,
        entry: Option<&OperationEntry>,
    ) -> Result<Caller, Refused> {
        let caller = self.authenticate(received, body, service).await?;
        let nobody = matches!(caller, Caller::Anonymous { .. });
        if nobody && entry.is_none_or(|entry| entry.who() != Access::Anyone) {
            return Err(Refused::unsigned(service.protocol()));
        }
        Ok(caller)
    }

    /// Answers a request that is not authenticated.
    pub(crate) async fn refuse(
        &self,
        received: &Received,
        service: Service,
        entry: Option<&OperationEntry>,
        refused: Refused,
    ) -> Outcome {
        let access_key = refused.access_key;
        tracing::debug!(
            request_id = %received.request_id,
            code = %refused.error.code,
            access_key,
            "not authenticated"
        );
        if let Some(entry) = entry {
            let call = self.call_of(received, entry, Caller::Anonymous { access_key });
            self.record(&call, &Failure::of(refused.error.clone()))
                .await;
        }
        Outcome {
            response: answer::failure(&refused.error, service, received.request_id),
            // A thrown-out node that still polls would ask again at once, for ever.
            hold: (refused.node_gone && service == Service::Ec2Messages).then(poll_hold),
        }
    }

    /// A call as control sees it, before its input is known.
    pub(crate) fn call_of(
        &self,
        received: &Received,
        entry: &OperationEntry,
        caller: Caller,
    ) -> Call {
        Call {
            request_id: received.request_id,
            caller,
            source_ip: received.source_ip(),
            user_agent: received.user_agent(),
            referer: received.referer(),
            secure_transport: received.is_encrypted(),
            event_source: event_source(entry.service),
            event_name: entry.name,
            read_only: entry.read_only,
            request_parameters: Value::Null,
            now: received.now,
        }
    }

    /// The one place where a call that did not end well gets its record, if it has none yet.
    pub(crate) async fn record(&self, call: &Call, failure: &Failure) {
        if failure.is_recorded() {
            return;
        }
        self.control
            .record_failure(call, failure.trail_code(), &failure.error.message, &[])
            .await;
    }

    /// Scheme and host for stream URLs: the configured ones, or those that the caller used.
    pub(crate) fn stream_base(&self, received: &Received) -> Option<String> {
        let scheme = if received.via.tls { "wss" } else { "ws" };
        match &self.options.public_url {
            Some(url) => Some(match url.split_once("://") {
                Some(("http", host)) => format!("ws://{host}"),
                Some((_, host)) => format!("wss://{host}"),
                None => format!("wss://{url}"),
            }),
            None => received.host().map(|host| format!("{scheme}://{host}")),
        }
    }
}

/// Service and operation that a request names.
#[derive(Clone, Copy)]
struct Target<'a> {
    service: Service,
    operation: &'a str,
}

/// The bytes under the signature, and those that hold the input. They differ where a form stands
/// in the query.
#[derive(Clone, Copy)]
struct Input<'a> {
    signed: &'a [u8],
    parsed: &'a [u8],
}

/// How long a poll is held: within what official nodes wait for (20 s), and spread, so that nodes
/// that came back together do not stay together.
pub(crate) fn poll_hold() -> Duration {
    let spread = u64::from(Uuid::new_v4().as_bytes()[0]) * 4_000 / 256;
    Duration::from_millis(15_000 + spread)
}

fn not_offered(service: Service, request_id: Uuid) -> Response {
    let name = service.signing_name();
    let text = format!("This installation does not offer the service `{name}`.");
    let error = match service.protocol() {
        Protocol::Rest => AwsError::new("NotImplemented", 501, text),
        Protocol::Json11 | Protocol::Channel => {
            AwsError::new("UnknownOperationException", 400, text)
        }
        Protocol::Query => AwsError::new("InvalidAction", 400, text),
    };
    answer::failure(&error, service, request_id)
}

fn event_source(service: Service) -> &'static str {
    match service {
        Service::CloudTrail => "cloudtrail.amazonaws.com",
        Service::Ec2Messages => "ec2messages.amazonaws.com",
        Service::Events => "events.amazonaws.com",
        Service::Iam => "iam.amazonaws.com",
        Service::Kms => "kms.amazonaws.com",
        Service::Logs => "logs.amazonaws.com",
        Service::S3 => "s3.amazonaws.com",
        Service::Sns => "sns.amazonaws.com",
        Service::Sortie => "sortie.amazonaws.com",
        Service::Ssm => "ssm.amazonaws.com",
        Service::SsmMessages => "ssmmessages.amazonaws.com",
        Service::Sts => "sts.amazonaws.com",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_held_long_enough_and_not_too_long() {
        for _ in 0..1000 {
            let hold = poll_hold().as_millis();
            assert!((15_000..19_000).contains(&hold), "{hold}");
        }
    }
}
