//! Mistakes in what a file says about who clients are, and who of them may come in.

use super::rules::{TRAFFIC, check_one, refused};

/// A listener with this key, which stands on line 5.
fn with(key: &str) -> String {
    format!("[[listener]]\nname = \"x\"\nbind = [\"192.0.2.1:81\"]\npool = \"app\"\n{key}\n{TRAFFIC}")
}

/// One with `protocol = "tcp"`, where the key stands on line 6.
fn tcp_with(key: &str) -> String {
    with(&format!("protocol = \"tcp\"\n{key}"))
}

/// A route with this key, which stands on line 4.
fn route_with(key: &str) -> String {
    format!("[[route]]\nlistener = \"web\"\npool = \"app\"\n{key}\n{TRAFFIC}")
}

refused! {
    accept_proxy_from_nowhere: [with("accept_proxy = { required = true }")], 5, "listener[x].accept_proxy.from", "missing";
    accept_proxy_from_nobody: [with("accept_proxy = { from = [] }")], 5, "listener[x].accept_proxy.from", "must have 1 to 256";
    accept_proxy_from_a_name: [with("accept_proxy = { from = [\"proxy\"] }")], 5, "listener[x].accept_proxy.from[#1]", "must be a network or an address";
    accept_proxy_from_too_long_a_prefix: [with("accept_proxy = { from = [\"10.0.0.0/33\"] }")], 5, "listener[x].accept_proxy.from[#1]", "must be 0 to 32";
    accept_proxy_from_host_bits: [with("accept_proxy = { from = [\"10.0.0.1/8\"] }")], 5, "listener[x].accept_proxy.from[#1]", "bits set behind its prefix";
    accept_proxy_from_mapped: [with("accept_proxy = { from = [\"::ffff:10.0.0.0/104\"] }")], 5, "listener[x].accept_proxy.from[#1]", "IPv4 network in IPv6 form";
    accept_proxy_of_tcp: [tcp_with("accept_proxy = { from = [\"\"] }")], 6, "listener[x].accept_proxy.from[#1]", "must be a network or an address";
    accept_proxy_perhaps: [with("accept_proxy = { from = [\"::1\"], required = \"no\" }")], 5, "listener[x].accept_proxy.required", "must be true or false";
    accept_proxy_alone: [with("accept_proxy = true")], 5, "listener[x].accept_proxy", "must be a table";
    forwarded_trusts_a_port: [with("forwarded = { trusted = [\"10.0.0.1:80\"] }")], 5, "listener[x].forwarded.trusted[#1]", "must be a network or an address";
    forwarded_unknown_rule: [with("forwarded = { x_forwarded = \"add\" }")], 5, "listener[x].forwarded.x_forwarded", "must be \"append\", \"replace\", \"drop\" or \"pass\"";
    forwarded_unknown_rule_of_rfc: [with("forwarded = { forwarded = \"off\" }")], 5, "listener[x].forwarded.forwarded", "must be \"append\"";
    forwarded_unknown_field: [with("forwarded = { client_from = \"via\" }")], 5, "listener[x].forwarded.client_from", "must be \"x_forwarded_for\" or \"forwarded\"";
    forwarded_port_number: [with("forwarded = { port = 443 }")], 5, "listener[x].forwarded.port", "must be true or false";
    forwarded_of_tcp: [tcp_with("forwarded = {}")], 6, "listener[x].forwarded", "there are no requests";
    request_id_in_no_header: [with("request_id = { header = \"a b\" }")], 5, "listener[x].request_id.header", "must be the name of a header";
    request_id_in_host: [with("request_id = { header = \"Host\" }")], 5, "listener[x].request_id.header", "must not be a header that HTTP itself needs";
    request_id_from_anybody: [with("request_id = { accept = \"any\" }")], 5, "listener[x].request_id.accept", "must be \"trusted\", \"never\" or \"always\"";
    request_id_of_tcp: [tcp_with("request_id = {}")], 6, "listener[x].request_id", "there are no requests";
    trace_context_of_tcp: [tcp_with("trace_context = true")], 6, "listener[x].trace_context", "there are no requests";
    trace_context_word: [with("trace_context = \"on\"")], 5, "listener[x].trace_context", "must be true or false";
    allow_no_network: [with("allow = [\"10.0.0.0/8\", \"10.0.0\"]")], 5, "listener[x].allow[#2]", "must be a network or an address";
    deny_no_list: [with("deny = \"10.0.0.0/8\"")], 5, "listener[x].deny", "must be a list";
    allow_file_empty: [with("allow_file = \"\"")], 5, "listener[x].allow_file", "must be the path of a file";
    deny_file_list: [with("deny_file = [\"a\"]")], 5, "listener[x].deny_file", "must be a string";
    deny_of_a_route: [route_with("deny = [\"x\"]")], 4, "route[#1].deny[#1]", "must be a network or an address";
    basic_auth_without_users: [with("basic_auth = { realm = \"a\" }")], 5, "listener[x].basic_auth.users_file", "missing";
    basic_auth_realm_with_a_quote: [with("basic_auth = { users_file = \"u\", realm = 'a\"' }")], 5, "listener[x].basic_auth.realm", "must be 1 to 128 characters";
    basic_auth_realm_with_a_line: [with("basic_auth = { users_file = \"u\", realm = \"a\\r\\nb\" }")], 5, "listener[x].basic_auth.realm", "must be 1 to 128 characters";
    basic_auth_ttl_too_long: [with("basic_auth = { users_file = \"u\", cache_ttl = \"25h\" }")], 5, "listener[x].basic_auth.cache_ttl", "must be 0ms to 24h";
    basic_auth_off_on_a_listener: [with("basic_auth = false")], 5, "listener[x].basic_auth", "must be a table";
    basic_auth_on_by_itself: [route_with("basic_auth = true")], 4, "route[#1].basic_auth", "must be a table";
    basic_auth_of_tcp: [tcp_with("basic_auth = { users_file = \"u\" }")], 6, "listener[x].basic_auth", "there are no requests";
    authorize_nowhere: [with("authorize = { on_error = \"deny\" }")], 5, "listener[x].authorize.url", "missing";
    authorize_at_a_name: [with("authorize = { url = \"http://auth/\" }")], 5, "listener[x].authorize.url", "the host must be an IP address";
    authorize_over_http_with_tls: [with("authorize = { url = \"http://10.0.0.9/\", tls = {} }")], 5, "listener[x].authorize.tls", "is for https";
    authorize_believing_anybody_and_a_ca: [with("authorize = { url = \"https://10.0.0.9/\", tls = { verify = false, ca_file = \"ca.crt\" } }")], 5, "listener[x].authorize.tls.ca_file", "no meaning";
    authorize_without_scheme: [with("authorize = { url = \"10.0.0.9:9000/\" }")], 5, "listener[x].authorize.url", "must b";
    authorize_on_port_zero: [with("authorize = { url = \"http://10.0.0.9:0/\" }")], 5, "listener[x].authorize.url", "the port must be 1 to 65535";
    authorize_too_patient: [with("authorize = { url = \"http://10.0.0.9/\", timeout = \"61s\" }")], 5, "listener[x].authorize.timeout", "must be 10ms to 1m";
    authorize_copies_framing: [with("authorize = { url = \"http://10.0.0.9/\", response_headers = [\"Content-Length\"] }")], 5, "listener[x].authorize.response_headers[#1]", "that HTTP itself needs";
    authorize_sends_framing: [with("authorize = { url = \"http://10.0.0.9/\", request_headers = [\"a\", \"transfer-encoding\"] }")], 5, "listener[x].authorize.request_headers[#2]", "that HTTP itself needs";
    authorize_on_error_perhaps: [with("authorize = { url = \"http://10.0.0.9/\", on_error = \"maybe\" }")], 5, "listener[x].authorize.on_error", "must be \"deny\" or \"allow\"";
    authorize_nobody: [with("authorize = { url = \"http://10.0.0.9/\", requests_max = 0 }")], 5, "listener[x].authorize.requests_max", "must be 1 to 100000";
    authorize_of_tcp: [tcp_with("authorize = { url = \"http://10.0.0.9/\" }")], 6, "listener[x].authorize", "there are no requests";
}
