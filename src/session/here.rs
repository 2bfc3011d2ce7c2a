//! Requests that concern no key: answered here, or by any of the nodes.

use std::sync::Arc;

use super::Blocked;
use super::dispatch::{Dispatch, Fate, Flow};
use super::local::{self, After, Local};
use super::transaction::SELECT_WATCHED;
use crate::command::Command;
use crate::resp::{Form, Request, encode, parse_i64};
use crate::telemetry::clock::wall_time;

impl Dispatch<'_> {
    /// A command that Tally answers itself.
    pub(super) fn local(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        if let Some(flow) = self.check_password(command, request) {
            return flow;
        }
        // Whoever asks whether the server answers gets what one Redis would say.
        if command.name == "ping"
            && let Some(text) = self.busy()
        {
            self.reject(text.as_bytes());
            return Flow::Continue;
        }
        if command.name == CONFIG_SET && !self.is_careful {
            return self.timed(request, |this| this.answer(command, request));
        }
        self.answer(command, request)
    }

    fn answer(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        let awaits = self.changes_database(command, request);
        if awaits && !self.state.executing && self.replies.backlog().outstanding > 0 {
            return Flow::Await;
        }
        if awaits && !self.state.watches.is_empty() && command.name == "select" {
            self.reject(SELECT_WATCHED);
            return Flow::Continue;
        }
        // INFO locks the lanes for a snapshot.
        self.leave();
        let shared = self.shared;
        let (config, users) = (shared.live(), shared.users());
        let local = Local {
            config: &config,
            stats: &shared.stats,
            registry: &shared.registry,
            users: &users,
            client: self.client,
            in_multi: self.state.executing,
            nodes: &|| shared.router.statuses(),
            topics: &|kind| shared.hub.topics(kind),
            change_config: &|change| {
                let mut config = (*shared.live()).clone();
                change(&mut config);
                shared.set_live(config);
            },
            directory: &shared.directory,
            pause: &shared.pause,
            tracking: &shared.tracking,
            scripts: &shared.scripts,
            run_id: &shared.run_id,
            started: shared.started,
            now: self.now,
            wall: wall_time(),
        };
        let start = self.made.len();
        let after = local::answer(&local, command.name, request, self.made);
        if command.name == CONFIG_SET {
            // Whether it was slow itself is judged by what it sets, as in Redis.
            self.slow_after = shared.stats.slow_log.threshold();
        }
        if self.made.get(start) == Some(&b'-') {
            self.fate = Fate::Failed;
        }
        let is_gone = !self.renew(&users);
        if awaits {
            self.enter_database();
        }
        if command.name == "reset" {
            self.state.transaction = None;
            self.unwatch();
        }
        if is_gone {
            self.mute_from(start);
            return Flow::Close;
        }
        self.follow(after, start)
    }

    /// Goes on after an answer that begins at `start`.
    fn follow(&mut self, after: After, start: usize) -> Flow {
        let shared = self.shared;
        match after {
            After::Continue => self.mute_from(start),
            After::Close => {
                self.mute_from(start);
                return Flow::Close;
            }
            After::Unblock(blocked, how) => self.unblock(blocked, how),
            After::Info(text) => self.info_of_nodes(text),
            After::NodeConfig(config) => self.node_config(config),
            After::Broadcast => self.broadcast(),
            After::Monitor => {
                self.made.truncate(start);
                self.monitor();
            }
            After::Reset => {
                shared.hub.leave(self.client);
                shared.monitors.remove(self.client);
                shared.tracking.end(self.client);
                self.mute_from(start);
            }
        }
        Flow::Continue
    }

    /// Whether the next request may be for another database. Lanes of different databases are not
    /// in step, so one is left only when everything asked there has been answered: then a client
    /// sees one order over all databases, and so does whoever looks at what it did.
    fn changes_database(&self, command: &Command, request: &Request<'_>) -> bool {
        let to = match command.name {
            "select" => parse_i64(request.arg(1)),
            "reset" => Some(0),
            _ => return false,
        };
        to != Some(i64::from(self.client.database()))
    }

    /// The error if a node of the session's database is kept busy by a script.
    fn busy(&self) -> Option<Arc<str>> {
        self.nodes.iter().find_map(|node| node.busy())
    }

    /// A command without keys to which every node gives the same answer.
    pub(super) fn any_node(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        self.leave();
        if command.name == "function|stats" && self.nodes.iter().any(|node| node.may_run_script()) {
            return self.ask_past_lanes(command, request);
        }
        // The first node that is connected, or else the first one.
        let index = self.nodes.iter().position(|node| !node.is_away());
        let index = index.unwrap_or(0);
        if let Some(flow) = self.admit(index) {
            return flow;
        }
        let ticket = self.ticket(command.form_of(request));
        let now = self.now;
        let (entry, woken) = self.lane(index);
        entry.step(now, woken, |lane, step| {
            lane.keyless(step, request.wire(), ticket);
        });
        Flow::Continue
    }

    /// `CLIENT UNBLOCK` of a client that waits at a node.
    fn unblock(&mut self, blocked: Blocked, how: &'static str) {
        if self.admit(blocked.node).is_some() {
            return;
        }
        let mut wire = Vec::new();
        let id = blocked.connection.to_string();
        encode::request(&mut wire, &["CLIENT", "UNBLOCK", &id, how]);
        let (ticket, now) = (self.ticket(Form::Plain), self.now);
        let (entry, woken) = self.lane(blocked.node);
        entry.step(now, woken, |lane, step| lane.keyless(step, &wire, ticket));
    }
}

const CONFIG_SET: &str = "config|set";
