//! The `tally` binary: parse, build, run, drain.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use tally::cli::{self, Ready};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main(|config, ready| serve(config.server.listen, ready))
}

/// Holds the port until SIGINT or SIGTERM. The server takes this place.
fn serve(listen: SocketAddr, ready: Ready) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = tokio::net::TcpListener::bind(listen).await?;
        ready(listener.local_addr()?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
