//! TLS: `[tls]` for clients, the `tls_` keys of a node.

use std::net::SocketAddr;

use config::Value;

use super::raw;
use super::reader::Reader;
use super::{AdminTls, NodeTls, Tls};
use crate::tls::{Acceptor, ClientFiles, Connector, LoadError, Part, ServerFiles};

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
    let files = ServerFiles {
        cert: cert?,
        key: key?,
        client_ca,
        client_optional,
    };
    match Acceptor::load(&files) {
        Ok(acceptor) => Some(Tls {
            listen,
            files,
            acceptor,
        }),
        Err(error) => {
            let key = match error.part {
                Part::Cert | Part::ServerName => "cert_file",
                Part::Key => "key_file",
                Part::Ca => "client_ca_file",
            };
            reader.fault(&format!("tls.{key}"), error.to_string());
            None
        }
    }
}

/// TLS for the HTTP side; `None` when it is off.
pub(super) fn admin_tls(
    reader: &mut Reader,
    cert: Option<Value>,
    key: Option<Value>,
) -> Option<AdminTls> {
    let cert = file(reader, "admin.tls_cert_file", cert);
    let key = file(reader, "admin.tls_key_file", key);
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => {
            reader.fault("admin.tls_key_file", "missing beside tls_cert_file");
            return None;
        }
        (None, Some(_)) => {
            reader.fault("admin.tls_cert_file", "missing beside tls_key_file");
            return None;
        }
        (None, None) => return None,
    };
    let files = ServerFiles {
        cert,
        key,
        client_ca: None,
        client_optional: false,
    };
    match Acceptor::load(&files) {
        Ok(acceptor) => Some(AdminTls { files, acceptor }),
        Err(error) => {
            let key = match error.part {
                Part::Key => "tls_key_file",
                Part::Cert | Part::Ca | Part::ServerName => "tls_cert_file",
            };
            reader.fault(&format!("admin.{key}"), error.to_string());
            None
        }
    }
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
        "the name in the node's certificate",
        |text| Some(Some(text.to_owned()).filter(|text| !text.is_empty())),
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
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            reader.fault(&path("tls_key_file"), "missing beside tls_cert_file");
            return None;
        }
        (None, Some(_)) => {
            reader.fault(&path("tls_cert_file"), "missing beside tls_key_file");
            return None;
        }
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let files = ClientFiles {
        ca: ca?,
        identity,
        server_name: server_name.unwrap_or_else(|| host.to_owned()),
    };
    // An address that is at fault itself gives no name.
    if files.server_name.is_empty() {
        return None;
    }
    match Connector::load(&files) {
        Ok(connector) => Some(NodeTls { files, connector }),
        Err(LoadError { part, .. })
            if part == Part::ServerName && reader.is_faulty(&path("address")) =>
        {
            None
        }
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

/// The path of a file; `None` for "".
fn file(reader: &mut Reader, path: &str, value: Option<Value>) -> Option<String> {
    reader.text(path, value, None, "a file's path in quotes", |text| {
        Some(Some(text.to_owned()).filter(|text| !text.is_empty()))
    })
}
