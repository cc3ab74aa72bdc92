//! Output of many nodes as lines of which each says where it comes from. Pure.

/// A longer line goes out in parts, each as a line of its own, so that memory stays bounded.
const LONGEST: usize = 64 << 10;

/// One stream of one node.
#[derive(Debug)]
pub(super) struct Lines {
    prefix: Vec<u8>,
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.as_bytes().to_vec(),
            begun: Vec::new(),
        }
    }

    /// Takes output; gives back the lines that are whole now.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.keep(line, &mut whole);
            self.end_line(&mut whole);
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(bytes, &mut whole);
        whole
    }

    /// The last line, when it did not end with a newline.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        if !self.begun.is_empty() {
            self.end_line(&mut whole);
        }
        whole
    }

    fn keep(&mut self, mut bytes: &[u8], whole: &mut Vec<u8>) {
        while self.begun.len() + bytes.len() > LONGEST {
            let (now, later) = bytes.split_at(LONGEST - self.begun.len());
            self.begun.extend_from_slice(now);
            self.end_line(whole);
            bytes = later;
        }
        self.begun.extend_from_slice(bytes);
    }

    fn end_line(&mut self, whole: &mut Vec<u8>) {
        whole.extend_from_slice(&self.prefix);
        whole.append(&mut self.begun);
        whole.push(b'\n');
    }
}

/// The beginning of one stream of one node, for a report.
#[derive(Debug, Default)]
pub(super) struct Capture {
    kept: Vec<u8>,
    pub(super) is_cut: bool,
}

/// What is kept of each stream of a node at most.
pub(super) const CAPTURED: usize = 1 << 20;

impl Capture {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = CAPTURED - self.kept.len();
        self.is_cut |= bytes.len() > room;
        self.kept
            .extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
    }

    /// As text: what is not UTF-8 becomes replacement characters.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_line_is_prefixed_and_the_last_one_is_ended() {
        let mut lines = Lines::new("web: ");
        assert_eq!(lines.push(b"one\ntw"), b"web: one\n");
        assert_eq!(lines.push(b"o\n\nthree"), b"web: two\nweb: \n");
        assert_eq!(lines.finish(), b"web: three\n");
        assert!(Lines::new("x").finish().is_empty());
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = Lines::new("");
        let mut out = lines.push(&vec![b'x'; LONGEST * 2 + 5]);
        assert!(lines.begun.len() <= LONGEST);
        out.extend(lines.push(b"\n"));
        let lengths: Vec<_> = out.split(|&byte| byte == b'\n').map(<[u8]>::len).collect();
        assert_eq!(lengths, [LONGEST, LONGEST, 5, 0]);
    }

    #[test]
    fn a_report_keeps_the_beginning_and_says_that_it_is_cut() {
        let mut capture = Capture::default();
        capture.push(&vec![b'a'; CAPTURED]);
        assert!(!capture.is_cut);
        capture.push(b"b");
        assert!(capture.is_cut && capture.text().len() == CAPTURED);
    }

    proptest! {
        #[test]
        fn how_output_is_cut_into_pieces_makes_no_difference(
            text in "[ab\\n]{0,40}", cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let whole = |pieces: &[&[u8]]| {
                let mut lines = Lines::new("n: ");
                let mut out: Vec<u8> = pieces.iter().flat_map(|piece| lines.push(piece)).collect();
                out.extend(lines.finish());
                out
            };
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut pieces = Vec::new();
            let mut at = 0;
            for cut in cuts {
                pieces.push(&text.as_bytes()[at..cut]);
                at = cut;
            }
            prop_assert_eq!(whole(&pieces), whole(&[text.as_bytes()]));
        }
    }
}
