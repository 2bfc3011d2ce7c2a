//! Reads one whole frame, as measured by [`ReplyScanner`].

use super::super::number::parse_i64;
use super::{Aggregate, ReplyScanner, header};

/// Whether `frame` is out of band: `>`.
pub fn is_push(frame: &[u8]) -> bool {
    matches!(behind_attributes(frame), [b'>', ..])
}

/// Whether `frame` is an error: `-` or `!`.
pub fn is_error(frame: &[u8]) -> bool {
    matches!(behind_attributes(frame), [b'-' | b'!', ..])
}

/// Whether `frame` is a null of either protocol: `_`, `$-1` or `*-1`.
pub fn is_null(frame: &[u8]) -> bool {
    matches!(
        behind_attributes(frame),
        [b'_', ..] | [b'$' | b'*', b'-', ..]
    )
}

/// Value of `:n`.
pub fn integer(frame: &[u8]) -> Option<i64> {
    match behind_attributes(frame) {
        [b':', digits @ .., b'\r', b'\n'] => parse_i64(digits),
        _ => None,
    }
}

/// Payload of a status, an error or a string (`+`, `-`, `$`, `!`, and `=` without its format).
/// `None` for everything else, null included.
pub fn text(frame: &[u8]) -> Option<&[u8]> {
    let frame = behind_attributes(frame);
    let (marker, rest) = frame.split_first()?;
    match marker {
        b'+' | b'-' => rest.strip_suffix(b"\r\n"),
        b'$' | b'!' => bulk_payload(rest),
        b'=' => {
            let payload = bulk_payload(rest)?;
            match payload {
                [_, _, _, b':', text @ ..] => Some(text),
                other => Some(other),
            }
        }
        _ => None,
    }
}

/// Elements of an array, a set or a push; a map's keys and values by turns. `None` for everything
/// else, null included.
///
/// Each level is measured again, so walking a whole frame costs its length times its depth: bound
/// the depth, which may reach [`super::MAX_DEPTH`].
pub fn elements(frame: &[u8]) -> Option<Elements<'_>> {
    let (marker, rest) = behind_attributes(frame).split_first()?;
    let kind = match marker {
        b'*' => Aggregate::Array,
        b'~' | b'>' => Aggregate::Set,
        b'%' => Aggregate::Map,
        _ => return None,
    };
    Elements::new(rest, kind)
}

/// Iterator over the frames inside a frame, see [`elements`].
#[derive(Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    missing: usize,
    scanner: ReplyScanner,
}

impl<'a> Elements<'a> {
    /// `rest` starts behind the marker.
    fn new(rest: &'a [u8], kind: Aggregate) -> Option<Self> {
        let (len, start) = header(rest).ok()??;
        let rest = rest.get(start..)?;
        let missing = usize::try_from(kind.elements(u64::try_from(len).ok()?)).ok()?;
        // True of every whole frame. It keeps `collect` from reserving room for elements that
        // were only declared.
        (missing <= rest.len() / MIN_FRAME_BYTES).then_some(Self {
            rest,
            missing,
            scanner: ReplyScanner::new(),
        })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.missing == 0 {
            return None;
        }
        let len = self.scanner.scan(self.rest).ok().flatten();
        let Some((element, rest)) = len.and_then(|len| self.rest.split_at_checked(len)) else {
            self.missing = 0;
            return None;
        };
        self.missing -= 1;
        self.rest = rest;
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.missing, Some(self.missing))
    }
}

impl ExactSizeIterator for Elements<'_> {}

/// `frame` without the attributes in front of it; empty if there is nothing else.
#[inline]
fn behind_attributes(frame: &[u8]) -> &[u8] {
    if frame.first() == Some(&b'|') {
        skip_attributes(frame)
    } else {
        frame
    }
}

#[cold]
fn skip_attributes(mut frame: &[u8]) -> &[u8] {
    while let [b'|', rest @ ..] = frame {
        // The pairs are those of a map.
        let Some(mut pairs) = Elements::new(rest, Aggregate::Map) else {
            return &[];
        };
        let declared = pairs.len();
        if pairs.by_ref().count() < declared {
            return &[];
        }
        frame = pairs.rest;
    }
    frame
}

fn bulk_payload(rest: &[u8]) -> Option<&[u8]> {
    let (len, start) = header(rest).ok()??;
    let len = usize::try_from(len).ok()?;
    rest.get(start..start.checked_add(len)?)
}

/// Bytes of the smallest frame, such as `+\r\n`.
const MIN_FRAME_BYTES: usize = 3;
