//! The node list: the tables of a file, or one variable.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use config::Value;

use super::raw;
use super::reader::Reader;
use super::tls::node_tls;
use super::{Fault, Node};

/// The variable that gives the node list.
pub(super) const VARIABLE: &str = "TALLY_NODES";
/// Most nodes of one ring: far more than fleets of twemproxy have. Bounds the ring's points, 160 a
/// node.
const MAX_NODES: usize = 1024;
/// Longest name of a node, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Checks the node list; names and addresses are unique.
pub(super) fn nodes(reader: &mut Reader, value: Option<Value>) -> Vec<Node> {
    let raw_nodes: Vec<raw::Node> = reader.sections("nodes", value);
    let given = raw_nodes.len();
    let mut nodes: Vec<Node> = Vec::new();
    for (at, raw) in raw_nodes.into_iter().enumerate() {
        let node = node(reader, at, raw);
        let path = format!("nodes[{at}]");
        for (first, other) in nodes.iter().enumerate() {
            if !node.name.is_empty() && node.name == other.name {
                let problem = format!("{:?} is the name of nodes[{first}] too", node.name);
                reader.fault(&format!("{path}.name"), problem);
            }
            if !node.address.is_empty() && node.address == other.address {
                let problem = format!("{:?} is the address of nodes[{first}] too", node.address);
                reader.fault(&format!("{path}.address"), problem);
            }
        }
        nodes.push(node);
    }
    if given > MAX_NODES {
        reader.fault(
            "nodes",
            format!("{given} nodes; allowed: at most {MAX_NODES}"),
        );
    }
    // A node list that could not be read has been reported already.
    if given == 0 && !reader.is_faulty("nodes") && !reader.is_faulty(VARIABLE) {
        reader.fault(
            "nodes",
            "none given; allowed: at least one, as [[nodes]] or in TALLY_NODES",
        );
    }
    nodes
}

fn node(reader: &mut Reader, at: usize, raw: raw::Node) -> Node {
    let path = |key: &str| format!("nodes[{at}].{key}");
    let mut required = |key: &str, value, allowed: &str, is_allowed: fn(&str) -> bool| {
        if Option::is_none(&value) {
            reader.fault(&path(key), format!("missing; allowed: {allowed}"));
        }
        reader.text(&path(key), value, String::new(), allowed, |text| {
            is_allowed(text).then(|| text.to_owned())
        })
    };
    let name_allowed = format!("1 to {MAX_NAME_BYTES} visible ASCII characters without a space");
    let name = required("name", raw.name, &name_allowed, is_name);
    let address_allowed = "host:port, such as \"127.0.0.1:7070\"";
    let address = required("address", raw.address, address_allowed, is_address);
    let tls = raw::NodeTls {
        tls: raw.tls,
        ca_file: raw.tls_ca_file,
        cert_file: raw.tls_cert_file,
        key_file: raw.tls_key_file,
        server_name: raw.tls_server_name,
    };
    let tls = node_tls(reader, &path, tls, &address);
    let username_allowed = "an ACL user's name";
    Node {
        name,
        address,
        weight: reader.number(&path("weight"), raw.weight, 1, &(1..=1000)),
        // As many as `databases` of Redis may be raised to (`config.c`); beyond what it is, the
        // node refuses.
        database: reader.number(
            &path("database"),
            raw.database,
            0,
            &(0..=i32::MAX.unsigned_abs()),
        ),
        username: reader.text(
            &path("username"),
            raw.username,
            None,
            username_allowed,
            |text| Some(Some(text.to_owned()).filter(|text| !text.is_empty())),
        ),
        password: reader.secret(
            &format!("nodes[{at}].password"),
            raw.password,
            raw.password_file,
        ),
        tls,
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `host:port`; an IPv6 host stands in brackets, so that its last group is not taken for a port.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = match bracketed {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_host_byte),
    };
    is_host
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Reads `name=host:port:weight,...`; the weight may be left out. The parts are checked later,
/// with those of a file.
pub(super) fn node_list(list: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut nodes = Vec::new();
    let entries = list
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    for entry in entries {
        let Some((name, address, weight)) = node_entry(entry) else {
            let allowed = "name=host:port or name=host:port:weight, separated by commas";
            let problem = format!("{entry:?} is not allowed; allowed: {allowed}");
            faults.push(Fault::new(VARIABLE, problem));
            continue;
        };
        let mut node = HashMap::from([("name".to_owned(), name), ("address".to_owned(), address)]);
        if let Some(weight) = weight {
            node.insert("weight".to_owned(), weight);
        }
        nodes.push(Value::from(node));
    }
    nodes
}

/// Name, address and weight of one entry.
fn node_entry(entry: &str) -> Option<(&str, &str, Option<&str>)> {
    let (name, rest) = entry.split_once('=')?;
    // The colons of an IPv6 address are between brackets.
    let host_end = rest.rfind(']').map_or(0, |bracket| bracket + 1);
    let colon = host_end + rest.get(host_end..)?.find(':')?;
    let port_on = rest.get(colon + 1..)?;
    match port_on.split_once(':') {
        None => Some((name, rest, None)),
        Some((port, weight)) => Some((name, rest.get(..colon + 1 + port.len())?, Some(weight))),
    }
}
