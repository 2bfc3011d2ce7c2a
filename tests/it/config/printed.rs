//! What `tally --print-config` prints.

use tally::config;

use super::{TWO_NODES, everything, load, parse};

#[test]
fn what_is_printed_loads_again() {
    let text = r#"
        [server]
        listen = "0.0.0.0:7000"
        protected = false
        max_bulk = 1000000
        query_buffer = "65537"
        idle_timeout = "90s"
        [ring]
        hash_tag = "\"\\"
        families = "spread"
        [counters]
        mode = "through"
        [cache]
        ttl = "0s"
        [[rules]]
        match = 'a:\[x]*"'
        mode = "exact"
        [[rules]]
        match = "*"
        flush_interval = "1m"
        cache_ttl = "1h"
        [[routes]]
        match = 'b:\[x]*"'
        node = 'odd"name\'
        [[routes]]
        match = "c"
        [admin]
        listen = "off"
        visits_prefix = "v:\"ö"
        [log]
        level = "warn,tally::node=trace"
        [[nodes]]
        name = 'odd"name\'
        address = "[::1]:1"
        database = 3
        username = "a\u0001\u007f\tö"
        weight = 7
    "#;
    for text in [text, TWO_NODES] {
        let config = parse(text, &[]).unwrap();
        let printed = config.to_toml();
        let again = parse(&printed, &[]).unwrap();
        assert_eq!(everything(&again), everything(&config), "{printed}");
        assert_eq!(again.to_toml(), printed);
    }
}

#[test]
fn what_is_printed_has_every_key_but_the_password_files() {
    let lists = "[[rules]]\nmatch = \"a\"\n[[routes]]\nmatch = \"a\"\n[[users]]\nname = \"a\"\npassword = \"p\"\n\
                 [[limit_scripts]]\nsha1 = \"0123456789abcdef0123456789abcdef01234567\"\nlimit = 1";
    let printed = load(lists, &[]).unwrap().to_toml();
    for (section, key) in config::keys().filter(|(_, key)| !key.ends_with("_file")) {
        let line = format!("\n{key} = ");
        assert!(
            printed.contains(&line),
            "{section}.{key} is missing:\n{printed}"
        );
    }
}
