//! Families of keys that are kept on one node each, though no hash tag says so: the keys of
//! well-known programs, mostly job queues, whose scripts and transactions name several of their
//! keys at once.
//!
//! The names are those that the programs use by default. A program that was told other names needs
//! a route of its own.

/// The keys of a program.
pub(super) struct Family {
    /// The name by which it is placed: a change of it moves keys.
    pub(super) name: &'static str,
    /// Patterns of its keys, and of those channels that are named like keys.
    pub(super) keys: &'static [&'static str],
    /// Patterns of further channels: what its scripts publish there is heard on their node only.
    pub(super) channels: &'static [&'static str],
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
    // Bottleneck: `b_<id>_<part>`; channels `b_<id>`, `b_<id>_<client>`
    Family {
        name: "bottleneck",
        keys: &["b_*_settings", "b_*_job_*", "b_*_client_*"],
        channels: &["b_*"],
    },
];

const fn family(name: &'static str, keys: &'static [&'static str]) -> Family {
    Family {
        name,
        keys,
        channels: &[],
    }
}
