//! The server's HTTP: finds out what a request is for, who sent it and whether it is well formed,
//! hands it to `control` or `gateway`, and writes the answer in the form that the caller's SDK or
//! the official node program expects. What an operation does is `control`'s; what happens on a
//! websocket after its upgrade is `gateway`'s; sockets and TLS are the server's.
//!
//! One wrapper serves every operation: authenticate, parse, operate, answer. An operation's answer
//! can only be made of a `Recorded`, which `control` alone makes, and every other end of a call
//! passes the one place that records failures. So no call leaves without its audit record.

mod answer;
mod authenticate;
mod channels;
mod errors;
mod operations;
mod perform;
mod proxies;
mod request;
mod route;

use std::{any::Any, fmt, net::SocketAddr, sync::Arc};

use axum::{Router, extract::Request, response::Response};
use sortie_control::Control;
use sortie_gateway::Gateway;
use sortie_types::Region;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use request::Bodies;

pub use operations::{OperationEntry, Who, operations};
pub use proxies::{Network, ParseNetworkError};

/// What the doors must be told.
#[derive(Clone, Debug)]
pub struct DoorOptions {
    /// Scheme and host that stand in stream URLs, without a slash at the end; `None`: those that
    /// the caller used.
    pub public_url: Option<String>,
    /// Largest request body, in bytes.
    pub body_limit: usize,
    /// `<service>.<region>.<domain>` are hosts of single services.
    pub domain: Option<String>,
    /// Regions that callers may sign for, besides the installation's.
    pub accepted_regions: Vec<Region>,
    /// Proxies that are believed where a request comes from.
    pub trusted_proxies: Vec<Network>,
}

impl Default for DoorOptions {
    fn default() -> Self {
        Self {
            public_url: None,
            body_limit: 4 << 20,
            domain: None,
            accepted_regions: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// By which kind of listener requests come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// HTTPS and wss, or plain.
    pub tls: bool,
}

/// What TLS agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsDetails {
    /// Such as `TLSv1.3`.
    pub version: Option<String>,
    /// Such as `TLS_AES_128_GCM_SHA256`.
    pub cipher_suite: Option<String>,
}

/// The connection that a request came over. The server puts one into each request's extensions.
#[derive(Clone)]
pub struct Connection {
    peer: SocketAddr,
    tls: Option<TlsDetails>,
    _held: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection from `peer`. `held` is kept until the connection's last user is gone, also
    /// after an upgrade: the server's permit for it.
    #[must_use]
    pub fn new(
        peer: SocketAddr,
        tls: Option<TlsDetails>,
        held: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            peer,
            tls,
            _held: held,
        }
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What TLS agreed on; `None` on plain HTTP.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsDetails> {
        self.tls.as_ref()
    }
}

/// All doors. Cheap to clone.
#[derive(Clone)]
pub struct Doors {
    house: Arc<House>,
}

/// What every request needs.
struct House {
    control: Control,
    gateway: Gateway,
    options: DoorOptions,
    bodies: Bodies,
    turns: channels::Turns,
    /// Cancelled when held requests must be answered and no channel opened.
    stop: CancellationToken,
    /// Calls and channels under way.
    tasks: TaskTracker,
}

impl Doors {
    /// Doors to this control and this gateway.
    #[must_use]
    pub fn new(control: Control, gateway: Gateway, options: DoorOptions) -> Self {
        Self {
            house: Arc::new(House {
                control,
                gateway,
                bodies: Bodies::new(options.body_limit),
                options,
                turns: channels::Turns::default(),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// The routes, for one kind of listener. Every request must carry a [`Connection`].
    pub fn router(&self, via: Listener) -> Router {
        let house = Arc::clone(&self.house);
        Router::new().fallback(move |request: Request| {
            let house = Arc::clone(&house);
            async move { house.serve(via, request).await }
        })
    }

    /// Answers held requests now and opens no more channels.
    pub fn stop(&self) {
        self.house.stop.cancel();
        self.house.tasks.close();
    }

    /// Returns when, after [`Doors::stop`], the last call and channel has ended.
    pub async fn drained(&self) {
        self.house.tasks.wait().await;
    }
}

impl House {
    async fn serve(self: Arc<Self>, via: Listener, request: Request) -> Response {
        perform::serve(self, via, request).await
    }
}
