//! What accounts allow, without a server.

use super::*;
use crate::resp::testing::with_request;

fn account(rules: &str) -> Account {
    let mut account = Account::default();
    let rules = rules.split(' ').map(str::as_bytes);
    account.apply(rules, NewChannels::None).unwrap();
    account
}

fn check(account: &Account, line: &str) -> Result<(), Denied> {
    with_request(line, |request| {
        let command = command::lookup(request).unwrap_or_else(|_| panic!("{line}"));
        account.check(command, request, &mut Vec::new())
    })
}

#[test]
fn a_new_account_may_nothing_but_log_in() {
    let account = Account::default();
    assert_eq!(check(&account, "GET k"), Err(Denied::Command));
    assert_eq!(check(&account, "PING"), Err(Denied::Command));
    assert_eq!(check(&account, "AUTH p"), Ok(()));
    assert_eq!(account.words(), b"off resetchannels -@all");
    assert!(!account.is_unrestricted() && !account.is_open());
}

#[test]
fn every_key_must_match_a_pattern() {
    let account = account("+@all ~a:* ~b?");
    for line in [
        "GET a:1",
        "MSET a:1 x b1 y",
        "RENAME a:1 a:2",
        "EVAL x 2 a:1 b1 c",
        "TALLY WHERE a:1",
        "SORT a:1 STORE a:2",
        "LMPOP 1 a:1 LEFT",
        "XREAD STREAMS a:1 a:2 0 0",
        "PING",
        "KEYS *",
        "UNSUBSCRIBE news",
    ] {
        assert_eq!(check(&account, line), Ok(()), "{line}");
    }
    for (line, at) in [
        ("GET c", 1),
        ("GET A:1", 1),
        ("MSET a:1 x c y", 3),
        ("DEL a:1 b1 b12", 3),
        ("TALLY WHERE c", 2),
        ("EVAL x 2 a:1 c b1", 4),
    ] {
        assert_eq!(check(&account, line), Err(Denied::Key(at)), "{line}");
    }
    assert_eq!(check(&account, "PUBLISH c m"), Err(Denied::Channel(1)));
}

#[test]
fn a_selector_allows_what_the_user_does_not() {
    let account = account("+get ~a:* (+set %W~w:* &news) (+@pubsub &news)");
    assert_eq!(check(&account, "GET a:1"), Ok(()));
    assert_eq!(check(&account, "SET w:1 x"), Ok(()));
    assert_eq!(check(&account, "SET w:1 x GET"), Err(Denied::Key(1)));
    assert_eq!(check(&account, "SET a:1 x"), Err(Denied::Key(1)));
    assert_eq!(check(&account, "GET w:1"), Err(Denied::Key(1)));
    assert_eq!(check(&account, "DEL w:1"), Err(Denied::Command));
    assert_eq!(check(&account, "SUBSCRIBE news"), Ok(()));
    assert_eq!(check(&account, "PSUBSCRIBE new?"), Err(Denied::Channel(1)));
}

#[test]
fn whoever_may_do_everything_needs_no_look() {
    assert!(Account::everything().is_unrestricted());
    assert!(account("+get (+@all ~* &*)").is_unrestricted());
    for rules in ["+@all ~*", "+@all &*", "~* &* +@all -get", "~* &* +@read"] {
        assert!(!account(rules).is_unrestricted(), "{rules}");
    }
}

#[test]
fn what_a_user_has_is_bounded() {
    let mut account = Account::default();
    let many = |before: &str, count: usize| -> Vec<String> {
        (0..count).map(|at| format!("{before}{at}")).collect()
    };
    let mut apply = |rules: Vec<String>| {
        let mut copy = account.clone();
        let applied = copy.apply(rules.iter().map(String::as_bytes), NewChannels::None);
        account.is_on = true;
        applied.is_ok()
    };
    assert!(apply(many(">", MAX_PASSWORDS)));
    assert!(!apply(many(">", MAX_PASSWORDS + 1)));
    assert!(apply(many("~", MAX_PATTERNS)));
    assert!(!apply(many("~", MAX_PATTERNS + 1)));
    assert!(!apply(many("&", MAX_PATTERNS + 1)));
    assert!(!apply(many("+select|", MAX_PATTERNS + 1)));
    assert!(!apply(vec!["(+get)".to_owned(); MAX_SELECTORS + 1]));
    assert!(!apply(vec![format!("~{}", "x".repeat(1025))]));
    let spread = (0..11).map(|at| format!("({})", many(&format!("~{at}:"), 100).join(" ")));
    assert!(!apply(spread.collect()));
}
