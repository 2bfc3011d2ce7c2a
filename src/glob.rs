//! Redis's glob patterns: those of `KEYS` for keys, those of `CONFIG GET` without regard to case.
//! Pure.

/// Whether `A` is the same as `a`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Case {
    /// It is not, as in `KEYS`.
    Exact,
    /// It is, as in `CONFIG GET`.
    Ignored,
}

impl Case {
    fn fold(self, byte: u8) -> u8 {
        match self {
            Self::Exact => byte,
            Self::Ignored => byte.to_ascii_lowercase(),
        }
    }
}

/// Whether `text` matches `pattern`: `*`, `?`, `[a-z]`, `[^a]` and `\x`, as Redis's
/// `stringmatchlen`. A pattern of more than [`MAX_PATTERN_BYTES`] matches nothing. Takes at most
/// pattern times text steps: unlike Redis's recursion it goes back to the last `*` only, which is
/// enough.
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if pattern.len() > MAX_PATTERN_BYTES {
        return false;
    }
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on after the last `*`, and the text that it has not swallowed yet.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            retry = Some((rest, text));
            continue;
        }
        match (one(pattern, text, case), text) {
            (Some(rest), [_, next @ ..]) => {
                pattern = rest;
                text = next;
            }
            (_, []) if pattern.is_empty() => return true,
            _ => {
                let Some((after_star, [_, swallowed @ ..])) = retry else {
                    return false;
                };
                pattern = after_star;
                text = swallowed;
                retry = Some((after_star, swallowed));
            }
        }
    }
}

/// What is left of the pattern when its first element matches the first byte of the text.
fn one<'a>(pattern: &'a [u8], text: &[u8], case: Case) -> Option<&'a [u8]> {
    let byte = case.fold(*text.first()?);
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => {
            let (found, rest) = class_holds(class, byte, case);
            found.then_some(rest)
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            (case.fold(*literal) == byte).then_some(rest)
        }
    }
}

/// Whether a class (after its `[`) holds a folded byte, and the pattern after its `]`. A class
/// without `]` ends with the pattern.
fn class_holds(class: &[u8], byte: u8, case: Case) -> (bool, &[u8]) {
    let (negated, mut class) = match class {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    loop {
        class = match class {
            [] => return (found != negated, class),
            [b']', rest @ ..] => return (found != negated, rest),
            [b'\\', literal, rest @ ..] => {
                found |= case.fold(*literal) == byte;
                rest
            }
            [from, b'-', to, rest @ ..] => {
                let (from, to) = (case.fold(*from), case.fold(*to));
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= case.fold(*literal) == byte;
                rest
            }
        };
    }
}

/// Longest pattern, in bytes; keys and parameters are seldom a tenth of it.
pub const MAX_PATTERN_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn ignoring_case(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), Case::Ignored)
    }

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        for text in matching {
            assert!(ignoring_case(pattern, text), "{text}");
        }
        for text in others {
            assert!(!ignoring_case(pattern, text), "{text}");
        }
    }

    #[test]
    fn stars_and_question_marks() {
        check("*", &["", "save"], &[]);
        check("max*", &["max", "maxmemory", "MAXCLIENTS"], &["ma", "amax"]);
        check("*-*-len", &["a-b-len", "a-b-c-len"], &["a-len", "a-b-lens"]);
        check("sav?", &["save", "SAVE"], &["sav", "saves"]);
        check("**a", &["a", "ba", "aa"], &["", "ab"]);
    }

    #[test]
    fn classes_ranges_and_escapes() {
        check("[ps]ort", &["port", "SORT"], &["fort", "ort"]);
        check("[^p]ort", &["sort"], &["port", "ort"]);
        check("h[a-c]", &["ha", "hC"], &["hd", "h"]);
        check("h[c-a]", &["hb"], &["hd"]);
        check(r"a\*", &["a*"], &["ab"]);
        check(r"[\]]", &["]"], &["a"]);
        check("[ab", &["a", "b"], &["c", "ab"]);
        check("a\\", &["a\\"], &["a"]);
    }

    #[test]
    fn keys_are_told_apart_by_case() {
        for (pattern, text) in [("a*", "Ab"), ("[a-c]", "B"), (r"\a", "A"), ("a", "A")] {
            assert!(ignoring_case(pattern, text));
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            assert!(!matches(pattern, text, Case::Exact));
            assert!(matches(pattern, &text.to_ascii_lowercase(), Case::Exact));
        }
    }

    #[test]
    fn many_stars_cost_little() {
        let pattern = "*a".repeat(500);
        assert!(!matches(pattern.as_bytes(), &[b'a'; 499], Case::Exact));
        assert!(matches(pattern.as_bytes(), &[b'a'; 500], Case::Exact));
    }
}
