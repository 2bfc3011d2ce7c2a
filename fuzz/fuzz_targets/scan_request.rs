//! Bytes of a client: the requests and the error are the same whole and byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally::resp::{Limits, ProtocolError, RequestScanner};

fuzz_target!(|bytes: &[u8]| assert_eq!(scan(bytes, bytes.len()), scan(bytes, 1)));

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn scan(bytes: &[u8], piece: usize) -> Outcome {
    let limits = Limits::default();
    let mut scanner = RequestScanner::new();
    let mut requests = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        let buf = &bytes[start..end];
        match scanner.scan(buf, &limits) {
            Ok(Some(len)) => {
                let args = scanner.request(buf).args();
                requests.push(args.map(<[u8]>::to_vec).collect());
                start += len;
            }
            Ok(None) if end == bytes.len() => return (requests, None),
            Ok(None) => end = bytes.len().min(end + piece),
            Err(error) => return (requests, Some(error)),
        }
    }
}
