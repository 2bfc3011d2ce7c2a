//! Families of keys that are kept on one node each, though no hash tag says so: the keys of
//! well-known programs, mostly job queues, whose scripts and transactions name several of their
//! keys at once.
//!
//! The names are those that the programs use by default. A program that was told other names needs
//! a route of its own.
//!
//! Of programs that name only a few keys of one thing at once, such as the two windows of a rate
//! limit, these few are together ([`PARTS`]), and the others are spread.

/// The keys of a program.
pub(super) struct Family {
    /// The name by which it is placed: a change of it moves keys.
    pub(super) name: &'static str,
    /// Patterns of its keys, and of those channels that are named like keys.
    pub(super) keys: &'static [&'static str],
    /// Patterns of further channels: what its scripts publish there is heard on their node only.
    pub(super) channels: &'static [&'static str],
    /// Whether its scripts are given values in the places of keys. The first is a key.
    pub(super) passes_values: bool,
}

/// Keys that are placed by another name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// A pattern of the keys.
    pub(super) keys: &'static str,
    pub(super) name: Name,
}

/// The name by which a key is placed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    /// What comes before the last of these in the key.
    Before(&'static str),
    /// The key with another beginning: the first of these is replaced by the second.
    Begins(&'static str, &'static str),
}

pub(super) const FAMILIES: &[Family] = &[
    // BullMQ, Bull: `bull:<queue>:<part>`, `bull:<queue>:<job>`
    family("bull", &["bull:*"]),
    // bee-queue: `bq:<queue>:<part>`
    family("bq", &["bq:*"]),
    // Celery and kombu: the queue by its default name and what is kept about messages of all
    // queues; results and groups of them
    family("celery", &["celery*", "_kombu.*", "unacked*"]),
    // RQ: `rq:queue:<name>`, `rq:job:<id>`, ...
    family("rq", &["rq:*"]),
    // Dramatiq: `dramatiq:<queue>`, `dramatiq:<queue>.msgs`, `dramatiq:__acks__...`
    family("dramatiq", &["dramatiq:*"]),
    // Huey: `huey.redis.<name>`, `huey.schedule.<name>`, `huey.results.<name>`
    family("huey", &["huey.*"]),
    // arq: `arq:queue`, `arq:job:<id>`, `arq:in-progress:<id>`, ...
    family("arq", &["arq:*"]),
    // Resque: `resque:queue:<name>`, `resque:queues`, ...
    family("resque", &["resque:*"]),
    // SAQ: `saq:<queue>:<part>`, `saq:job:<queue>:<id>`
    family("saq", &["saq:*"]),
    // Laravel: `queues:<name>`, `queues:<name>:reserved`, ... and Horizon, behind the prefixes
    // that an application with the default name has (`config/database.php`, `config/horizon.php`)
    family(
        "laravel",
        &[
            "queues:*",
            "laravel_database_queues:*",
            "laravel-database-queues:*",
            "laravel_horizon:*",
            "laravel-horizon:*",
        ],
    ),
    // python-redis-lock: `lock:<name>`, `lock-signal:<name>`; walrus: `lock.event:<name>`
    family("lock", &["lock:*", "lock-signal:*", "lock.event:*"]),
    // celery-redbeat: `redbeat:<task>`, `redbeat::schedule`, `redbeat::statics`
    family("redbeat", &["redbeat:*"]),
    // streaQ: `streaq:<queue>:<part>`
    family("streaq", &["streaq:*"]),
    // kue: `q:job:<id>`, `q:jobs:<type>:<state>`, `q:<type>:jobs`, ...
    family(
        "kue",
        &["q:job:*", "q:jobs", "q:jobs:*", "q:*:jobs", "q:ids"],
    ),
    // GroupMQ: `groupmq:<queue>:<part>`, most of which its scripts make of the first
    family("groupmq", &["groupmq:*"]),
    // Agenda: `agenda:job:<id>`, which its scripts make of their keys, `agenda:jobs:by_next_run_at`,
    // `agenda:jobs:by_name:<name>`, ...
    family("agenda", &["agenda:job:*", "agenda:jobs:*"]),
    // @boringnode/queue: `boringnode::queue::jobs::<queue>::<part>` and
    // `boringnode::queue::schedules::<id>`, which its scripts make of their keys
    family("boringnode", &["boringnode::queue::*"]),
    // RedisSMQ: `redis-smq-<version>:<namespace>:<type>:<name>`
    family("redis-smq", &["redis-smq-*"]),
    // Medusa's event bus, a queue of BullMQ: `RedisEventBusService:events-queue:<part>`
    family("medusa", &["RedisEventBusService:*"]),
    // docket: `docket:stream`, `docket:queue`, `docket:known:<task>`, ...
    family("docket", &["docket:*"]),
    // django-defender: `defender:failed:ip:<ip>`, `defender:blocked:username:<name>`, ...
    family("defender", &["defender:*"]),
    // LaunchDarkly's SDKs: `launchdarkly:features`, `launchdarkly:segments`, `launchdarkly:$inited`
    family("launchdarkly", &["launchdarkly:*"]),
    // repid: `repid:<channel>`, `repid:<channel>:dlq`
    family("repid", &["repid:*"]),
    // self-limiters: `__self-limiters:<name>`, `__self-limiters:<name>-exists`
    family("self-limiters", &["__self-limiters:*"]),
    // redis-lru: `LRU-CACHE!-k-<key>`, `LRU-CACHE!-i`
    family("redis-lru", &["LRU-CACHE!-*"]),
    // Bottleneck: `b_<id>_<part>`; channels `b_<id>`, `b_<id>_<client>`
    Family {
        channels: &["b_*"],
        ..family("bottleneck", &["b_*_settings", "b_*_job_*", "b_*_client_*"])
    },
    // rsmq: `rsmq:<queue>`, `rsmq:<queue>:Q`, which its scripts make of the first, `rsmq:QUEUES`.
    // They are given times and ids of messages as keys.
    Family {
        passes_values: true,
        ..family("rsmq", &["rsmq:*"])
    },
];

pub(super) const PARTS: &[Part] = &[
    // redis-rate-limiter: `ratelimittemp:<key>` is renamed to `ratelimit:<key>`
    Part {
        keys: "ratelimittemp:*",
        name: Name::Begins("ratelimittemp:", "ratelimit:"),
    },
    // throttled-py: a window and the one before it
    Part {
        keys: "throttled:v1:sliding_window:*:period:*",
        name: Name::Before(":period:"),
    },
    // redis-json: `jc:<key>`, and `jc:<key>_t` with the types
    Part {
        keys: "jc:*_t",
        name: Name::Before("_t"),
    },
];

const fn family(name: &'static str, keys: &'static [&'static str]) -> Family {
    Family {
        name,
        keys,
        channels: &[],
        passes_values: false,
    }
}

impl Name {
    /// The name by which `key` is placed. It is another one, and no longer.
    pub(super) fn of(self, key: &[u8]) -> Vec<u8> {
        match self {
            Self::Before(mark) => {
                let at = memchr::memmem::rfind(key, mark.as_bytes());
                key.get(..at.unwrap_or_default())
                    .unwrap_or_default()
                    .to_vec()
            }
            Self::Begins(begin, instead) => {
                let rest = key.strip_prefix(begin.as_bytes()).unwrap_or_default();
                [instead.as_bytes(), rest].concat()
            }
        }
    }
}
