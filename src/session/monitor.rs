//! `MONITOR`: a line for each command that passes through Tally.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

use super::dispatch::Dispatch;
use super::{Client, Pushed};
use crate::command::{self, Command, Flags};
use crate::pubsub::Subscriber;
use crate::resp::{Request, encode};
use crate::telemetry::clock::wall_time;

/// Clients in `MONITOR`. Costs one atomic read for each batch of requests while there are none.
#[derive(Debug, Default)]
pub struct Monitors {
    count: AtomicUsize,
    all: Mutex<Vec<Subscriber>>,
}

impl Monitors {
    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Adds a client; false when it watches already.
    pub fn add(&self, subscriber: Subscriber) -> bool {
        let mut all = self.all.lock();
        let id = subscriber.client.id;
        if all.iter().any(|known| known.client.id == id) {
            return false;
        }
        subscriber.client.set_monitor(true);
        all.push(subscriber);
        self.count.store(all.len(), Ordering::Relaxed);
        true
    }

    /// Takes out a client that has gone, or sent `RESET`.
    pub fn remove(&self, client: &Client) {
        if client.is_monitor() {
            let mut all = self.all.lock();
            client.set_monitor(false);
            all.retain(|known| known.client.id != client.id);
            self.count.store(all.len(), Ordering::Relaxed);
        }
    }

    /// Sends a line to everybody who watches. One that does not read is closed at
    /// `server.output_buffer`.
    fn tell(&self, line: &[u8], wakes: &mut Vec<Waker>) {
        for subscriber in self.all.lock().iter() {
            match subscriber.replies.push_message(line) {
                Pushed::Kept(sleeper) => wakes.extend(sleeper),
                Pushed::Overrun => subscriber.client.kill.cancel(),
            }
        }
    }
}

impl Dispatch<'_> {
    /// Begins `MONITOR` for this client. If it is in it already, it gets no reply, as from Redis.
    pub(super) fn monitor(&mut self) {
        let shared = self.shared;
        let Some(client) = shared.registry.get(self.client.id) else {
            return self.error("ERR MONITOR needs a connection");
        };
        if self.state.executing {
            return self.error("ERR MONITOR isn't allowed for DENY BLOCKING client");
        }
        if client.is_monitor() {
            return;
        }
        if self.client.finish_command() {
            encode::simple(self.made, "OK");
        }
        self.push_made();
        let replies = Arc::clone(&self.replies);
        shared.monitors.add(Subscriber { client, replies });
    }

    /// Shows an executed request to everybody who is in `MONITOR`.
    pub(super) fn tell_monitors(&mut self, request: &Request<'_>) {
        if is_shown(self.command) {
            let line = line(wall_time(), self.client, request);
            self.shared.monitors.tell(&line, self.woken);
        }
    }
}

/// Whether `MONITOR` shows a command: not those of administrators (Redis `call` in `server.c`), and
/// not `QUIT`, which Redis 7.0 answers before it.
fn is_shown(command: &Command) -> bool {
    !command.flags.contains(Flags::ADMIN) && command.name != "quit"
}

/// A command as Redis shows it: time, database, client, and every argument in quotes; secrets are
/// left out.
fn line(wall: Duration, client: &Client, request: &Request<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(request.wire().len() + 64);
    let (seconds, micros) = (wall.as_secs(), wall.subsec_micros());
    let (database, addr) = (client.database(), client.addr);
    let written = write!(out, "+{seconds}.{micros:06} [{database} {addr}]");
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    for (index, arg) in request.args().enumerate() {
        out.push(b' ');
        if command::is_secret(request, index) {
            quote(b"(redacted)", &mut out);
        } else {
            quote(arg, &mut out);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Quotes as Redis's `sdscatrepr` does.
fn quote(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend([b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(*byte),
            _ => {
                let written = write!(out, "\\x{byte:02x}");
                debug_assert!(written.is_ok(), "writing to memory does not fail");
            }
        }
    }
    out.push(b'"');
}
