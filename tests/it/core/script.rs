//! What the flush script means, for the model node.

use tally::resp::{Protocol, encode, parse_i64};

use super::node::{BODY, Frame, Node, SHA};

impl Node {
    /// `EVAL` and `EVALSHA` of the one script that Tally sends.
    pub(super) fn eval(&mut self, name: &[u8], argv: &[Vec<u8>]) -> Frame {
        if name == b"EVAL" {
            assert_eq!(argv[1], BODY);
            self.script = true;
        }
        if !self.script {
            return b"-NOSCRIPT No matching script.\r\n".to_vec();
        }
        assert!(name == b"EVAL" || argv[1] == SHA);
        let keys = usize::try_from(number(&argv[2])).unwrap();
        let (keys, rest) = argv[3..].split_at(keys);
        assert_eq!(
            rest.len(),
            4 + keys.len() - 1,
            "four of the batch, one a key"
        );
        self.apply_batch(&keys[0], &keys[1..], rest)
    }

    fn apply_batch(&mut self, marker: &[u8], keys: &[Vec<u8>], args: &[Vec<u8>]) -> Frame {
        let (epoch, batch, certainty) = (number(&args[0]), number(&args[1]), args[2].as_slice());
        let (mut status, mut last) = ("applied", batch);
        let mut exceptions: Vec<String> = Vec::new();
        match self.text(marker).unwrap() {
            Some(text) => {
                let text = String::from_utf8(text).unwrap();
                let mut words = text.split(' ').map(str::to_owned);
                let mut next = || number(words.next().unwrap().as_bytes());
                let (of, seen) = (next(), next());
                exceptions = words.collect();
                if matches!(certainty, b"claim" | b"takeover") {
                    return self.take_over(marker, (of + 1).max(epoch), seen, &exceptions, args);
                }
                status = match () {
                    () if of > epoch => "fenced",
                    () if seen >= batch => "done",
                    () if seen < batch - 1 && certainty != b"resync" => "gap",
                    () => status,
                };
                if status != "applied" {
                    last = seen;
                }
            }
            None if certainty == b"claim" => {
                return self.take_over(marker, epoch, batch, &exceptions, args);
            }
            None if matches!(certainty, b"again" | b"takeover") => (status, last) = ("missing", 0),
            None => {}
        }
        let each = || keys.iter().zip(&args[4..]);
        if status == "applied" {
            let of = |exception: &String| number(exception.split('.').next().unwrap().as_bytes());
            exceptions.retain(|exception| of(exception) + 8 > batch);
            for (index, (key, args)) in each().enumerate() {
                if let Some(kind) = self.apply(key, &Said::of(args)) {
                    exceptions.push(format!("{batch}.{index}.{kind}"));
                }
            }
            self.write_marker(marker, epoch, batch, &exceptions, args);
        }
        let mut out = Vec::new();
        encode::array(&mut out, 5 + keys.len());
        encode::bulk(&mut out, status.as_bytes());
        encode::bulk(&mut out, last.to_string().as_bytes());
        encode::bulk(&mut out, self.now.to_string().as_bytes());
        let exceptions = exceptions.iter().map(|exception| format!(" {exception}"));
        encode::bulk(&mut out, exceptions.collect::<String>().as_bytes());
        let asked = each()
            .enumerate()
            .filter(|(_, (_, said))| Said::of(said).asks);
        let deadlines = asked.map(|(index, (key, _))| {
            let deadline = match self.held(key).map(|held| held.deadline) {
                None => -2,
                Some(None) => -1,
                Some(Some(deadline)) => i64::try_from(deadline).unwrap(),
            };
            format!(" {index}.{deadline}")
        });
        encode::bulk(&mut out, deadlines.collect::<String>().as_bytes());
        for key in keys {
            match self.text(key).ok().flatten() {
                Some(text) => encode::bulk(&mut out, &text),
                None => encode::null(&mut out, Protocol::Resp3),
            }
        }
        out
    }

    /// The series is another process's from now on.
    fn take_over(
        &mut self,
        marker: &[u8],
        epoch: i64,
        seen: i64,
        exceptions: &[String],
        args: &[Vec<u8>],
    ) -> Frame {
        self.write_marker(marker, epoch, seen, exceptions, args);
        let exceptions = exceptions.iter().map(|exception| format!(" {exception}"));
        let words = [
            "taken".to_owned(),
            seen.to_string(),
            self.now.to_string(),
            exceptions.collect(),
            epoch.to_string(),
        ];
        let mut out = Vec::new();
        encode::array(&mut out, words.len());
        for word in words {
            encode::bulk(&mut out, word.as_bytes());
        }
        out
    }

    fn write_marker(
        &mut self,
        marker: &[u8],
        epoch: i64,
        number: i64,
        exceptions: &[String],
        args: &[Vec<u8>],
    ) {
        let words = [
            vec![epoch.to_string(), number.to_string()],
            exceptions.to_vec(),
        ]
        .concat();
        let value = words.join(" ").into_bytes();
        let set = [b"SET".to_vec(), marker.to_vec(), value, b"PX".to_vec()];
        self.set(&[set.as_slice(), &args[3..4]].concat());
    }

    /// One key: what was out of the ordinary, if anything.
    fn apply(&mut self, key: &[u8], said: &Said<'_>) -> Option<char> {
        let Said { due, deadline, .. } = *said;
        let past = deadline.is_some_and(|deadline| deadline <= self.now);
        let current = self.text(key);
        if past && due {
            self.evict(key);
            return Some('x');
        }
        let smaller = |text: &[u8]| parse_i64(text).is_none_or(|value| value < said.last);
        let anew = !matches!(&current, Ok(Some(text)) if !smaller(text));
        if past && anew {
            return Some('x');
        }
        if said.delta != "0"
            && let Err(error) = self.increment(key, said.delta.as_bytes())
        {
            let error = String::from_utf8(error).unwrap();
            return Some(match () {
                () if error.starts_with("-WRONGTYPE") => 'w',
                () if error.contains("overflow") => 'o',
                () => 'n',
            });
        }
        if past {
            return Some('a');
        }
        if (due || current == Ok(None))
            && let (Some(deadline), Some(held)) = (deadline, self.held(key))
        {
            held.deadline = Some(deadline);
        }
        None
    }
}

/// What a call says of one key.
pub(super) struct Said<'a> {
    pub(super) delta: &'a str,
    pub(super) deadline: Option<u64>,
    pub(super) last: i64,
    pub(super) due: bool,
    asks: bool,
}

impl<'a> Said<'a> {
    pub(super) fn of(argument: &'a [u8]) -> Self {
        let words: Vec<_> = std::str::from_utf8(argument).unwrap().split(' ').collect();
        let (deadline, last, flag) = match words[1..] {
            [] => ("-", "0", "n"),
            [deadline, last, flag] => (deadline, last, flag),
            _ => panic!("{words:?}"),
        };
        Self {
            delta: words[0],
            deadline: (deadline != "-").then(|| deadline.parse().unwrap()),
            last: last.parse().unwrap(),
            due: matches!(flag, "d" | "b"),
            asks: matches!(flag, "a" | "b"),
        }
    }
}

fn number(text: &[u8]) -> i64 {
    parse_i64(text).unwrap()
}
