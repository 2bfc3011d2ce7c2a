//! Finds where each request of a client ends, and where its arguments are.
//!
//! Iterative, resumable, and without copies: the bytes stay in the caller's buffer, the scanner
//! keeps a position and the places of the arguments found so far.
//!
//! Linear, however the bytes are split, because no byte is examined more than a constant number
//! of times:
//!
//! - The payload of an argument is never examined, only the two bytes behind it.
//! - A header of up to nine digits is read again on each call until it is complete (eleven bytes
//!   at most), and a longer one or an inline request is searched only from `searched` on.
//! - While `wanted` bytes are not there, a call does nothing.
//!
//! The same holds for results: what comes out, an error included, does not depend on the split.

use memchr::memchr;

use super::number::{parse_i64, short_header};
use super::{Limits, ProtocolError, Request, Span, inline};

/// Incremental scanner for the requests of one client: RESP arrays of bulk strings, and inline
/// requests.
///
/// Memory: eight bytes for each argument found so far, and the re-encoded inline request; what
/// an unusually large request needed is given back when the next one starts.
#[derive(Debug, Default)]
pub struct RequestScanner {
    stage: Stage,
    /// First byte not yet scanned.
    pos: usize,
    /// No line end lies before this offset in the line that starts at `pos`; below `pos` when
    /// that line has not been searched.
    searched: usize,
    /// Arguments still to come.
    missing: usize,
    /// See [`RequestScanner::wanted`].
    wanted: usize,
    spans: Vec<Span>,
    /// The inline request as a RESP array.
    inline: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    /// Before the end of the first line.
    #[default]
    Start,
    /// Between the arguments of an array.
    Args,
    /// [`RequestScanner::request`] is an array in the caller's buffer.
    Array,
    /// [`RequestScanner::request`] is in `inline`.
    Inline,
}

impl RequestScanner {
    /// Creates a scanner that expects the start of a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Continues scanning the request that starts at `buf[0]`.
    ///
    /// `None`: incomplete; call again with the same bytes and more appended. `Some(n)`: complete
    /// and `n` bytes long (at least 1); [`RequestScanner::request`] is valid until the next call,
    /// which expects another request at `buf[0]`. Empty requests (`*0`, `*-1`, blank lines) are
    /// reported too: skip their bytes, answer nothing.
    ///
    /// # Errors
    ///
    /// See [`ProtocolError`]. The connection can't be resynchronised; the scanner itself starts
    /// anew, so another call with the same bytes returns the same error.
    #[inline]
    pub fn scan(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        let at_start = matches!(self.stage, Stage::Start | Stage::Array);
        if at_start && self.short_request(buf, limits).is_some() {
            return Ok(Some(self.pos));
        }
        self.resume(buf, limits)
    }

    /// Any request, from wherever the last call stopped. Apart from [`RequestScanner::scan`],
    /// which stays small enough to be part of the loop over a batch.
    #[inline(never)]
    fn resume(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        if matches!(self.stage, Stage::Array | Stage::Inline) {
            self.start_over();
        }
        if buf.len() < self.wanted {
            return Ok(None);
        }
        let result = self.advance(buf, limits);
        if result.is_err() {
            self.start_over();
        }
        result
    }

    /// The request that the last call of [`RequestScanner::scan`] completed, in the same `buf`.
    ///
    /// Empty (no wire bytes, no arguments) when that call completed none.
    pub fn request<'a>(&'a self, buf: &'a [u8]) -> Request<'a> {
        match self.stage {
            Stage::Array if !self.spans.is_empty() => {
                Request::new(buf.get(..self.pos).unwrap_or_default(), &self.spans)
            }
            Stage::Inline => Request::new(&self.inline, &self.spans),
            Stage::Start | Stage::Args | Stage::Array => Request::new(&[], &[]),
        }
    }

    /// How many bytes `buf` must hold at least before another call can get further; 0 when
    /// unknown. For reserving room for a large argument: it follows from a length that the client
    /// declared, so cap it.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Scans the usual request in one go: complete, of one to nine arguments of up to 99 bytes.
    /// `None` says that it is another; nothing has changed then.
    ///
    /// Headers are compared as words. So one in the last seven bytes of `buf` is left to the
    /// other way, which only the end of a batch may need.
    #[inline]
    fn short_request(&mut self, buf: &[u8], limits: &Limits) -> Option<()> {
        let (head, mut rest) = buf.split_first_chunk::<4>()?;
        let head = u32::from_le_bytes(*head);
        let count = (head >> 8 & 0xff).wrapping_sub(u32::from(b'0'));
        if head & 0xffff_00ff != u32::from_le_bytes(*b"*\0\r\n")
            || !(1..=9).contains(&count)
            || limits.max_bulk_bytes < SHORT_BULK_BYTES
            || self.spans.capacity() > KEPT_SPANS
        {
            return None;
        }
        self.spans.clear();
        let mut pos = 4;
        for _ in 0..count {
            let Some((len, header)) = rest.first_chunk().copied().and_then(short_bulk_header)
            else {
                break;
            };
            let start = pos + header;
            let size = usize::try_from(header + len).unwrap_or_default();
            let Some((_, [b'\r', b'\n', next @ ..])) = rest.split_at_checked(size) else {
                break;
            };
            self.spans.push(Span { start, len });
            (rest, pos) = (next, start + len + 2);
        }
        if u32::try_from(self.spans.len()).unwrap_or_default() != count {
            self.spans.clear();
            return None;
        }
        self.pos = usize::try_from(pos).unwrap_or_default();
        self.stage = Stage::Array;
        Some(())
    }

    fn advance(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        if self.stage == Stage::Start {
            match buf.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(args) = self.multibulk_header(buf, limits)? else {
                        return Ok(None);
                    };
                    self.missing = args;
                    self.stage = Stage::Args;
                }
                Some(_) => return self.inline_request(buf, limits),
            }
        }
        while self.missing > 0 {
            if !self.bulk(buf, limits)? {
                return Ok(None);
            }
            self.missing -= 1;
        }
        self.wanted = 0;
        self.stage = Stage::Array;
        Ok(Some(self.pos))
    }

    /// Reads `*args CR LF`; the number of arguments, 0 for an empty request.
    fn multibulk_header(
        &mut self,
        buf: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let (args, next) = match buf.get(1..).and_then(short_header) {
            Some((args, len)) => (args, 1 + len),
            None => match self.line(buf, limits, ProtocolError::TooBigMultibulkCount)? {
                None => return Ok(None),
                Some(line) => {
                    let args = line
                        .number()
                        .filter(|args| *args <= i64::from(i32::MAX))
                        .ok_or(ProtocolError::InvalidMultibulkLength)?;
                    // `*-1` and everything below counts as empty.
                    (usize::try_from(args).unwrap_or(0), line.next)
                }
            },
        };
        if !limits.authenticated && args > Limits::MAX_UNAUTHENTICATED_ARGS {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        if args > limits.max_args {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        self.pos = next;
        Ok(Some(args))
    }

    /// Reads `$len CR LF bytes CR LF`; `false` when it is incomplete.
    #[inline]
    fn bulk(&mut self, buf: &[u8], limits: &Limits) -> Result<bool, ProtocolError> {
        let short = match buf.get(self.pos..) {
            Some([b'$', header @ ..]) => short_header(header),
            _ => None,
        };
        let (len, start) = match short {
            Some((len, header)) => (len, self.pos + 1 + header),
            None => match self.line(buf, limits, ProtocolError::TooBigBulkCount)? {
                None => return Ok(false),
                Some(Line { first, .. }) if first != b'$' => {
                    return Err(ProtocolError::ExpectedBulk(first));
                }
                Some(line) => {
                    let len = line.number().and_then(|len| usize::try_from(len).ok());
                    (len.ok_or(ProtocolError::InvalidBulkLength)?, line.next)
                }
            },
        };
        if len > limits.max_bulk_bytes {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if !limits.authenticated && len > Limits::MAX_UNAUTHENTICATED_BULK_BYTES {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        let end = start.saturating_add(len);
        let next = end.saturating_add(b"\r\n".len());
        // `next` in 32 bits holds `start` and `len` in 32 bits, too.
        let (Ok(_), Ok(span_start), Ok(span_len)) = (
            u32::try_from(next),
            u32::try_from(start),
            u32::try_from(len),
        ) else {
            return Err(ProtocolError::RequestTooLarge);
        };
        match buf.get(end..next) {
            None => {
                self.wanted = next;
                return Ok(false);
            }
            Some(b"\r\n") => {}
            Some(_) => return Err(ProtocolError::MissingBulkTerminator),
        }
        self.spans.push(Span {
            start: span_start,
            len: span_len,
        });
        self.pos = next;
        Ok(true)
    }

    /// The header line at `pos`, whatever it holds: found where Redis finds it (up to the first
    /// CR and one more byte), so that errors come at the same point with the same text.
    #[cold]
    fn line<'a>(
        &mut self,
        buf: &'a [u8],
        limits: &Limits,
        too_big: ProtocolError,
    ) -> Result<Option<Line<'a>>, ProtocolError> {
        self.wanted = 0;
        let Some(cr) = self.find(b'\r', buf, limits, too_big)? else {
            return Ok(None);
        };
        let (Some(lf), Some([first, text @ ..])) = (buf.get(cr + 1), buf.get(self.pos..cr)) else {
            // The CR is the first byte of the line, or the last one of the buffer.
            return Ok(buf.get(cr + 1).map(|_| Line {
                first: b'\r',
                text: &[],
                terminated: false,
                next: cr + 2,
            }));
        };
        Ok(Some(Line {
            first: *first,
            text,
            terminated: *lf == b'\n',
            next: cr + 2,
        }))
    }

    /// Reads a line of words.
    fn inline_request(
        &mut self,
        buf: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let too_big = ProtocolError::TooBigInlineRequest;
        let Some(lf) = self.find(b'\n', buf, limits, too_big)? else {
            return Ok(None);
        };
        let line = buf.get(..lf).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        inline::encode_line(line, &mut self.inline, &mut self.spans)?;
        self.pos = lf + 1;
        self.stage = Stage::Inline;
        Ok(Some(self.pos))
    }

    /// Offset of the first `end` in the line at `pos`, which may be preceded by as many bytes as
    /// an inline request may have. Remembers how far it has looked.
    fn find(
        &mut self,
        end: u8,
        buf: &[u8],
        limits: &Limits,
        too_big: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.searched.max(self.pos);
        let until = self
            .pos
            .saturating_add(limits.max_inline_bytes)
            .saturating_add(1)
            .min(buf.len());
        if let Some(index) = memchr(end, buf.get(from..until).unwrap_or_default()) {
            self.searched = from + index;
            return Ok(Some(from + index));
        }
        self.searched = until;
        if buf.len().saturating_sub(self.pos) > limits.max_inline_bytes {
            return Err(too_big);
        }
        Ok(None)
    }

    /// Forgets what was scanned: the next call expects the start of a request.
    pub fn start_over(&mut self) {
        self.stage = Stage::Start;
        self.pos = 0;
        self.searched = 0;
        self.missing = 0;
        self.wanted = 0;
        self.spans.clear();
        self.spans.shrink_to(KEPT_SPANS);
        self.inline.clear();
        self.inline.shrink_to(KEPT_INLINE_BYTES);
    }
}

/// Length of an argument of up to 99 bytes, and that of its header, `$` to LF.
#[inline]
fn short_bulk_header(bytes: [u8; 8]) -> Option<(u32, u32)> {
    const ONE: u64 = u64::from_le_bytes(*b"$\0\r\n\0\0\0\0");
    const TWO: u64 = u64::from_le_bytes(*b"$\0\0\r\n\0\0\0");
    let word = u64::from_le_bytes(bytes);
    // From the word, not from the bytes: the compiler would load one by one.
    let digit = |byte: u64| u32::try_from(byte & 0xff).map(|byte| byte.wrapping_sub(0x30));
    let (Ok(first), Ok(second)) = (digit(word >> 8), digit(word >> 16)) else {
        return None;
    };
    if word & 0xffff_00ff == ONE && first <= 9 {
        Some((first, 4))
    } else if word & 0xff_ff00_00ff == TWO && (1..=9).contains(&first) && second <= 9 {
        Some((first * 10 + second, 5))
    } else {
        None
    }
}

/// A header line of an array request.
struct Line<'a> {
    first: u8,
    text: &'a [u8],
    /// Whether LF follows the CR. Redis does not look.
    terminated: bool,
    /// Offset behind the line.
    next: usize,
}

impl Line<'_> {
    fn number(&self) -> Option<i64> {
        parse_i64(self.text).filter(|_| self.terminated)
    }
}

/// Longest argument of a request that [`RequestScanner::short_request`] takes.
const SHORT_BULK_BYTES: usize = 99;

/// Room for arguments that is kept between requests (8 KiB per connection at most).
const KEPT_SPANS: usize = 1024;

/// Room for a re-encoded inline request that is kept between requests.
const KEPT_INLINE_BYTES: usize = 1024;

#[cfg(test)]
mod tests;
