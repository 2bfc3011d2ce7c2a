//! Faults of `[tls]`, of `[admin]`'s TLS and of a node's.

use std::fs;

use super::{check_faults, check_section};

#[test]
fn faults_of_tls_name_the_key_and_never_hold_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let empty = file("empty", "hunter2");
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\nhunter2\n");
    let on = "[tls]\nlisten = \"127.0.0.1:6379\"\n";
    let allowed = "missing; allowed: a file's path in quotes";
    let no_key = "holds no private key in PEM (one with a passphrase can not be used)";
    for (text, faults) in [
        (
            on.to_owned(),
            vec![
                format!("tls.cert_file: {allowed}"),
                format!("tls.key_file: {allowed}"),
            ],
        ),
        (
            format!("{on}cert_file = {empty:?}\nkey_file = {empty:?}"),
            vec![
                format!("tls.cert_file: {empty:?} holds no certificate in PEM"),
                format!("tls.key_file: {empty:?} {no_key}"),
            ],
        ),
        (
            format!("{on}cert_file = {broken:?}\nkey_file = {empty:?}"),
            vec![
                format!("tls.cert_file: {broken:?} is no PEM file: a section does not end"),
                format!("tls.key_file: {empty:?} {no_key}"),
            ],
        ),
        (
            format!("{on}cert_file = \"no/such\"\nclient_ca_file = {empty:?}"),
            vec![
                format!("tls.key_file: {allowed}"),
                "tls.cert_file: can not read \"no/such\": No such file or directory (os error 2)"
                    .to_owned(),
                format!("tls.client_ca_file: {empty:?} holds no certificate in PEM"),
            ],
        ),
        (
            format!("[tls]\nclient_ca_file = {empty:?}"),
            vec!["tls.client_ca_file: does nothing while tls.listen is \"off\"".to_owned()],
        ),
        (
            "[server]\nlisten = \"off\"".to_owned(),
            vec!["server.listen: \"off\" needs tls.listen".to_owned()],
        ),
        (
            format!("[admin]\ntls_cert_file = {empty:?}"),
            vec![
                format!("admin.tls_cert_file: {empty:?} holds no certificate in PEM"),
                "admin.tls_key_file: missing beside tls_cert_file".to_owned(),
            ],
        ),
    ] {
        let faults: Vec<_> = faults.iter().map(String::as_str).collect();
        check_section(&text, &faults);
    }
}

#[test]
fn faults_of_a_nodes_tls_name_the_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = file.path().to_str().unwrap();
    let allowed = "missing; allowed: a file's path in quotes";
    let node = "[[nodes]]\nname = \"a\"\naddress = \"h:1\"\n";
    for (text, faults) in [
        (
            "tls = true".to_owned(),
            vec![format!("tls_ca_file: {allowed}")],
        ),
        (
            format!("tls = true\ntls_ca_file = {empty:?}\ntls_server_name = \"a b\""),
            vec![
                "tls_server_name: \"a b\" is not allowed; allowed: a host's name or address, as in \
                 the node's certificate"
                    .to_owned(),
                format!("tls_ca_file: {empty:?} holds no certificate in PEM"),
            ],
        ),
        (
            format!("tls = true\ntls_ca_file = {empty:?}\ntls_cert_file = {empty:?}"),
            vec![
                format!("tls_ca_file: {empty:?} holds no certificate in PEM"),
                format!("tls_cert_file: {empty:?} holds no certificate in PEM"),
                "tls_key_file: missing beside tls_cert_file".to_owned(),
            ],
        ),
        (
            format!("tls_ca_file = {empty:?}"),
            vec!["tls_ca_file: does nothing without tls = true".to_owned()],
        ),
    ] {
        let faults = faults.iter().map(|fault| format!("nodes[0].{fault}"));
        let faults: Vec<_> = faults.collect();
        let faults: Vec<_> = faults.iter().map(String::as_str).collect();
        check_faults(&format!("{node}{text}"), &[], &faults);
    }
}
