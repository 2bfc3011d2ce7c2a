//! What of another configuration can hold while the process runs. Pure, but for the files that the
//! result names, which are checked again.

use std::collections::BTreeMap;
use std::iter;

use super::{Config, Faults, parse};

/// What a reload changes, by the names of keys (`server.max_clients`, `nodes.address`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Keys that hold from now on.
    pub applied: Vec<String>,
    /// Keys that differ from what holds, and need a restart.
    pub restart: Vec<String>,
}

impl Config {
    /// This configuration with all of `wanted` that can change while the process runs, and what
    /// that is.
    ///
    /// # Errors
    ///
    /// The two together make no valid configuration: a password that is taken away while the
    /// address that it guards needs a restart to change.
    pub fn adopt(&self, wanted: &Self) -> Result<(Self, Changes), Faults> {
        let mut next = self.clone();
        next.log_level.clone_from(&wanted.log_level);
        next.counters.clone_from(&wanted.counters);
        next.cache.clone_from(&wanted.cache);
        next.rules.clone_from(&wanted.rules);
        next.upstream.clone_from(&wanted.upstream);
        next.transactions.clone_from(&wanted.transactions);
        next.slow_log.clone_from(&wanted.slow_log);
        next.users.clone_from(&wanted.users);
        next.admin.tls.clone_from(&wanted.admin.tls);
        next.admin.token.clone_from(&wanted.admin.token);
        next.admin
            .visits_prefix
            .clone_from(&wanted.admin.visits_prefix);
        let (server, new) = (&mut next.server, &wanted.server);
        server.password.clone_from(&new.password);
        server.max_clients = new.max_clients;
        server.idle_timeout = new.idle_timeout;
        server.max_bulk_bytes = new.max_bulk_bytes;
        server.query_buffer_bytes = new.query_buffer_bytes;
        server.output_buffer_bytes = new.output_buffer_bytes;
        server.drain_timeout = new.drain_timeout;
        if let (Some(tls), Some(new)) = (&mut next.tls, &wanted.tls) {
            let listen = tls.listen;
            tls.clone_from(new);
            tls.listen = listen;
        }
        for node in &mut next.nodes {
            let Some(new) = wanted.nodes.iter().find(|new| new.name == node.name) else {
                continue;
            };
            node.address.clone_from(&new.address);
            node.username.clone_from(&new.username);
            node.password.clone_from(&new.password);
            node.tls.clone_from(&new.tls);
        }
        let printed = next.to_toml();
        // Secrets are masked in it, and their presence is all that is checked.
        parse(&printed, iter::empty())?;
        let mut applied = differing(&self.to_toml(), &printed);
        applied.extend(self.secrets_that_differ(&next));
        // What is in the files may be new where their names are not.
        let has_tls = next.tls.is_some() || next.admin.tls.is_some();
        if has_tls || next.nodes.iter().any(|node| node.tls.is_some()) {
            applied.push("certificates".to_owned());
        }
        let restart = differing(&printed, &wanted.to_toml());
        Ok((next, Changes { applied, restart }))
    }

    /// The keys of secrets that are there in both and differ.
    fn secrets_that_differ(&self, next: &Self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut compare = |key: &str, differs: bool| {
            if differs && !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        };
        let (server, admin) = (&self.server, &self.admin);
        compare(
            "server.password",
            server.password.is_some()
                && next.server.password.is_some()
                && server.password != next.server.password,
        );
        compare(
            "admin.token",
            admin.token.is_some() && next.admin.token.is_some() && admin.token != next.admin.token,
        );
        for (node, new) in self.nodes.iter().zip(&next.nodes) {
            compare(
                "nodes.password",
                node.password.is_some() && new.password.is_some() && node.password != new.password,
            );
        }
        for user in &self.users {
            let new = next.users.iter().find(|new| new.name == user.name);
            let differs = new.is_some_and(|new| {
                new.argon2 != user.argon2 || new.account.passwords() != user.account.passwords()
            });
            compare("users.password", differs);
        }
        keys
    }
}

/// The keys whose values differ in two printed configurations.
fn differing(one: &str, other: &str) -> Vec<String> {
    let (one, other) = (values(one), values(other));
    let keys = one
        .keys()
        .chain(other.keys().filter(|key| !one.contains_key(*key)));
    keys.filter(|key| one.get(*key) != other.get(*key))
        .cloned()
        .collect()
}

/// The values of each key, as often as its section is there.
fn values(printed: &str) -> BTreeMap<String, Vec<&str>> {
    let mut values: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut section = "";
    for line in printed.lines() {
        if let Some((key, value)) = line.split_once(" = ") {
            let key = format!("{section}.{key}");
            values.entry(key).or_default().push(value);
        } else if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
    }
    values
}
