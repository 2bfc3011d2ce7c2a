//! A batch settles each key once, in order, whatever the node says.

use proptest::collection::vec;
use proptest::prelude::*;

use tally::flush::{Batch, Outcome, Ttl};
use tally::key::Key;
use tally::resp::encode;

/// What a node answers to one `INCRBY`, and to the `PTTL` behind it.
#[derive(Clone, Debug)]
struct Answers {
    delta: i64,
    value: Result<i64, &'static str>,
    ttl: Result<i64, &'static str>,
}

fn answers() -> impl Strategy<Value = Answers> {
    let errors = prop_oneof![
        Just("OOM command not allowed"),
        Just("LOADING Redis is loading"),
        Just("WRONGTYPE Operation"),
        Just("ERR increment or decrement would overflow"),
        Just(""),
    ];
    let value = prop_oneof![3 => any::<i64>().prop_map(Ok), 1 => errors.clone().prop_map(Err)];
    let ttl = prop_oneof![
        2 => Just(Ok(-1)),
        1 => Just(Ok(-2)),
        1 => (0..i64::MAX).prop_map(Ok),
        1 => errors.prop_map(Err),
    ];
    (any::<i64>(), value, ttl).prop_map(|(delta, value, ttl)| Answers { delta, value, ttl })
}

fn frame(answer: Result<i64, &str>) -> Vec<u8> {
    let mut out = Vec::new();
    match answer {
        Ok(value) => encode::integer(&mut out, value),
        Err(text) => encode::error(&mut out, text),
    }
    out
}

proptest! {
    #[test]
    fn every_key_is_settled_once_in_order(all in vec(answers(), 0..20), replies in 0_usize..50) {
        let mut batch = Batch::new();
        for (at, answers) in all.iter().enumerate() {
            batch.push(Key::new(at.to_string().as_bytes()), answers.delta);
        }
        let frames = all.iter().flat_map(|each| [frame(each.value), frame(each.ttl)]);
        let replies = replies.min(2 * all.len());
        let settled: Vec<_> = frames
            .take(replies)
            .filter_map(|frame| batch.on_reply(&frame))
            .collect();
        prop_assert_eq!(settled.len(), replies / 2);
        prop_assert_eq!(batch.is_settled(), replies == 2 * all.len());
        for (at, (increment, outcome)) in settled.iter().enumerate() {
            let Answers { delta, value, ttl } = &all[at];
            prop_assert_eq!(&increment.key, &Key::new(at.to_string().as_bytes()));
            prop_assert_eq!(increment.delta, *delta);
            match (value, outcome) {
                (Ok(value), Outcome::Applied { value: told, ttl: time }) => {
                    prop_assert_eq!(value, told);
                    // Without an answer, as if it had a deadline.
                    prop_assert_eq!(*time == Ttl::Forever, *ttl == Ok(-1));
                }
                (Err(text), Outcome::Refused(refusal)) => {
                    prop_assert_eq!(*text, refusal.text.as_str());
                    let transient = text.starts_with("OOM") || text.starts_with("LOADING");
                    prop_assert_eq!(refusal.transient, transient);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        let left: Vec<_> = batch.into_unsettled().map(|increment| increment.delta).collect();
        let expected: Vec<_> = all[replies / 2..].iter().map(|answers| answers.delta).collect();
        prop_assert_eq!(left, expected);
    }
}
