//! The ring places keys where twemproxy does, and moves no more keys than it must.
//!
//! `golden/ring-*.txt` is what nutcracker 0.5.0 answered; `golden/produce.py` recorded it and
//! says how, and how the keys are made.

use std::path::{Path, PathBuf};
use std::process::Command;

use md5::{Digest, Md5};
use proptest::prelude::*;
use tally::ring::{Hash, MAX_NAME_BYTES, Ring, RingError};

#[test]
fn keys_land_where_twemproxy_puts_them() {
    let folder = golden_folder();
    let checked: usize = ["2", "3", "25", "25-equal"]
        .iter()
        .map(|set| Golden::read(&folder.join(format!("ring-{set}.txt"))).check(10_000))
        .sum();
    assert_eq!(checked, 3 * 12 + 1, "cases");
}

/// The same once more against the nutcracker of this machine, if it has one.
#[test]
fn keys_land_where_the_installed_twemproxy_puts_them() {
    if Command::new("nutcracker").arg("-V").output().is_err() {
        return; // the recorded answers above still hold the ring
    }
    let out = tempfile::tempdir().unwrap();
    let status = Command::new("python3")
        .arg(golden_folder().join("produce.py"))
        .args(["--keys", "600", "--out"])
        .arg(out.path())
        .status()
        .unwrap();
    assert!(status.success(), "produce.py: {status}");
    for set in ["2", "3", "25", "25-equal"] {
        Golden::read(&out.path().join(format!("ring-{set}.txt"))).check(600);
    }
}

#[test]
fn removing_a_node_moves_only_its_keys() {
    let nodes: Vec<_> = (0..7).map(|i| format!("node-{i}")).collect();
    let before: Vec<_> = nodes.iter().map(|name| (name.as_str(), 1)).collect();
    for removed in 0..before.len() {
        let mut after = before.clone();
        after.remove(removed);
        let (before, after) = (ring(&before, None), ring(&after, None));
        for key in keys(5_000) {
            let was = before.node(&key);
            if was != removed {
                let is = after.node(&key);
                assert_eq!(
                    is + usize::from(is >= removed),
                    was,
                    "{key:?} without {removed}"
                );
            }
        }
    }
}

#[test]
fn a_node_holds_its_share_by_weight() {
    // Hashes that mix well; the others hold related keys together, as they do in twemproxy.
    for hash in [
        Hash::Xxh3,
        Hash::Md5,
        Hash::Murmur,
        Hash::Jenkins,
        Hash::OneAtATime,
    ] {
        check_shares(hash, &[("redis_7070", 1), ("redis_7071", 1)]);
        check_shares(hash, &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    }
}

#[track_caller]
fn check_shares(hash: Hash, nodes: &[(&str, u32)]) {
    let keys = 50_000_u32;
    let ring = Ring::new(nodes, hash, None).unwrap();
    let mut held = vec![0_u32; nodes.len()];
    for i in 0..keys {
        held[ring.node(format!("counter:{i:012}").as_bytes())] += 1;
    }
    let total: u32 = nodes.iter().map(|(_, weight)| weight).sum();
    for ((name, weight), held) in nodes.iter().zip(held) {
        let due = f64::from(keys) * f64::from(*weight) / f64::from(total);
        let off = f64::from(held) / due - 1.0;
        assert!(
            off.abs() < 0.15,
            "{hash:?}: {name} holds {held}, due are {due}"
        );
    }
}

#[test]
fn the_order_of_the_configuration_moves_no_key() {
    let nodes = [("one", 3), ("three", 5), ("two", 1), ("fourteen", 2)];
    let mut turned = nodes;
    turned.reverse();
    let (plain, turned) = (ring(&nodes, None), ring(&turned, None));
    for key in keys(5_000) {
        assert_eq!(
            plain.node(&key),
            nodes.len() - 1 - turned.node(&key),
            "{key:?}"
        );
    }
}

#[test]
fn the_first_non_empty_hash_tag_decides() {
    let nodes: Vec<_> = (0..25).map(|i| format!("n{i}")).collect();
    let nodes: Vec<_> = nodes.iter().map(|name| (name.as_str(), 1)).collect();
    let plain = ring(&nodes, None);
    let check = |tag: &str, key: &str, hashed: &str| {
        let (open, close) = (tag.as_bytes()[0], tag.as_bytes()[1]);
        let tagged = Ring::new(&nodes, Hash::Xxh3, Some((open, close))).unwrap();
        let (is, expected) = (tagged.node(key.as_bytes()), plain.node(hashed.as_bytes()));
        assert_eq!(is, expected, "{key:?} with {tag:?} by {hashed:?}");
    };
    check("{}", "user:{42}:visits", "42");
    check("{}", "{42}", "42");
    check("{}", "{a}{b}", "a");
    check("{}", "}{a}", "a");
    check("{}", "{{a}}", "{a");
    check("{}", "{}{a}", "{}{a}");
    check("{}", "{a", "{a");
    check("{}", "a}", "a}");
    check("::", "user:42:visits", "42");
    check("::", "user:42", "user:42");
}

#[test]
fn a_route_comes_before_the_ring() {
    let nodes = [("a", 1), ("b", 1), ("c", 1)];
    let plain = ring(&nodes, Some((b'{', b'}')));
    let routed = plain
        .clone()
        .with_route(b"job:free:*", None)
        .with_route(b"job:*", Some(2));
    for number in 0..200 {
        for (key, routed_to) in [
            (format!("job:{number}"), Some(2)),
            (format!("job:{{tag{number}}}"), Some(2)),
            (format!("job:free:{number}"), None),
            (format!("jobs:{number}"), None),
        ] {
            let wanted = routed_to.unwrap_or_else(|| plain.node(key.as_bytes()));
            assert_eq!(routed.node(key.as_bytes()), wanted, "{key}");
        }
    }
    let everything = ring(&nodes, None).with_route(b"*", Some(1));
    assert!(keys(1_000).iter().all(|key| everything.node(key) == 1));
}

/// Names of families, and keys of theirs.
const FAMILIES: &[(&str, &[&str])] = &[
    (
        "bull",
        &["bull:mail:wait", "bull:mail:7", "bull:other:wait"],
    ),
    ("bq", &["bq:mail:jobs", "bq:mail:waiting"]),
    (
        "celery",
        &[
            "celery",
            "celery-task-meta-1",
            "unacked_index",
            "_kombu.binding.celery",
        ],
    ),
    ("rq", &["rq:queues", "rq:job:1"]),
    ("dramatiq", &["dramatiq:default.msgs"]),
    ("huey", &["huey.redis.mail"]),
    ("arq", &["arq:queue", "arq:job:1"]),
    ("resque", &["resque:queues"]),
    ("saq", &["saq:job:default:1"]),
    (
        "laravel",
        &["queues:mail:reserved", "laravel_database_queues:default"],
    ),
    (
        "lock",
        &["lock:report", "lock-signal:report", "lock.event:report"],
    ),
    ("redbeat", &["redbeat:task", "redbeat::schedule"]),
    ("streaq", &["streaq:default:queues:normal"]),
    (
        "kue",
        &[
            "q:ids",
            "q:jobs",
            "q:job:1:log",
            "q:jobs:mail:inactive",
            "q:mail:jobs",
        ],
    ),
    ("docket", &["docket:stream", "docket:known:1"]),
    (
        "defender",
        &["defender:failed:ip:10.0.0.1", "defender:blocked:username:a"],
    ),
    ("redis-smq", &["redis-smq-800.26:default:9:mail"]),
    ("groupmq", &["groupmq:mail:ready"]),
    (
        "agenda",
        &[
            "agenda:job:6a53",
            "agenda:jobs:by_next_run_at",
            "agenda:jobs:by_name:mail",
        ],
    ),
    (
        "boringnode",
        &[
            "boringnode::queue::jobs::mail::data",
            "boringnode::queue::schedules::index",
        ],
    ),
    ("medusa", &["RedisEventBusService:events-queue:wait"]),
    (
        "launchdarkly",
        &["launchdarkly:features", "launchdarkly:$inited"],
    ),
    ("repid", &["repid:jobs", "repid:jobs:dlq"]),
    ("self-limiters", &["__self-limiters:a-exists"]),
    ("redis-lru", &["LRU-CACHE!-i", "LRU-CACHE!-k-a"]),
    ("rsmq", &["rsmq:mail", "rsmq:mail:Q", "rsmq:QUEUES"]),
    (
        "bottleneck",
        &["b_x_settings", "b_x_job_weights", "b_x_client_last_seen"],
    ),
];

#[test]
fn the_keys_of_a_family_are_where_its_name_is() {
    let nodes = [("a", 1), ("b", 1), ("c", 1)];
    let plain = ring(&nodes, None);
    let together = plain.clone().with_families();
    for (family, names) in FAMILIES {
        for name in *names {
            let place = plain.node(family.as_bytes());
            assert_eq!(together.node(name.as_bytes()), place, "{name}");
        }
    }
    for number in 0..8 {
        let channel = format!("b_{number}");
        let place = together.channel(channel.as_bytes());
        assert_eq!(place, plain.node(b"bottleneck"));
        assert_eq!(
            together.node(channel.as_bytes()),
            plain.node(channel.as_bytes())
        );
    }
    for queue in ["mail", "8590e016.reply.celery.pidbox", "celery"] {
        let place = together.node(queue.as_bytes());
        for priority in ['3', '6', '9'] {
            let key = format!("{queue}\u{6}\u{16}{priority}");
            assert_eq!(together.node(key.as_bytes()), place, "{key:?}");
        }
    }
    let others = [
        "bulls:1", "unack", "Celery", "b_views", "huey:1", "q:jobsx", "jc:a", "agenda:1",
    ];
    let others = others.map(str::as_bytes);
    let others = others.into_iter().map(<[u8]>::to_vec).chain(keys(5_000));
    for key in others {
        assert_eq!(together.node(&key), plain.node(&key), "{key:?}");
    }
}

#[test]
fn keys_of_one_thing_are_where_it_is() {
    let together = ring(&[("a", 1), ("b", 1), ("c", 1)], None).with_families();
    let mut places = std::collections::HashSet::new();
    for number in 0..50 {
        for (thing, keys) in [
            (
                format!("ratelimit:{number}"),
                vec![format!("ratelimittemp:{number}")],
            ),
            (
                format!("throttled:v1:sliding_window:{number}"),
                vec![
                    format!("throttled:v1:sliding_window:{number}:period:7"),
                    format!("throttled:v1:sliding_window:{number}:period:8"),
                ],
            ),
            (format!("jc:{number}"), vec![format!("jc:{number}_t")]),
            (format!("jc:{number}_t"), vec![format!("jc:{number}_t_t")]),
        ] {
            let place = together.node(thing.as_bytes());
            places.insert(place);
            for key in keys {
                assert_eq!(together.node(key.as_bytes()), place, "{key}");
            }
        }
    }
    assert_eq!(places.len(), 3);
    // A route of the user's holds for both.
    let routed = ring(&[("a", 1), ("b", 1), ("c", 1)], None)
        .with_route(b"ratelimit:*", Some(1))
        .with_families();
    for number in 0..50 {
        assert_eq!(routed.node(format!("ratelimittemp:{number}").as_bytes()), 1);
    }
}

#[test]
fn what_a_pattern_names_is_known_to_be_on_one_node_or_not() {
    let ring = ring(&[("a", 1), ("b", 1)], Some((b'{', b'}')))
        .with_route(b"job:free:*", None)
        .with_route(b"job:*", Some(1));
    let tag = ring.node(b"{t}");
    for (pattern, node) in [
        ("job:w_*", Some(1)),
        ("job:*", None),
        ("weight_*", None),
        ("weight_*{t}", Some(tag)),
        ("job:free:{t}*", Some(tag)),
        ("{*}", None),
        ("*{t}", None),
    ] {
        for index in 0..2 {
            let is = ring.holds_all(pattern.as_bytes(), index);
            assert_eq!(is, node == Some(index), "{pattern} on {index}");
        }
    }
}

#[test]
fn one_node_has_every_key() {
    let ring = ring(&[("only", 9)], Some((b'{', b'}')));
    assert!(keys(1_000).iter().all(|key| ring.node(key) == 0));
}

#[test]
fn nonsense_makes_no_ring() {
    let check = |nodes: &[(&str, u32)], expected: RingError| {
        assert_eq!(Ring::new(nodes, Hash::Xxh3, None).unwrap_err(), expected);
    };
    let long = "n".repeat(MAX_NAME_BYTES + 1);
    check(&[], RingError::NoNodes);
    check(&[("a", 1), ("a", 2)], RingError::DuplicateName("a".into()));
    check(&[("a", 0)], RingError::ZeroWeight("a".into()));
    check(&[("", 1)], RingError::NameLength(String::new()));
    check(&[(&long, 1)], RingError::NameLength(long.clone()));
    check(
        &[("a", u32::MAX), ("b", 1)],
        RingError::TotalWeight(1 << 32),
    );
    assert!(Ring::new(&[(&long[1..], 1), ("b", u32::MAX - 1)], Hash::Xxh3, None).is_ok());
}

proptest! {
    #[test]
    fn any_key_has_a_node(
        key in proptest::collection::vec(any::<u8>(), 0..80),
        weights in proptest::collection::vec(1_u32..1_000_000, 1..40),
        hash in proptest::sample::select(Hash::ALL),
        hash_tag in any::<Option<(u8, u8)>>(),
    ) {
        let names: Vec<_> = (0..weights.len()).map(|i| format!("n{i}")).collect();
        let nodes: Vec<_> = names.iter().map(String::as_str).zip(weights).collect();
        let ring = Ring::new(&nodes, hash, hash_tag).unwrap();
        prop_assert!(ring.node(&key) < nodes.len());
    }
}

/// What nutcracker answered for one set of nodes.
struct Golden {
    nodes: Vec<(String, u32)>,
    hash_tag: Option<(u8, u8)>,
    keys: usize,
    digest: String,
    cases: Vec<(Hash, String)>,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines().map(|line| line.split_once(' ').unwrap());
        let mut expect = |name| {
            let (found, value) = lines.next().unwrap();
            assert_eq!(found, name, "{}", path.display());
            value
        };
        let nodes = expect("nodes").split(' ').map(|node| {
            let (name, weight) = node.rsplit_once(':').unwrap();
            (name.to_owned(), weight.parse().unwrap())
        });
        let nodes = nodes.collect();
        let hash_tag = match expect("hash_tag").as_bytes() {
            [open, close] => Some((*open, *close)),
            _ => None,
        };
        let (count, digest) = expect("keys").split_once(' ').unwrap();
        Self {
            nodes,
            hash_tag,
            keys: count.parse().unwrap(),
            digest: digest.to_owned(),
            cases: lines
                .map(|(hash, owners)| (hash.parse().unwrap(), owners.to_owned()))
                .collect(),
        }
    }

    /// Compares every case; returns how many there were.
    fn check(&self, expected_keys: usize) -> usize {
        let keys = keys(self.keys);
        assert_eq!(keys.len(), expected_keys);
        assert_eq!(digest(&keys), self.digest, "the generators of keys differ");
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|(name, weight)| (name.as_str(), *weight))
            .collect();
        for (hash, owners) in &self.cases {
            let ring = Ring::new(&nodes, *hash, self.hash_tag).unwrap();
            assert_eq!(owners.len(), keys.len());
            let wrong: Vec<_> = keys
                .iter()
                .zip(owners.chars())
                .filter(|(key, owner)| ring.node(key) != index(*owner))
                .collect();
            let first = wrong
                .first()
                .map(|(key, owner)| (key.escape_ascii().to_string(), owner));
            let (count, nodes) = (wrong.len(), nodes.len());
            assert!(
                wrong.is_empty(),
                "{hash:?}, {nodes} nodes: {count} keys differ; first: {first:?}"
            );
        }
        self.cases.len()
    }
}

/// A pool of twemproxy with these nodes, imported, places keys as twemproxy was seen to.
#[test]
fn an_imported_pool_places_keys_where_twemproxy_puts_them() {
    for set in ["2", "3", "25", "25-equal"] {
        let golden = Golden::read(&golden_folder().join(format!("ring-{set}.txt")));
        let keys = keys(golden.keys);
        for (hash, owners) in &golden.cases {
            let tag = golden.hash_tag.map_or(String::new(), |(open, close)| {
                format!(
                    "  hash_tag: \"{}{}\"\n",
                    char::from(open),
                    char::from(close)
                )
            });
            let mut text = format!(
                "pool:\n  listen: 127.0.0.1:22121\n  redis: true\n  distribution: ketama\n  \
                 hash: {}\n{tag}  servers:\n",
                hash.name()
            );
            let servers = golden.nodes.iter().enumerate();
            text.extend(servers.map(|(at, (name, weight))| {
                format!("   - 127.0.0.1:{}:{weight} {name}\n", 7000 + at)
            }));
            let imported = tally::twemproxy::import(&text, None).unwrap();
            let config = tally::config::parse(&imported.toml, std::iter::empty()).unwrap();
            let nodes = config.nodes.iter();
            let nodes: Vec<_> = nodes.map(|node| (&*node.name, node.weight)).collect();
            let ring = Ring::new(&nodes, config.ring.hash, config.ring.hash_tag).unwrap();
            let differing = keys.iter().zip(owners.chars());
            let differing = differing.filter(|(key, owner)| ring.node(key) != index(*owner));
            assert_eq!(differing.count(), 0, "{set}, {hash:?}");
        }
    }
}

/// The node that a character of a golden file stands for.
fn index(digit: char) -> usize {
    usize::try_from(digit.to_digit(36).unwrap()).unwrap()
}

/// The keys of `golden/produce.py`: the same generator, in the same order of draws.
fn keys(count: usize) -> Vec<Vec<u8>> {
    let mut random = SplitMix64(20_240_229);
    (0..count).map(|i| key(i, &mut random)).collect()
}

fn key(i: usize, random: &mut SplitMix64) -> Vec<u8> {
    let n = i / 8;
    match i % 8 {
        0 => format!("counter:{n:012}").into_bytes(),
        1 => format!("visits:page/{}", random.below(1_000_000_000)).into_bytes(),
        2 => format!("user:{{{}}}:visits:{n}", random.below(2_000)).into_bytes(),
        3 => random.bytes(40),
        4 => u8::try_from(n).map_or_else(|_| random.bytes(3), |byte| vec![byte]),
        5 => format!("счётчик:{n}:é").into_bytes(),
        6 => {
            let number = random.below(1_000_000).to_string();
            let shapes: [(&[u8], &[u8]); 7] = [
                (b"{}", b""),
                (b"{", b""),
                (b"}", b"{tag}"),
                (b"{{", b"}}"),
                (b"::", b""),
                (b":", b""),
                (b"{\xff", b"}{b}"),
            ];
            let (before, after) = shapes[n % 7];
            [before, number.as_bytes(), after].concat()
        }
        _ if n == 0 => Vec::new(),
        _ => {
            let filler = usize::try_from(random.below(64)).unwrap();
            format!("{}{n}", "k".repeat(filler)).into_bytes()
        }
    }
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn bytes(&mut self, longest: u64) -> Vec<u8> {
        let length = 1 + self.below(longest);
        (0..length)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }
}

/// MD5 of the keys, each followed by its length as two bytes.
fn digest(keys: &[Vec<u8>]) -> String {
    let mut digest = Md5::new();
    for key in keys {
        digest.update(key);
        digest.update(u16::try_from(key.len()).unwrap().to_be_bytes());
    }
    let bytes = digest.finalize();
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.concat()
}

fn ring(nodes: &[(&str, u32)], hash_tag: Option<(u8, u8)>) -> Ring {
    Ring::new(nodes, Hash::Xxh3, hash_tag).unwrap()
}

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden")
}
