//! Commands that take from the first key that has something, or read streams, for keys of several
//! nodes: `BLPOP`, `LMPOP`, `XREAD` and their kin. The nodes are asked in turn, and those that
//! wait are asked again and again.
//!
//! No connection can wait at two nodes, and a wait at each of them could be given two elements. So
//! a command that does not wait goes to each key in the order of the request, on the lanes, until
//! one gives something; streams are read at each node, and what they give becomes one reply. What
//! waits costs each key (each node, for streams) a command every [`LONGEST`].

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::aside::{Answer, on_lane};
use super::dispatch::{Dispatch, Flow};
use super::replies::Ticket;
use crate::command::{self, Command};
use crate::counter::Effect;
use crate::fan_out;
use crate::key::Key;
use crate::node::Node;
use crate::resp::{Protocol, Request, encode, parse_double, parse_i64, reply};

/// What the keys are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// One element of the first key that has any.
    Element(Pop),
    /// Several of the first that has any: the reply names the key.
    Elements(Pop),
    /// The entries of all of them, in one reply.
    Streams,
    /// The same, for a consumer of a group.
    GroupStreams,
}

/// How elements are taken, and put back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pop {
    /// The command that does not wait.
    name: &'static str,
    /// What undoes it.
    back: &'static str,
    /// Whether elements have scores.
    scored: bool,
}

impl Asked {
    /// `None` for a command that can not be asked in rounds.
    pub(super) fn of(command: &Command, request: &Request<'_>) -> Option<Self> {
        let pop = |name, back, scored| Pop { name, back, scored };
        let has = |word: &[u8]| request.args().any(|arg| arg.eq_ignore_ascii_case(word));
        Some(match command.name {
            "blpop" => Self::Element(pop("LPOP", "LPUSH", false)),
            "brpop" => Self::Element(pop("RPOP", "RPUSH", false)),
            "bzpopmin" => Self::Element(pop("ZPOPMIN", "ZADD", true)),
            "bzpopmax" => Self::Element(pop("ZPOPMAX", "ZADD", true)),
            "lmpop" | "blmpop" if has(b"right") => Self::Elements(pop("LMPOP", "RPUSH", false)),
            "lmpop" | "blmpop" => Self::Elements(pop("LMPOP", "LPUSH", false)),
            "zmpop" | "bzmpop" => Self::Elements(pop("ZMPOP", "ZADD", true)),
            "xread" => Self::Streams,
            "xreadgroup" => Self::GroupStreams,
            _ => return None,
        })
    }
}

/// A client that asks several nodes.
struct Rounds {
    asked: Asked,
    questions: Vec<Question>,
    /// For streams, the order of the reply: each key, with the question that asks for it.
    order: Vec<(usize, Key)>,
    /// Zero: one round. `None`: for ever.
    timeout: Option<Duration>,
}

/// A command for one node.
struct Question {
    node: Arc<Node<Ticket>>,
    keys: Vec<Key>,
    args: Vec<Box<[u8]>>,
}

impl Dispatch<'_> {
    /// A command for keys of several nodes.
    pub(super) fn ask_in_rounds(
        &mut self,
        asked: Asked,
        request: &Request<'_>,
        keys: &[&[u8]],
    ) -> Flow {
        if self.state.aside.is_none() {
            let timeout = match patience(self.command, request, keys.len()) {
                Ok(timeout) => timeout,
                Err(text) => {
                    self.error(text);
                    return Flow::Continue;
                }
            };
            if self.replies.backlog().outstanding > 0 {
                return Flow::Await;
            }
            let rounds = self.rounds(asked, request, keys, timeout);
            let cancel = CancellationToken::new();
            self.begin_aside(rounds.run(cancel.clone()), Some(cancel.drop_guard()));
        }
        self.pass_aside(self.command.form_of(request))
    }

    /// The questions that a request comes to: one for each key, or for each node.
    fn rounds(
        &self,
        asked: Asked,
        request: &Request<'_>,
        keys: &[&[u8]],
        timeout: Option<Duration>,
    ) -> Rounds {
        let mut rounds = Rounds {
            asked,
            questions: Vec::new(),
            order: Vec::new(),
            timeout,
        };
        let place = |key: &[u8]| Arc::clone(self.node(self.shared.router.index(key)));
        match asked {
            Asked::Element(pop) => rounds.questions.extend(keys.iter().map(|key| Question {
                node: place(key),
                keys: vec![Key::new(key)],
                args: boxed(&[pop.name.as_bytes(), key]),
            })),
            Asked::Elements(pop) => {
                let before = if self.command.name.starts_with('b') {
                    3
                } else {
                    2
                };
                let rest: Vec<&[u8]> = request.args().skip(before + keys.len()).collect();
                rounds.questions.extend(keys.iter().map(|key| Question {
                    node: place(key),
                    keys: vec![Key::new(key)],
                    args: boxed(&[&[pop.name.as_bytes(), b"1", key], rest.as_slice()].concat()),
                }));
            }
            Asked::Streams | Asked::GroupStreams => {
                let first = request.len() - 2 * keys.len();
                let block = command::block_option(self.command, request);
                let is_block =
                    |at: usize| block.is_some_and(|block| (block..=block + 1).contains(&at));
                let options = (0..first).filter(|at| !is_block(*at));
                let options: Vec<&[u8]> = options.map(|at| request.arg(at)).collect();
                let mut ids: Vec<Vec<Box<[u8]>>> = Vec::new();
                for (at, key) in keys.iter().enumerate() {
                    let node = place(key);
                    let of_node = |question: &Question| Arc::ptr_eq(&question.node, &node);
                    let number = rounds.questions.iter().position(of_node);
                    let number = number.unwrap_or_else(|| {
                        rounds.questions.push(Question {
                            node,
                            keys: Vec::new(),
                            args: boxed(&options),
                        });
                        ids.push(Vec::new());
                        ids.len() - 1
                    });
                    if let (Some(question), Some(ids)) =
                        (rounds.questions.get_mut(number), ids.get_mut(number))
                    {
                        question.keys.push(Key::new(key));
                        question.args.push((*key).into());
                        ids.push(request.arg(first + keys.len() + at).into());
                    }
                    rounds.order.push((number, Key::new(key)));
                }
                for (question, ids) in rounds.questions.iter_mut().zip(ids) {
                    question.args.extend(ids);
                }
            }
        }
        rounds
    }
}

impl Rounds {
    async fn run(mut self, cancel: CancellationToken) -> Answer {
        let begun = tokio::time::Instant::now();
        let waits = self.timeout != Some(Duration::ZERO);
        if waits
            && matches!(self.asked, Asked::Streams)
            && let Err(error) = self.fix_last_entries().await
        {
            return Answer::of(error);
        }
        let mut pause = SHORTEST;
        let mut waited = false;
        loop {
            let found = match self.asked {
                Asked::Element(pop) | Asked::Elements(pop) => self.pop(pop, waited, &cancel).await,
                Asked::Streams | Asked::GroupStreams => self.read(waited, &cancel).await,
            };
            if let Some(frame) = found {
                return Answer::of(frame);
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
            waited = true;
        }
    }

    /// Asks key after key until one gives something. Returns a frame for the client, empty when the
    /// client has left; `None` when no key gave anything.
    async fn pop(&self, pop: Pop, waited: bool, cancel: &CancellationToken) -> Option<Vec<u8>> {
        for question in &self.questions {
            if cancel.is_cancelled() {
                return Some(Vec::new());
            }
            let frame = question.ask().await;
            if waited && is_wrong_type(&frame) {
                continue;
            }
            if reply::is_error(&frame) {
                return Some(frame);
            }
            let found = elements(&frame, self.asked);
            if found.is_empty() {
                continue;
            }
            if cancel.is_cancelled() {
                question.put_back(pop, found).await;
                return Some(Vec::new());
            }
            if let Asked::Elements(_) = self.asked {
                return Some(frame);
            }
            let mut answer = Vec::new();
            encode::array(&mut answer, 1 + found.len());
            let key = question.keys.first().map_or(&[][..], Key::as_bytes);
            encode::bulk(&mut answer, key);
            answer.extend(found.concat());
            return Some(answer);
        }
        None
    }

    /// Reads the streams of every node. What the consumer of a group was given counts more than an
    /// error of another node, which the next call will meet again. Other reads change nothing, so
    /// their first error is the reply.
    async fn read(&self, waited: bool, cancel: &CancellationToken) -> Option<Vec<u8>> {
        let mut frames = Vec::with_capacity(self.questions.len());
        let mut error = None;
        for question in &self.questions {
            if cancel.is_cancelled() {
                return Some(Vec::new());
            }
            let mut frame = question.ask().await;
            let is_reading = matches!(self.asked, Asked::Streams);
            if waited && is_reading && is_wrong_type(&frame) {
                frame.clear();
                encode::null_array(&mut frame, Protocol::Resp3);
            }
            if reply::is_error(&frame) {
                error.get_or_insert_with(|| frame.clone());
                if is_reading {
                    break;
                }
            }
            frames.push(frame);
        }
        if error.is_some() && matches!(self.asked, Asked::Streams) {
            return error;
        }
        fan_out::streams(&self.order, &frames).or(error)
    }

    /// `$` is the last entry when the client began to wait: the rounds ask for what comes after it.
    async fn fix_last_entries(&mut self) -> Result<(), Vec<u8>> {
        for question in &mut self.questions {
            let first_id = question.args.len() - question.keys.len();
            for (at, key) in question.keys.iter().enumerate() {
                let Some(id) = question.args.get_mut(first_id + at) else {
                    continue;
                };
                if **id != *b"$" {
                    continue;
                }
                let args = boxed(&[b"XINFO", b"STREAM", key.as_bytes()]);
                let frame = ask(&question.node, std::slice::from_ref(key), &args).await;
                *id = match last_entry(&frame) {
                    Some(last) => last.into(),
                    None if reply::text(&frame) == Some(NO_KEY) => (*b"0-0").into(),
                    None => return Err(frame),
                };
            }
        }
        Ok(())
    }
}

impl Question {
    async fn ask(&self) -> Vec<u8> {
        ask(&self.node, &self.keys, &self.args).await
    }

    /// Puts elements back that were on their way when the client left.
    async fn put_back(&self, pop: Pop, found: Vec<&[u8]>) {
        let key = self.keys.first().map_or(&[][..], Key::as_bytes);
        let mut args: Vec<&[u8]> = vec![pop.back.as_bytes(), key];
        if pop.scored {
            for pair in found.chunks_exact(2) {
                if let [member, score] = pair {
                    args.extend([number(score), reply::text(member).unwrap_or(member)]);
                }
            }
        } else {
            // What was taken first goes back last.
            args.extend(found.into_iter().rev().filter_map(reply::text));
        }
        let frame = ask(&self.node, &self.keys, &boxed(&args)).await;
        if reply::is_error(&frame) {
            tracing::error!(?key, "an element was lost whose client had left");
        }
    }
}

async fn ask(node: &Node<Ticket>, keys: &[Key], args: &[Box<[u8]>]) -> Vec<u8> {
    let mut wire = Vec::new();
    encode::request(&mut wire, args);
    let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
    on_lane(node, |lane, step, ticket| {
        lane.forward(step, &keys, &wire, Effect::Barrier, ticket);
    })
    .await
}

/// Whether a key is of another type. Where a client waits already, such a key is as good as none:
/// Redis wakes it for a key of the type that it waits for.
pub(super) fn is_wrong_type(frame: &[u8]) -> bool {
    frame.starts_with(b"-WRONGTYPE")
}

fn boxed(args: &[&[u8]]) -> Vec<Box<[u8]>> {
    args.iter().map(|arg| (*arg).into()).collect()
}

/// The frames of the elements in a reply, each followed by its score if it has one; none when
/// there was no element.
fn elements(frame: &[u8], asked: Asked) -> Vec<&[u8]> {
    if reply::is_null(frame) {
        return Vec::new();
    }
    let inside = |frame| reply::elements(frame).into_iter().flatten();
    match asked {
        Asked::Element(pop) if pop.scored => inside(frame).collect(),
        Asked::Element(_) => vec![frame],
        Asked::Elements(pop) => {
            let list = inside(frame).nth(1).unwrap_or_default();
            if pop.scored {
                inside(list).flat_map(inside).collect()
            } else {
                inside(list).collect()
            }
        }
        Asked::Streams | Asked::GroupStreams => Vec::new(),
    }
}

/// The text of a double, without its marker.
fn number(frame: &[u8]) -> &[u8] {
    let line = frame.strip_prefix(b",").unwrap_or_default();
    line.strip_suffix(b"\r\n").unwrap_or_default()
}

/// What `XINFO STREAM` says of the last entry.
fn last_entry(frame: &[u8]) -> Option<&[u8]> {
    let mut fields = reply::elements(frame)?;
    while let Some(name) = fields.next() {
        let value = fields.next()?;
        if reply::text(name) == Some(b"last-generated-id") {
            return reply::text(value);
        }
    }
    None
}

/// How long a client waits. Zero: not at all. `None`: for ever.
fn patience(
    command: &Command,
    request: &Request<'_>,
    keys: usize,
) -> Result<Option<Duration>, &'static str> {
    match command.name {
        "lmpop" | "zmpop" => Ok(Some(Duration::ZERO)),
        "blmpop" | "bzmpop" => seconds(request.arg(1))
            .map_err(|text| faulty_pop(command, request, keys).unwrap_or(text)),
        "xread" | "xreadgroup" => match command::block_option(command, request) {
            Some(at) => milliseconds(request.arg(at + 1)),
            None => Ok(Some(Duration::ZERO)),
        },
        _ => seconds(request.arg(request.len() - 1)),
    }
}

/// What is wrong with the arguments of `BLMPOP` or `BZMPOP` behind its `keys`, which Redis looks at
/// before the timeout (`lmpopGenericCommand` in `t_list.c`).
fn faulty_pop(command: &Command, request: &Request<'_>, keys: usize) -> Option<&'static str> {
    let ends: [&[u8]; 2] = match command.name {
        "blmpop" => [b"LEFT", b"RIGHT"],
        _ => [b"MIN", b"MAX"],
    };
    let mut rest = request.args().skip(3 + keys);
    let end = rest.next().unwrap_or_default();
    let is_end = ends.iter().any(|known| end.eq_ignore_ascii_case(known));
    match (rest.next(), rest.next(), rest.next()) {
        (None, ..) if is_end => None,
        (Some(option), Some(count), more) if is_end && option.eq_ignore_ascii_case(b"COUNT") => {
            match parse_i64(count) {
                Some(1..) => more.map(|_| "ERR syntax error"),
                _ => Some("ERR count should be greater than 0"),
            }
        }
        _ => Some("ERR syntax error"),
    }
}

/// A timeout in seconds; zero is for ever. Else Redis's error (`getTimeoutFromObjectOrReply` in
/// `timeout.c`).
pub(super) fn seconds(text: &[u8]) -> Result<Option<Duration>, &'static str> {
    let seconds = parse_double(text).ok_or("ERR timeout is not a float or out of range")?;
    let ms = (seconds * 1000.0).ceil();
    // What is too large for it wraps around there.
    if !(0.0..MS_TOO_LARGE).contains(&ms) {
        return Err("ERR timeout is negative");
    }
    Ok(Some(Duration::from_secs_f64(ms / 1000.0)).filter(|timeout| !timeout.is_zero()))
}

/// The same in milliseconds.
fn milliseconds(text: &[u8]) -> Result<Option<Duration>, &'static str> {
    let ms = parse_i64(text).ok_or("ERR timeout is not an integer or out of range")?;
    let ms = u64::try_from(ms).map_err(|_| "ERR timeout is negative")?;
    Ok(Some(Duration::from_millis(ms)).filter(|timeout| !timeout.is_zero()))
}

/// One more than the most milliseconds that 64 bits with a sign hold: 2^63.
const MS_TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

/// The pause between the first two rounds. Each later one is twice as long, up to [`LONGEST`].
pub(super) const SHORTEST: Duration = Duration::from_millis(5);
pub(super) const LONGEST: Duration = Duration::from_millis(50);

/// What `XINFO STREAM` says where there is none (`lookupKeyOrReply` with `shared.nokeyerr`).
const NO_KEY: &[u8] = b"ERR no such key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_as_redis_reads_it() {
        assert_eq!(seconds(b"0"), Ok(None));
        assert_eq!(seconds(b"0.25"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(seconds(b"0x1p-2"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(seconds(b"0.0001"), Ok(Some(Duration::from_millis(1))));
        assert_eq!(seconds(b"-0.0001"), Ok(None));
        for negative in [&b"-1"[..], b"inf", b"1e300", b"9223372036854776"] {
            assert_eq!(seconds(negative), Err("ERR timeout is negative"));
        }
        for wrong in [&b"x"[..], b"", b"nan", b"1e"] {
            let text = "ERR timeout is not a float or out of range";
            assert_eq!(seconds(wrong), Err(text), "{wrong:?}");
        }
        assert_eq!(milliseconds(b"0"), Ok(None));
        assert_eq!(milliseconds(b"250"), Ok(Some(Duration::from_millis(250))));
        for wrong in [&b"-1"[..], b"x", b"", b"0.5"] {
            assert!(milliseconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn elements_are_found_in_every_form_of_reply() {
        let pop = |scored| Pop {
            name: "",
            back: "",
            scored,
        };
        let check = |asked, frame: &str, expected: &[&str]| {
            let found = elements(frame.as_bytes(), asked);
            let expected: Vec<_> = expected.iter().map(|text| text.as_bytes()).collect();
            assert_eq!(found, expected, "{frame:?}");
        };
        let (a, one) = ("$1\r\na\r\n", ",1\r\n");
        check(Asked::Element(pop(false)), a, &[a]);
        check(Asked::Element(pop(false)), "_\r\n", &[]);
        check(
            Asked::Element(pop(true)),
            "*2\r\n$1\r\na\r\n,1\r\n",
            &[a, one],
        );
        check(Asked::Element(pop(true)), "*0\r\n", &[]);
        let lists = "*2\r\n$1\r\nk\r\n*2\r\n$1\r\na\r\n$1\r\na\r\n";
        check(Asked::Elements(pop(false)), lists, &[a, a]);
        let sets = "*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$1\r\na\r\n,1\r\n";
        check(Asked::Elements(pop(true)), sets, &[a, one]);
        check(Asked::Elements(pop(true)), "_\r\n", &[]);
    }
}
