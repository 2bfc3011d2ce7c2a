//! Tally: a Redis-protocol sharding proxy for counters.
//!
//! Layers, lowest first; a module uses only modules in rows above its own (or in its own row).
//! `tests/it/tidy.rs` fails the build when a module breaks this table.
//!
//! | layer | modules | may do I/O |
//! |-------|---------|------------|
//! | 0 core | `resp`, `command`, `ring`, `key`, `glob`, `access`, `rule`, `flush`, `counter`, `limit` | no: time is an argument |
//! | 1 support | `config`, `journal`, `telemetry`, `tls` | only its own file; `tls` carries what others send |
//! | 2 upstream | `node`, `router` | yes |
//! | 3 serving | `session`, `fan_out`, `pubsub` | yes |
//! | 4 top | `server`, `admin`, `dev`, `twemproxy`, `cli` | yes |

// The tests' model of a node is one file, which names this crate from outside.
#[cfg(test)]
extern crate self as tally;

pub mod access;
pub mod admin;
pub mod cli;
pub mod command;
pub mod config;
pub mod counter;
pub mod dev;
pub mod fan_out;
pub mod flush;
pub mod glob;
pub mod journal;
pub mod key;
pub mod limit;
pub mod node;
pub mod pubsub;
pub mod resp;
pub mod ring;
pub mod router;
mod rule;
pub mod server;
pub mod session;
pub mod telemetry;
pub mod tls;
pub mod twemproxy;
