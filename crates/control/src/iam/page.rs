//! Pages of listings: `Marker` and `MaxItems` in, a piece of an ordered sequence and the next
//! marker out. A marker is the sealed key of the last item given, so a listing goes on in the right
//! place whatever was added or removed meanwhile.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{Control, authorize::OperationRule, iam::error::IamError, seal::Sealer, token};

/// Items on a page, at most.
const MOST: usize = 1_000;
/// Items on a page, unless asked otherwise.
const USUAL: usize = 100;

/// Bytes of a key that a marker can hold: the model allows markers of 320 characters.
const WHOLE_KEY: usize = 140;

/// Which part of a listing is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Of the page before.
    pub marker: Option<String>,
    /// 1 to 1000; 100 when absent.
    pub max_items: Option<i32>,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In order of names.
    pub items: Vec<T>,
    /// For the next page, if there is one.
    pub marker: Option<String>,
}

/// What is in a marker: the key of the last item given, or where it is long its beginning and what
/// tells it from others of this beginning.
#[derive(Serialize, Deserialize)]
struct Cursor {
    #[serde(rename = "k")]
    key: String,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

impl Cursor {
    fn at(key: &str) -> Self {
        if key.len() <= WHOLE_KEY {
            return Self {
                key: key.to_owned(),
                digest: None,
            };
        }
        let end = key.floor_char_boundary(WHOLE_KEY);
        Self {
            key: key.get(..end).unwrap_or_default().to_owned(),
            digest: Some(key_digest(key)),
        }
    }

    /// Whether an item lies before all that may follow.
    fn is_behind(&self, key: &str) -> bool {
        match self.digest {
            None => *key <= *self.key,
            Some(_) => *key < *self.key,
        }
    }
}

fn key_digest(key: &str) -> String {
    let digest = digest(&SHA256, key.as_bytes());
    STANDARD_NO_PAD.encode(digest.as_ref().get(..16).unwrap_or_default())
}

/// Cuts the page that was asked for.
pub(crate) struct Pager<'a> {
    sealer: &'a Sealer,
    operation: &'static str,
    after: Option<Cursor>,
    limit: usize,
}

impl<'a> Pager<'a> {
    /// For one call of an operation. The marker is good for this operation alone.
    pub(crate) fn new(
        sealer: &'a Sealer,
        operation: &'static str,
        request: &PageRequest,
    ) -> Result<Self, IamError> {
        let after = token::cursor(sealer, operation, request.marker.as_deref())
            .map_err(|_| IamError::Validation("Invalid Marker.".to_owned()))?;
        let limit = request.max_items.map_or(USUAL, |asked| {
            usize::try_from(asked).unwrap_or_default().clamp(1, MOST)
        });
        Ok(Self {
            sealer,
            operation,
            after,
            limit,
        })
    }

    /// With no more than so many items on the page.
    pub(crate) fn at_most(self, items: usize) -> Self {
        Self {
            limit: self.limit.min(items),
            ..self
        }
    }

    /// The page of a sequence whose keys rise.
    pub(crate) fn page<T>(
        &self,
        sequence: impl IntoIterator<Item = (String, T)>,
    ) -> Result<Page<T>, IamError> {
        let after = self.after.as_ref();
        let mut rest = sequence
            .into_iter()
            .skip_while(|(key, _)| after.is_some_and(|after| after.is_behind(key)))
            .peekable();
        let mut alike = Vec::new();
        if let Some(Cursor {
            key: start,
            digest: Some(digest),
        }) = after
        {
            while let Some(item) = rest.next_if(|(key, _)| key.starts_with(start)) {
                alike.push(item);
            }
            let given = alike.iter().position(|(key, _)| key_digest(key) == *digest);
            alike.drain(..given.map_or(0, |place| place + 1));
        }
        let mut rest = alike.into_iter().chain(rest).peekable();
        let mut items = Vec::new();
        let mut last = None;
        while items.len() < self.limit
            && let Some((key, item)) = rest.next()
        {
            items.push(item);
            last = Some(key);
        }
        let marker = match (rest.peek(), last) {
            (Some(_), Some(key)) => {
                let cursor = Cursor::at(&key);
                Some(token::next_token(self.sealer, self.operation, &cursor)?)
            }
            _ => None,
        };
        Ok(Page { items, marker })
    }
}

impl Control {
    /// The cutter of a call's page.
    pub(crate) fn pager(
        &self,
        rule: &OperationRule,
        request: &PageRequest,
    ) -> Result<Pager<'_>, IamError> {
        Pager::new(&self.inner.page_sealer, rule.name, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{Purpose, RootKey};

    fn sealer() -> Sealer {
        let key = RootKey::from_bytes([3; 32]);
        key.derive(Purpose::Page).unwrap()
    }

    fn numbers(up_to: usize) -> impl Iterator<Item = (String, usize)> {
        (0..up_to).map(|number| (format!("{number:04}"), number))
    }

    #[test]
    fn pages_follow_one_another_without_gap_or_repeat() {
        let sealer = sealer();
        let (mut seen, mut marker) = (Vec::new(), None);
        loop {
            let request = PageRequest {
                marker,
                max_items: Some(3),
            };
            let pager = Pager::new(&sealer, "ListRoles", &request).unwrap();
            let page = pager.page(numbers(7)).unwrap();
            assert!(page.items.len() <= 3);
            seen.extend(page.items);
            marker = page.marker;
            if marker.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..7).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_that_ends_with_the_sequence_has_no_marker() {
        let sealer = sealer();
        for (asked, up_to, given) in [(Some(7), 7, 7), (None, 99, 99), (None, 101, 100)] {
            let request = PageRequest {
                marker: None,
                max_items: asked,
            };
            let pager = Pager::new(&sealer, "ListRoles", &request).unwrap();
            let page = pager.page(numbers(up_to)).unwrap();
            assert_eq!(page.items.len(), given);
            assert_eq!(page.marker.is_some(), up_to > given);
        }
    }

    #[test]
    fn long_keys_that_begin_alike_are_told_apart_and_their_markers_fit_the_model() {
        let sealer = sealer();
        let keys: Vec<String> = (0..9)
            .map(|number| format!("{}{number}", "\u{e9}".repeat(250)))
            .collect();
        let (mut seen, mut marker) = (Vec::new(), None);
        loop {
            let request = PageRequest {
                marker,
                max_items: Some(2),
            };
            let pager = Pager::new(&sealer, "ListRoles", &request).unwrap();
            let page = pager.page(keys.iter().map(|key| (key.clone(), key.clone())));
            let page = page.unwrap();
            seen.extend(page.items);
            marker = page.marker;
            let Some(marker) = &marker else { break };
            assert!(marker.len() <= 320, "{}", marker.len());
        }
        assert_eq!(seen, keys);
    }

    #[test]
    fn markers_of_others_are_refused() {
        let sealer = sealer();
        let token = token::next_token(&sealer, "ListRoles", &Cursor::at("x")).unwrap();
        for marker in [token, "made up".to_owned()] {
            let request = PageRequest {
                marker: Some(marker),
                max_items: None,
            };
            assert!(matches!(
                Pager::new(&sealer, "ListUsers", &request),
                Err(IamError::Validation(_))
            ));
        }
    }
}
