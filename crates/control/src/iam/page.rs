//! Pages of listings: `Marker` and `MaxItems` in, a piece of an ordered sequence and the next
//! marker out. A marker is the sealed key of the last item given, so a listing goes on in the right
//! place whatever was added or removed meanwhile.

use crate::{
    Control,
    authorize::OperationRule,
    iam::error::IamError,
    seal::Sealer,
    token::{self},
};

/// Items on a page, at most.
const MOST: usize = 1_000;
/// Items on a page, unless asked otherwise.
const USUAL: usize = 100;

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

/// Cuts the page that was asked for.
pub(crate) struct Pager<'a> {
    sealer: &'a Sealer,
    operation: &'static str,
    after: Option<String>,
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

    /// The page of a sequence whose keys rise.
    pub(crate) fn page<T>(
        &self,
        sequence: impl IntoIterator<Item = (String, T)>,
    ) -> Result<Page<T>, IamError> {
        let mut rest = sequence
            .into_iter()
            .skip_while(|(key, _)| self.after.as_ref().is_some_and(|after| key <= after))
            .peekable();
        let mut items = Vec::new();
        let mut last = None;
        while items.len() < self.limit
            && let Some((key, item)) = rest.next()
        {
            items.push(item);
            last = Some(key);
        }
        let marker = match (rest.peek(), last) {
            (Some(_), Some(key)) => Some(token::next_token(self.sealer, self.operation, &key)?),
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
    fn markers_of_others_are_refused_and_fit_the_model() {
        let sealer = sealer();
        let long = "x".repeat(130);
        let token = token::next_token(&sealer, "ListRoles", &long).unwrap();
        assert!(token.len() <= 320, "{}", token.len());
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
