//! The system tests: the `tally` binary in front of real Redis servers, seen through its port.
//!
//! `TALLY_SUITE_TARGET=redis` puts one bare Redis server in Tally's place, which shows that a
//! test asks for what Redis does; tests that need Tally or two nodes say so and pass there.
//! `TALLY_SUITE_SERVER` is another server than `redis-server` for the nodes and for the bare one:
//! the path of a `valkey-server`, say.
//! `TALLY_SUITE_BINARY` is another binary to test (a release build, say).
//! `TALLY_SUITE_SEED` replaces the fixed seed of the random tests, `TALLY_SUITE_SCRIPTS` the
//! number of random scripts per mode. `TALLY_CHAOS_SECONDS` is how long faults come at random.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's failure is its report"
)]

mod acl;
mod apps;
mod audit;
mod blocking;
mod clients;
mod coalescing;
mod concurrency;
mod connection;
mod databases;
mod deadlines;
mod durable;
mod faults;
mod figures;
mod handshake;
mod harness;
mod history;
mod hostile;
mod http;
mod introspection;
mod joint;
mod journal;
mod keyspace;
mod limiter;
mod limits;
mod model;
mod moves;
mod newer;
mod nodes;
mod orders;
mod overtaking;
mod pubsub;
mod random;
mod redis_rs;
mod relay;
mod reload;
mod reload_rules;
mod reply;
mod routes;
mod routing;
mod rules;
mod script;
mod scripts;
mod servers;
mod service;
mod steps;
mod tally;
mod tls;
mod tools;
mod tracking;
mod turns;
mod twin;
mod user_scripts;
mod users;
mod watch;
mod watch_split;
