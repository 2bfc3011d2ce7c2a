//! The journal: what is acknowledged and not settled, in a file mapped into memory, so that it
//! outlives the process.
//!
//! ```text
//!   words 0-511          header: magic, version, epoch, instance, checksum, the start of the machine
//!   words 512-1,049,087  16,384 series of 64 words: node, database, the last connection to it
//!   words 1,049,088-     slots, as `flush::Slots` has them
//! ```
//!
//! All words are little-endian u64. An increment is one store into the map; no system call is made
//! for it, and whatever ends the process, the kernel keeps the page. A power cut keeps what the
//! kernel had written: [`Journal::sync`] has it write all. With `fsync = "always"` whoever
//! acknowledges an increment or sends a batch waits for that, see [`Commits`].

mod file;
mod inspect;
mod map;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::config::Fsync;
use crate::counter::Recovered;
use crate::flush::{Commits, Damaged, Ledger, Slots, Stage};
use file::{HEADER_WORDS, Header, SERIES, SERIES_WORDS, Series};

pub use inspect::inspect;

/// An open journal. Cheap to clone; the file stays mapped and locked as long as the process lives.
#[derive(Clone, Debug)]
pub struct Journal {
    words: &'static [AtomicU64],
    slots: &'static Slots,
    commits: Option<&'static Commits>,
    /// Held for its lock, and for syncing.
    file: Arc<File>,
    /// The number of each series.
    known: Arc<Mutex<HashMap<(String, u32), u16>>>,
    instance: Arc<str>,
    epoch: u64,
    path: Arc<Path>,
}

/// Where the last connection to a series' node is noted, so that the next process can fence it.
#[derive(Clone, Debug)]
pub struct Trace(Series);

/// One series, and what was not settled of it.
#[derive(Clone, Debug)]
pub struct Unsettled {
    /// The node's name.
    pub node: String,
    /// The database there.
    pub database: u32,
    /// What there is to be sent.
    pub recovered: Recovered,
}

/// Why a journal can not be used. What is in it was not changed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system says no.
    #[error("the journal {}: {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the journal {} is in use by another process", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It is not a journal, or not a whole one, or of another version.
    #[error(
        "the journal {}: {what}. It was left as it is; if nothing in it is of use, move it away \
         and start again",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// More nodes and databases were ever used with it than it has room for.
    #[error(
        "the journal {} has room for {SERIES} nodes and databases, and all are taken",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
}

impl Journal {
    /// Opens the journal at `path`, with at least `bytes` of slots; makes it, and the directories
    /// on the way, if there is none. The disk's room is taken now. With [`Fsync::Always`] there are
    /// [`Journal::commits`]. Before anything is acknowledged the caller has it [synced](Self::sync)
    /// once, so that a power cut finds whose journal it is.
    ///
    /// # Errors
    ///
    /// See [`JournalError`].
    pub fn open(
        path: &Path,
        bytes: usize,
        fsync: Fsync,
    ) -> Result<(Self, Vec<Unsettled>), JournalError> {
        let file = file::open(path, bytes)?;
        let io = |what| {
            move |source| JournalError::Io {
                path: path.to_owned(),
                what,
                source,
            }
        };
        let words = map::map(&file).map_err(io("can not be mapped into memory"))?;
        let foreign = |what| JournalError::Foreign {
            path: path.to_owned(),
            what,
        };
        let header = Header::of(words);
        let instance = header.check().map_err(foreign)?;
        let (_, slots) = words
            .split_at_checked(HEADER_WORDS + SERIES * SERIES_WORDS)
            .unwrap_or_default();
        let commits = (fsync == Fsync::Always).then(|| &*Box::leak(Box::default()));
        let slots = Slots::new(slots).with_commits(commits);
        let slots: &'static Slots = Box::leak(Box::new(slots));
        let is_as_left = header.is_as_left();
        let (mut unsettled, mut known) = (Vec::new(), HashMap::new());
        for number in 0..SERIES {
            let Some(series) = Series::at(words, number) else {
                break;
            };
            let Some((node, database)) = series.read().map_err(foreign)? else {
                break;
            };
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            known.insert((node.clone(), database), number);
            unsettled.push(Unsettled {
                node,
                database,
                recovered: Recovered {
                    after_outage: !is_as_left,
                    ..Recovered::default()
                },
            });
        }
        let is_pending = is_as_left || header.commits();
        sort(slots, is_pending, &mut unsettled).map_err(foreign)?;
        header.set_in_use(true, commits.is_some());
        unsettled.retain(|series| !series.recovered.is_empty());
        let journal = Self {
            words,
            slots,
            commits,
            file: Arc::new(file),
            known: Arc::new(Mutex::new(known)),
            instance: instance.into(),
            epoch: header.next_epoch(),
            path: path.into(),
        };
        Ok((journal, unsettled))
    }

    /// Whether a power cut of the machine can be told from the end of the process: where it says
    /// that it was started anew.
    pub fn tells_power_cuts() -> bool {
        !file::boot_id().is_empty()
    }

    /// Names this journal in the markers on the nodes: the same for every process that opens it.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Higher than that of any process before with this journal.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Slots taken, and slots there are.
    pub fn usage(&self) -> (usize, usize) {
        (self.slots.taken(), self.slots.capacity())
    }

    /// The part of a node's database, and where the connections to it are noted.
    ///
    /// # Errors
    ///
    /// There is no room for another series.
    pub fn series(&self, node: &str, database: u32) -> Result<(Ledger, Trace), JournalError> {
        let full = || JournalError::Full {
            path: self.path.to_path_buf(),
        };
        let mut known = self.known.lock();
        let next = u16::try_from(known.len()).unwrap_or(u16::MAX);
        let number = *known.entry((node.to_owned(), database)).or_insert(next);
        let series = Series::at(self.words, usize::from(number));
        let Some(series) = series.filter(|_| usize::from(number) < SERIES) else {
            known.remove(&(node.to_owned(), database));
            return Err(full());
        };
        if number == next {
            series.write(node, database);
        }
        let last = series.last().ok_or_else(full)?;
        Ok((Ledger::new(self.slots, number, last), Trace(series)))
    }

    /// Where everything is noted that has to be on the disk before somebody goes on, with
    /// [`Fsync::Always`].
    pub fn commits(&self) -> Option<&'static Commits> {
        self.commits
    }

    /// Has the kernel write everything. Cost: a disk's write, milliseconds; blocks.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The process is about to end in good order: what is left is all there, whatever happens to
    /// the machine. Blocks as [`Journal::sync`].
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn leave(&self) -> io::Result<()> {
        self.sync()?;
        Header::of(self.words).set_in_use(false, false);
        self.sync()
    }
}

impl Trace {
    /// The run id of the server and the client id there of the last connection, of this process or
    /// the one before.
    pub fn last(&self) -> Option<(String, i64)> {
        self.0.connection()
    }

    /// A connection is about to be used.
    pub fn note(&self, run_id: &str, client_id: i64) {
        self.0.connect(run_id, client_id);
    }
}

/// Adds what is in the slots to the series that they name; `is_pending` says that what is in no
/// batch was in none that was sent.
fn sort(slots: &Slots, is_pending: bool, unsettled: &mut [Unsettled]) -> Result<(), String> {
    for found in slots.read() {
        let found = found.map_err(|damaged: Damaged| damaged.to_string())?;
        let series = unsettled.get_mut(usize::from(found.series));
        let recovered = &mut series.ok_or("a slot names no series")?.recovered;
        match found.stage {
            Stage::InDoubt => recovered.in_doubt.push(found.increment),
            Stage::Sealed(number) => {
                let batch = recovered.batches.entry(number).or_default();
                batch.push(found.increment);
            }
            Stage::Pending if is_pending => recovered.pending.push(found.increment),
            Stage::Pending => {
                let suspect = (found.taken_after, found.increment);
                recovered.suspects.push(suspect);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flush::Standing;

    fn path(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("some/where/journal")
    }

    /// What the next process finds: a mapped file stays locked, so a copy stands in.
    fn copied(folder: &tempfile::TempDir, bytes: usize) -> (Journal, Vec<Unsettled>) {
        let copy = path(folder).with_extension("copy");
        std::fs::copy(path(folder), &copy).unwrap();
        Journal::open(&copy, bytes, Fsync::No).unwrap()
    }

    #[test]
    fn the_next_process_finds_what_was_noted() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, unsettled) = Journal::open(&path(&folder), 1 << 10, Fsync::No).unwrap();
        assert!(unsettled.is_empty());
        assert_eq!(journal.usage(), (0, 8));
        let name = "n".repeat(255);
        let (other, _) = journal.series("other", 0).unwrap();
        let (ledger, trace) = journal.series(&name, 15).unwrap();
        assert_eq!(trace.last(), None);
        trace.note(&"r".repeat(40), 17);
        let standing = Standing {
            delta: 2,
            ..Standing::default()
        };
        ledger.take(b"key", &standing).unwrap();
        assert!(other.take(b"other", &Standing::default()).is_some());
        let (next, unsettled) = copied(&folder, 1 << 11);
        assert_eq!(next.instance(), journal.instance());
        assert_eq!(next.epoch(), journal.epoch() + 1);
        let nodes: Vec<_> = unsettled.iter().map(|series| &*series.node).collect();
        assert_eq!(nodes, ["other", &name]);
        assert_eq!(unsettled[1].database, 15);
        assert_eq!(unsettled[1].recovered.pending[0].delta, 2);
        assert_eq!(next.usage(), (2, 16), "longer now");
        let (_, trace) = next.series(&name, 15).unwrap();
        assert_eq!(trace.last(), Some(("r".repeat(40), 17)));
        let text = inspect(&path(&folder)).unwrap();
        assert!(text.contains("pending  other  \"other\"  +0\n"), "{text}");
    }

    #[test]
    fn one_process_has_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Journal::open(&path(&folder), 0, Fsync::No).unwrap();
        let second = Journal::open(&path(&folder), 0, Fsync::No);
        assert!(matches!(second, Err(JournalError::Locked { .. })));
    }

    #[test]
    fn series_end() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&path(&folder), 0, Fsync::No).unwrap();
        for node in 0..SERIES {
            journal.series(&node.to_string(), 0).unwrap();
        }
        assert!(journal.series("0", 0).is_ok(), "a known one");
        let full = journal.series("0", 1);
        assert!(matches!(full, Err(JournalError::Full { .. })));
    }
}
