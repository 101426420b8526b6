//! The three codings behind one face: bytes in, what has come out so far into a buffer.

use std::io::{self, Write as _};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::write::GzEncoder;
use zstd::stream::raw::CParameter;

use crate::config::{Coding, CompressionLevel};

/// Windows of zstd and brotli, as powers of two: 256 KiB. Larger ones would take more memory than most pages have bytes.
const WINDOW_LOG: u32 = 18;

/// Bytes that the encoder of brotli takes out of its own buffer at a time.
const BROTLI_BUFFER_BYTES: usize = 4096;

/// Compresses one body.
pub enum Encoder {
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Encoder {
    /// One in front of the first byte.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(coding: Coding, level: CompressionLevel) -> io::Result<Self> {
        Ok(match coding {
            Coding::Zstd => {
                let level = of(level, [1, 3, 7]);
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
                Self::Zstd(Box::new(encoder))
            }
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: of(level, [1, 4, 6]),
                    lgwin: WINDOW_LOG.cast_signed(),
                    ..BrotliEncoderParams::default()
                };
                Self::Brotli(Box::new(CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER_BYTES, &params)))
            }
            Coding::Gzip => {
                let level = flate2::Compression::new(of(level, [1, 5, 7]));
                Self::Gzip(Box::new(GzEncoder::new(Vec::new(), level)))
            }
        })
    }

    /// About the memory that one takes, at any level.
    pub fn memory_bytes(coding: Coding) -> usize {
        match coding {
            Coding::Zstd | Coding::Brotli => 2 * 1024 * 1024,
            Coding::Gzip => 512 * 1024,
        }
    }

    /// Takes bytes in.
    ///
    /// # Errors
    /// When the coding has none for them, which does not happen.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Brotli(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// Has all come out that was taken in.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }

    /// Bytes that have come out.
    pub fn len(&self) -> usize {
        match self {
            Self::Zstd(encoder) => encoder.get_ref().len(),
            Self::Brotli(encoder) => encoder.get_ref().len(),
            Self::Gzip(encoder) => encoder.get_ref().len(),
        }
    }

    /// Takes them.
    pub fn take(&mut self) -> Bytes {
        let out = match self {
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        };
        Bytes::from(std::mem::take(out))
    }

    /// The end, and what has not been taken before.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Gzip(encoder) => encoder.finish(),
        }
        .map(Bytes::from)
    }
}

fn of<T: Copy>(level: CompressionLevel, levels: [T; 3]) -> T {
    let [fast, balanced, small] = levels;
    match level {
        CompressionLevel::Fast => fast,
        CompressionLevel::Balanced => balanced,
        CompressionLevel::Small => small,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            // What is flushed can be read before the end, which a decoder may complain of.
            Coding::Zstd => drop(zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out)),
            Coding::Brotli => drop(brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out)),
            Coding::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut out)),
        }
        out
    }

    #[test]
    fn what_is_flushed_can_be_read_and_the_whole_is_whole() {
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            for level in [CompressionLevel::Fast, CompressionLevel::Balanced, CompressionLevel::Small] {
                let mut encoder = Encoder::new(coding, level).unwrap();
                encoder.write(b"data: one\n\n").unwrap();
                encoder.flush().unwrap();
                let first = encoder.take();
                assert_eq!(decoded(coding, &first), b"data: one\n\n", "{coding:?} {level:?}");
                let long = b"and so on ".repeat(100_000);
                encoder.write(&long).unwrap();
                let second = encoder.take();
                let whole = [&first[..], &second, &encoder.finish().unwrap()].concat();
                assert!(whole.len() < long.len() / 50, "{coding:?} {level:?}: {}", whole.len());
                assert_eq!(decoded(coding, &whole), [&b"data: one\n\n"[..], &long].concat(), "{coding:?} {level:?}");
            }
        }
    }
}
