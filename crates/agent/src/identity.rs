//! The node's identity towards the server: keeps its role credentials fresh, and rotates its key.
//!
//! Credentials live in memory only. A new key is written beside the old one before it is offered; the
//! old one goes when the server has the new one. If the answer was lost, the next token request is tried
//! with the new key first: a server that still accepts both would otherwise leave it open.

use std::{sync::Arc, time::Duration};

use sortie_types::Timestamp;
use sortie_wire::{
    shapes::node::{
        PublicKeyType, RequestManagedInstanceRoleToken, RequestManagedInstanceRoleTokenRequest,
        RequestManagedInstanceRoleTokenResponse, UpdateManagedInstancePublicKey,
        UpdateManagedInstancePublicKeyRequest,
    },
    sigv4::Credentials,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, CallError, Signer},
    backoff::Backoff,
    clock,
    data_dir::{DataDir, read_if_present},
    key::NodeKey,
    log::chain,
    os,
    registration::Registration,
};

const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a server that refuses this node is asked again.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// The shortest time between two requests when all goes well, whatever the server says of expiry.
const SHORTEST_LIFE: Duration = Duration::from_secs(5);
/// A rotation that failed is not tried again before.
const ROTATION_PAUSE: Duration = Duration::from_secs(3600);

/// Where other parts get the role credentials from.
#[derive(Clone)]
pub(crate) struct RoleCredentials {
    current: watch::Receiver<Option<Arc<Credentials>>>,
    renew: Arc<Notify>,
}

impl RoleCredentials {
    /// The present credentials; waits for the first ones. `None` when the agent is stopping.
    pub(crate) async fn current(&self) -> Option<Arc<Credentials>> {
        let mut current = self.current.clone();
        current.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Says that the server does not take the present ones.
    pub(crate) fn renew(&self) {
        self.renew.notify_one();
    }
}

/// The keeper of the node's identity.
pub(crate) struct Identity {
    api: Api,
    data_dir: DataDir,
    registration: Registration,
    key: NodeKey,
    /// How old a key may get.
    rotate_after: Option<Duration>,
    last_rotation: Option<Timestamp>,
    publish: watch::Sender<Option<Arc<Credentials>>>,
    renew: Arc<Notify>,
}

/// Why a key was not rotated; the old one stays in use.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Key(#[from] crate::key::KeyError),
    #[error("cannot write the key")]
    Io(#[from] std::io::Error),
    #[error("making the key was interrupted")]
    Interrupted,
}

impl Identity {
    pub(crate) fn new(
        api: Api,
        data_dir: DataDir,
        registration: Registration,
        key: NodeKey,
        rotate_after: Option<Duration>,
    ) -> (Self, RoleCredentials) {
        let (publish, current) = watch::channel(None);
        let renew = Arc::new(Notify::new());
        let credentials = RoleCredentials {
            current,
            renew: Arc::clone(&renew),
        };
        let last_rotation = None;
        let identity = Self {
            api,
            data_dir,
            registration,
            key,
            rotate_after,
            last_rotation,
            publish,
            renew,
        };
        (identity, credentials)
    }

    /// Keeps the credentials fresh until `stop`.
    pub(crate) async fn keep(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(500), LONGEST_WAIT);
        loop {
            let wait = match self.refresh().await {
                Ok(wait) => {
                    backoff.reset();
                    wait
                }
                Err(error) => {
                    let wait = if error.is_refusal() {
                        REFUSED_WAIT
                    } else {
                        backoff.next_wait()
                    };
                    tracing::warn!(
                        error = chain(&error),
                        next_try_s = wait.as_secs(),
                        "cannot get the node's credentials"
                    );
                    wait
                }
            };
            let renewed = async {
                self.renew.notified().await;
                // Whoever is refused asks again at once; the server is not to be flooded with it.
                tokio::time::sleep(SHORTEST_LIFE).await;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = renewed => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Gets new credentials, rotates the key where that is due, and says when to come again.
    async fn refresh(&mut self) -> Result<Duration, CallError> {
        self.settle().await;
        let token = self.request_token(&self.key).await?;
        let life = token.token_expiration_date.since(clock::wall());
        self.publish.send_replace(Some(Arc::new(Credentials {
            access_key_id: token.access_key_id.clone(),
            secret_access_key: token.secret_access_key.clone(),
            session_token: Some(token.session_token.clone()),
        })));
        if self.is_rotation_due(token.update_key_pair) {
            match self.rotate().await {
                Ok(()) => tracing::info!("the node's key was rotated"),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot rotate the node's key");
                }
            }
        }
        Ok((life / 2).max(SHORTEST_LIFE))
    }

    async fn request_token(
        &self,
        key: &NodeKey,
    ) -> Result<RequestManagedInstanceRoleTokenResponse, CallError> {
        let request = RequestManagedInstanceRoleTokenRequest {
            fingerprint: self.registration.fingerprint.clone(),
        };
        let signer = Signer::Node(&self.registration.node_id, key);
        self.api
            .call::<RequestManagedInstanceRoleToken>(signer, &request)
            .await
    }

    fn is_rotation_due(&self, wanted_by_server: bool) -> bool {
        let now = clock::wall();
        let is_old = self
            .rotate_after
            .is_some_and(|limit| now.since(self.registration.key_made) >= limit);
        let has_paused = self
            .last_rotation
            .is_none_or(|last| now.since(last) >= ROTATION_PAUSE);
        (wanted_by_server || is_old) && has_paused
    }

    async fn rotate(&mut self) -> Result<(), RotateError> {
        self.last_rotation = Some(clock::wall());
        let next = tokio::task::spawn_blocking(NodeKey::generate)
            .await
            .map_err(|_| RotateError::Interrupted)??;
        os::write_private(&self.data_dir.next_key(), next.to_pem()?.as_bytes())?;
        let request = UpdateManagedInstancePublicKeyRequest {
            new_public_key: next.public_key()?,
            new_public_key_type: PublicKeyType::RSA,
        };
        let signer = Signer::Node(&self.registration.node_id, &self.key);
        self.api
            .call::<UpdateManagedInstancePublicKey>(signer, &request)
            .await?;
        self.adopt(next)?;
        // Until it is used once, the server takes the old key too.
        self.request_token(&self.key).await?;
        Ok(())
    }

    /// Finds out, after a rotation whose outcome is unknown, which key the server has.
    async fn settle(&mut self) {
        let Ok(Some(pem)) = read_if_present(&self.data_dir.next_key()) else {
            return;
        };
        let Ok(next) = NodeKey::from_pem(&zeroize::Zeroizing::new(pem)) else {
            // Written whole or not at all, so this is no key of ours.
            return self.forget_next();
        };
        match self.request_token(&next).await {
            Ok(_) => {
                if let Err(error) = self.adopt(next) {
                    tracing::warn!(%error, "cannot keep the node's new key");
                }
            }
            Err(error) if error.is_refusal() && self.request_token(&self.key).await.is_ok() => {
                self.forget_next();
            }
            // Neither is known to be right: keep both.
            Err(_) => {}
        }
    }

    fn adopt(&mut self, next: NodeKey) -> std::io::Result<()> {
        std::fs::rename(self.data_dir.next_key(), self.data_dir.key())?;
        self.key = next;
        self.registration.key_made = clock::wall();
        self.registration.save(&self.data_dir)
    }

    fn forget_next(&self) {
        if let Err(error) = std::fs::remove_file(self.data_dir.next_key()) {
            tracing::warn!(%error, "cannot remove a key that was not accepted");
        }
    }
}
