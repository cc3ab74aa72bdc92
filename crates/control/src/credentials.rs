//! Temporary credentials of users, role sessions and nodes. The session token carries all that is
//! needed to check a call, sealed, so they survive restarts and are good on every server. Whether
//! those behind them are still there is looked up on each call, by unique id: who is made anew under
//! an old name does not inherit what was issued before.

use serde::{Deserialize, Serialize};
use sortie_types::{AccessKeyId, NodeId, Secret, Timestamp, UniqueId};

use crate::{
    call::TemporarySession,
    mint::{self, RandomError},
    seal::{NotSealed, Sealer},
};

/// The form of session tokens that is written.
const VERSION: u8 = 2;

/// Whose temporary credentials are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Holder {
    /// A managed node, which acts as a session of its role.
    #[serde(rename = "n")]
    Node {
        #[serde(rename = "n")]
        node_id: NodeId,
        /// The role by the name that the node was given.
        #[serde(rename = "r")]
        iam_role: String,
        /// The role itself. Tokens of the first form know only its name.
        #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
        role: Option<UniqueId>,
    },
    /// Somebody who assumed a role.
    #[serde(rename = "r")]
    Role {
        #[serde(rename = "i")]
        role: UniqueId,
        #[serde(rename = "s")]
        session_name: String,
    },
    /// An IAM user.
    #[serde(rename = "u")]
    User {
        #[serde(rename = "i")]
        user: UniqueId,
    },
}

/// What a session token holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "v")]
    version: u8,
    #[serde(rename = "k")]
    access_key_id: AccessKeyId,
    #[serde(rename = "s")]
    secret: String,
    #[serde(rename = "h")]
    holder: Holder,
    #[serde(rename = "t")]
    session: TemporarySession,
}

/// What it held in its first form, when only nodes had any. Those in use are opened until they are
/// over.
#[derive(Deserialize)]
struct SealedFirst {
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

/// Which form it is. The first one did not say.
#[derive(Deserialize)]
struct Form {
    #[serde(rename = "v", default)]
    version: Option<u8>,
}

/// Temporary credentials.
pub(crate) struct TemporaryCredentials {
    pub(crate) holder: Holder,
    pub(crate) access_key_id: AccessKeyId,
    pub(crate) secret: Secret,
    pub(crate) session: TemporarySession,
}

impl TemporaryCredentials {
    /// New ones.
    pub(crate) fn mint(holder: Holder, session: TemporarySession) -> Result<Self, RandomError> {
        Ok(Self {
            holder,
            access_key_id: mint::temporary_key()?,
            secret: mint::secret_access_key()?,
            session,
        })
    }

    /// The session token that goes with them.
    pub(crate) fn session_token(&self, sealer: &Sealer) -> Result<Secret, RandomError> {
        let sealed = Sealed {
            version: VERSION,
            access_key_id: self.access_key_id.clone(),
            secret: self.secret.expose().to_owned(),
            holder: self.holder.clone(),
            session: self.session.clone(),
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
        let form: Form = serde_json::from_slice(&plain).map_err(|_| NotSealed)?;
        match form.version {
            None => Self::of_first_form(&plain),
            Some(VERSION) => {
                let sealed: Sealed = serde_json::from_slice(&plain).map_err(|_| NotSealed)?;
                Ok(Self {
                    holder: sealed.holder,
                    access_key_id: sealed.access_key_id,
                    secret: Secret::new(sealed.secret),
                    session: sealed.session,
                })
            }
            Some(_) => Err(NotSealed),
        }
    }

    fn of_first_form(plain: &[u8]) -> Result<Self, NotSealed> {
        let sealed: SealedFirst = serde_json::from_slice(plain).map_err(|_| NotSealed)?;
        Ok(Self {
            holder: Holder::Node {
                node_id: sealed.node_id,
                iam_role: sealed.iam_role,
                role: None,
            },
            access_key_id: sealed.access_key_id,
            secret: Secret::new(sealed.secret),
            session: TemporarySession::new(sealed.issued, sealed.expires),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sortie_types::UniqueIdKind;

    use super::*;
    use crate::seal::{Purpose, RootKey};

    const ISSUED: Timestamp = Timestamp::from_millis(1_000_000);
    const EXPIRES: Timestamp = Timestamp::from_millis(2_000_000);

    fn sealer(byte: u8) -> Sealer {
        let root = RootKey::from_bytes([byte; 32]);
        root.derive(Purpose::Credentials).unwrap()
    }

    fn role_holder() -> Holder {
        Holder::Role {
            role: UniqueId::from_random(UniqueIdKind::Role, [1; 17]),
            session_name: "carol".into(),
        }
    }

    #[test]
    fn a_token_holds_what_it_was_made_of_for_its_own_key_alone() {
        let mut session = TemporarySession::new(ISSUED, EXPIRES);
        session.mfa = Some(ISSUED);
        session.policies = vec!["{}".into()];
        session.source_identity = Some("carol@example".into());
        let made = TemporaryCredentials::mint(role_holder(), session.clone()).unwrap();
        let token = made.session_token(&sealer(1)).unwrap();
        let opened = TemporaryCredentials::open(&sealer(1), &made.access_key_id, &token).unwrap();
        assert_eq!(opened.holder, role_holder());
        assert_eq!(opened.session, session);
        assert_eq!(opened.secret.expose(), made.secret.expose());
        let other = AccessKeyId::temporary([7; 16]);
        assert!(TemporaryCredentials::open(&sealer(1), &other, &token).is_err());
        assert!(TemporaryCredentials::open(&sealer(2), &made.access_key_id, &token).is_err());
    }

    #[test]
    fn tokens_of_the_first_form_are_a_nodes_and_unknown_forms_nobodys() {
        let key = AccessKeyId::temporary([7; 16]);
        let node_id = NodeId::from_random([3; 9]);
        let seal = |plain: serde_json::Value| {
            let plain = plain.to_string();
            let text = sealer(1).seal_text(key.as_str().as_bytes(), plain.as_bytes());
            Secret::new(text.unwrap())
        };
        let first =
            json!({"n": node_id, "r": "Nodes", "k": key, "s": "x", "i": ISSUED, "e": EXPIRES});
        let opened = TemporaryCredentials::open(&sealer(1), &key, &seal(first.clone())).unwrap();
        let iam_role = "Nodes".to_owned();
        assert_eq!(
            opened.holder,
            Holder::Node {
                node_id,
                iam_role,
                role: None
            }
        );
        assert_eq!(opened.session, TemporarySession::new(ISSUED, EXPIRES));
        let mut newer = first;
        newer["v"] = 3.into();
        assert!(TemporaryCredentials::open(&sealer(1), &key, &seal(newer)).is_err());
    }
}
