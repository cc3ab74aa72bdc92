//! Temporary credentials of nodes. The session token carries all that is needed to check a call,
//! sealed, so they survive restarts and are good on every server; the node's state is still looked
//! up on each call.

use serde::{Deserialize, Serialize};
use sortie_types::{AccessKeyId, NodeId, Secret, Timestamp};

use crate::{
    mint::{self, RandomError},
    seal::{NotSealed, Sealer},
};

/// What a session token holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "n")]
    node_id: NodeId,
    #[serde(rename = "r")]
    iam_role: String,
    #[serde(rename = "k")]
    access_key_id: AccessKeyId,
    #[serde(rename = "s")]
    secret: String,
    #[serde(rename = "i")]
    issued: Timestamp,
    #[serde(rename = "e")]
    expires: Timestamp,
}

/// Temporary credentials of a node.
pub(crate) struct NodeCredentials {
    pub(crate) node_id: NodeId,
    pub(crate) iam_role: String,
    pub(crate) access_key_id: AccessKeyId,
    pub(crate) secret: Secret,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
}

impl NodeCredentials {
    /// New ones.
    pub(crate) fn mint(
        node_id: NodeId,
        iam_role: String,
        issued: Timestamp,
        expires: Timestamp,
    ) -> Result<Self, RandomError> {
        Ok(Self {
            node_id,
            iam_role,
            access_key_id: mint::temporary_key()?,
            secret: mint::secret_access_key()?,
            issued,
            expires,
        })
    }

    /// The session token that goes with them.
    pub(crate) fn session_token(&self, sealer: &Sealer) -> Result<Secret, RandomError> {
        let sealed = Sealed {
            node_id: self.node_id.clone(),
            iam_role: self.iam_role.clone(),
            access_key_id: self.access_key_id.clone(),
            secret: self.secret.expose().to_owned(),
            issued: self.issued,
            expires: self.expires,
        };
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(&sealed).map_err(|_| RandomError)?);
        let place = self.access_key_id.as_str().as_bytes();
        sealer.seal_text(place, &plain).map(Secret::new)
    }

    /// The credentials in a session token presented with `access_key_id`.
    pub(crate) fn open(
        sealer: &Sealer,
        access_key_id: &AccessKeyId,
        session_token: &Secret,
    ) -> Result<Self, NotSealed> {
        let plain = sealer.open_text(access_key_id.as_str().as_bytes(), session_token.expose())?;
        let sealed: Sealed = serde_json::from_slice(&plain).map_err(|_| NotSealed)?;
        Ok(Self {
            node_id: sealed.node_id,
            iam_role: sealed.iam_role,
            access_key_id: sealed.access_key_id,
            secret: Secret::new(sealed.secret),
            issued: sealed.issued,
            expires: sealed.expires,
        })
    }
}
