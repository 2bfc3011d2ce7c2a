//! What a session's queue of replies keeps.

use super::*;

fn taken(replies: &Replies) -> Vec<u8> {
    let mut out = Vec::new();
    replies.take(&mut out, &mut Notes::default(), Waker::noop());
    out
}

fn asked() -> Asked {
    Asked {
        command: &crate::command::commands()[0],
        at: tokio::time::Instant::now().into_std(),
    }
}

fn reserve(replies: &Arc<Replies>) -> Place {
    replies.reserve(asked(), Protocol::Resp2, Form::Plain, false)
}

#[test]
fn replies_keep_request_order() {
    let replies = Arc::new(Replies::new(1 << 20));
    replies.push(b"+0\r\n");
    let first = reserve(&replies);
    replies.push(b"+2\r\n");
    let third = reserve(&replies);
    replies.push(b"+4\r\n");
    assert_eq!(taken(&replies), b"+0\r\n");
    third.fill(b"+3\r\n");
    assert_eq!(taken(&replies), b"");
    assert_eq!(replies.backlog().outstanding, 1);
    assert!(
        first.fill(b"+1\r\n").is_some(),
        "the session sleeps and has something to write"
    );
    assert_eq!(taken(&replies), b"+1\r\n+2\r\n+3\r\n+4\r\n");
    assert_eq!(replies.backlog().bytes, 0);
    replies.push(b"+5\r\n");
    assert_eq!(taken(&replies), b"+5\r\n");
}

#[test]
fn a_muted_place_keeps_the_order_and_says_nothing() {
    let replies = Arc::new(Replies::new(1 << 20));
    let muted = replies.reserve(asked(), Protocol::Resp2, Form::Plain, true);
    let next = reserve(&replies);
    next.fill(b":1\r\n");
    muted.fill(b":0\r\n");
    assert_eq!(taken(&replies), b":1\r\n");
}

#[test]
fn who_watches_is_woken_though_there_is_something_to_take() {
    let replies = Arc::new(Replies::new(1 << 20));
    replies.push(b"+0\r\n");
    let (first, second) = (reserve(&replies), reserve(&replies));
    assert_eq!(replies.watch(Waker::noop()).outstanding, 2);
    assert!(first.fill(b"+1\r\n").is_some());
    assert!(second.fill(b"+2\r\n").is_none(), "once for each watch");
}

#[test]
fn a_message_overtakes_replies_but_no_confirmation_and_no_message() {
    let replies = Arc::new(Replies::new(1 << 20));
    let slow = reserve(&replies);
    _ = replies.push_message(b"m1");
    assert_eq!(taken(&replies), b"m1", "nothing of it depends on the reply");
    let confirmation = replies.reserve_confirmation(asked(), Protocol::Resp3);
    _ = replies.push_message(b"m2");
    confirmation.fill_as_is(b"c");
    _ = replies.push_message(b"m3");
    assert_eq!(taken(&replies), b"");
    slow.fill(b"+0\r\n");
    _ = replies.push_message(b"m4");
    assert_eq!(taken(&replies), b"+0\r\ncm2m3m4");
}

#[test]
fn past_its_limit_the_queue_holds_nothing() {
    let replies = Arc::new(Replies::new(10));
    let (first, second) = (reserve(&replies), reserve(&replies));
    second.fill(b"+0123456789\r\n");
    assert!(!replies.backlog().overrun);
    first.fill(b"+0\r\n");
    assert!(replies.backlog().overrun);
    assert_eq!(taken(&replies), b"");
}

#[test]
fn early_replies_take_room_only_until_they_are_taken() {
    const REPLY: &[u8] = &[b'x'; 1000];
    let replies = Arc::new(Replies::new(200 * REPLY.len()));
    // At every moment some reply waits for an earlier one, as in a pipeline to two nodes that never
    // ends.
    let mut slow = reserve(&replies);
    replies.push(REPLY);
    for _ in 0..2000 {
        let next = reserve(&replies);
        replies.push(REPLY);
        slow.fill(b"+OK\r\n");
        assert_eq!(taken(&replies), [b"+OK\r\n", REPLY].concat());
        let Backlog { bytes, overrun, .. } = replies.backlog();
        assert_eq!((bytes, overrun), (REPLY.len(), false));
        slow = next;
    }
    assert!(replies.0.lock().spill.capacity() < 1 << 20);
}

#[test]
fn a_reply_takes_the_client_s_protocol() {
    let replies = Arc::new(Replies::new(1 << 20));
    reserve(&replies).fill(b"_\r\n");
    replies
        .reserve(asked(), Protocol::Resp3, Form::Plain, false)
        .fill(b"_\r\n");
    assert_eq!(taken(&replies), b"$-1\r\n_\r\n");
}
