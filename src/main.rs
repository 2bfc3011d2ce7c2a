//! The `tally` binary: parse, build, run, drain.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tally::cli::main(tally::server::run)
}
