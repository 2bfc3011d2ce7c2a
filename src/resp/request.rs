//! A complete request, borrowed from the buffer it arrived in.

/// Place of one argument in [`Request::wire`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Length in bytes, 0 to the bulk limit (at most 512 MiB by default, always below 4 GiB).
    pub len: u32,
}

/// One request: a command name and its arguments, as binary strings.
///
/// Whatever the client sent (array or inline), [`Request::wire`] is a RESP array of bulk strings
/// that a node understands, so forwarding is a copy.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    wire: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Request<'a> {
    /// Joins a request's bytes with the places of its arguments in them.
    ///
    /// A span that lies outside `wire` reads as an empty argument.
    pub fn new(wire: &'a [u8], spans: &'a [Span]) -> Self {
        Self { wire, spans }
    }

    /// The request as a RESP array of bulk strings, ready to be sent to a node.
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Places of the arguments, the command name first.
    pub fn spans(&self) -> &'a [Span] {
        self.spans
    }

    /// Number of arguments, the command name included. Zero for `*0`, `*-1` and empty lines,
    /// which Redis ignores without a reply.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is nothing to execute, see [`Request::len`].
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `index` (0 is the command name), or empty bytes past the end.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.spans.get(index).map_or(&[], |span| self.slice(*span))
    }

    /// The arguments in order, the command name first.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let request = *self;
        self.spans.iter().map(move |span| request.slice(*span))
    }

    fn slice(&self, span: Span) -> &'a [u8] {
        let (Ok(start), Ok(len)) = (usize::try_from(span.start), usize::try_from(span.len)) else {
            return &[];
        };
        self.wire.get(start..start + len).unwrap_or_default()
    }
}
