//! The users in force, who changes them, and what they were denied.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::access_log::AccessLog;
use super::{Client, Registry, Users};
use crate::command::Topics;
use crate::config::Config;

/// One for all sessions.
#[derive(Debug)]
pub struct Directory {
    users: RwLock<Arc<Users>>,
    /// Held while one set of users is made from another.
    changing: Mutex<()>,
    /// What users were denied.
    pub log: AccessLog,
}

impl Directory {
    /// The users of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            users: RwLock::new(Arc::new(Users::new(config))),
            changing: Mutex::default(),
            log: AccessLog::default(),
        }
    }

    /// The users in force.
    pub fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read())
    }

    /// Puts the users of another configuration in force.
    pub fn adopt(&self, config: &Config, registry: &Registry) {
        let _turn = self.changing.lock();
        let before = self.users();
        let users = self.put(Users::renewed(config, &before), registry, None);
        // Nobody is the default user any more.
        let was_on = before.default_user().account().is_on();
        if was_on && !users.default_user().account().is_on() {
            let inside = |client: &Arc<Client>| client.authenticated() && client.user().is_none();
            for client in registry.clients().into_iter().filter(inside) {
                client.kill.cancel();
            }
        }
    }

    /// Changes users for `asking`, a client. Who has no user any more is closed, as is who listens
    /// to what its user may not listen to any more; `asking` once it is answered.
    ///
    /// # Errors
    ///
    /// That of `change`; nothing has happened then.
    pub fn change<T, E>(
        &self,
        registry: &Registry,
        asking: &Client,
        change: impl FnOnce(&Users) -> Result<(Users, T), E>,
    ) -> Result<T, E> {
        let _turn = self.changing.lock();
        let before = self.users();
        let (users, result) = change(&before)?;
        let users = self.put(users, registry, Some(asking));
        for user in before.all() {
            let Some(now) = users.named(user.name()) else {
                continue;
            };
            if Arc::ptr_eq(user, now) || now.account().keeps_channels(user.account()) {
                continue;
            }
            let account = now.account();
            let listeners = registry.clients().into_iter();
            for client in listeners.filter(|client| client.is_user(user.name())) {
                let kinds = [Topics::Channels, Topics::Patterns, Topics::Shards];
                let is_lost = kinds.into_iter().any(|kind| {
                    let names = client.subscriptions().names(kind).into_iter();
                    let is_pattern = kind == Topics::Patterns;
                    names
                        .into_iter()
                        .any(|name| !account.allows_channel(&name, is_pattern))
                });
                if is_lost {
                    close(&client, Some(asking));
                }
            }
        }
        Ok(result)
    }

    fn put(&self, users: Users, registry: &Registry, asking: Option<&Client>) -> Arc<Users> {
        let users = Arc::new(users);
        *self.users.write() = Arc::clone(&users);
        registry.set_entry(users.entry());
        for client in registry.clients() {
            if !client.renew(&users) {
                close(&client, asking);
            }
        }
        users
    }
}

/// Closes a client; the one that asked for it once it is answered.
fn close(client: &Client, asking: Option<&Client>) {
    if asking.is_some_and(|asking| asking.id == client.id) {
        client.set_leaving();
    } else {
        client.kill.cancel();
    }
}
