//! A request as it came in: raw path, raw query, headers in order, and the body read with a limit.
//! Nothing is decoded or normalised here, because the caller signed the raw text.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, header, request::Parts};
use http_body_util::BodyExt;
use sortie_types::Timestamp;
use sortie_wire::sigv4::RequestParts;
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use crate::{
    Connection, Listener,
    proxies::{self, Network, Origin},
};

/// How long a body may take. Longer than an honest slow line needs for the largest body.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Real inputs are smaller than this, as a rule.
const SMALL: usize = 64 << 10;

/// How many larger bodies may be on their way in at once.
const LARGE_BODIES: usize = 64;

/// How many of them may come from one source, so that none keeps all others waiting.
const LARGE_BODIES_OF_ONE: usize = 16;

/// Sources that are remembered, until those with nothing on its way are forgotten.
const SOURCES: usize = 1024;

/// User agents are shortened when they are recorded; nothing needs more than this before.
const USER_AGENT_LIMIT: usize = 4096;

/// A request without its body.
pub(crate) struct Received {
    pub(crate) request_id: Uuid,
    pub(crate) now: Timestamp,
    pub(crate) method: Method,
    /// As received.
    pub(crate) path: String,
    /// As received, without the question mark.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) connection: Connection,
    pub(crate) via: Listener,
    origin: Origin,
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It did not come in time, or broke off.
    Incomplete,
    /// It is larger than the limit.
    TooLarge,
}

impl Received {
    pub(crate) fn new(
        parts: Parts,
        connection: Connection,
        via: Listener,
        trusted: &[Network],
    ) -> Self {
        let peer = connection.peer().ip();
        Self {
            origin: proxies::origin(peer, via.tls, &parts.headers, trusted),
            request_id: Uuid::new_v4(),
            now: now(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            method: parts.method,
            headers: parts.headers,
            connection,
            via,
        }
    }

    /// A header's value, if it is there and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The `Host` header, if it could stand in a URL.
    pub(crate) fn host(&self) -> Option<&str> {
        let of_a_host = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        self.header(header::HOST.as_str())
            .filter(|host| !host.is_empty() && host.bytes().all(of_a_host))
    }

    pub(crate) fn source_ip(&self) -> String {
        self.source().to_canonical().to_string()
    }

    /// The address that the request comes from.
    pub(crate) fn source(&self) -> IpAddr {
        self.origin.source
    }

    /// Whether the request came encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.origin.encrypted
    }

    /// The page that a browser came from.
    pub(crate) fn referer(&self) -> Option<String> {
        let text = self.header(header::REFERER.as_str())?;
        Some(text.chars().take(USER_AGENT_LIMIT).collect())
    }

    pub(crate) fn user_agent(&self) -> Option<String> {
        let text = self.header(header::USER_AGENT.as_str())?;
        Some(text.chars().take(USER_AGENT_LIMIT).collect())
    }

    /// Whether the body is said to be a form.
    pub(crate) fn is_form(&self) -> bool {
        self.header(header::CONTENT_TYPE.as_str())
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
    }

    /// What the signature is computed over, besides the body.
    pub(crate) fn with_parts<R>(&self, use_them: impl FnOnce(&RequestParts<'_>) -> R) -> R {
        let headers: Vec<(&str, &[u8])> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        use_them(&RequestParts {
            method: self.method.as_str(),
            path: &self.path,
            query: &self.query,
            headers: &headers,
        })
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How bodies are read. Nothing of a body is verified while it comes in, so all of them together
/// must stay bounded, not each alone.
pub(crate) struct Bodies {
    limit: usize,
    /// One permit a body that grew beyond [`SMALL`].
    large: Semaphore,
    /// The same for each source.
    shares: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

impl Bodies {
    /// Bodies of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            large: Semaphore::new(LARGE_BODIES),
            shares: Mutex::default(),
        }
    }

    /// What one source may have on its way in.
    fn share(&self, source: IpAddr) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= SOURCES {
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let new = || Arc::new(Semaphore::new(LARGE_BODIES_OF_ONE));
        Arc::clone(shares.entry(site(source)).or_insert_with(new))
    }

    /// Reads a body that comes from `source`, with or without a declared length.
    pub(crate) async fn read(&self, body: Body, source: IpAddr) -> Result<Bytes, BodyError> {
        timeout(BODY_TIME, self.read_up_to(body, source))
            .await
            .unwrap_or(Err(BodyError::Incomplete))
    }

    async fn read_up_to(&self, mut body: Body, source: IpAddr) -> Result<Bytes, BodyError> {
        let mut read = BytesMut::new();
        let mut permits = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| BodyError::Incomplete)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let size = read.len() + data.len();
            if size > self.limit {
                discard(body, self.limit).await;
                return Err(BodyError::TooLarge);
            }
            if size > SMALL && permits.is_none() {
                // The source's own first: who waits for that must not stand in the way of others.
                let own = self.share(source).acquire_owned().await.ok();
                permits = Some((own, self.large.acquire().await.ok()));
            }
            read.extend_from_slice(data);
        }
        Ok(read.freeze())
    }
}

/// The address, or what of it is not its owner's to choose.
fn site(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Lets a caller who sends somewhat too much finish, so that it reads the answer instead of a
/// reset connection.
async fn discard(mut body: Body, limit: usize) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > limit {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use http_body_util::Full;
    use hyper::body::Frame;
    use tokio::task::JoinSet;

    use super::*;

    /// A body that begins and does not go on.
    struct Stuck(Option<Bytes>);

    impl hyper::body::Body for Stuck {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.take().map_or(Poll::Pending, |bytes| {
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_source_does_not_keep_the_large_bodies_of_others_waiting() {
        let bodies = Arc::new(Bodies::new(1 << 20));
        let large = || Bytes::from(vec![b'x'; 2 * SMALL]);
        let mut slow = JoinSet::new();
        // Addresses that one machine may give itself.
        for number in 0..4 * LARGE_BODIES as u128 {
            let bodies = Arc::clone(&bodies);
            let source = Ipv6Addr::from_bits(0x2001_0db8 << 96 | number);
            let body = Body::new(Stuck(Some(large())));
            slow.spawn(async move { bodies.read(body, source.into()).await });
        }
        while bodies.large.available_permits() == LARGE_BODIES {
            tokio::task::yield_now().await;
        }
        let other = Ipv6Addr::from_bits(0x2001_0db9 << 96).into();
        let begun = tokio::time::Instant::now();
        let read = bodies.read(Body::new(Full::new(large())), other).await;
        assert_eq!(read.unwrap().len(), 2 * SMALL);
        assert!(begun.elapsed() < BODY_TIME);
        while let Some(read) = slow.join_next().await {
            assert_eq!(read.unwrap(), Err(BodyError::Incomplete));
        }
        assert_eq!(bodies.large.available_permits(), LARGE_BODIES);
    }
}
