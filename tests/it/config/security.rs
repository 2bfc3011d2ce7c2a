//! Passwords and tokens: where they come from, who is let in without, and that none is shown.

use std::fs;

use super::{check_section, load, parse};

#[test]
fn other_machines_are_let_in_only_with_a_password_or_on_demand() {
    let open = "[server]\nlisten = \"0.0.0.0:6380\"";
    let refused = "server.listen: \"0.0.0.0:6380\" lets other machines in without a password; set \
                   server.password, server.password_file or [[users]], listen on a loopback \
                   address, or set server.protected = false";
    check_section(open, &[refused]);
    check_section(&format!("{open}\npassword = \"\""), &[refused]);
    for sound in [
        "[server]\nlisten = \"0.0.0.0:6380\"\npassword = \"x\"",
        "[server]\nlisten = \"0.0.0.0:6380\"\nprotected = false",
        "[server]\nlisten = \"[::1]:6380\"",
        "[server]\nlisten = \"127.0.0.2:6380\"",
    ] {
        assert!(load(sound, &[]).is_ok(), "{sound}");
    }
}

#[test]
fn the_http_side_is_let_open_only_with_a_token_or_on_demand() {
    check_section(
        "[admin]\nlisten = \"0.0.0.0:9380\"",
        &[
            "admin.listen: \"0.0.0.0:9380\" lets other machines in without a token; set admin.token \
           or admin.token_file, listen on a loopback address, or set server.protected = false",
        ],
    );
    check_section(
        "[admin]\nlisten = \"localhost:9380\"",
        &[
            "admin.listen: \"localhost:9380\" is not allowed; allowed: IP:port, such as \
           \"127.0.0.1:9380\", or \"off\"",
        ],
    );
    for (sound, want) in [
        (
            "[admin]\nlisten = \"0.0.0.0:1\"\ntoken = \"x\"",
            Some("0.0.0.0:1"),
        ),
        (
            "[server]\nprotected = false\n[admin]\nlisten = \"0.0.0.0:1\"",
            Some("0.0.0.0:1"),
        ),
        ("[admin]\nlisten = \"[::1]:1\"", Some("[::1]:1")),
        ("[admin]\nlisten = \"off\"", None),
        ("[admin]\nlisten = \"\"", None),
        ("", Some("127.0.0.1:9380")),
    ] {
        let listen = load(sound, &[]).unwrap().admin.listen;
        let listen = listen.map(|listen| listen.to_string());
        assert_eq!(listen.as_deref(), want, "{sound}");
    }
}

#[test]
fn passwords_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hunter2\nsecond line\n").unwrap();
    let file = file.to_str().unwrap();
    let text = format!("[server]\npassword_file = {file:?}");
    for text in [&text, &format!("{text}\npassword = \"\"")] {
        let config = load(text, &[]).unwrap();
        assert_eq!(config.server.password.unwrap().reveal(), "hunter2");
    }

    check_section(
        &format!("{text}\npassword = \"x\""),
        &["server.password_file: given together with password; allowed: one of the two"],
    );
    fs::write(file, "\n").unwrap();
    check_section(
        &text,
        &[&format!(
            "server.password_file: the first line of {file:?} is empty"
        )],
    );
}

#[test]
fn secrets_are_masked_wherever_a_configuration_is_shown() {
    let text = "[server]\npassword = \"hunter2\"\n[[nodes]]\nname = \"a\"\naddress = \"h:1\"\n\
                password = \"hunter3\"\n[admin]\ntoken = \"hunter4\"";
    let config = parse(text, &[]).unwrap();
    for shown in [config.to_toml(), format!("{config:?}")] {
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(shown.matches("<masked>").count(), 3, "{shown}");
    }
    let faults = parse(&format!("{text}\nlisten = 0"), &[]).unwrap_err();
    assert!(!faults.to_string().contains("hunter"), "{faults}");
}
