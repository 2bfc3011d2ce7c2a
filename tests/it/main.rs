//! The one integration-test binary; every file here is a module of it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's failure is its report"
)]

mod ring;
mod tidy;
