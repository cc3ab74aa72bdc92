//! Bytes that wait, in order. Large pieces stay as they are; small ones are put together, so that what is
//! held is about what is counted, however small the pieces.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

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

    /// The next bytes, at most `limit`.
    #[must_use]
    pub fn split_to(&mut self, limit: usize) -> Self {
        let pieces = VecDeque::from(self.take_pieces(limit));
        Self {
            length: pieces.iter().map(Bytes::len).sum(),
            pieces,
            tail: BytesMut::new(),
        }
    }

    /// The next bytes, at most `limit`, in pieces.
    pub(crate) fn take_pieces(&mut self, limit: usize) -> Vec<Bytes> {
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

/// For writing many pieces at once.
impl Buf for Queue {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail, Bytes::as_ref)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(self.tail.as_ref());
        let all = self.pieces.iter().map(Bytes::as_ref).chain(tail);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0
            && let Some(mut piece) = self.pop()
        {
            let step = count.min(piece.len());
            piece.advance(step);
            count -= step;
            if !piece.is_empty() {
                self.length += piece.len();
                self.pieces.push_front(piece);
            }
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
                let parts = queue.take_pieces(limit);
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

    proptest! {
        #[test]
        fn what_is_written_at_once_is_in_order_and_taken_away(
            lengths in proptest::collection::vec(1_usize..10_000, 1..20),
            splits in proptest::collection::vec(1_usize..20_000, 1..20),
            steps in proptest::collection::vec(0_usize..20_000, 1..20),
        ) {
            let mut queue = Queue::default();
            let mut all = Vec::new();
            for (length, byte) in lengths.iter().zip(0..) {
                let piece = vec![byte; *length];
                queue.push(Bytes::from(piece.clone()));
                all.extend(piece);
            }
            let mut got = Vec::new();
            let (mut splits, mut steps) = (splits.iter().cycle(), steps.iter().cycle());
            while !queue.is_empty() {
                let mut part = queue.split_to(*splits.next().unwrap());
                let mut slices = [IoSlice::new(&[]); 64];
                let count = part.chunks_vectored(&mut slices);
                let seen = slices.iter().take(count).map(|slice| slice.to_vec());
                let seen = seen.collect::<Vec<_>>().concat();
                prop_assert_eq!(seen.len(), part.remaining());
                prop_assert!(part.chunk() == &seen[..part.chunk().len()]);
                let step = (*steps.next().unwrap()).min(part.len());
                part.advance(step);
                let rest = std::iter::from_fn(|| part.pop()).collect::<Vec<_>>().concat();
                prop_assert!(rest == seen[step..]);
                prop_assert!(part.is_empty());
                got.extend(seen);
            }
            prop_assert!(got == all);
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
