//! Open files: every connection is one, and the system bounds them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Has the system let the process open a file for every client that may come: raises the process's
/// own limit as far as the hard limit goes. Where that is not enough, fewer clients are let in than
/// configured, as in Redis (`adjustOpenFilesLimit`). The others get an error, where a full table of
/// files would leave them without an answer.
pub(super) fn fit(config: &mut Config) {
    let limit = getrlimit(Resource::Nofile);
    let others = others(config);
    let clients = u64::try_from(config.server.max_clients).unwrap_or(u64::MAX);
    let wanted = clients.saturating_add(others);
    // No limit at all is given as `None`.
    let Some(current) = limit.current.filter(|current| *current < wanted) else {
        return;
    };
    let reached = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(reached),
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => reached,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files can not be raised");
            current
        }
    };
    let most = most_clients(current, others);
    if most < clients {
        let max_clients = config.server.max_clients;
        tracing::warn!(
            max_clients,
            most,
            files = current,
            "fewer clients are let in: the system's limit on open files (ulimit -n) allows no more"
        );
        config.server.max_clients = usize::try_from(most).unwrap_or(usize::MAX);
    }
}

/// Clients that have room beside the other files; at least one.
fn most_clients(files: u64, others: u64) -> u64 {
    files.saturating_sub(others).max(1)
}

/// Files that are not clients: a lane for each node and database, its messages, HTTP, what the
/// process has open anyway. Not those of `WAIT`, which is rare.
fn others(config: &Config) -> u64 {
    let nodes = u64::try_from(config.nodes.len()).unwrap_or(u64::MAX);
    let lanes = nodes.saturating_mul(u64::from(config.server.databases) + 1);
    lanes.saturating_add(RESERVED)
}

/// Three times what Redis reserves (`CONFIG_MIN_RESERVED_FDS`, 32): workers have a few each.
const RESERVED: u64 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_what_the_others_leave() {
        assert_eq!(most_clients(1024, 100), 924);
        assert_eq!(most_clients(100, 100), 1);
        assert_eq!(most_clients(50, 100), 1);
    }
}
