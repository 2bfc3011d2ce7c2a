//! What stands behind a test: nodes and Tally, or one bare Redis in their place.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::relay::Relay;
use crate::servers::{Redis, Tally};

/// Settings of Tally as `("table.key", "TOML value")`, or `("key", "TOML value")` at the top.
pub(crate) type Settings<'a> = &'a [(&'a str, &'a str)];

/// Nodes and the Tally before them; Tally stops first.
pub(crate) struct Stack {
    /// `None` when one bare Redis stands in.
    pub(crate) tally: Option<Tally>,
    pub(crate) nodes: Vec<Redis>,
}

impl Stack {
    /// Two nodes and Tally; or, on a bare target, one Redis set up likewise.
    #[track_caller]
    pub(crate) fn start(settings: Settings<'_>) -> Self {
        if bare() {
            let arguments = as_redis_arguments(settings);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            return Self {
                tally: None,
                nodes: vec![Redis::start(&arguments)],
            };
        }
        Self::over(vec![Redis::start(&[]), Redis::start(&[])], settings)
    }

    /// Tally over given nodes; never on a bare target.
    #[track_caller]
    pub(crate) fn over(nodes: Vec<Redis>, settings: Settings<'_>) -> Self {
        let tally = Some(Tally::start(&nodes, settings));
        Self { tally, nodes }
    }

    /// Tally before relays to these nodes, in their order; never on a bare target.
    #[track_caller]
    pub(crate) fn behind(relays: &[Relay], nodes: Vec<Redis>, settings: Settings<'_>) -> Self {
        let addresses: Vec<_> = relays.iter().map(|relay| (relay.address(), None)).collect();
        let tally = Some(Tally::start_before(&addresses, settings));
        Self { tally, nodes }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.tally
            .as_ref()
            .map_or_else(|| self.nodes[0].address(), Tally::address)
    }

    /// The process that clients talk to.
    pub(crate) fn process_id(&self) -> u32 {
        self.tally
            .as_ref()
            .map_or_else(|| self.nodes[0].process_id(), Tally::process_id)
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    /// Stops Tally as an operator does, and waits for its end.
    #[track_caller]
    pub(crate) fn stop_tally(&mut self) {
        if let Some(tally) = &mut self.tally {
            tally.terminate();
        }
    }

    /// A key that lives on node `index`, found by asking the nodes where Tally put it.
    #[track_caller]
    pub(crate) fn key_on(&self, index: usize, prefix: &str) -> String {
        let mut client = self.connect();
        let mut node = self.nodes[index].connect();
        for number in 0..200 {
            let key = format!("{prefix}:{number}");
            // A busy machine may be late with the connections to the nodes.
            let is_set = || client.run(&format!("SET {key} probe")).is_ok();
            assert!(eventually(Duration::from_secs(10), is_set), "SET {key}");
            let here = node.run(&format!("EXISTS {key}")).integer() == 1;
            assert_eq!(client.run(&format!("DEL {key}")).integer(), 1);
            if here {
                return key;
            }
        }
        panic!("200 keys and none of them on node {index}");
    }

    /// How often the nodes executed `command` (lower case), scripts' calls included.
    #[track_caller]
    pub(crate) fn node_calls(&self, command: &str) -> u64 {
        self.nodes.iter().map(|node| node.calls(command)).sum()
    }
}

/// Whether one bare Redis stands in for Tally and its nodes.
pub(crate) fn bare() -> bool {
    match std::env::var("TALLY_SUITE_TARGET").as_deref() {
        Ok("redis") => true,
        Ok("tally") | Err(_) => false,
        Ok(other) => panic!("TALLY_SUITE_TARGET is tally or redis, not {other}"),
    }
}

/// True, and said so, when the test needs Tally or several nodes and there is only a bare Redis.
#[track_caller]
pub(crate) fn skipped_on_bare_redis() -> bool {
    if bare() {
        say(&format!(
            "skipped on a bare Redis: {}",
            std::panic::Location::caller()
        ));
    }
    bare()
}

#[expect(clippy::print_stderr, reason = "a test's notes go to its output")]
pub(crate) fn say(note: &str) {
    eprintln!("{note}");
}

#[expect(clippy::disallowed_methods, reason = "real processes run on real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets real time pass where time itself is the subject (an expiry, a frozen node).
#[expect(
    clippy::disallowed_methods,
    reason = "no runtime here whose worker this would block"
)]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Asks again every few milliseconds until `condition` holds; false after `limit`.
pub(crate) fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = now() + limit;
    loop {
        // Read before the question: a thread held up in between asks once more.
        let last = now() >= deadline;
        if condition() {
            return true;
        }
        if last {
            return false;
        }
        pause(Duration::from_millis(3));
    }
}

/// The settings that Redis has too, as its arguments; others have no meaning there.
fn as_redis_arguments(settings: Settings<'_>) -> Vec<String> {
    let mut arguments = Vec::new();
    for (name, value) in settings {
        let value = value.trim_matches('"');
        let bytes = value.replace("MiB", "mb").replace("KiB", "kb");
        let pair = match *name {
            "server.password" => ["--requirepass".to_owned(), value.to_owned()],
            "server.max_clients" => ["--maxclients".to_owned(), value.to_owned()],
            "server.idle_timeout" => ["--timeout".to_owned(), value.trim_matches('s').to_owned()],
            "server.max_bulk" => ["--proto-max-bulk-len".to_owned(), bytes],
            "server.query_buffer" => ["--client-query-buffer-limit".to_owned(), bytes],
            "server.output_buffer" => [
                "--client-output-buffer-limit".to_owned(),
                format!("normal {bytes} 0 0"),
            ],
            _ => continue,
        };
        arguments.extend(pair);
    }
    arguments
}
