//! Connections that take turns, on Tally and on a plain Redis beside it: all see the same.

use crate::connection::{Connection, words};
use crate::harness::{Settings, Stack};
use crate::servers::Redis;

/// A request of a connection, and on which connections a frame comes then, in that order.
pub(crate) type Step<'a> = (usize, &'a str, &'a str);

/// So many connections see the same from Tally as from a plain Redis, once each has run its greeting.
#[track_caller]
pub(crate) fn check<const N: usize>(greetings: [&str; N], steps: &[Step<'_>]) {
    check_with(&[], greetings, steps);
}

/// The same of a Tally with these settings.
#[track_caller]
pub(crate) fn check_with<const N: usize>(
    settings: Settings<'_>,
    greetings: [&str; N],
    steps: &[Step<'_>],
) {
    compare(
        &Redis::start(&[]),
        &Stack::start(settings),
        greetings,
        steps,
    );
}

/// The same of this Tally and this plain server, which are empty.
#[track_caller]
pub(crate) fn compare<const N: usize>(
    redis: &Redis,
    stack: &Stack,
    greetings: [&str; N],
    steps: &[Step<'_>],
) {
    let expected = seen(
        &mut greetings.map(|line| greeted(redis.connect(), line)),
        steps,
    );
    let actual = seen(
        &mut greetings.map(|line| greeted(stack.connect(), line)),
        steps,
    );
    for (step, (expected, actual)) in steps.iter().zip(expected.iter().zip(&actual)) {
        assert_eq!(actual, expected, "{step:?}");
    }
}

fn greeted(mut connection: Connection, line: &str) -> Connection {
    connection.run(line);
    connection
}

#[track_caller]
fn seen(connections: &mut [Connection], steps: &[Step<'_>]) -> Vec<Vec<String>> {
    let each = steps.iter().map(|(from, line, frames)| {
        connections[*from].send(&words(line));
        let readers = frames.bytes().map(|digit| usize::from(digit - b'0'));
        let frames = readers.map(|at| connections[at].read_frame());
        frames
            .map(|frame| frame.escape_ascii().to_string())
            .collect()
    });
    each.collect()
}
