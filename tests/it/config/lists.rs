//! What lists may hold: rules, limit scripts, routes and users.

use std::time::Duration;

use tally::config::Mode;

use super::{TWO_NODES, check_faults, check_section, load, parse};

#[test]
fn a_rule_takes_what_it_does_not_say_from_the_rest() {
    let text = r#"
        rules = [{ match = "api:*", mode = "exact" }, { match = "h:*", cache_ttl = "0s" }]
        [counters]
        flush_interval = "250ms"
        [cache]
        ttl = "7s"
    "#;
    let config = load(text, &[("TALLY_COUNTERS__MODE", "through")]).unwrap();
    let told: Vec<_> = config
        .rules
        .iter()
        .map(|rule| {
            (
                rule.pattern.as_str(),
                rule.mode,
                rule.flush_interval,
                rule.cache_ttl,
            )
        })
        .collect();
    let ms = Duration::from_millis;
    assert_eq!(
        told,
        [
            ("api:*", Mode::Exact, ms(250), ms(7000)),
            ("h:*", Mode::Through, ms(250), ms(0)),
        ]
    );
    let rules = config.treatments();
    assert_eq!(rules.policy(b"api:1").mode, Mode::Exact);
    assert_eq!(rules.policy(b"other").mode, Mode::Through);
}

#[test]
fn all_faults_of_rules_are_reported_at_once() {
    let long = "x".repeat(1025);
    let text = format!(
        r#"
        [[rules]]
        mod = "exact"
        mode = "fast"
        [[rules]]
        match = ""
        flush_interval = "1ms"
        [[rules]]
        match = "{long}"
        cache_ttl = "2h"
    "#
    );
    let pattern = "a pattern as in KEYS, such as \"api:*\", of 1 to 1024 bytes";
    check_section(
        &text,
        &[
            "rules[0].mod: unknown key; allowed: match, mode, flush_interval, cache_ttl, window, local_grants",
            &format!("rules[0].match: missing; allowed: {pattern}"),
            "rules[0].mode: \"fast\" is not allowed; allowed: \"buffered\", \"exact\", \"through\"",
            &format!("rules[1].match: \"\" is not allowed; allowed: {pattern}"),
            "rules[1].flush_interval: \"1ms\" is not allowed; allowed: a duration from \"10ms\" to \
             \"1m\" (units ms, s, m, h)",
            &format!(
                "rules[2].match: {:?}... is not allowed; allowed: {pattern}",
                "x".repeat(60)
            ),
            "rules[2].cache_ttl: \"2h\" is not allowed; allowed: a duration from \"1ms\" to \"1h\" \
             (units ms, s, m, h), or \"0s\" for off",
        ],
    );
    check_section(
        "[[rules]]\nmatch = \"a\"\nwindow = \"2ms\"\n[[rules]]\nmatch = \"b\"\nmode = \"exact\"\nwindow = \"11ms\"",
        &[
            "rules[0].window: is for the mode \"exact\" only",
            "rules[1].window: \"11ms\" is not allowed; allowed: a duration from \"1ms\" to \"10ms\" \
             (units ms, s, m, h), or \"0s\" for off",
        ],
    );
    check_section(
        "[[rules]]\nmatch = \"a\"\nmode = \"exact\"\nlocal_grants = true",
        &["rules[0].local_grants: is for the mode \"buffered\" only"],
    );
    check_section(
        "rules = 1",
        &["rules: not a list of tables; write [[rules]]"],
    );
    let many = "[[rules]]\nmatch = \"a\"\n";
    assert!(load(&many.repeat(255), &[]).is_ok());
    check_section(
        &many.repeat(256),
        &["rules: 256 rules; allowed: at most 255"],
    );
    check_faults(
        TWO_NODES,
        &[("TALLY_RULES__MATCH", "a")],
        &["TALLY_RULES__MATCH: unknown variable; allowed: <VARIABLES>"],
    );
}

#[test]
fn all_faults_of_limit_scripts_are_reported_at_once() {
    let sha = "0123456789abcdef0123456789abcdef01234567";
    let good =
        format!("[[limit_scripts]]\nsha1 = \"{sha}\"\nlimit = 2\nttl = 1\nttl_unit = \"ms\"\n");
    let config = load(&good, &[]).unwrap();
    assert_eq!(config.limit_definitions().count(), 1);
    check_section(
        &format!(
            "{good}{good}[[limit_scripts]]\nsha1 = \"12\"\nlimit = 65\n[[limit_scripts]]\nttl_unit = \"h\""
        ),
        &[
            "limit_scripts[1].sha1: the same as limit_scripts[0].sha1",
            "limit_scripts[2].sha1: \"12\" is not allowed; allowed: the SHA-1 of the body, 40 hexadecimal digits",
            "limit_scripts[2].limit: 65 is not allowed; allowed: a whole number from 1 to 64",
            "limit_scripts[3].sha1: missing; allowed: the SHA-1 of the body, 40 hexadecimal digits",
            "limit_scripts[3].limit: missing; allowed: a whole number from 1 to 64",
            "limit_scripts[3].ttl_unit: \"h\" is not allowed; allowed: \"s\", \"ms\"",
        ],
    );
}

#[test]
fn a_route_names_a_node_or_the_ring() {
    let text = r#"routes = [{ match = "views:*" }, { match = "*", node = "redis_7071" }]"#;
    let config = load(text, &[]).unwrap();
    let routes = config.routes.iter();
    let told: Vec<_> = routes
        .map(|route| (route.pattern.as_str(), route.node.as_deref()))
        .collect();
    assert_eq!(told, [("views:*", None), ("*", Some("redis_7071"))]);
    assert!(config.ring.families_together);
    let spread = load("", &[("TALLY_RING__FAMILIES", "spread")]).unwrap();
    assert!(!spread.ring.families_together);
}

#[test]
fn all_faults_of_routes_are_reported_at_once() {
    let pattern = "a pattern as in KEYS, such as \"jobs:*\", of 1 to 1024 bytes";
    check_section(
        "ring.families = \"apart\"\n[[routes]]\nto = \"redis_7070\"\nnode = \"redis_1\"\n[[routes]]\nmatch = \"\"",
        &[
            "ring.families: \"apart\" is not allowed; allowed: \"together\" or \"spread\"",
            "routes[0].to: unknown key; allowed: match, node",
            &format!("routes[0].match: missing; allowed: {pattern}"),
            "routes[0].node: \"redis_1\" is not allowed; allowed: the name of a node \
             (\"redis_7070\", \"redis_7071\"), or \"\" for the ring",
            &format!("routes[1].match: \"\" is not allowed; allowed: {pattern}"),
        ],
    );
    let many = "[[routes]]\nmatch = \"a\"\n";
    assert!(load(&many.repeat(255), &[]).is_ok());
    check_section(
        &many.repeat(256),
        &["routes: 256 routes; allowed: at most 255"],
    );
}

#[test]
fn all_faults_of_users_are_reported_at_once() {
    let categories = "\"read\", \"write\", \"script\", \"admin\"";
    let name = "1 to 255 visible ASCII characters, and not \"default\"";
    check_section(
        "[[users]]
        password = \"p\"
        [[users]]
        name = \"default\"
        password = \"p\"
        allow = [\"read\", \"all\"]
        [[users]]
        name = \"a\"
        password = \"hunter2\"
        password_sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"
        keys = \"*\"
        [[users]]
        name = \"a\"
        password_sha256 = \"hunter2\"
        [[users]]
        name = \"b\"",
        &[
            &format!("users[0].name: missing; allowed: {name}"),
            &format!("users[1].name: \"default\" is not allowed; allowed: {name}"),
            &format!(
                "users[1].allow: not allowed; allowed: a list of at most 100, of {categories}"
            ),
            "users[2].password_sha256: given together with another password; allowed: one of them",
            "users[2].keys: not allowed; allowed: a list of at most 100, of patterns as in KEYS, of \
             1 to 1024 bytes without a space",
            "users[3].password_sha256: not allowed; allowed: 64 hexadecimal digits, as ACL SETUSER \
             takes after #",
            "users[3].name: \"a\" is the name of users[2] too",
            "users[4].password: missing; allowed: password, password_file, password_sha256 or password_argon2",
        ],
    );
    let text =
        "[server]\nlisten = \"0.0.0.0:6380\"\n[[users]]\nname = \"a\"\npassword = \"hunter2\"";
    let config = load(text, &[]).unwrap();
    let printed = config.to_toml();
    assert!(!printed.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    assert!(parse(&printed, &[]).is_ok(), "{printed}");
}
