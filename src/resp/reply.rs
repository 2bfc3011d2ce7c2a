//! Measures the replies of nodes, and reads the few that are not passed on as they are.
//!
//! A node is trusted more than a client, but it may be something else than Redis, or be replaced
//! behind our back: nothing here recurses, allocates from a declared length, or panics.
//!
//! [`ReplyScanner`] says where a frame ends. The functions beside it read one whole frame, as
//! measured by the scanner. What they make of other bytes is harmless, but meaningless.
//!
//! An attribute (`|`) belongs to the reply that follows it: it is measured with it, and the
//! functions look behind it.

mod frame;

pub use frame::{Elements, elements, integer, is_error, is_null, is_push, text};

use memchr::memchr;

use super::number::{parse_i64, short_header};

/// Deepest nesting of a reply. An attribute counts as one level.
///
/// A script's table nests up to 7,995 levels before Redis 7.0.15 says `reached lua stack limit`
/// (measured). A lower bound, such as the 128 of Envoy, would let one client's `EVAL` close a
/// connection that all clients share. What reads replies recursively needs a bound of its own.
pub const MAX_DEPTH: usize = 8192;

/// Longest string in a reply: 1 GiB, twice what a node allows by default (`proto-max-bulk-len`).
pub const MAX_BULK_BYTES: usize = 1 << 30;

/// Longest line (status, error, number, double or big number) in bytes without marker and CRLF.
/// As for strings, because `redis.error_reply` turns any string into a line.
pub const MAX_LINE_BYTES: usize = MAX_BULK_BYTES;

/// Longest header: marker, sign, 19 digits, CRLF.
const MAX_HEADER_BYTES: usize = 23;

/// Levels of nesting for which room is kept between frames.
const KEPT_LEVELS: usize = 32;

/// Why a node's bytes are not a reply. The rest of the stream has no meaning: close the
/// connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReplyError {
    /// A frame starts with this byte.
    #[error("a reply can not start with byte 0x{0:02x}")]
    UnknownType(u8),
    /// The length of a string or the number of elements is not a canonical number.
    #[error("invalid length in a reply")]
    InvalidLength,
    /// A string is longer than [`MAX_BULK_BYTES`].
    #[error("string of more than 1 GiB in a reply")]
    BulkTooLong,
    /// A line is longer than [`MAX_LINE_BYTES`].
    #[error("line of more than 1 GiB in a reply")]
    LineTooLong,
    /// A string is longer than its header says.
    #[error("expected CRLF after a string in a reply")]
    MissingTerminator,
    /// A null that is not `_`, or a boolean that is neither `#t` nor `#f`.
    #[error("malformed null or boolean in a reply")]
    InvalidScalar,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("reply nested deeper than 8192 levels")]
    TooDeep,
    /// A string or an array of unknown length (`$?`, `*?`), which no Redis sends.
    #[error("streamed types are not supported in a reply")]
    Streamed,
}

/// Incremental scanner for the frames of one node connection, RESP2 or RESP3.
///
/// Linear however the bytes are split: see `scan.rs`, the same holds here. Memory: eight bytes
/// per open level of nesting, 64 KiB at most. How long a whole reply may be is for the caller to bound.
#[derive(Debug, Default)]
pub struct ReplyScanner {
    /// First byte not yet scanned.
    pos: usize,
    /// No line end lies before this offset in the line that starts at `pos`; below `pos` when
    /// that line has not been searched.
    searched: usize,
    /// See [`ReplyScanner::wanted`].
    wanted: usize,
    /// Whether the frame is complete, and the next call starts another one.
    done: bool,
    /// Elements still to come, for each open aggregate, outermost first; none is zero.
    open: Vec<u64>,
}

/// What lies at a position, as far as the nesting is concerned.
enum Item {
    /// A whole scalar or string.
    Leaf {
        next: usize,
    },
    /// The header of an aggregate of `len` elements.
    Aggregate {
        len: u64,
        next: usize,
    },
    Incomplete,
}

impl ReplyScanner {
    /// Creates a scanner that expects the start of a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Continues measuring the frame that starts at `buf[0]`, attributes in front of it included.
    ///
    /// `None`: incomplete; call again with the same bytes and more appended. `Some(n)`: complete
    /// and `n` bytes long; the next call expects another frame at `buf[0]`.
    ///
    /// # Errors
    ///
    /// See [`ReplyError`]. The connection can't be resynchronised; the scanner itself starts
    /// anew.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        if self.done {
            self.start_over();
        }
        if buf.len() < self.wanted {
            return Ok(None);
        }
        let result = self.advance(buf);
        if result.is_err() {
            self.start_over();
        }
        result
    }

    /// How many bytes `buf` must hold at least before another call can get further; 0 when
    /// unknown. It follows from a declared length: cap it before reserving room.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    fn advance(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        loop {
            match self.item(buf)? {
                Item::Incomplete => return Ok(None),
                Item::Aggregate { len, next } if len > 0 => {
                    if self.open.len() >= MAX_DEPTH {
                        return Err(ReplyError::TooDeep);
                    }
                    self.open.push(len);
                    self.pos = next;
                }
                Item::Leaf { next } | Item::Aggregate { next, .. } => {
                    self.pos = next;
                    if self.close_element() {
                        self.wanted = 0;
                        self.done = true;
                        return Ok(Some(next));
                    }
                }
            }
        }
    }

    /// Counts one complete element, and each aggregate that it completes; returns whether that was
    /// all.
    fn close_element(&mut self) -> bool {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }

    #[inline]
    fn item(&mut self, buf: &[u8]) -> Result<Item, ReplyError> {
        let Some((marker, rest)) = buf.get(self.pos..).and_then(<[u8]>::split_first) else {
            self.wanted = 0;
            return Ok(Item::Incomplete);
        };
        match marker {
            b'+' | b'-' | b':' | b',' | b'(' => self.line(buf, MAX_LINE_BYTES),
            b'$' | b'!' | b'=' => self.bulk(buf, rest, *marker == b'$'),
            b'*' => self.aggregate(rest, Aggregate::Array),
            b'~' | b'>' => self.aggregate(rest, Aggregate::Set),
            b'%' => self.aggregate(rest, Aggregate::Map),
            b'|' => self.aggregate(rest, Aggregate::Attribute),
            b'_' => self.literal(rest, &[b"\r\n"]),
            b'#' => self.literal(rest, &[b"t\r\n", b"f\r\n"]),
            other => Err(ReplyError::UnknownType(*other)),
        }
    }

    /// A line ends at its first CRLF; a CR or LF on its own does not hurt anybody.
    fn line(&mut self, buf: &[u8], max_bytes: usize) -> Result<Item, ReplyError> {
        self.wanted = 0;
        // One byte for the marker, which keeps `+\n` from being taken for a line end.
        let mut from = self.searched.max(self.pos + 1);
        let longest_end = self.pos + 1 + max_bytes + 1;
        let until = buf.len().min(longest_end + 1);
        while let Some(index) = memchr(b'\n', buf.get(from..until).unwrap_or_default()) {
            let lf = from + index;
            if buf.get(lf - 1) == Some(&b'\r') {
                return Ok(Item::Leaf { next: lf + 1 });
            }
            from = lf + 1;
        }
        if buf.len() > longest_end {
            return Err(ReplyError::LineTooLong);
        }
        self.searched = until;
        Ok(Item::Incomplete)
    }

    #[inline]
    fn bulk(&mut self, buf: &[u8], rest: &[u8], nullable: bool) -> Result<Item, ReplyError> {
        let Some((len, header)) = header(rest)? else {
            self.wanted = 0;
            return Ok(Item::Incomplete);
        };
        let start = self.pos + 1 + header;
        let len = match usize::try_from(len) {
            Ok(len) if len <= MAX_BULK_BYTES => len,
            Ok(_) => return Err(ReplyError::BulkTooLong),
            Err(_) if len == -1 && nullable => return Ok(Item::Leaf { next: start }),
            Err(_) => return Err(ReplyError::InvalidLength),
        };
        let end = start.saturating_add(len);
        let next = end.saturating_add(b"\r\n".len());
        match buf.get(end..next) {
            Some(b"\r\n") => Ok(Item::Leaf { next }),
            Some(_) => Err(ReplyError::MissingTerminator),
            None => {
                self.wanted = next;
                Ok(Item::Incomplete)
            }
        }
    }

    fn aggregate(&mut self, rest: &[u8], kind: Aggregate) -> Result<Item, ReplyError> {
        let Some((len, header)) = header(rest)? else {
            self.wanted = 0;
            return Ok(Item::Incomplete);
        };
        let next = self.pos + 1 + header;
        match u64::try_from(len) {
            Ok(len) => Ok(Item::Aggregate {
                len: kind.elements(len),
                next,
            }),
            Err(_) if len == -1 && kind == Aggregate::Array => Ok(Item::Leaf { next }),
            Err(_) => Err(ReplyError::InvalidLength),
        }
    }

    fn literal(&mut self, rest: &[u8], literals: &[&[u8]]) -> Result<Item, ReplyError> {
        self.wanted = 0;
        for literal in literals {
            if rest.starts_with(literal) {
                return Ok(Item::Leaf {
                    next: self.pos + 1 + literal.len(),
                });
            }
        }
        if literals.iter().any(|literal| literal.starts_with(rest)) {
            Ok(Item::Incomplete)
        } else {
            Err(ReplyError::InvalidScalar)
        }
    }

    fn start_over(&mut self) {
        self.pos = 0;
        self.searched = 0;
        self.wanted = 0;
        self.done = false;
        self.open.clear();
        self.open.shrink_to(KEPT_LEVELS);
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Aggregate {
    Array,
    /// Or a push.
    Set,
    Map,
    /// Pairs, and then the reply that they describe.
    Attribute,
}

impl Aggregate {
    /// Frames that follow a header that declares `len`, which came from an `i64`: this can not
    /// overflow.
    fn elements(self, len: u64) -> u64 {
        match self {
            Self::Array | Self::Set => len,
            Self::Map => len * 2,
            Self::Attribute => len * 2 + 1,
        }
    }
}

/// The number that starts `rest`, and the offset behind its CRLF.
#[inline]
fn header(rest: &[u8]) -> Result<Option<(i64, usize)>, ReplyError> {
    if let Some((number, len)) = short_header(rest) {
        return Ok(i64::try_from(number).ok().map(|number| (number, len)));
    }
    long_header(rest)
}

#[cold]
fn long_header(rest: &[u8]) -> Result<Option<(i64, usize)>, ReplyError> {
    if rest.first() == Some(&b'?') {
        return Err(ReplyError::Streamed);
    }
    let line = rest.get(..rest.len().min(MAX_HEADER_BYTES)).unwrap_or(rest);
    let Some(lf) = memchr(b'\n', line) else {
        return if line.len() < MAX_HEADER_BYTES {
            Ok(None)
        } else {
            Err(ReplyError::InvalidLength)
        };
    };
    let number = line.get(..lf).and_then(|line| line.strip_suffix(b"\r"));
    let number = number
        .and_then(parse_i64)
        .ok_or(ReplyError::InvalidLength)?;
    Ok(Some((number, lf + 1)))
}

#[cfg(test)]
mod tests;
