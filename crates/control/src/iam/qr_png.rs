//! A text as a QR code in a PNG file, for the apps that scan the seed of an MFA device.

use std::io::Write as _;

use flate2::{Compression, Crc, write::ZlibEncoder};
use qrcode::{Color, EcLevel, QrCode};

/// Pixels of a module's side.
const SCALE: usize = 4;
/// Modules of light border that the standard demands.
const QUIET: usize = 4;
/// 8 bits of grey.
const GREY: [u8; 5] = [8, 0, 0, 0, 0];
const LIGHT: u8 = 0xff;

/// The picture; `None` when the text is longer than a QR code holds (more than 2,300 bytes).
pub(crate) fn qr_png(text: &str) -> Option<Vec<u8>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let modules = code.to_colors();
    let rows: Vec<Vec<u8>> = modules.chunks(code.width()).map(row).collect();
    let border = vec![LIGHT; (code.width() + 2 * QUIET) * SCALE];
    let side = u32::try_from(border.len()).ok()?;
    let borders = std::iter::repeat_n(&border, QUIET);
    let lines = borders.clone().chain(&rows).chain(borders);

    let mut pixels = ZlibEncoder::new(Vec::new(), Compression::best());
    for line in lines.flat_map(|line| std::iter::repeat_n(line, SCALE)) {
        // Each line begins with its filter: none.
        pixels.write_all(&[0]).ok()?;
        pixels.write_all(line).ok()?;
    }
    Some(png(side, &pixels.finish().ok()?))
}

fn row(modules: &[Color]) -> Vec<u8> {
    let quiet = std::iter::repeat_n(LIGHT, QUIET * SCALE);
    let dark = modules.iter().flat_map(|module| {
        let grey = if *module == Color::Dark { 0 } else { LIGHT };
        std::iter::repeat_n(grey, SCALE)
    });
    quiet.clone().chain(dark).chain(quiet).collect()
}

fn png(side: u32, pixels: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let size = side.to_be_bytes();
    chunk(&mut file, *b"IHDR", &[&size[..], &size, &GREY].concat());
    chunk(&mut file, *b"IDAT", pixels);
    chunk(&mut file, *b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: [u8; 4], content: &[u8]) {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let mut check = Crc::new();
    check.update(&kind);
    check.update(content);
    file.extend(length.to_be_bytes());
    file.extend(kind);
    file.extend(content);
    file.extend(check.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::ZlibDecoder;

    use super::*;

    /// Reads the pixels back as a decoder would: chunks with right checks, unfiltered lines.
    fn pixels(file: &[u8]) -> (usize, Vec<u8>) {
        let mut rest = file.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
        let (mut side, mut packed) = (0, Vec::new());
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let (kind, content) = (&rest[4..8], &rest[8..8 + length]);
            let mut check = Crc::new();
            check.update(&rest[4..8 + length]);
            assert_eq!(rest[8 + length..12 + length], check.sum().to_be_bytes());
            match kind {
                b"IHDR" => side = u32::from_be_bytes(content[..4].try_into().unwrap()) as usize,
                b"IDAT" => packed.extend(content),
                b"IEND" => assert_eq!(rest.len(), 12),
                other => panic!("{other:?}"),
            }
            rest = &rest[12 + length..];
        }
        let mut lines = Vec::new();
        ZlibDecoder::new(&packed[..])
            .read_to_end(&mut lines)
            .unwrap();
        assert_eq!(lines.len(), (side + 1) * side);
        let grey = lines.chunks(side + 1).flat_map(|line| {
            assert_eq!(line[0], 0);
            line[1..].to_vec()
        });
        (side, grey.collect())
    }

    #[test]
    fn the_picture_scans_as_the_text() {
        let long = "x".repeat(500);
        for text in [
            "otpauth://totp/Sortie:alice@1?secret=ABC&issuer=Sortie",
            "a",
            &long,
        ] {
            let (side, grey) = pixels(&qr_png(text).unwrap());
            let at = |x: usize, y: usize| grey[y * side + x];
            let mut picture = rqrr::PreparedImage::prepare_from_greyscale(side, side, at);
            let grids = picture.detect_grids();
            assert_eq!(grids.len(), 1);
            assert_eq!(grids[0].decode().unwrap().1, text);
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        assert_eq!(qr_png(&"x".repeat(3000)), None);
    }
}
