//! Any pattern on any text, cut apart at the first zero byte: the matcher never panics and agrees with
//! the textbook's table of prefixes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie_iam::wildcard_matches;

/// Whether the pattern so far fits each prefix of the text, one symbol after the other.
fn by_table(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for symbol in pattern.chars() {
        let mut next = vec![false; text.len() + 1];
        if symbol == '*' {
            let mut any = false;
            for (next, fits) in next.iter_mut().zip(&fits) {
                any |= fits;
                *next = any;
            }
        } else {
            for (at, character) in text.iter().enumerate() {
                next[at + 1] = fits[at] && (symbol == '?' || symbol == *character);
            }
        }
        fits = next;
    }
    fits[text.len()]
}

fuzz_target!(|data: &[u8]| {
    let Ok(data) = std::str::from_utf8(data) else { return };
    let Some((pattern, text)) = data.split_once('\0') else { return };
    assert_eq!(wildcard_matches(pattern, text), by_table(pattern, text), "{pattern:?} on {text:?}");
});
