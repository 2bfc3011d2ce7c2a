//! The effective configuration as a file, passwords masked.

use std::net::SocketAddr;

use super::units::{duration_text, size_text};
use super::{Config, LogFormat, Mode, Secret};
use crate::limit::Unit;

/// What stands for a password.
pub(super) const MASK: &str = "<masked>";

impl Config {
    /// This configuration as TOML with every key; loads again, except that passwords are masked.
    pub fn to_toml(&self) -> String {
        let mut out = Toml(String::new());
        self.server_to_toml(&mut out);
        self.tls_to_toml(&mut out);
        self.users_to_toml(&mut out);
        for node in &self.nodes {
            out.section("[[nodes]]");
            out.text("name", &node.name);
            out.text("address", &node.address);
            out.plain("weight", node.weight);
            out.plain("database", node.database);
            out.text("username", node.username.as_deref().unwrap_or_default());
            out.secret("password", node.password.as_ref());
            out.plain("tls", node.tls.is_some());
            let files = node.tls.as_ref().map(|tls| &tls.files);
            let text = |text: Option<&String>| text.cloned().unwrap_or_default();
            let identity = files.and_then(|files| files.identity.as_ref());
            out.text("tls_ca_file", &text(files.map(|files| &files.ca)));
            out.text("tls_cert_file", &text(identity.map(|(cert, _)| cert)));
            out.text("tls_key_file", &text(identity.map(|(_, key)| key)));
            let name = files.map(|files| &files.server_name);
            out.text("tls_server_name", &text(name));
        }
        self.ring_to_toml(&mut out);
        out.section("[counters]");
        out.text("mode", self.counters.mode.name());
        out.text(
            "flush_interval",
            &duration_text(self.counters.flush_interval),
        );
        out.text("window", &duration_text(self.counters.window));
        out.plain("local_grants", self.counters.local_grants);
        out.plain("max_keys", self.counters.max_keys);
        out.section("[cache]");
        out.text("ttl", &duration_text(self.cache.ttl));
        out.text("max_bytes", &size_text(self.cache.max_bytes));
        self.rules_to_toml(&mut out);
        self.routes_to_toml(&mut out);
        out.section("[journal]");
        let path = self
            .journal
            .path
            .as_ref()
            .map(|path| path.to_string_lossy());
        out.text("path", path.as_deref().unwrap_or("off"));
        out.text("size", &size_text(self.journal.bytes));
        out.text("fsync", self.journal.fsync.name());
        out.section("[transactions]");
        out.text("cross_node", self.transactions.cross_node.name());
        self.upstream_to_toml(&mut out);
        out.section("[admin]");
        out.text("listen", &address_text(self.admin.listen));
        let files = self.admin.tls.as_ref().map(|tls| &tls.files);
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        out.text("tls_cert_file", &text(files.map(|files| &files.cert)));
        out.text("tls_key_file", &text(files.map(|files| &files.key)));
        out.secret("token", self.admin.token.as_ref());
        out.text("visits_prefix", &self.admin.visits_prefix);
        self.logs_to_toml(&mut out);
        out.0
    }

    fn rules_to_toml(&self, out: &mut Toml) {
        for rule in &self.rules {
            out.section("[[rules]]");
            out.text("match", &rule.pattern);
            out.text("mode", rule.mode.name());
            out.text("flush_interval", &duration_text(rule.flush_interval));
            out.text("cache_ttl", &duration_text(rule.cache_ttl));
            out.text("window", &duration_text(rule.window));
            out.plain("local_grants", rule.local_grants);
        }
        for script in &self.limit_scripts {
            out.section("[[limit_scripts]]");
            out.text("sha1", &script.sha1);
            out.plain("limit", script.limit);
            out.plain("ttl", script.ttl);
            let unit = match script.ttl_unit {
                Unit::Seconds => "s",
                Unit::Milliseconds => "ms",
            };
            out.text("ttl_unit", unit);
            out.plain("denied", script.denied);
        }
    }

    fn ring_to_toml(&self, out: &mut Toml) {
        out.section("[ring]");
        out.text("distribution", "ketama");
        out.text("hash", self.ring.hash.name());
        let hash_tag = self.ring.hash_tag.map(|(open, close)| [open, close]);
        let hash_tag = hash_tag.as_ref().map_or(&[][..], |pair| pair);
        out.text("hash_tag", &String::from_utf8_lossy(hash_tag));
        let together = self.ring.families_together;
        out.text("families", if together { "together" } else { "spread" });
    }

    fn routes_to_toml(&self, out: &mut Toml) {
        for route in &self.routes {
            out.section("[[routes]]");
            out.text("match", &route.pattern);
            out.text("node", route.node.as_deref().unwrap_or_default());
        }
    }

    fn logs_to_toml(&self, out: &mut Toml) {
        out.section("[slowlog]");
        let slower_than = self.slow_log.slower_than.unwrap_or_default();
        out.text("slower_than", &duration_text(slower_than));
        out.plain("max_len", self.slow_log.max_len);
        out.section("[log]");
        out.text("level", &self.log_level);
        out.text(
            "format",
            match self.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            },
        );
    }

    fn server_to_toml(&self, out: &mut Toml) {
        let server = &self.server;
        out.section("[server]");
        out.text("listen", &address_text(server.listen));
        out.plain("threads", server.threads);
        out.plain("protected", server.protected);
        out.secret("password", server.password.as_ref());
        out.plain("max_clients", server.max_clients);
        out.text(
            "idle_timeout",
            &duration_text(server.idle_timeout.unwrap_or_default()),
        );
        out.text("max_bulk", &size_text(server.max_bulk_bytes));
        out.text("query_buffer", &size_text(server.query_buffer_bytes));
        out.text("output_buffer", &size_text(server.output_buffer_bytes));
        out.plain("databases", server.databases);
        out.text("drain_timeout", &duration_text(server.drain_timeout));
    }

    fn users_to_toml(&self, out: &mut Toml) {
        for user in &self.users {
            out.section("[[users]]");
            out.text("name", &user.name);
            let has_password = user.argon2.is_some() || !user.account.passwords().is_empty();
            out.text("password", if has_password { MASK } else { "" });
            out.text("password_sha256", "");
            out.text("password_argon2", "");
            out.texts("allow", &user.allow);
            out.texts("keys", &user.keys);
            out.texts("rules", &user.rules);
            out.plain("max_connections", user.max_connections);
            out.plain("max_commands_per_second", user.max_commands_per_second);
        }
    }

    fn tls_to_toml(&self, out: &mut Toml) {
        out.section("[tls]");
        out.text(
            "listen",
            &address_text(self.tls.as_ref().map(|tls| tls.listen)),
        );
        let files = self.tls.as_ref().map(|tls| &tls.files);
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        out.text("cert_file", &text(files.map(|files| &files.cert)));
        out.text("key_file", &text(files.map(|files| &files.key)));
        let client_ca = files.and_then(|files| files.client_ca.as_ref());
        out.text("client_ca_file", &text(client_ca));
        let is_optional = files.is_some_and(|files| files.client_optional);
        let client_auth = if is_optional { "optional" } else { "required" };
        out.text("client_auth", client_auth);
    }

    fn upstream_to_toml(&self, out: &mut Toml) {
        let upstream = &self.upstream;
        let (backoff_min, backoff_max) = upstream.backoff;
        out.section("[upstream]");
        for (key, wait) in [
            ("connect_timeout", upstream.connect_timeout),
            ("request_timeout", upstream.request_timeout),
            ("hard_timeout", upstream.hard_timeout),
            ("backoff_min", backoff_min),
            ("backoff_max", backoff_max),
        ] {
            out.text(key, &duration_text(wait));
        }
        out.plain("max_in_flight", upstream.max_in_flight);
        out.text("max_unsent", &size_text(upstream.max_unsent_bytes));
        out.plain("max_pooled", upstream.max_pooled);
    }
}

impl Mode {
    /// Its name in a file: `buffered`, `exact` or `through`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Exact => "exact",
            Self::Through => "through",
        }
    }
}

fn address_text(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

/// A TOML file being written.
struct Toml(String);

impl Toml {
    /// A header, after an empty line unless it is the first.
    fn section(&mut self, header: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.line(format_args!("{gap}{header}"));
    }

    fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.line(format_args!("{key} = {}", quoted(text)));
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
        self.line(format_args!("{key} = [{}]", texts.join(", ")));
    }

    fn secret(&mut self, key: &str, secret: Option<&Secret>) {
        self.text(key, secret.map_or("", |_| MASK));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.extend([
            line.to_string().as_str(),
            "
",
        ]);
    }
}

/// `text` as a basic string: everything that TOML does not take as it is, escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Control characters are below U+00A0: four digits hold them.
                let escaped = format!("\\u{:04X}", u32::from(c));
                quoted.push_str(&escaped);
            }
            c => quoted.push(c),
        }
    }
    format!("\"{quoted}\"")
}
