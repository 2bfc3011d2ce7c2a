//! Tells systemd how the process is (`sd_notify(3)`): ready, stopping, still alive. Without
//! `NOTIFY_SOCKET` in the environment nothing is told.

use std::env;
use std::ffi::OsStr;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::worker::Workers;

/// The socket of the service manager.
#[derive(Debug)]
pub(super) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we are alive, if it does.
    watchdog: Option<Duration>,
}

impl Notify {
    /// From the environment.
    pub(super) fn from_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|path| address(&path));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let us = env::var("WATCHDOG_USEC").ok();
        let us = us.and_then(|us| us.parse().ok()).filter(|us| *us > 0);
        Self {
            watchdog: us.map(Duration::from_micros).filter(|_| socket.is_some()),
            socket,
        }
    }

    /// Clients can connect.
    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=Serving");
    }

    /// The stop has begun.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Answering and flushing");
    }

    /// A line for `systemctl status`.
    pub(super) fn status(&self, line: &str) {
        self.tell(&format!("STATUS={line}"));
    }

    /// Says twice in each period that this thread and every worker run, as long as they do. A
    /// worker that hangs keeps it silent, and is restarted with everything else. Runs until it is
    /// dropped.
    pub(super) async fn watchdog(&self, workers: &Workers) {
        let Some(period) = self.watchdog else {
            return std::future::pending().await;
        };
        let mut ticker = interval(period / 2);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticker.tick().await;
            workers.answer().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }
}

/// A path, or, on Linux, `@` and an abstract name.
fn address(path: &OsStr) -> Option<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(name).ok();
        }
    }
    SocketAddr::from_pathname(path).ok()
}
