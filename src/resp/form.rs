//! Turns a RESP3 reply of a node into the bytes that the same node sends to a RESP2 client.
//!
//! Lanes speak RESP3 whatever their clients speak. Most types have one RESP2 form each; [`Form`]
//! says where a command's reply differs in more than its types. Checked for every data command of
//! the table against a live server (`tests/it/forms.rs`).
//!
//! Conversion is a walk over tokens with one counter of what is left, no recursion: depth costs
//! nothing. What is the same in both protocols is copied in runs.

use memchr::memchr;

use super::encode;

/// What differs between a command's RESP3 and RESP2 replies, besides the types.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Form {
    /// Nothing: null is `$-1`, a map a flat array, a set or push an array, a double or big number
    /// or verbatim text a bulk string, a boolean 1 or 0.
    #[default]
    Plain,
    /// Null, however deep, is `*-1`: `LMPOP`, `GEOPOS`.
    NullArray,
    /// As [`Form::NullArray`] if the request has a count, else as [`Form::Plain`]: `LPOP`, `RPOP`.
    /// `Command::form_of` decides; unresolved it is `Plain`.
    PopCount,
    /// As [`Form::NullArray`] if the request has `WITHSCORE`, else as [`Form::Plain`]: `ZRANK`. Decided as
    /// for [`Form::PopCount`].
    RankScore,
    /// An array of pairs is flat: `ZRANGE ... WITHSCORES`, `ZPOPMIN key count`.
    Pairs,
    /// A map is an array of pairs, and null is `*-1`: `XREAD`.
    StreamPairs,
    /// Null in the fourth place is `*-1`, elsewhere `$-1`: `XPENDING` of a group without pending
    /// entries.
    PendingSummary,
}

/// Appends the RESP2 form of `frame`, one complete RESP3 reply, to `out`.
///
/// Cost: linear; a simple string, error, integer or bulk string is one copy, and not looked into.
/// Any other frame that is not one complete reply becomes an error reply.
pub fn to_resp2(frame: &[u8], form: Form, out: &mut Vec<u8>) {
    if let [b'+' | b'-' | b':' | b'$', ..] = frame {
        out.extend_from_slice(frame);
        return;
    }
    let start = out.len();
    let mut walk = Walk {
        frame,
        at: 0,
        copied: 0,
        out,
    };
    if walk.reply(form).is_none() || walk.at != frame.len() {
        out.truncate(start);
        encode::error(out, "ERR the node sent a malformed reply");
    }
}

/// Place in a frame, and how much of it is in `out`.
#[derive(Debug)]
struct Walk<'a> {
    frame: &'a [u8],
    /// First byte of the next token.
    at: usize,
    /// End of what is written; `copied..at` are tokens that are the same in RESP2.
    copied: usize,
    out: &'a mut Vec<u8>,
}

/// First token of a reply, or of an element of one.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    start: usize,
    marker: u8,
    /// Between the marker and CRLF.
    line: &'a [u8],
}

const NULL: &[u8] = b"$-1\r\n";
const NULL_ARRAY: &[u8] = b"*-1\r\n";

/// All methods are `None` where the frame is malformed.
impl<'a> Walk<'a> {
    fn reply(&mut self, form: Form) -> Option<()> {
        match form {
            Form::Plain | Form::PopCount | Form::RankScore => self.values(1, NULL)?,
            Form::NullArray => self.values(1, NULL_ARRAY)?,
            Form::Pairs => self.pairs()?,
            Form::StreamPairs => self.stream_pairs()?,
            Form::PendingSummary => self.pending_summary()?,
        }
        self.copy_run(self.at);
        Some(())
    }

    /// `*n` of `*2` becomes `*2n`; anything else is plain.
    fn pairs(&mut self) -> Option<()> {
        let pairs_follow =
            |rest: &[u8]| memchr(b'\n', rest).is_some_and(|end| rest.get(end + 1) == Some(&b'*'));
        if self.frame.first() != Some(&b'*') || !pairs_follow(self.frame) {
            return self.values(1, NULL);
        }
        let array = self.token()?;
        let pairs = array.count()?;
        self.replace_header(array, b'*', pairs.checked_mul(2)?);
        for _ in 0..pairs {
            let pair = self.token()?;
            if pair.marker != b'*' || pair.count()? != 2 {
                return None;
            }
            self.replace(pair, &[]);
            self.values(2, NULL)?;
        }
        Some(())
    }

    /// `%n` becomes `*n` of `*2`.
    fn stream_pairs(&mut self) -> Option<()> {
        if self.frame.first() != Some(&b'%') {
            return self.values(1, NULL_ARRAY);
        }
        let map = self.token()?;
        let pairs = map.count()?;
        self.replace_header(map, b'*', pairs);
        for _ in 0..pairs {
            self.copy_run(self.at);
            self.out.extend_from_slice(b"*2\r\n");
            self.values(2, NULL_ARRAY)?;
        }
        Some(())
    }

    fn pending_summary(&mut self) -> Option<()> {
        if !self.frame.starts_with(b"*4\r\n") {
            return self.values(1, NULL);
        }
        self.token()?;
        self.values(3, NULL)?;
        self.values(1, NULL_ARRAY)
    }

    /// Converts the next `count` values and all that is in them.
    fn values(&mut self, count: usize, null: &[u8]) -> Option<()> {
        let mut left = count;
        while left > 0 {
            let token = self.token()?;
            left -= 1;
            match token.marker {
                b'+' | b'-' | b':' => {}
                b'$' | b'*' if token.line == b"-1" => {}
                b'$' => {
                    self.text(token)?;
                }
                b'*' => left = left.checked_add(token.count()?)?,
                b'~' | b'>' => {
                    let members = token.count()?;
                    self.replace_header(token, b'*', members);
                    left = left.checked_add(members)?;
                }
                b'%' => {
                    let members = token.count()?.checked_mul(2)?;
                    self.replace_header(token, b'*', members);
                    left = left.checked_add(members)?;
                }
                b'_' => self.replace(token, null),
                b'#' => match token.line {
                    b"t" => self.replace(token, b":1\r\n"),
                    b"f" => self.replace(token, b":0\r\n"),
                    _ => return None,
                },
                b',' | b'(' => {
                    self.replace(token, &[]);
                    encode::bulk(self.out, token.line);
                }
                b'=' => {
                    let text = self.text(token)?;
                    self.replace(token, &[]);
                    // Three letters of a format and a colon come before the text.
                    encode::bulk(self.out, text.get(4..)?);
                }
                b'!' => {
                    let text = self.text(token)?;
                    self.replace(token, &[]);
                    encode::error(self.out, text);
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// Reads a marker and its line.
    fn token(&mut self) -> Option<Token<'a>> {
        let start = self.at;
        let (marker, rest) = self.frame.get(start..)?.split_first()?;
        let len = memchr(b'\r', rest)?;
        let line = rest.get(..len)?;
        if rest.get(len + 1) != Some(&b'\n') {
            return None;
        }
        self.at = start + 1 + len + 2;
        Some(Token {
            start,
            marker: *marker,
            line,
        })
    }

    /// Reads the text whose length `token` gives, and its CRLF.
    fn text(&mut self, token: Token<'a>) -> Option<&'a [u8]> {
        let end = self.at.checked_add(token.count()?)?;
        let text = self.frame.get(self.at..end)?;
        if self.frame.get(end..end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        self.at = end + 2;
        Some(text)
    }

    /// Writes the run that ends at `end` and has not been written yet.
    fn copy_run(&mut self, end: usize) {
        let run = self.frame.get(self.copied..end).unwrap_or_default();
        self.out.extend_from_slice(run);
        self.copied = end;
    }

    /// Writes `bytes` in place of `token` and of the text after it, as far as it has been read.
    fn replace(&mut self, token: Token<'_>, bytes: &[u8]) {
        self.copy_run(token.start);
        self.out.extend_from_slice(bytes);
        self.copied = self.at;
    }

    fn replace_header(&mut self, token: Token<'_>, marker: u8, len: usize) {
        self.replace(token, &[marker]);
        let mut digits = itoa::Buffer::new();
        self.out.extend_from_slice(digits.format(len).as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }
}

impl Token<'_> {
    /// A length or a number of elements: digits only, so null forms are not among them.
    fn count(&self) -> Option<usize> {
        if !self.line.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(self.line).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(form: Form, resp3: &[u8], resp2: &[u8]) {
        let mut out = b"before".to_vec();
        to_resp2(resp3, form, &mut out);
        let text = String::from_utf8_lossy(&out);
        assert_eq!(out, [b"before", resp2].concat(), "{text}");
    }

    #[test]
    fn every_type_has_its_resp2_form() {
        check(Form::Plain, b"_\r\n", b"$-1\r\n");
        check(Form::Plain, b"#t\r\n", b":1\r\n");
        check(Form::Plain, b"#f\r\n", b":0\r\n");
        check(Form::Plain, b",1.5\r\n", b"$3\r\n1.5\r\n");
        check(Form::Plain, b",-inf\r\n", b"$4\r\n-inf\r\n");
        check(
            Form::Plain,
            b"(123456789012345678901\r\n",
            b"$21\r\n123456789012345678901\r\n",
        );
        check(Form::Plain, b"=6\r\ntxt:ab\r\n", b"$2\r\nab\r\n");
        check(Form::Plain, b"!5\r\nERR\nx\r\n", b"-ERR x\r\n");
        check(
            Form::Plain,
            b"%1\r\n+a\r\n~2\r\n:1\r\n_\r\n",
            b"*2\r\n+a\r\n*2\r\n:1\r\n$-1\r\n",
        );
        check(Form::Plain, b">2\r\n+a\r\n+b\r\n", b"*2\r\n+a\r\n+b\r\n");
    }

    #[test]
    fn what_is_the_same_is_copied() {
        for same in [
            &b"+OK\r\n"[..],
            b"-ERR x\r\n",
            b":-7\r\n",
            b"$3\r\n_\r\n\r\n",
            b"$-1\r\n",
            b"*0\r\n",
            b"*2\r\n*1\r\n$2\r\n\r\n\r\n$0\r\n\r\n",
        ] {
            check(Form::Plain, same, same);
        }
    }

    #[test]
    fn forms_differ_where_they_say() {
        check(
            Form::NullArray,
            b"*2\r\n_\r\n*1\r\n,1\r\n",
            b"*2\r\n*-1\r\n*1\r\n$1\r\n1\r\n",
        );
        check(
            Form::Pairs,
            b"*2\r\n*2\r\n$1\r\na\r\n,1\r\n*2\r\n$1\r\nb\r\n,2\r\n",
            b"*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n",
        );
        check(
            Form::Pairs,
            b"*2\r\n$1\r\na\r\n,1\r\n",
            b"*2\r\n$1\r\na\r\n$1\r\n1\r\n",
        );
        check(
            Form::StreamPairs,
            b"%1\r\n$1\r\ns\r\n*0\r\n",
            b"*1\r\n*2\r\n$1\r\ns\r\n*0\r\n",
        );
        check(Form::StreamPairs, b"_\r\n", b"*-1\r\n");
        check(
            Form::PendingSummary,
            b"*4\r\n:0\r\n_\r\n_\r\n_\r\n",
            b"*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n",
        );
    }

    #[test]
    fn a_malformed_reply_becomes_an_error() {
        for bad in [
            &b""[..],
            b"*1\r\n",
            b"*99999999999999999999\r\n",
            b"%9223372036854775807\r\n%9223372036854775807\r\n",
            b"*18446744073709551615\r\n*18446744073709551615\r\n",
            b"*1\r\n$18446744073709551615\r\nx\r\n",
            b"*1\r\n$2\r\nabc\r\n",
            b"*0\r\n*0\r\n",
            b"=2\r\nab\r\n",
            b"#x\r\n",
            b"?\r\n",
            b"_",
            b"_\rx",
        ] {
            check(
                Form::Plain,
                bad,
                b"-ERR the node sent a malformed reply\r\n",
            );
        }
        check(
            Form::Pairs,
            b"*1\r\n*3\r\n:1\r\n:2\r\n:3\r\n",
            b"-ERR the node sent a malformed reply\r\n",
        );
    }

    #[test]
    fn depth_costs_no_stack() {
        let mut deep = b"*1\r\n".repeat(1_000_000);
        deep.extend_from_slice(b":1\r\n");
        check(Form::Plain, &deep, &deep);
    }

    const FORMS: [Form; 7] = [
        Form::Plain,
        Form::NullArray,
        Form::PopCount,
        Form::RankScore,
        Form::Pairs,
        Form::StreamPairs,
        Form::PendingSummary,
    ];

    proptest! {
        #[test]
        fn any_bytes_are_survived(frame in "([*%~>$=!,#(_:+-][0-4]?(\r\n)?[a-z]{0,3}){0,12}") {
            for form in FORMS {
                let mut out = Vec::new();
                to_resp2(frame.as_bytes(), form, &mut out);
                prop_assert_eq!(out.is_empty(), false);
            }
        }
    }
}
