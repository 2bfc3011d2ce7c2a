//! TLS: `[tls]` for clients, the `tls_` keys of a node.

use std::net::SocketAddr;

use config::Value;

use super::raw;
use super::reader::Reader;
use super::{AdminTls, NodeTls, Tls};
use crate::tls::{Acceptor, ClientFiles, Connector, Part, ServerFiles, check};

/// The TLS side for clients; `None` when it is off.
pub(super) fn tls(reader: &mut Reader, value: Option<Value>) -> Option<Tls> {
    let raw: raw::Tls = reader.section("tls", value);
    let listen: Option<SocketAddr> = reader.text(
        "tls.listen",
        raw.listen,
        None,
        "IP:port, such as \"127.0.0.1:6379\", or \"off\"",
        |text| match text {
            "" | "off" => Some(None),
            address => address.parse().ok().map(Some),
        },
    );
    let cert = file(reader, "tls.cert_file", raw.cert_file);
    let key = file(reader, "tls.key_file", raw.key_file);
    let client_ca = file(reader, "tls.client_ca_file", raw.client_ca_file);
    let client_optional = reader.text(
        "tls.client_auth",
        raw.client_auth,
        false,
        "\"required\", \"optional\"",
        |text| match text {
            "required" => Some(false),
            "optional" => Some(true),
            _ => None,
        },
    );
    let Some(listen) = listen else {
        for (path, file) in [
            ("tls.cert_file", &cert),
            ("tls.key_file", &key),
            ("tls.client_ca_file", &client_ca),
        ] {
            if file.is_some() && !reader.is_faulty("tls.listen") {
                reader.fault(path, "does nothing while tls.listen is \"off\"");
            }
        }
        return None;
    };
    for (path, file) in [("tls.cert_file", &cert), ("tls.key_file", &key)] {
        if file.is_none() && !reader.is_faulty(path) {
            reader.fault(path, "missing; allowed: a file's path in quotes");
        }
    }
    check_files(
        reader,
        &[
            ("tls.cert_file", cert.as_deref(), Part::Cert),
            ("tls.key_file", key.as_deref(), Part::Key),
            ("tls.client_ca_file", client_ca.as_deref(), Part::Ca),
        ],
    );
    if reader.is_faulty("tls.") {
        return None;
    }
    let files = ServerFiles {
        cert: cert?,
        key: key?,
        client_ca,
        client_optional,
    };
    let acceptor = load(reader, "tls.", &files)?;
    Some(Tls {
        listen,
        files,
        acceptor,
    })
}

/// TLS for the HTTP side; `None` when it is off.
pub(super) fn admin_tls(
    reader: &mut Reader,
    cert: Option<Value>,
    key: Option<Value>,
) -> Option<AdminTls> {
    let cert = file(reader, "admin.tls_cert_file", cert);
    let key = file(reader, "admin.tls_key_file", key);
    let (cert, key) = pair(reader, &|key| format!("admin.{key}"), cert, key)?;
    let files = ServerFiles {
        cert,
        key,
        client_ca: None,
        client_optional: false,
    };
    let acceptor = load(reader, "admin.tls_", &files)?;
    Some(AdminTls { files, acceptor })
}

/// What the files are for; their keys begin with `prefix`.
fn load(reader: &mut Reader, prefix: &str, files: &ServerFiles) -> Option<Acceptor> {
    let loaded = Acceptor::load(files).map_err(|error| {
        let key = match error.part {
            Part::Cert | Part::ServerName => "cert_file",
            Part::Key => "key_file",
            Part::Ca => "client_ca_file",
        };
        reader.fault(&format!("{prefix}{key}"), error.to_string());
    });
    loaded.ok()
}

/// TLS to a node; `None` when it is off.
pub(super) fn node_tls(
    reader: &mut Reader,
    path: &dyn Fn(&str) -> String,
    raw: raw::NodeTls,
    address: &str,
) -> Option<NodeTls> {
    let is_on = reader.boolean(&path("tls"), raw.tls, false);
    let ca = file(reader, &path("tls_ca_file"), raw.ca_file);
    let cert = file(reader, &path("tls_cert_file"), raw.cert_file);
    let key = file(reader, &path("tls_key_file"), raw.key_file);
    let server_name = reader.text(
        &path("tls_server_name"),
        raw.server_name,
        None,
        "a host's name or address, as in the node's certificate",
        |text| match text {
            "" => Some(None),
            name => check(name, Part::ServerName)
                .ok()
                .map(|()| Some(name.to_owned())),
        },
    );
    if !is_on {
        for (name, is_given) in [
            ("tls_ca_file", ca.is_some()),
            ("tls_cert_file", cert.is_some()),
            ("tls_key_file", key.is_some()),
            ("tls_server_name", server_name.is_some()),
        ] {
            if is_given && !reader.is_faulty(&path("tls")) {
                reader.fault(&path(name), "does nothing without tls = true");
            }
        }
        return None;
    }
    if ca.is_none() && !reader.is_faulty(&path("tls_ca_file")) {
        reader.fault(
            &path("tls_ca_file"),
            "missing; allowed: a file's path in quotes",
        );
    }
    check_files(reader, &[(&path("tls_ca_file"), ca.as_deref(), Part::Ca)]);
    let identity = pair(reader, path, cert, key);
    if reader.is_faulty(&path("tls")) || reader.is_faulty(&path("address")) {
        return None;
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let files = ClientFiles {
        ca: ca?,
        identity,
        server_name: server_name.unwrap_or_else(|| host.to_owned()),
    };
    match Connector::load(&files) {
        Ok(connector) => Some(NodeTls { files, connector }),
        Err(error) => {
            let key = match error.part {
                Part::Cert => "tls_cert_file",
                Part::Key => "tls_key_file",
                Part::Ca => "tls_ca_file",
                Part::ServerName => "tls_server_name",
            };
            reader.fault(&path(key), error.to_string());
            None
        }
    }
}

/// Certificate and key, which go together.
fn pair(
    reader: &mut Reader,
    path: &dyn Fn(&str) -> String,
    cert: Option<String>,
    key: Option<String>,
) -> Option<(String, String)> {
    let paths = [path("tls_cert_file"), path("tls_key_file")];
    check_files(
        reader,
        &[
            (&paths[0], cert.as_deref(), Part::Cert),
            (&paths[1], key.as_deref(), Part::Key),
        ],
    );
    let [cert_path, key_path] = paths;
    match (&cert, &key) {
        (Some(_), None) if !reader.is_faulty(&key_path) => {
            reader.fault(&key_path, "missing beside tls_cert_file");
        }
        (None, Some(_)) if !reader.is_faulty(&cert_path) => {
            reader.fault(&cert_path, "missing beside tls_key_file");
        }
        _ => {}
    }
    cert.zip(key)
}

/// Faults each file that can not be used as what it is to be.
fn check_files(reader: &mut Reader, files: &[(&str, Option<&str>, Part)]) {
    for (path, file, part) in files {
        if let Some(Err(error)) = file.map(|file| check(file, *part)) {
            reader.fault(path, error.to_string());
        }
    }
}

/// The path of a file; `None` for "".
fn file(reader: &mut Reader, path: &str, value: Option<Value>) -> Option<String> {
    reader.text(path, value, None, "a file's path in quotes", |text| {
        Some(Some(text.to_owned()).filter(|text| !text.is_empty()))
    })
}
