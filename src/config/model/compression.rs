//! `compression` of a listener or a pool.

/// Which responses are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// What is offered, the preferred one first; each once, 1 to 3. Default zstd, br, gzip.
    pub algorithms: Vec<Coding>,
    /// Media types in lower case, `type/subtype` or `type/*`, 1 to 64.
    pub types: Vec<String>,
    /// The shortest body that is compressed, where its length is known, 0 to 16 MiB. Default 1024.
    pub min_bytes: u32,
    /// Time against size. Default balanced.
    pub level: CompressionLevel,
}

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

/// How much time a byte less is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionLevel {
    /// As little time as possible.
    Fast,
    /// What most servers do.
    Balanced,
    /// Several times the time for a few percent.
    Small,
}

/// What a pool says of the compression of its responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolCompression {
    /// As the listener has it.
    Inherited,
    /// None, whatever the listener has.
    Off,
    /// Its own.
    Own(Compression),
}
