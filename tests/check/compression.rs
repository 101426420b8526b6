//! Rules of `compression`.

use std::path::Path;

use baton::config::{Coding, Compression, CompressionLevel, PoolCompression, parse};

use super::rules::{check_one, refused};

/// A listener, to be continued, and its pool, to be continued as well.
const LISTENER: &str = "[[listener]]\nname = \"web\"\nbind = [\"0.0.0.0:80\"]\npool = \"app\"\n";
const POOL: &str = "[[pool]]\nname = \"app\"\nservers = [{ name = \"app1\", address = \"10.0.0.1:8080\" }]\n";

refused! {
    unknown_key: [LISTENER, "compression = { levl = 1 }\n", POOL], 5, "listener[web].compression.levl", "unknown key";
    unknown_algorithm: [LISTENER, "compression = { algorithms = [\"deflate\"] }\n", POOL],
        5, "listener[web].compression.algorithms[#1]", "must be \"zstd\", \"br\" or \"gzip\"";
    algorithm_twice: [LISTENER, "compression = { algorithms = [\"gzip\", \"br\", \"gzip\"] }\n", POOL],
        5, "listener[web].compression.algorithms[#3]", "twice";
    no_algorithm: [LISTENER, "compression = { algorithms = [] }\n", POOL],
        5, "listener[web].compression.algorithms", "must have 1 to 3";
    type_with_parameters: [LISTENER, "compression = { types = [\"text/html; charset=utf-8\"] }\n", POOL],
        5, "listener[web].compression.types[#1]", "media type";
    type_without_subtype: [LISTENER, "compression = { types = [\"text\"] }\n", POOL],
        5, "listener[web].compression.types[#1]", "media type";
    every_type: [LISTENER, "compression = { types = [\"*/*\"] }\n", POOL],
        5, "listener[web].compression.types[#1]", "media type";
    no_type: [LISTENER, "compression = { types = [] }\n", POOL], 5, "listener[web].compression.types", "must have 1 to 64";
    too_large: [LISTENER, "compression = { min_bytes = 16777217 }\n", POOL],
        5, "listener[web].compression.min_bytes", "must be 0 to 16777216";
    number_for_a_level: [LISTENER, "compression = { level = 9 }\n", POOL],
        5, "listener[web].compression.level", "must be a string";
    unknown_level: [LISTENER, "compression = { level = \"best\" }\n", POOL],
        5, "listener[web].compression.level", "must be \"fast\"";
    neither_block_nor_off: [LISTENER, "compression = true\n", POOL], 5, "listener[web].compression", "must be a block, or \"off\"";
    on: [LISTENER, "compression = \"on\"\n", POOL], 5, "listener[web].compression", "must be a block, or \"off\"";
    of_a_pool: [LISTENER, POOL, "compression = { level = 1 }\n"], 8, "pool[app].compression.level", "must be a string";
    of_tcp: [LISTENER, "protocol = \"tcp\"\ncompression = {}\n", POOL], 6, "listener[web].compression", "there are no responses";
}

#[test]
fn an_empty_block_has_all_defaults_and_a_pool_may_differ() {
    let read = |listener: &str, pool: &str| {
        let text = [LISTENER, listener, POOL, pool].concat();
        let config = parse(&text, Path::new("baton.toml")).unwrap_or_else(|report| panic!("{report}"));
        let listener = config.listeners.into_iter().next().and_then(|listener| listener.compression);
        (listener, config.pools.into_iter().next().map(|pool| pool.compression))
    };
    assert_eq!(read("", ""), (None, Some(PoolCompression::Inherited)));
    assert_eq!(read("compression = \"off\"\n", "compression = \"off\"\n"), (None, Some(PoolCompression::Off)));
    let (listener, _) = read("compression = {}\n", "");
    let listener = listener.expect("it is on");
    assert_eq!(listener.algorithms, [Coding::Zstd, Coding::Brotli, Coding::Gzip]);
    assert_eq!((listener.min_bytes, listener.level, listener.types.len()), (1024, CompressionLevel::Balanced, 14));
    let own = "compression = { algorithms = [\"gzip\"], types = [\"Text/*\"], min_bytes = 0, level = \"fast\" }\n";
    let expected = Compression {
        algorithms: vec![Coding::Gzip],
        types: vec!["text/*".to_owned()],
        min_bytes: 0,
        level: CompressionLevel::Fast,
    };
    assert_eq!(read("", own).1, Some(PoolCompression::Own(expected)));
}
