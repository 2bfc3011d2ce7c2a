//! Clients that count without pause and remember what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::connection::{Connection, encode};
use crate::harness::pause;
use crate::random::Random;
use crate::reply::Reply;

/// A counter: its database and its name.
pub(super) type Key = (u32, String);

/// What all clients look at while they count.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Rises when keys are about to be removed, and again when they have been: odd in between.
    pub(super) era: AtomicUsize,
    /// Increments acknowledged so far.
    pub(super) acknowledged: AtomicUsize,
    /// Set when clients shall end.
    pub(super) stop: AtomicBool,
    /// Whether no counter ever has less than before.
    pub(super) only_rises: bool,
}

/// What clients know of one counter; all amounts are positive.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    /// What was acknowledged, by the era in which it was sent.
    sent_in: BTreeMap<usize, i64>,
    /// The same by the era in which the reply came.
    told_in: BTreeMap<usize, i64>,
    /// What may have been executed or not.
    pub(super) unknown: i64,
    /// Of the first replies: value and amount.
    replies: Vec<(i64, i64)>,
}

/// What clients know of all counters.
pub(super) type Sums = BTreeMap<Key, Sum>;

impl Sum {
    fn acknowledge(&mut self, (sent, told): (usize, usize), value: i64, amount: i64) {
        *self.sent_in.entry(sent).or_default() += amount;
        *self.told_in.entry(told).or_default() += amount;
        if self.replies.len() < MAX_REPLIES {
            self.replies.push((value, amount));
        }
    }

    /// What was acknowledged and sent in this era or later.
    pub(super) fn sent_since(&self, era: usize) -> i64 {
        self.sent_in.range(era..).map(|(_, sum)| sum).sum()
    }

    /// What was acknowledged in this era or later.
    pub(super) fn told_since(&self, era: usize) -> i64 {
        self.told_in.range(era..).map(|(_, sum)| sum).sum()
    }

    /// Two replies that gave the same number away, if there are such.
    pub(super) fn collision(&self) -> Option<[(i64, i64); 2]> {
        let mut replies = self.replies.clone();
        replies.sort_unstable();
        let pairs = replies.iter().zip(replies.iter().skip(1));
        let mut pairs = pairs.map(|(first, second)| [*first, *second]);
        pairs.find(|[first, second]| second.0 - second.1 < first.0)
    }

    fn add(&mut self, other: Self) {
        for (sums, others) in [
            (&mut self.sent_in, other.sent_in),
            (&mut self.told_in, other.told_in),
        ] {
            for (era, sum) in others {
                *sums.entry(era).or_default() += sum;
            }
        }
        self.unknown += other.unknown;
        self.replies.extend(other.replies);
    }
}

/// What several clients know together.
pub(super) fn together(clients: impl IntoIterator<Item = Sums>) -> Sums {
    let mut all = Sums::new();
    for (key, sum) in clients.into_iter().flatten() {
        all.entry(key).or_default().add(sum);
    }
    all
}

/// The name of every counter, in each of the databases.
pub(super) fn names() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("k{number}"))
}

/// Sends pipelines of increments to whatever listens there, until told to stop.
pub(super) fn count(address: SocketAddr, number: u64, course: &Course) -> Sums {
    let mut random = Random::new(number);
    let database = u32::try_from(number).unwrap() % DATABASES;
    let mut sums = Sums::new();
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    while !course.stop.load(Ordering::Relaxed) {
        let Some(mut connection) = open(address, database) else {
            pause(Duration::from_millis(5));
            continue;
        };
        let mut is_open = true;
        while is_open && !course.stop.load(Ordering::Relaxed) {
            let asked: Vec<_> = (0..PIPELINE)
                .map(|_| (format!("k{}", random.below(KEYS)), random.below(3) + 1))
                .collect();
            let requests = asked
                .iter()
                .flat_map(|(key, amount)| encode(&["INCRBY", key, &amount.to_string()]));
            let sent = course.era.load(Ordering::SeqCst);
            let written = connection.try_write_raw(&requests.collect::<Vec<_>>());
            is_open = written.is_ok();
            for (key, amount) in asked {
                let amount = i64::try_from(amount).unwrap();
                let frame = is_open.then(|| connection.try_read_frame());
                let told = course.era.load(Ordering::SeqCst);
                let sum = sums.entry((database, key.clone())).or_default();
                match frame.map(|frame| frame.map(|frame| Reply::parse(&frame))) {
                    Some(Ok(Reply::Integer(value))) => {
                        course.acknowledged.fetch_add(1, Ordering::Relaxed);
                        sum.acknowledge((sent, told), value, amount);
                        let last = seen.insert(key.clone(), value).unwrap_or(i64::MIN / 2);
                        assert!(
                            !course.only_rises || value >= last + amount,
                            "{key} in {database}: {value} after {last}"
                        );
                    }
                    Some(Ok(Reply::Error(text))) => {
                        let text = String::from_utf8_lossy(&text).into_owned();
                        // Every other error says that nothing was executed.
                        if text.contains("may have been executed")
                            || text.contains("may still be executed")
                        {
                            sum.unknown += amount;
                        }
                    }
                    Some(Ok(other)) => panic!("{other:?}"),
                    Some(Err(_)) | None => {
                        is_open = false;
                        sum.unknown += amount;
                    }
                }
            }
            // Leaves the machine to others for a moment.
            pause(Duration::from_millis(1));
        }
    }
    sums
}

fn open(address: SocketAddr, database: u32) -> Option<Connection> {
    let mut connection = Connection::try_open(address).ok()?;
    connection.set_patience(Duration::from_secs(20));
    let selected = connection.try_call(&["SELECT", &database.to_string()]);
    selected
        .is_ok_and(|reply| reply.is_ok())
        .then_some(connection)
}

/// Counters in each database.
const KEYS: usize = 40;

/// Databases in use.
pub(super) const DATABASES: u32 = 2;

/// Increments sent at once.
const PIPELINE: usize = 16;

/// Most replies of a counter that one client remembers.
const MAX_REPLIES: usize = 20_000;
