//! The tokens that open channels, and the cursors of listings. Both are sealed: whoever holds one
//! can neither read nor change it.
//!
//! A channel token is the text `SRT1.` and URL-safe base64 of the sealed bytes
//! `version (1) ‖ kind (1) ‖ epoch (8) ‖ expiry in ms, or i64::MAX (8) ‖ client (16) ‖ name`,
//! numbers big-endian. With the longest session id it has 236 characters, within the 300 that
//! AWS's model allows.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Serialize, de::DeserializeOwned};
use sortie_types::{Secret, Timestamp};

use crate::{
    mint::RandomError,
    seal::{NotSealed, Sealer},
};

/// What every channel token of ours starts with. Our client sends what only our gateway
/// understands to nobody else.
const PREFIX: &str = "SRT1.";

const VERSION: u8 = 1;

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// The client's side of a session.
    Client,
    /// The client's side again, for the client it was given to, as long as the session lives.
    ClientTicket,
    /// A node's control channel.
    Control,
    /// The node's side of a session.
    Node,
    /// The node's side again, as long as the session lives.
    NodeTicket,
}

impl TokenKind {
    const ALL: [(Self, u8); 5] = [
        (Self::Control, 1),
        (Self::Client, 2),
        (Self::Node, 3),
        (Self::ClientTicket, 4),
        (Self::NodeTicket, 5),
    ];

    fn byte(self) -> u8 {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or(0, |(_, byte)| *byte)
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == byte)
            .map(|(kind, _)| *kind)
    }
}

/// What is inside a channel token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelToken {
    pub(crate) kind: TokenKind,
    /// Session id, or node id of a control channel.
    pub(crate) name: String,
    /// Superseded when the session's epoch of this side is greater.
    pub(crate) epoch: i64,
    /// Not usable from then on.
    pub(crate) expires: Option<Timestamp>,
    /// Digest of the client id that a ticket is bound to; zeros in other tokens.
    pub(crate) client: [u8; 16],
}

impl ChannelToken {
    /// The token as text.
    pub(crate) fn seal(&self, sealer: &Sealer) -> Result<Secret, RandomError> {
        let expires = self.expires.map_or(i64::MAX, Timestamp::millis);
        let mut plain = vec![VERSION, self.kind.byte()];
        plain.extend(self.epoch.to_be_bytes());
        plain.extend(expires.to_be_bytes());
        plain.extend(self.client);
        plain.extend(self.name.as_bytes());
        Ok(Secret::new(format!(
            "{PREFIX}{}",
            sealer.seal_text(b"", &plain)?
        )))
    }

    /// Reads a token that somebody presents.
    pub(crate) fn open(sealer: &Sealer, presented: &Secret) -> Result<Self, NotSealed> {
        let text = presented.expose().strip_prefix(PREFIX).ok_or(NotSealed)?;
        let plain = sealer.open_text(b"", text)?;
        Self::decode(&plain).ok_or(NotSealed)
    }

    fn decode(plain: &[u8]) -> Option<Self> {
        let ([version, kind], rest) = plain.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (client, name) = rest.split_first_chunk()?;
        if *version != VERSION {
            return None;
        }
        let expires = i64::from_be_bytes(*expires);
        Some(Self {
            kind: TokenKind::of(*kind)?,
            name: std::str::from_utf8(name).ok()?.to_owned(),
            epoch: i64::from_be_bytes(*epoch),
            expires: (expires != i64::MAX).then(|| Timestamp::from_millis(expires)),
            client: *client,
        })
    }

    /// Whether its time is over.
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

/// What a ticket is bound to instead of the client id itself, whose length is a stranger's choice.
pub(crate) fn client_binding(client_id: &str) -> [u8; 16] {
    let mut binding = [0; 16];
    let digest = digest(&SHA256, client_id.as_bytes());
    for (to, from) in binding.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    binding
}

/// A `NextToken` that somebody made up, changed, or took from another operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidNextToken;

/// A cursor as `NextToken` of `operation`.
pub(crate) fn next_token<C: Serialize>(
    sealer: &Sealer,
    operation: &str,
    cursor: &C,
) -> Result<String, RandomError> {
    let plain = serde_json::to_vec(cursor).map_err(|_| RandomError)?;
    sealer.seal_text(operation.as_bytes(), &plain)
}

/// The cursor in a `NextToken` of `operation`.
pub(crate) fn cursor<C: DeserializeOwned>(
    sealer: &Sealer,
    operation: &str,
    token: Option<&str>,
) -> Result<Option<C>, InvalidNextToken> {
    token
        .map(|token| {
            let plain = sealer
                .open_text(operation.as_bytes(), token)
                .map_err(|_| InvalidNextToken)?;
            serde_json::from_slice(&plain).map_err(|_| InvalidNextToken)
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{Purpose, RootKey};

    fn sealer() -> Sealer {
        RootKey::from_bytes([3; 32])
            .derive(Purpose::ChannelToken)
            .unwrap()
    }

    #[test]
    fn every_kind_of_token_reads_back_and_fits() {
        for (kind, _) in TokenKind::ALL {
            let token = ChannelToken {
                kind,
                name: "x".repeat(96),
                epoch: i64::MAX,
                expires: Some(Timestamp::from_millis(1)),
                client: client_binding("a client"),
            };
            let sealed = token.seal(&sealer()).unwrap();
            assert!(sealed.expose().starts_with(PREFIX));
            assert!(sealed.expose().len() <= 300, "{}", sealed.expose().len());
            assert_eq!(ChannelToken::open(&sealer(), &sealed), Ok(token));
        }
    }

    #[test]
    fn garbage_is_no_token() {
        for text in [
            "",
            "SRT1.",
            "SRT1.AAAA",
            "AAEAAxyz",
            "SRT1.ÿ",
            "SRT1.====",
            "srt1.AAAA",
        ] {
            assert!(
                ChannelToken::open(&sealer(), &Secret::new(text)).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_operation_alone() {
        let pages = RootKey::from_bytes([3; 32]).derive(Purpose::Page).unwrap();
        let token = next_token(&pages, "LookupEvents", &42).unwrap();
        assert_eq!(cursor(&pages, "LookupEvents", Some(&token)), Ok(Some(42)));
        assert_eq!(
            cursor::<i64>(&pages, "DescribeSessions", Some(&token)),
            Err(InvalidNextToken)
        );
        assert_eq!(
            cursor::<i64>(&pages, "LookupEvents", Some("garbage")),
            Err(InvalidNextToken)
        );
        assert_eq!(cursor::<i64>(&pages, "LookupEvents", None), Ok(None));
    }
}
