//! `CONFIG SET` of parameters of the nodes, and of Tally's own with them: all are set, or none.
//!
//! ```text
//!  Tally's own are checked ──> CONFIG GET, CONFIG SET on every node ──> all took it: Tally's own are set
//!                                                                  └──> one did not: undone on the others
//! ```
//!
//! A node that fails in that moment may keep what the others do not have; and so may all where
//! two clients set the same parameters at once.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::aside::on_lane;
use super::dispatch::Dispatch;
use super::local::NodeConfig;
use super::locked::{self, Told};
use super::replies::{Place, Ticket};
use super::{Shared, ask};
use crate::node::{Node, Refused};
use crate::resp::{Form, encode, reply};

/// A `CONFIG SET` on its way.
struct Setting {
    /// What is Tally's own.
    own: Option<Vec<Vec<u8>>>,
    asked: Vec<Asked>,
    database: u32,
    place: Place,
}

/// A node that was asked.
struct Asked {
    node: Arc<Node<Ticket>>,
    /// What was in force before, and what became of the setting; an error where the node is away.
    told: Result<[Told; 2], Vec<u8>>,
}

impl Dispatch<'_> {
    /// Sets parameters; `ask_before` tells what they are. What the client sends behind it waits where
    /// Tally's own are among them.
    pub(super) fn set_config(&mut self, config: &NodeConfig, ask_before: &[u8]) {
        self.leave();
        let place = self.place(Form::Plain);
        self.state.confirming |= config.own_settings().is_some();
        let mut asked = Vec::new();
        for node in self.nodes {
            let mut entry = node.enter();
            let told = match entry.admit(self.waker) {
                Err(Refused::Failed(text)) => {
                    let mut frame = Vec::new();
                    encode::error(&mut frame, text.as_bytes());
                    Err(frame)
                }
                Ok(()) | Err(Refused::Full) => {
                    let told = [ask_before, config.wire()].map(|wire| {
                        let (sender, told) = oneshot::channel();
                        entry.step(self.now, self.woken, |lane, step| {
                            lane.keyless(step, wire, Ticket::Told(sender));
                        });
                        told
                    });
                    Ok(told)
                }
            };
            drop(entry);
            if node.schedule() {
                self.shared.send_soon(node);
            }
            let node = Arc::clone(node);
            asked.push(Asked { node, told });
        }
        // It may set the limit of their memory.
        let lanes = self.shared.router.in_use();
        lanes.for_each(|node| node.set_may_be_full(true));
        let setting = Setting {
            own: config.own_settings().map(<[_]>::to_vec),
            asked,
            database: self.client.database(),
            place,
        };
        tokio::spawn(setting.run(self.shared.clone()));
    }
}

impl Setting {
    async fn run(self, shared: Shared) {
        let mut taken = Vec::new();
        let mut refused = None;
        for Asked { node, told } in self.asked {
            let (before, set) = match told {
                Ok([before, set]) => (locked::told(before).await, locked::told(set).await),
                Err(error) => (Vec::new(), error),
            };
            let may_have = memchr::memmem::find(&set, b"; the command may").is_some();
            if !reply::is_error(&set) || may_have {
                taken.push((node, before));
            }
            if reply::is_error(&set) {
                refused.get_or_insert(set);
            }
        }
        if refused.is_none()
            && let Some(own) = self.own
        {
            let own: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
            let answer = ask(&shared, self.database, &own, false).await;
            refused = Some(answer.frame).filter(|frame| reply::is_error(frame));
        }
        if refused.is_some() {
            for (node, before) in taken {
                undo(&node, &before).await;
            }
        }
        let frame = refused.unwrap_or_else(|| b"+OK\r\n".to_vec());
        if let Some(waker) = self.place.fill(&frame) {
            waker.wake();
        }
    }
}

/// Sets a node's parameters to what it told of them.
async fn undo(node: &Node<Ticket>, before: &[u8]) {
    let pairs = reply::elements(before).into_iter().flatten();
    let words: [&[u8]; 2] = [b"CONFIG", b"SET"];
    let pairs = pairs.filter_map(reply::text);
    let args: Vec<&[u8]> = words.into_iter().chain(pairs).collect();
    let mut wire = Vec::new();
    encode::request(&mut wire, &args);
    let undone = on_lane(node, |lane, step, ticket| {
        lane.keyless(step, &wire, ticket);
    });
    let undone = undone.await;
    if reply::is_error(&undone) {
        let error = String::from_utf8_lossy(&undone);
        tracing::warn!(node = node.name(), %error, "what CONFIG SET changed could not be undone");
    }
}
