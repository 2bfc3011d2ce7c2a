//! Where keys are, as a server's own `COMMAND` says it: its key specifications (Redis 7.0 and newer).

use super::keys::KeysError;
use crate::resp::{Request, parse_i64};

/// One specification: where some of the keys begin, and which they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeySpec {
    pub(super) begin: Begin,
    pub(super) find: Find,
}

/// Where they begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Begin {
    /// At this argument.
    Index(usize),
    /// Behind this word, in any case, looked for from an argument on; backwards from the end if that
    /// is negative. Without the word there are no such keys.
    Keyword { word: Box<str>, from: i32 },
}

/// Which they are, counted from where they begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Find {
    /// Every `step`th to the one `last` further on; counted from the end of the request if negative,
    /// or of the part of it that `limit` divides it to, if that is 2 or more.
    Range {
        last: i32,
        step: usize,
        limit: usize,
    },
    /// As many as argument `at` says, from `first` on.
    Counted {
        at: usize,
        first: usize,
        step: usize,
    },
}

/// Adds the places of all keys (`getKeysUsingKeySpecs` in Redis's `db.c`).
///
/// # Errors
///
/// A number of keys that is none or below one, less arguments than keys, or no key at all.
pub(super) fn positions(
    specs: &[KeySpec],
    request: &Request<'_>,
    out: &mut Vec<usize>,
) -> Result<(), KeysError> {
    for spec in specs {
        let Some(begin) = spec.begin.find(request) else {
            continue;
        };
        let (first, end, step) = spec.find.range(begin, request)?;
        if end > request.len() {
            return Err(KeysError::Syntax);
        }
        out.extend((first..end).step_by(step));
    }
    if out.is_empty() {
        return Err(KeysError::Syntax);
    }
    Ok(())
}

impl Begin {
    fn find(&self, request: &Request<'_>) -> Option<usize> {
        let (word, from) = match self {
            Self::Index(at) => return Some(*at),
            Self::Keyword { word, from } => (word, *from),
        };
        let is_word = |at: &usize| request.arg(*at).eq_ignore_ascii_case(word.as_bytes());
        let distance = usize::try_from(from.unsigned_abs()).ok()?;
        // What follows the word is a key, so it is not the last argument.
        let found = if from >= 0 {
            (distance.max(1)..request.len().saturating_sub(1)).find(is_word)
        } else {
            let last = request.len().checked_sub(distance)?;
            (1..=last).rev().find(is_word)
        };
        found.map(|at| at + 1)
    }
}

impl Find {
    /// The first key's place, the end, which is at most one behind the last key's, and the step.
    fn range(
        self,
        begin: usize,
        request: &Request<'_>,
    ) -> Result<(usize, usize, usize), KeysError> {
        match self {
            Self::Range { last, step, limit } => {
                let distance = usize::try_from(last.unsigned_abs()).unwrap_or(usize::MAX);
                let end = if last >= 0 {
                    begin.saturating_add(distance).saturating_add(1)
                } else {
                    let rest = request.len().saturating_sub(begin);
                    let part = if limit < 2 { rest } else { rest / limit };
                    (begin + part + 1).saturating_sub(distance)
                };
                Ok((begin, end, step))
            }
            Self::Counted { at, first, step } => {
                let count = request.arg(begin.saturating_add(at));
                let count = parse_i64(count).ok_or(KeysError::NotAnInteger)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                let count = count.ok_or(KeysError::NotPositive)?;
                let first = begin.saturating_add(first);
                let last = (count - 1).saturating_mul(step).saturating_add(first);
                Ok((first, last.saturating_add(1), step))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::testing::with_request;

    #[track_caller]
    fn check(begin: Begin, find: Find, line: &str, want: Result<&[usize], KeysError>) {
        with_request(line, |request| {
            let mut out = Vec::new();
            let spec = KeySpec { begin, find };
            let found = positions(&[spec], request, &mut out);
            assert_eq!(found.map(|()| &*out), want, "{line}");
        });
    }

    #[test]
    fn ranges_are_counted_from_their_begin_or_from_the_end() {
        let one = |last, step, limit| Find::Range { last, step, limit };
        let at = || Begin::Index(1);
        check(at(), one(0, 1, 0), "C k v", Ok(&[1]));
        check(at(), one(-1, 1, 0), "C a b c", Ok(&[1, 2, 3]));
        check(at(), one(-2, 1, 0), "C a b 0", Ok(&[1, 2]));
        check(at(), one(-1, 2, 0), "C a 1 b 2", Ok(&[1, 3]));
        check(at(), one(1, 1, 0), "C a", Err(KeysError::Syntax));
        let behind = |from| Begin::Keyword {
            word: "STREAMS".into(),
            from,
        };
        check(
            behind(1),
            one(-1, 1, 2),
            "C COUNT 5 streams a b 0 0",
            Ok(&[4, 5]),
        );
        check(
            behind(1),
            one(0, 1, 0),
            "C x streams",
            Err(KeysError::Syntax),
        );
        check(behind(-2), one(-1, 1, 0), "C streams x streams k", Ok(&[4]));
        check(
            behind(-9),
            one(-1, 1, 0),
            "C streams k",
            Err(KeysError::Syntax),
        );
    }

    #[test]
    fn counted_keys_follow_their_number() {
        let counted = |step| Find::Counted {
            at: 0,
            first: 1,
            step,
        };
        let at = || Begin::Index(1);
        check(at(), counted(2), "C 2 a 1 b 2 EX 9", Ok(&[2, 4]));
        check(at(), counted(1), "C 2 a b", Ok(&[2, 3]));
        check(at(), counted(1), "C 3 a b", Err(KeysError::Syntax));
        check(at(), counted(1), "C 0 a", Err(KeysError::NotPositive));
        check(at(), counted(1), "C -1 a", Err(KeysError::NotPositive));
        check(at(), counted(1), "C a a", Err(KeysError::NotAnInteger));
        check(
            at(),
            counted(1),
            "C 9223372036854775807 a",
            Err(KeysError::Syntax),
        );
        check(
            at(),
            counted(9),
            "C 9223372036854775807 a",
            Err(KeysError::Syntax),
        );
    }
}
