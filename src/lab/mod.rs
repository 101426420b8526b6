//! A pair of nodes, servers and a client in network namespaces, for rehearsals: `baton demo` and the tests.
