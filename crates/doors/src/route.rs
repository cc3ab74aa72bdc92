//! What a request is for, by its head (and, for forms, its fields) alone. Pure. The order of the
//! rules is part of the contract with nodes and SDKs: a service's own host, the signature's scope
//! `s3`, the channels' paths, target or action, our own paths, nothing.

use http::Method;
use sortie_wire::{Form, Service};

use crate::request::Received;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A channel of a node or client; the path's last part names it.
    Channel(Channel),
    /// A form; the body says which action.
    Form {
        /// Given by the host.
        service: Option<Service>,
    },
    /// Is the server well?
    Health,
    /// A JSON service's operation.
    Json {
        /// Which service.
        service: Service,
        /// Which operation; perhaps none that exists.
        operation: String,
    },
    /// Nothing that is here.
    NotFound,
    /// A service that this installation does not offer.
    NotOffered(Service),
}

/// The four ways to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    CreateControl,
    CreateData,
    OpenControl,
    OpenData,
}

/// Finds the route of a request.
pub(crate) fn route(received: &Received, domain: Option<&str>) -> Route {
    let own = received
        .host()
        .and_then(|host| service_of_host(host, domain?));
    match own.or_else(|| scope_of(received).filter(|service| *service == Service::S3)) {
        Some(Service::S3) => return Route::NotOffered(Service::S3),
        Some(service) => return on_own_host(received, service),
        None => {}
    }
    channel(received)
        .or_else(|| target(received))
        .or_else(|| form(received, None))
        .unwrap_or_else(|| own_path(received))
}

/// `<service>.<region>.<domain>`, perhaps with a port.
fn service_of_host(host: &str, domain: &str) -> Option<Service> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.to_ascii_lowercase();
    let rest = name
        .strip_suffix(&domain.to_ascii_lowercase())?
        .strip_suffix('.')?;
    let (service, region) = rest.split_once('.')?;
    if region.is_empty() || region.contains('.') {
        return None;
    }
    Service::from_signing_name(service)
}

/// The service in the credential scope, unverified: enough to route by.
fn scope_of(received: &Received) -> Option<Service> {
    let in_header = received
        .header("authorization")
        .and_then(|text| text.split_once("Credential="))
        .map(|(_, rest)| rest.split(',').next().unwrap_or_default().to_owned());
    let credential = in_header.or_else(|| {
        let form = Form::parse(received.query.as_bytes()).ok()?;
        form.get("X-Amz-Credential").map(str::to_owned)
    })?;
    Service::from_signing_name(credential.trim().split('/').nth(3)?)
}

fn on_own_host(received: &Received, service: Service) -> Route {
    match service {
        Service::Ssm | Service::SsmMessages => {}
        Service::Sts => return form(received, Some(service)).unwrap_or(Route::NotFound),
        Service::CloudTrail | Service::Ec2Messages | Service::Sortie => {
            return target_of(received, service).unwrap_or(Route::NotFound);
        }
        _ => return Route::NotOffered(service),
    }
    // The host of a stream URL is the one that StartSession was sent to.
    channel(received)
        .or_else(|| target_of(received, Service::Ssm))
        .unwrap_or(Route::NotFound)
}

/// On a service's own host another service's target is an operation that the service lacks.
fn target_of(received: &Received, service: Service) -> Option<Route> {
    match target(received)? {
        Route::Json {
            service: named,
            operation,
        } if named == service => Some(Route::Json { service, operation }),
        _ => Some(Route::Json {
            service,
            operation: String::new(),
        }),
    }
}

fn channel(received: &Received) -> Option<Route> {
    let open = received.method == Method::GET;
    let create = received.method == Method::POST;
    let (rest, opening, creating) =
        if let Some(rest) = received.path.strip_prefix("/v1/control-channel/") {
            (rest, Channel::OpenControl, Channel::CreateControl)
        } else {
            let rest = received.path.strip_prefix("/v1/data-channel/")?;
            (rest, Channel::OpenData, Channel::CreateData)
        };
    Some(match (open, create) {
        _ if rest.is_empty() || rest.contains('/') => Route::NotFound,
        (true, _) => Route::Channel(opening),
        (_, true) => Route::Channel(creating),
        _ => Route::NotFound,
    })
}

fn target(received: &Received) -> Option<Route> {
    let target = received.header("x-amz-target")?;
    if received.method != Method::POST {
        return None;
    }
    Some(match Service::from_target(target) {
        Some((service, operation)) => Route::Json {
            service,
            operation: operation.to_owned(),
        },
        // A service that nobody here has heard of still deserves a JSON answer.
        None => Route::Json {
            service: Service::Ssm,
            operation: String::new(),
        },
    })
}

fn form(received: &Received, service: Option<Service>) -> Option<Route> {
    let in_query = || {
        received
            .query
            .split('&')
            .any(|pair| pair.starts_with("Action="))
    };
    let is_form = match received.method {
        Method::POST => received.is_form() || in_query(),
        Method::GET => in_query(),
        _ => false,
    };
    is_form.then_some(Route::Form { service })
}

fn own_path(received: &Received) -> Route {
    let reading = received.method == Method::GET || received.method == Method::HEAD;
    match received.path.as_str() {
        "/health" if reading => Route::Health,
        _ => Route::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::extract::Request;

    use super::*;
    use crate::{Connection, Listener};

    const DOMAIN: &str = "sortie.example";

    fn received(method: &str, uri: &str, headers: &[(&str, &str)]) -> Received {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let connection = Connection::new("127.0.0.1:9".parse().unwrap(), None, Arc::new(()));
        Received::new(parts, connection, Listener { tls: true }, &[])
    }

    fn routed(method: &str, uri: &str, headers: &[(&str, &str)]) -> Route {
        route(&received(method, uri, headers), Some(DOMAIN))
    }

    fn scope(service: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIA/20260504/local-1/{service}/aws4_request, SignedHeaders=host, Signature=00"
        )
    }

    fn json(service: Service, operation: &str) -> Route {
        Route::Json {
            service,
            operation: operation.to_owned(),
        }
    }

    #[test]
    fn a_services_own_host_decides_first() {
        let target = ("x-amz-target", "AmazonSSM.StartSession");
        let ssm = ("host", "ssm.local-1.sortie.example:8443");
        assert_eq!(
            routed("POST", "/", &[ssm, target]),
            json(Service::Ssm, "StartSession")
        );
        let kms = ("host", "KMS.local-1.Sortie.Example");
        assert_eq!(
            routed("POST", "/", &[kms, target]),
            Route::NotOffered(Service::Kms)
        );
        let sts = ("host", "sts.local-1.sortie.example");
        assert_eq!(routed("POST", "/", &[sts, target]), Route::NotFound);
        let trail = ("host", "cloudtrail.local-1.sortie.example");
        assert_eq!(
            routed("POST", "/", &[trail, target]),
            json(Service::CloudTrail, "")
        );
        let messages = ("host", "ssmmessages.local-1.sortie.example");
        assert_eq!(
            routed("POST", "/v1/control-channel/mi-0", &[messages]),
            Route::Channel(Channel::CreateControl)
        );
        for host in [
            "sortie.example",
            "ssm.sortie.example",
            "a.ssm.local-1.sortie.example",
        ] {
            assert_eq!(
                routed("POST", "/", &[("host", host), target]),
                json(Service::Ssm, "StartSession")
            );
        }
    }

    #[test]
    fn scope_s3_wins_over_every_path() {
        let authorization = scope("s3");
        let signed = ("authorization", authorization.as_str());
        for path in ["/", "/health", "/v1/data-channel/x"] {
            assert_eq!(
                routed("GET", path, &[signed]),
                Route::NotOffered(Service::S3),
                "{path}"
            );
        }
        let presigned = "/b/k?X-Amz-Credential=AKIA%2F20260504%2Flocal-1%2Fs3%2Faws4_request";
        assert_eq!(
            routed("GET", presigned, &[]),
            Route::NotOffered(Service::S3)
        );
    }

    #[test]
    fn channels_are_found_by_path_and_method() {
        assert_eq!(
            routed(
                "GET",
                "/v1/data-channel/admin-0?role=publish_subscribe",
                &[]
            ),
            Route::Channel(Channel::OpenData)
        );
        assert_eq!(
            routed(
                "GET",
                "/v1/control-channel/mi-0",
                &[("x-amz-target", "AmazonSSM.StartSession")]
            ),
            Route::Channel(Channel::OpenControl)
        );
        assert_eq!(
            routed("PUT", "/v1/data-channel/admin-0", &[]),
            Route::NotFound
        );
    }

    #[test]
    fn targets_and_actions_are_found_on_any_path() {
        let target = ("x-amz-target", "AmazonSSM.StartSession");
        assert_eq!(
            routed("POST", "/prefix/", &[target]),
            json(Service::Ssm, "StartSession")
        );
        assert_eq!(
            routed("POST", "/", &[("x-amz-target", "Nobody.Knows")]),
            json(Service::Ssm, "")
        );
        let form = (
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        );
        assert_eq!(routed("POST", "/", &[form]), Route::Form { service: None });
        assert_eq!(
            routed("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", &[]),
            Route::Form { service: None }
        );
    }

    #[test]
    fn a_state_change_needs_post() {
        assert_eq!(
            routed("GET", "/", &[("x-amz-target", "AmazonSSM.StartSession")]),
            Route::NotFound
        );
    }

    #[test]
    fn everything_else_is_health_or_nothing() {
        assert_eq!(routed("GET", "/health", &[]), Route::Health);
        assert_eq!(routed("POST", "/health", &[]), Route::NotFound);
        assert_eq!(routed("GET", "/", &[]), Route::NotFound);
        assert_eq!(routed("GET", "/console/", &[]), Route::NotFound);
    }
}
