//! Families of keys that are kept on one node each, though no hash tag says so: those of programs,
//! job queues mostly, whose scripts and transactions name several of their keys at once.
//!
//! The names are those that the programs use by default. A program that was told other names needs
//! a route of its own.

/// Name and patterns of each. A family is placed by the hash of its name, so a change of it moves
/// keys.
pub(super) const FAMILIES: &[(&str, &[&str])] = &[
    // BullMQ, Bull: `bull:<queue>:<part>`, `bull:<queue>:<job>`
    ("bull", &["bull:*"]),
    // bee-queue: `bq:<queue>:<part>`
    ("bq", &["bq:*"]),
    // Celery and kombu: the queue by its default name and what is kept about messages of all
    // queues; results and groups of them
    ("celery", &["celery*", "_kombu.*", "unacked*"]),
    // RQ: `rq:queue:<name>`, `rq:job:<id>`, ...
    ("rq", &["rq:*"]),
    // Dramatiq: `dramatiq:<queue>`, `dramatiq:<queue>.msgs`, `dramatiq:__acks__...`
    ("dramatiq", &["dramatiq:*"]),
    // Huey: `huey.redis.<name>`, `huey.schedule.<name>`, `huey.results.<name>`
    ("huey", &["huey.*"]),
    // arq: `arq:queue`, `arq:job:<id>`, `arq:in-progress:<id>`, ...
    ("arq", &["arq:*"]),
    // Resque: `resque:queue:<name>`, `resque:queues`, ...
    ("resque", &["resque:*"]),
    // SAQ: `saq:<queue>:<part>`, `saq:job:<queue>:<id>`
    ("saq", &["saq:*"]),
    // Bottleneck: `b_<id>_<part>`
    ("bottleneck", &["b_*_settings", "b_*_job_*", "b_*_client_*"]),
];
