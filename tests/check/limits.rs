//! One literal a rule on limits: a file with one mistake, and the line, key and rule that the report must give.

use super::rules::{TRAFFIC, check_one, refused};

/// A listener whose keys begin on line 5.
fn listener(keys: &str) -> String {
    format!("[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:81\"]\npool = \"app\"\n{keys}\n{TRAFFIC}")
}

/// The same with bytes alone; keys begin on line 6.
fn tcp(keys: &str) -> String {
    listener(&format!("protocol = \"tcp\"\n{keys}"))
}

/// A pool whose keys begin on line 4.
fn pool(keys: &str) -> String {
    format!("[[pool]]\nname = \"p\"\nservers = [{{ name = \"a\", address = \"10.0.0.9:80\" }}]\n{keys}\n{TRAFFIC}")
}

/// The worker, whose key is on line 2.
fn worker(key: &str) -> String {
    format!("[worker]\n{key}\n{TRAFFIC}")
}

/// A route whose keys begin on line 4.
fn route(keys: &str) -> String {
    format!("[[route]]\nlistener = \"web\"\npool = \"app\"\n{keys}\n{TRAFFIC}")
}

refused! {
    rate_limits_that_are_no_list: [listener("rate_limits = 1")], 5, "listener[x].rate_limits", "must be a list of tables";
    rate_limits_without_any: [listener("rate_limits = []")], 5, "listener[x].rate_limits", "must have 1 to 8 entries";
    nine_rate_limits: [listener(&format!("rate_limits = [{}]", ["{ requests = 1, per = \"1s\" }"; 9].join(", ")))],
        5, "listener[x].rate_limits", "has 9";
    rate_limit_in_a_list_without_its_time: [listener("rate_limits = [{ requests = 1 }]")], 5, "listener[x].rate_limits[#1].per", "missing";
    rate_limit_by_a_cookie_without_a_name: [listener("rate_limit = { requests = 1, per = \"1s\", by = \"cookie\" }")], 5, "listener[x].rate_limit.name", "missing";
    rate_limit_cookie_name: [listener("rate_limit = { requests = 1, per = \"1s\", by = \"cookie\", name = \"a=b\" }")], 5, "listener[x].rate_limit.name", "must be";
    rate_limit_log_only_in_words: [listener("rate_limit = { requests = 1, per = \"1s\", log_only = \"yes\" }")], 5, "listener[x].rate_limit.log_only", "must be true or false";
    rate_limits_of_bytes: [tcp("rate_limits = [{ requests = 1, per = \"1s\" }]")], 6, "listener[x].rate_limits", "no meaning without protocol";
    rate_limit_of_a_route_without_requests: [route("rate_limit = { per = \"1s\" }")], 4, "route[#1].rate_limit.requests", "missing";
    rate_limits_of_a_route: [route("rate_limits = [{ requests = 0, per = \"1s\" }]")], 4, "route[#1].rate_limits[#1].requests", "must be 1 to 1000000";
    connection_rate_without_connections: [listener("connection_rate = { per = \"1s\" }")], 5, "listener[x].connection_rate.connections", "missing";
    connection_rate_without_its_time: [listener("connection_rate = { connections = 1 }")], 5, "listener[x].connection_rate.per", "missing";
    connection_rate_of_nothing: [listener("connection_rate = { connections = 0, per = \"1s\" }")], 5, "listener[x].connection_rate.connections", "must be 1 to 1000000";
    connection_rate_time_too_short: [tcp("connection_rate = { connections = 1, per = \"1ms\" }")], 6, "listener[x].connection_rate.per", "must be 100ms to 24h";
    connection_rate_by_header: [listener("connection_rate = { connections = 1, per = \"1s\", by = \"header\" }")], 5, "listener[x].connection_rate.by", "unknown key";
    connection_rate_prefix: [listener("connection_rate = { connections = 1, per = \"1s\", prefix_v6 = 0 }")], 5, "listener[x].connection_rate.prefix_v6", "must be 1 to 128";
    connections_per_address_zero: [listener("connections_per_address_max = 0")], 5, "listener[x].connections_per_address_max", "must be 1 to 1000000";
    connections_per_address_in_words: [listener("connections_per_address_max = \"ten\"")], 5, "listener[x].connections_per_address_max", "must be a whole number";
    connections_per_address_without_a_number: [listener("connections_per_address_max = { prefix_v4 = 24 }")], 5, "listener[x].connections_per_address_max.connections", "missing";
    connections_per_address_prefix: [tcp("connections_per_address_max = { connections = 1, prefix_v4 = 33 }")], 6, "listener[x].connections_per_address_max.prefix_v4", "must be 1 to 32";
    head_bytes_too_few: [listener("head_bytes_max = 1023")], 5, "listener[x].head_bytes_max", "must be 1KiB to 256KiB";
    head_bytes_too_many: [listener("head_bytes_max = \"1MiB\"")], 5, "listener[x].head_bytes_max", "must be 1KiB to 256KiB";
    head_bytes_of_another_unit: [listener("head_bytes_max = \"10KB\"")], 5, "listener[x].head_bytes_max", "must be a number of bytes";
    head_bytes_negative: [listener("head_bytes_max = -1")], 5, "listener[x].head_bytes_max", "must be 1KiB to 256KiB";
    head_bytes_true: [listener("head_bytes_max = true")], 5, "listener[x].head_bytes_max", "must be a number of bytes, not a boolean";
    headers_none: [listener("headers_max = 0")], 5, "listener[x].headers_max", "must be 1 to 1000";
    headers_too_many: [listener("headers_max = 1001")], 5, "listener[x].headers_max", "must be 1 to 1000";
    uri_bytes_too_few: [listener("uri_bytes_max = 63")], 5, "listener[x].uri_bytes_max", "must be 64 to 65534";
    uri_bytes_too_many: [listener("uri_bytes_max = \"64KiB\"")], 5, "listener[x].uri_bytes_max", "must be 64 to 65534";
    body_bytes_negative: [listener("body_bytes_max = -1")], 5, "listener[x].body_bytes_max", "must not be negative";
    body_bytes_without_a_number: [listener("body_bytes_max = \"MiB\"")], 5, "listener[x].body_bytes_max", "must be a number of bytes";
    body_rate_zero: [listener("body_rate_min = 0")], 5, "listener[x].body_rate_min", "must be 1 to 1000000000";
    response_rate_zero: [listener("response_rate_min = 0")], 5, "listener[x].response_rate_min", "must be 1 to 1000000000";
    grace_of_no_rate: [listener("rate_min_grace = \"1s\"")], 5, "listener[x].rate_min_grace", "no meaning without body_rate_min or response_rate_min";
    grace_too_short: [listener("response_rate_min = 1\nrate_min_grace = \"1ms\"")], 6, "listener[x].rate_min_grace", "must be 100ms to 1h";
    body_size_of_bytes: [tcp("body_bytes_max = 1")], 6, "listener[x].body_bytes_max", "no meaning without protocol";
    body_rate_of_bytes: [tcp("body_rate_min = 1")], 6, "listener[x].body_rate_min", "no meaning without protocol";
    head_size_of_bytes: [tcp("head_bytes_max = 2048")], 6, "listener[x].head_bytes_max", "no meaning without protocol";
    server_connections_zero: [pool("connections_max = 0")], 4, "pool[p].connections_max", "must be 1 to 1000000";
    queue_of_nothing: [pool("queue = { max = 1 }")], 4, "pool[p].queue", "no meaning without connections_max";
    queue_too_long: [pool("connections_max = 1\nqueue = { max = 1000001 }")], 5, "pool[p].queue.max", "must be 0 to 1000000";
    queue_timeout_zero: [pool("connections_max = 1\nqueue = { timeout = \"0s\" }")], 5, "pool[p].queue.timeout", "must be 1ms to 10m";
    queue_that_is_no_table: [pool("connections_max = 1\nqueue = 10")], 5, "pool[p].queue", "must be a table";
    queue_with_another_key: [pool("connections_max = 1\nqueue = { maximum = 10 }")], 5, "pool[p].queue.maximum", "unknown key";
    worker_connections_zero: [worker("connections_max = 0")], 2, "worker.connections_max", "must be 1 to 10000000";
    worker_requests_zero: [worker("requests_max = 0")], 2, "worker.requests_max", "must be 1 to 10000000";
    worker_memory_too_little: [worker("memory_max = \"31MiB\"")], 2, "worker.memory_max", "must be 32MiB to 1TiB";
    worker_memory_without_a_unit_we_know: [worker("memory_max = \"1G\"")], 2, "worker.memory_max", "must be a number of bytes";
}
