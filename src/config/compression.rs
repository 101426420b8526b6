//! Reads `compression` of a `[[listener]]` or a `[[pool]]`.

use super::model::{Coding, Compression, CompressionLevel, PoolCompression};
use super::reader::{Table, Value};
use super::report::{Mistakes, Wrong};

const TYPES_MAX: usize = 64;
const MIN_BYTES_MAX: u32 = 16 << 20;
const ALGORITHMS: [(&str, Coding); 3] = [("zstd", Coding::Zstd), ("br", Coding::Brotli), ("gzip", Coding::Gzip)];

/// Text that compresses well and that nobody waits for piece by piece.
const TYPES_DEFAULT: [&str; 14] = [
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/csv",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/xml",
    "application/wasm",
    "application/problem+json",
    "image/svg+xml",
];

/// Reads it, of a listener; `None` where there is none.
pub(super) fn of_listener(value: Option<Value<'_>>, mistakes: &Mistakes<'_>) -> Option<Compression> {
    match of_pool(value, mistakes) {
        PoolCompression::Own(compression) => Some(compression),
        PoolCompression::Inherited | PoolCompression::Off => None,
    }
}

/// Reads it, of a pool, which can also say that there is none.
pub(super) fn of_pool(value: Option<Value<'_>>, mistakes: &Mistakes<'_>) -> PoolCompression {
    let Some(value) = value else { return PoolCompression::Inherited };
    if value.is_table() {
        return value.block().map_or(PoolCompression::Inherited, |table| PoolCompression::Own(read(table, mistakes)));
    }
    let (rule, remedy) = ("must be a block, or \"off\"", "write compression = {} to have all of its defaults");
    if value.text().is_none() {
        mistakes.value(value.place(), rule, remedy);
        return PoolCompression::Inherited;
    }
    let off = value.parsed(|text| if text == "off" { Ok(()) } else { Err(Wrong::new(rule, remedy)) });
    off.map_or(PoolCompression::Inherited, |_| PoolCompression::Off)
}

fn read(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> Compression {
    let algorithms = table.optional("algorithms").map(|value| algorithms(value, mistakes));
    let types = table.optional("types").map(|value| {
        let types = value.list(TYPES_MAX).into_iter().filter_map(|value| value.parsed(media_type));
        types.map(|found| found.value).collect()
    });
    let levels = [
        ("fast", CompressionLevel::Fast),
        ("balanced", CompressionLevel::Balanced),
        ("small", CompressionLevel::Small),
    ];
    let level = table.optional("level").and_then(|value| value.choice(&levels, &[]));
    let compression = Compression {
        algorithms: algorithms.unwrap_or_else(|| ALGORITHMS.map(|(_, coding)| coding).to_vec()),
        types: types.unwrap_or_else(|| TYPES_DEFAULT.map(str::to_owned).to_vec()),
        min_bytes: table.integer("min_bytes", 0..=MIN_BYTES_MAX, 1024),
        level: level.map_or(CompressionLevel::Balanced, |found| found.value),
    };
    table.finish();
    compression
}

fn algorithms(value: Value<'_>, mistakes: &Mistakes<'_>) -> Vec<Coding> {
    let mut codings: Vec<Coding> = Vec::new();
    for found in value.list(ALGORITHMS.len()).into_iter().filter_map(|value| value.choice(&ALGORITHMS, &[])) {
        if codings.contains(&found.value) {
            mistakes.value(&found.place, "stands in the list twice", "leave one of the two out");
        } else {
            codings.push(found.value);
        }
    }
    codings
}

/// A media type without parameters (RFC 9110 section 8.3.1), or all of one type.
fn media_type(text: &str) -> Result<String, Wrong> {
    let token = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !text.is_empty() && text.len() <= 127 && text.bytes().all(allowed)
    };
    match text.split_once('/') {
        Some((kind, subtype)) if token(kind) && (subtype == "*" || token(subtype)) => Ok(text.to_ascii_lowercase()),
        _ => Err(Wrong::new(
            "must be a media type without parameters, or all of one kind",
            "write one such as \"text/html\" or \"text/*\"",
        )),
    }
}
