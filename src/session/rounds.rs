//! `BLPOP` and its kin for keys of several nodes: the keys are asked in turn, again and again.
//!
//! No connection can wait at two nodes, and a wait at each of them could be given two elements. So
//! the command that does not wait goes to each key in the order of the request, on the lanes,
//! until one gives something. What waits costs each key a command every [`LONGEST`].

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::aside::{Answer, on_lane};
use super::dispatch::{Dispatch, Flow};
use super::replies::Ticket;
use crate::command::Command;
use crate::counter::Effect;
use crate::key::Key;
use crate::node::Node;
use crate::resp::{Protocol, Request, encode, reply};

/// What a waiting command asks each key for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pop {
    /// The command that does not wait.
    name: &'static str,
    /// What undoes it.
    back: &'static str,
    /// Whether elements have scores.
    scored: bool,
}

impl Pop {
    /// `None` for a command that this can not stand in for.
    pub(super) fn of(command: &Command) -> Option<Self> {
        let (name, back, scored) = match command.name {
            "blpop" => ("LPOP", "LPUSH", false),
            "brpop" => ("RPOP", "RPUSH", false),
            "bzpopmin" => ("ZPOPMIN", "ZADD", true),
            "bzpopmax" => ("ZPOPMAX", "ZADD", true),
            _ => return None,
        };
        Some(Self { name, back, scored })
    }
}

/// A client that waits for one of several keys.
struct Rounds {
    pop: Pop,
    keys: Vec<(Arc<Node<Ticket>>, Key)>,
    /// `None`: for ever.
    timeout: Option<Duration>,
}

impl Dispatch<'_> {
    /// A command that waits for keys of several nodes.
    pub(super) fn wait_in_rounds(
        &mut self,
        pop: Pop,
        request: &Request<'_>,
        keys: &[&[u8]],
    ) -> Flow {
        if self.state.aside.is_none() {
            let timeout = match timeout(request.arg(request.len() - 1)) {
                Ok(timeout) => timeout,
                Err(text) => {
                    self.error(text);
                    return Flow::Continue;
                }
            };
            if self.replies.backlog().outstanding > 0 {
                return Flow::Await;
            }
            let place = |key: &&[u8]| {
                let node = self.node(self.shared.router.index(key));
                (Arc::clone(node), Key::new(key))
            };
            let keys = keys.iter().map(place).collect();
            let cancel = CancellationToken::new();
            let rounds = Rounds { pop, keys, timeout };
            self.begin_aside(rounds.run(cancel.clone()), Some(cancel.drop_guard()));
        }
        let Some(answer) = self.poll_aside() else {
            return Flow::Stall;
        };
        let form = self.command.form_of(request);
        self.pass(&answer.frame, form);
        Flow::Continue
    }
}

impl Rounds {
    async fn run(self, cancel: CancellationToken) -> Answer {
        let begun = tokio::time::Instant::now();
        let mut pause = SHORTEST;
        loop {
            for (node, key) in &self.keys {
                if cancel.is_cancelled() {
                    return Answer::of(Vec::new());
                }
                let frame = self.ask(node, key).await;
                if reply::is_error(&frame) {
                    return Answer::of(frame);
                }
                let found = element(&frame, self.pop.scored);
                if found.is_empty() {
                    continue;
                }
                if cancel.is_cancelled() {
                    self.put_back(node, key, &found).await;
                    return Answer::of(Vec::new());
                }
                let mut answer = Vec::new();
                encode::array(&mut answer, 1 + found.len());
                encode::bulk(&mut answer, key.as_bytes());
                answer.extend(found.concat());
                return Answer::of(answer);
            }
            let left = self.timeout.map(|all| all.saturating_sub(begun.elapsed()));
            if left == Some(Duration::ZERO) {
                let mut nothing = Vec::new();
                encode::null_array(&mut nothing, Protocol::Resp3);
                return Answer::of(nothing);
            }
            tokio::select! {
                () = tokio::time::sleep(left.map_or(pause, |left| left.min(pause))) => {}
                () = cancel.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    async fn ask(&self, node: &Node<Ticket>, key: &Key) -> Vec<u8> {
        let mut wire = Vec::new();
        encode::request(&mut wire, &[self.pop.name.as_bytes(), key.as_bytes()]);
        on_lane(node, |lane, step, ticket| {
            lane.forward(step, &[key.as_bytes()], &wire, Effect::Barrier, ticket);
        })
        .await
    }

    /// The client left while its element was on the way.
    async fn put_back(&self, node: &Node<Ticket>, key: &Key, found: &[&[u8]]) {
        let mut parts = vec![self.pop.back.as_bytes(), key.as_bytes()];
        match found {
            [member, score] => parts.extend([number(score), reply::text(member).unwrap_or(member)]),
            _ => parts.extend(found.iter().filter_map(|element| reply::text(element))),
        }
        let mut wire = Vec::new();
        encode::request(&mut wire, &parts);
        let put = on_lane(node, |lane, step, ticket| {
            lane.forward(step, &[key.as_bytes()], &wire, Effect::Barrier, ticket);
        });
        if reply::is_error(&put.await) {
            tracing::error!(?key, "an element was lost whose client had left");
        }
    }
}

/// The frames of the element in a reply, and of its score; none when there was no element.
fn element(frame: &[u8], scored: bool) -> Vec<&[u8]> {
    match scored {
        true => reply::elements(frame).into_iter().flatten().collect(),
        false if reply::is_null(frame) => Vec::new(),
        false => vec![frame],
    }
}

/// The text of a double.
fn number(frame: &[u8]) -> &[u8] {
    let line = frame.strip_prefix(b",").unwrap_or_default();
    line.strip_suffix(b"\r\n").unwrap_or_default()
}

/// How long a client waits; `None`: for ever. Else Redis's error (`getTimeoutFromObjectOrReply`
/// in `timeout.c`).
fn timeout(text: &[u8]) -> Result<Option<Duration>, &'static str> {
    let seconds = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    match seconds {
        Some(0.0) => Ok(None),
        Some(seconds) if seconds < 0.0 => Err("ERR timeout is negative"),
        Some(seconds) => match Duration::try_from_secs_f64(seconds) {
            Ok(timeout) => Ok(Some(timeout)),
            Err(_) => Err("ERR timeout is out of range"),
        },
        None => Err("ERR timeout is not a float or out of range"),
    }
}

/// Between the first two rounds, and between later ones: each pause doubles.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_as_redis_reads_it() {
        assert_eq!(timeout(b"0"), Ok(None));
        assert_eq!(timeout(b"0.25"), Ok(Some(Duration::from_millis(250))));
        for wrong in [&b"-1"[..], b"x", b"", b"nan", b"1e300"] {
            assert!(timeout(wrong).is_err(), "{wrong:?}");
        }
    }
}
