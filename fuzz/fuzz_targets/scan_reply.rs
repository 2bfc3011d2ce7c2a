//! Bytes of a node: frames are the same whole and byte by byte, and reading them is harmless.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally::resp::reply::{elements, integer, is_error, is_null, is_push, text};
use tally::resp::{ReplyError, ReplyScanner};

fuzz_target!(|bytes: &[u8]| {
    let (lengths, error) = scan(bytes, bytes.len());
    assert_eq!((lengths.clone(), error), scan(bytes, 1));
    let mut rest = bytes;
    for len in lengths {
        let (frame, tail) = rest.split_at(len);
        let found = elements(frame).map_or((0, 0), |found| (found.len(), found.count()));
        assert_eq!(found.0, found.1);
        walk(frame);
        rest = tail;
    }
    walk(bytes);
});

fn scan(bytes: &[u8], piece: usize) -> (Vec<usize>, Option<ReplyError>) {
    let mut scanner = ReplyScanner::new();
    let mut lengths = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        match scanner.scan(&bytes[start..end]) {
            Ok(Some(len)) => {
                lengths.push(len);
                start += len;
            }
            Ok(None) if end == bytes.len() => return (lengths, None),
            Ok(None) => end = bytes.len().min(end + piece),
            Err(error) => return (lengths, Some(error)),
        }
    }
}

fn walk(frame: &[u8]) {
    let _ = (
        is_push(frame),
        is_error(frame),
        is_null(frame),
        integer(frame),
        text(frame),
    );
    elements(frame).into_iter().flatten().for_each(walk);
}
