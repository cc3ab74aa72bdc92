//! Signed calls of AWS operations, repeated as AWS's SDKs repeat them. What an operation's input
//! and output look like is `sortie-wire`'s, how a request travels is in `transport`.

use std::sync::Arc;

use sortie_wire::{
    Operation,
    call::{Message, encode_request},
};

use crate::{
    ApiError, CallError, ClientConfig, Tls,
    clock::wall,
    credentials::{CredentialCache, MfaPrompt},
    transport::{Transport, wait_before_retry},
};

/// Error codes after which fetched credentials are fetched anew.
const EXPIRED_CODES: [&str; 2] = ["ExpiredToken", "ExpiredTokenException"];

/// A client of the operations that Sortie speaks. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    credentials: CredentialCache,
    tls: Tls,
}

impl Api {
    /// A client with these settings that asks nobody for MFA codes. Nothing is dialled yet.
    ///
    /// # Errors
    /// When the certificate authorities cannot be read.
    pub fn new(config: &ClientConfig) -> Result<Self, ApiError> {
        Self::with_prompt(config, None)
    }

    /// A client that asks `prompt` for the codes of MFA devices that its profile names.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_prompt(
        config: &ClientConfig,
        prompt: Option<Arc<dyn MfaPrompt>>,
    ) -> Result<Self, ApiError> {
        let tls = Tls::new(config.ca_bundle())?;
        let transport = Transport::new(config, &tls)?;
        let credentials =
            CredentialCache::new(config.credentials().clone(), transport.clone(), prompt);
        Ok(Self {
            inner: Arc::new(Inner {
                transport,
                credentials,
                tls,
            }),
        })
    }

    /// The trust that this client uses, for data channels.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.inner.tls
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        self.inner.transport.config()
    }

    /// Calls an operation. Tried again, with growing waits, while the trouble is the network's or
    /// the server's.
    ///
    /// # Errors
    /// As [`CallError`] says.
    pub async fn call<O: Operation>(&self, input: &O::Input) -> Result<O::Output, CallError> {
        let message = encode_request::<O>(input);
        let mut attempt = 1;
        loop {
            let error = match self.try_once::<O>(&message).await {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            let expired = error
                .code()
                .is_some_and(|code| EXPIRED_CODES.contains(&code));
            if expired {
                self.inner.credentials.forget();
            }
            let more = attempt < self.config().max_attempts();
            if !more || !(error.is_transient() || expired) {
                return Err(error);
            }
            wait_before_retry(attempt).await;
            attempt += 1;
        }
    }

    /// Calls an operation that needs no signature, once: what proves the caller, such as an MFA
    /// code, may be good for one try only.
    ///
    /// # Errors
    /// As [`CallError`] says.
    pub async fn call_unsigned<O: Operation>(
        &self,
        input: &O::Input,
    ) -> Result<O::Output, CallError> {
        let message = encode_request::<O>(input);
        self.inner.transport.send_once::<O>(&message, None).await
    }

    async fn try_once<O: Operation>(&self, message: &Message) -> Result<O::Output, CallError> {
        let credentials = self.inner.credentials.credentials(wall()).await?;
        self.inner
            .transport
            .send_once::<O>(message, Some(&credentials))
            .await
    }
}
