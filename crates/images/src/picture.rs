//! Decoding: bytes of a file to upright RGB pixels.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use crate::Error;

/// The most bytes of a file.
const BYTES_MAX: u64 = 128 << 20;

/// The most pixels, so that no file asks for more than 8 bytes times this.
const PIXELS_MAX: u64 = 1 << 26;

/// The most bytes that a decoder may ask for besides.
const DECODER_BYTES_MAX: u64 = 768 << 20;

/// A picture in RGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Columns, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// Red, green and blue of each pixel, row after row. `[height, width, 3]`
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Reads the file `path`.
    pub fn open(path: &Path) -> Result<Picture, Error> {
        Picture::decode(&Picture::read(path)?)
    }

    /// The bytes of the file `path`, and no more than [`decode`](Picture::decode) takes.
    pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
        let failed = |source| Error::Read { file: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() as u64 {
            got if got > BYTES_MAX => Err(Error::TooManyBytes { got, max: BYTES_MAX }),
            _ => Ok(bytes),
        }
    }

    /// Reads a PNG, JPEG or WebP file that is in memory: turned as its EXIF orientation says, without what it has of
    /// transparency.
    pub fn decode(bytes: &[u8]) -> Result<Picture, Error> {
        if bytes.len() as u64 > BYTES_MAX {
            return Err(Error::TooManyBytes { got: bytes.len() as u64, max: BYTES_MAX });
        }
        let broken = |error: image::ImageError| Error::Broken { reason: error.to_string() };
        let format = image::guess_format(bytes).ok();
        let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
        let Some(format) = format.filter(|format| known.contains(format)) else {
            let got = bytes[..bytes.len().min(8)].escape_ascii().to_string();
            return Err(Error::Format { got });
        };
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODER_BYTES_MAX);
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(broken)?;
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > PIXELS_MAX {
            return Err(Error::TooManyPixels { width, height, max: PIXELS_MAX });
        }
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
        image.apply_orientation(orientation);
        let image = image.into_rgb8();
        let (width, height) = (image.width() as usize, image.height() as usize);
        if width == 0 || height == 0 {
            return Err(Error::Broken { reason: format!("{width} x {height} pixels") });
        }
        Ok(Picture { width, height, pixels: image.into_raw() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};
    use proptest::prelude::*;

    /// Three pixels by two, of six grey levels.
    fn png() -> Vec<u8> {
        let mut bytes = Vec::new();
        let pixels = [10, 20, 30, 40, 50, 60];
        PngEncoder::new(&mut bytes).write_image(&pixels, 3, 2, ExtendedColorType::L8).expect("six pixels");
        bytes
    }

    /// As [`png`], with the orientation `turn` in a chunk of EXIF data after the header.
    fn turned(turn: u8) -> Vec<u8> {
        let mut data = b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
        data[4 + 19] = turn;
        let crc = data.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        let mut chunk = ((data.len() - 4) as u32).to_be_bytes().to_vec();
        chunk.extend(data);
        chunk.extend((!crc).to_be_bytes());
        let mut bytes = png();
        bytes.splice(33..33, chunk);
        bytes
    }

    fn greys(picture: &Picture) -> Vec<u8> {
        picture.pixels.iter().step_by(3).copied().collect()
    }

    #[test]
    fn a_grey_picture_has_three_equal_channels() {
        let picture = Picture::decode(&png()).expect("a good file");
        assert_eq!((picture.width, picture.height), (3, 2));
        assert_eq!(picture.pixels[..6], [10, 10, 10, 20, 20, 20]);
    }

    #[test]
    fn the_orientation_of_exif_turns_the_picture_upright() {
        let picture = Picture::decode(&turned(6)).expect("a good file");
        assert_eq!((picture.width, picture.height), (2, 3));
        assert_eq!(greys(&picture), [40, 10, 50, 20, 60, 30]);
        let picture = Picture::decode(&turned(3)).expect("a good file");
        assert_eq!(greys(&picture), [60, 50, 40, 30, 20, 10]);
    }

    #[test]
    fn a_text_is_no_picture() {
        let error = Picture::decode(b"GIF89a, or so").expect_err("no picture");
        assert!(matches!(error, Error::Format { .. }), "{error}");
        assert!(matches!(Picture::decode(b""), Err(Error::Format { .. })));
    }

    #[test]
    fn a_file_that_claims_too_many_pixels_is_refused_before_they_are_held() {
        let mut bytes = png();
        bytes[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        // The checksum of the header, which the decoder looks at first.
        let crc = bytes[12..29].iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
        let error = Picture::decode(&bytes).expect_err("four thousand million pixels");
        assert!(matches!(error, Error::TooManyPixels { width: 65535, height: 65535, .. }), "{error}");
    }

    #[test]
    fn a_file_that_ends_early_is_broken() {
        let bytes = png();
        let error = Picture::decode(&bytes[..bytes.len() - 20]).expect_err("an end is missing");
        assert!(matches!(error, Error::Broken { .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Picture::open(Path::new("nowhere/at.all")).expect_err("no such file");
        assert!(error.to_string().starts_with("nowhere/at.all: cannot read"), "{error}");
    }

    #[test]
    fn more_bytes_than_any_picture_has_are_refused() {
        let error = Picture::decode(&vec![0; (BYTES_MAX + 1) as usize]).expect_err("too long");
        assert!(matches!(error, Error::TooManyBytes { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_change_of_a_file_makes_the_reader_panic(at in 0usize..70, to in any::<u8>(), cut in 0usize..80) {
            for mut bytes in [png(), turned(6)] {
                let last = bytes.len() - 1;
                bytes[at.min(last)] = to;
                bytes.truncate(bytes.len() - cut.min(last));
                let _ = Picture::decode(&bytes);
            }
        }

        #[test]
        fn no_bytes_after_a_good_beginning_make_the_reader_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            for start in [&b"\xff\xd8\xff\xe0\0\x10JFIF\0"[..], b"RIFF\x80\0\0\0WEBPVP8 ", b"RIFF\x80\0\0\0WEBPVP8L", b"\x89PNG\r\n\x1a\n"] {
                let _ = Picture::decode(&[start, &tail].concat());
            }
        }
    }
}
