//! How a client is shown by `CLIENT LIST` and `CLIENT INFO`.

use std::fmt::Write;
use std::time::Instant;

use super::{Client, Facts};
use crate::command::Topics;
use crate::resp::Protocol;
use crate::session::Tracks;

impl Client {
    /// Appends its line of `CLIENT LIST`: the fields of Redis 7.2 in their order. Not those of later
    /// versions: go-redis 9.5 refuses a line with a field that it does not know. `asking` is the
    /// command that it executes now and the bytes of its request, where that is known better than by
    /// the last [`Client::note`]. Buffers that Redis has and a session has not are 0.
    pub(in crate::session) fn write_line(
        &self,
        out: &mut String,
        now: Instant,
        asking: Option<(&str, usize)>,
    ) {
        let facts = self.facts.lock();
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let (idle, command, query_bytes) = match asking {
            Some((command, bytes)) => (0, command, facts.query_buffer_bytes.max(bytes)),
            None => (
                seconds(facts.last_activity),
                facts
                    .blocked
                    .map_or(facts.last_command, |blocked| blocked.command),
                facts.query_buffer_bytes,
            ),
        };
        let written = writeln!(
            out,
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={idle} flags={} db={} sub={} psub={} \
             ssub={} multi=-1 qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 \
             omem={} tot-mem={} events=r cmd={} user={} redir={} resp={} lib-name={} \
             lib-ver={}",
            self.id,
            self.addr,
            self.laddr,
            facts.name.as_deref().unwrap_or_default(),
            seconds(self.created),
            self.flags(&facts),
            self.database(),
            self.subscriptions.count(Topics::Channels),
            self.subscriptions.count(Topics::Patterns),
            self.subscriptions.count(Topics::Shards),
            query_bytes,
            facts.output_bytes,
            query_bytes.saturating_add(facts.output_bytes),
            command,
            facts
                .user
                .as_ref()
                .map_or_else(|| "default".to_owned(), |member| member.user().shown_name()),
            if self.tracks().is_on() {
                i64::try_from(self.redirect()).unwrap_or(i64::MAX)
            } else {
                -1
            },
            match self.protocol() {
                Protocol::Resp2 => 2,
                Protocol::Resp3 => 3,
            },
            facts.lib_name,
            facts.lib_ver,
        );
        debug_assert!(written.is_ok(), "writing to a String does not fail");
    }

    fn flags(&self, facts: &Facts) -> String {
        let mut flags = String::new();
        for (set, flag) in [
            (self.is_monitor(), 'O'),
            (!self.subscriptions.is_empty(), 'P'),
            (facts.blocked.is_some(), 'b'),
            (self.tracks().is_on(), 't'),
            (self.tracks().has(Tracks::BROKEN), 'R'),
            (self.tracks().bcast(), 'B'),
            (self.kill.is_cancelled(), 'A'),
            (facts.no_evict, 'e'),
            (facts.no_touch, 'T'),
        ] {
            if set {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::time::Instant as Clock;

    use super::*;
    use crate::session::{Activity, Blocked, Gate};

    #[test]
    fn a_line_tells_what_the_session_noted() {
        let start = Clock::now().into_std();
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let client = Client::new(7, addr(5000), addr(6380), start, Gate::Open);
        client.set_name(Some("web".to_owned()));
        client.set_lib_name("redis-py".to_owned());
        client.set_protocol(Protocol::Resp3);
        client.set_no_evict(true);
        client.set_database(3);
        client.note(&Activity {
            now: start + Duration::from_secs(3),
            last_command: "incr",
            query_buffer_bytes: 100,
            output_bytes: 20,
        });
        let mut line = String::new();
        client.write_line(&mut line, start + Duration::from_secs(5), None);
        assert_eq!(
            line,
            "id=7 addr=127.0.0.1:5000 laddr=127.0.0.1:6380 fd=-1 name=web age=5 idle=2 flags=e \
             db=3 sub=0 psub=0 ssub=0 multi=-1 qbuf=100 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 \
             rbp=0 obl=0 oll=0 omem=20 tot-mem=120 events=r cmd=incr user=default redir=-1 resp=3 \
             lib-name=redis-py lib-ver=\n"
        );
    }

    #[test]
    fn a_line_shows_the_command_that_its_client_waits_in() {
        let start = Clock::now().into_std();
        let addr = SocketAddr::from(([127, 0, 0, 1], 5000));
        let client = Client::new(7, addr, addr, start, Gate::Open);
        let line = || {
            let mut line = String::new();
            client.write_line(&mut line, start, None);
            line
        };
        client.set_blocked(Some(Blocked {
            node: 0,
            connection: 1,
            command: "blpop",
        }));
        client.note(&Activity {
            now: start,
            last_command: "get",
            query_buffer_bytes: 0,
            output_bytes: 0,
        });
        assert!(line().contains(" flags=b ") && line().contains(" cmd=blpop "));
        client.set_blocked(None);
        assert!(line().contains(" cmd=get "));
    }
}
