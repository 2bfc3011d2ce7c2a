//! Scripts that increment one counter: rate limiters, mostly. Pure: bytes in, bytes out.
//!
//! A [`Catalogue`] recognises the scripts that popular libraries send, and reads a request that
//! runs one as a [`Call`]: what is to happen, as data. Equal calls that wait for the same node
//! become one [`Combined`] call, a script of our own that does N times what the call says and
//! answers each of the N as its own script would have. Calls that differ in their key alone become
//! one [`Bundle`], another script of ours.
//!
//! ```text
//!   EVALSHA sha 1 k 100 ──> Catalogue ──> Call ──┐
//!   EVALSHA sha 1 k 100 ──> Catalogue ──> Call ──┼─> Combined ──> node ──> Settlement
//!   EVAL   body 1 k 100 ──> Catalogue ──> Call ──┘                          │ a reply for each
//! ```
//!
//! Invariants:
//! - What is not understood to the last detail is no `Call`: it runs as the ordinary script it is.
//! - The combined script writes with exactly one command, and nothing after it can fail: where the
//!   node answers with an error, or that the calls have to run alone, nothing was written.
//! - A bundle's script tells of each key whether it was written to; where the node answers with an
//!   error in place of that, nothing was.
//! - The last command of the combined script reads the key, so that under `CLIENT TRACKING NOLOOP`
//!   the node reports the next change of it by anybody else.

mod bundle;
mod catalogue;
mod combined;
mod known;
mod meaning;
mod normal;

pub use bundle::{Bundle, MAX_BUNDLE, Part, Parts};
pub use catalogue::{
    Catalogue, CatalogueError, Definition, MAX_ARGUMENT, MAX_DEFINITIONS, Script, Source, sha1_hex,
};
pub use combined::{Answers, Combined, Denial, Dialect, MAX_CALLS, MalformedAnswer, Settlement};
pub use known::{CANONICAL, CANONICAL_WITH_TTL};
pub use meaning::{Amount, Call, Denied, Granted, Kind, Reply, Rule, TtlArg, Unit};
pub use normal::MAX_BODY_BYTES;
