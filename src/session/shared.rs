//! What all sessions share.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::login::Logins;
use super::{Directory, Monitors, Pause, Registry, Scripts, Ticket, Tracking, Users};
use crate::config::Config;
use crate::flush::Commits;
use crate::limit::Catalogue;
use crate::node::{Changes, Node};
use crate::pubsub::Hub;
use crate::router::Router;
use crate::telemetry::{Stats, random_run_id};

/// Has [`Node::send`] called at the end of the worker's tick.
pub type SendSoon = Arc<dyn Fn(&Arc<Node<Ticket>>) + Send + Sync>;

/// What a worker's sessions share. Every worker has its own; all but the sender is the same in all.
#[derive(Clone)]
pub struct Shared {
    /// The configuration at the start. What can change while the process runs is in
    /// [`Shared::live`].
    pub config: Arc<Config>,
    live: Arc<RwLock<Arc<Config>>>,
    /// What has happened so far.
    pub stats: Arc<Stats>,
    /// Every client.
    pub registry: Arc<Registry>,
    /// Who is subscribed to what.
    pub hub: Arc<Hub>,
    /// Who may be a client.
    pub directory: Arc<Directory>,
    /// Who watches all commands.
    pub monitors: Arc<Monitors>,
    /// Who keeps copies of which keys.
    pub tracking: Arc<Tracking>,
    /// Whether requests wait until a moment.
    pub pause: Arc<Pause>,
    /// Where keys live.
    pub router: Arc<Router<Ticket>>,
    /// This run's name, for `INFO`.
    pub run_id: Arc<str>,
    /// When this run began.
    pub started: Instant,
    /// Cancelled at the stop: sessions answer what they have read, and end.
    pub drain: CancellationToken,
    /// Which scripts are limit scripts.
    pub scripts: Arc<Scripts>,
    /// Places for `WAIT`, each a connection to every node.
    pub waits: Arc<Semaphore>,
    /// Held while a command on several databases begins to stop their lanes; taken before any of
    /// them is locked.
    pub(super) crossings: Arc<Mutex<()>>,
    /// Where passwords that take long are checked.
    pub(super) logins: Arc<Logins>,
    /// Notes what has to be on the disk before a reply leaves, if that is configured.
    pub(super) commits: Option<&'static Commits>,
    sender: SendSoon,
}

impl Shared {
    /// Puts together what sessions share.
    pub fn new(
        config: Arc<Config>,
        router: Arc<Router<Ticket>>,
        stats: Arc<Stats>,
        started: Instant,
        catalogue: Catalogue,
        sender: SendSoon,
    ) -> Self {
        let server = &config.server;
        let directory = Arc::new(Directory::new(&config));
        let entry = directory.users().entry();
        let registry = Arc::new(Registry::new(server.max_clients, entry));
        let tracking = Arc::new(Tracking::new(Arc::clone(&registry)));
        for node in router.all() {
            let listener: Arc<dyn Changes> = tracking.clone();
            node.set_listener(listener);
        }
        let commits = router.all().find_map(|node| node.table().commits());
        Self {
            monitors: Arc::default(),
            pause: Arc::default(),
            hub: Arc::new(Hub::new(Arc::clone(&router), Arc::clone(&stats))),
            stats,
            registry,
            tracking,
            directory,
            router,
            run_id: random_run_id().into(),
            started,
            drain: CancellationToken::new(),
            scripts: Arc::new(Scripts::new(catalogue)),
            waits: Arc::new(Semaphore::new(MAX_WAITS)),
            crossings: Arc::default(),
            logins: Arc::default(),
            commits,
            sender,
            live: Arc::new(RwLock::new(Arc::clone(&config))),
            config,
        }
    }

    /// The configuration in force.
    pub fn live(&self) -> Arc<Config> {
        Arc::clone(&self.live.read())
    }

    /// Who may be a client.
    pub fn users(&self) -> Arc<Users> {
        self.directory.users()
    }

    /// Puts another configuration in force as far as sessions are concerned: bounds on buffers hold
    /// for new connections, the rest for all. A client whose user is gone is closed; the others get
    /// their users' present rights. Clients that were let in without a password stay.
    pub fn adopt(&self, config: Config) {
        self.directory.adopt(&config, &self.registry);
        self.set_live(config);
    }

    /// The same for a configuration of the same users.
    pub fn set_live(&self, config: Config) {
        self.registry.set_max_clients(config.server.max_clients);
        *self.live.write() = Arc::new(config);
    }

    /// The same for another worker.
    #[must_use]
    pub fn with_sender(&self, sender: SendSoon) -> Self {
        Self {
            sender,
            ..self.clone()
        }
    }

    /// The node's lane has something to send.
    pub(super) fn send_soon(&self, node: &Arc<Node<Ticket>>) {
        (self.sender)(node);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("run_id", &self.run_id)
            .finish_non_exhaustive()
    }
}

/// Most clients in `WAIT` at once; one more gets an error.
const MAX_WAITS: usize = 64;
