//! Bytes that wait, in order. Large pieces stay as they are; small ones are put together, so that what is
//! held is about what is counted, however small the pieces.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A piece that is shorter is copied. It may be a small part of a large buffer, which would stay.
const SMALL: usize = 4 << 10;

/// Bytes in the order in which they came.
#[derive(Default)]
pub struct Queue {
    pieces: VecDeque<Bytes>,
    /// Small pieces behind all others.
    tail: BytesMut,
    length: usize,
}

impl Queue {
    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts bytes behind the others.
    pub fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if bytes.len() < SMALL {
            self.tail.extend_from_slice(&bytes);
            if self.tail.len() >= SMALL {
                self.end_tail();
            }
        } else {
            self.end_tail();
            self.pieces.push_back(bytes);
        }
    }

    /// The next bytes that lie together, without limit.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.end_tail();
        }
        let piece = self.pieces.pop_front()?;
        self.length -= piece.len();
        Some(piece)
    }

    /// The next bytes, at most `limit`, in pieces.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<Bytes> {
        let mut parts = Vec::new();
        let mut left = limit;
        while left > 0
            && let Some(mut piece) = self.pop()
        {
            if piece.len() > left {
                let rest = piece.split_off(left);
                self.length += rest.len();
                self.pieces.push_front(rest);
            }
            left -= piece.len();
            parts.push(piece);
        }
        parts
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

/// Shows no bytes.
impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..10_000), 0..20),
            limits in proptest::collection::vec(1_usize..20_000, 1..20),
        ) {
            let mut queue = Queue::default();
            let mut limits = limits.iter().cycle();
            let (mut all, mut got) = (Vec::new(), Vec::new());
            for piece in &pieces {
                all.extend_from_slice(piece);
                queue.push(Bytes::copy_from_slice(piece));
                prop_assert_eq!(queue.len(), all.len() - got.len());
                let limit = *limits.next().unwrap();
                let parts = queue.take(limit);
                prop_assert!(parts.iter().map(Bytes::len).sum::<usize>() <= limit);
                got.extend(parts.concat());
            }
            while let Some(piece) = queue.pop() {
                prop_assert!(!piece.is_empty());
                got.extend_from_slice(&piece);
            }
            prop_assert!(queue.is_empty());
            prop_assert_eq!(got, all);
        }
    }

    #[test]
    fn single_bytes_are_held_together() {
        let mut queue = Queue::default();
        for _ in 0..SMALL {
            queue.push(Bytes::from_static(b"x"));
        }
        assert_eq!(queue.pop().unwrap().len(), SMALL);
    }
}
