//! The file: made, locked, checked; the words of its header and its series.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice::SliceIndex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::process::{Resource, getrlimit};
use twox_hash::XxHash3_64;

use super::JournalError;
use crate::telemetry::random_run_id;

/// Opens and locks the journal; makes it, or makes it longer, if need be.
pub(super) fn open(path: &Path, bytes: usize) -> Result<File, JournalError> {
    let io = |what| {
        move |source| JournalError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io("its directory can not be made"))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path, bytes)?;
            options.open(path)
        }
        opened => opened,
    };
    let file = file.map_err(io("can not be opened"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(JournalError::Locked {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(io("can not be locked")(error.into())),
    }
    let length = file.metadata().map_err(io("can not be read"))?.len();
    let foreign = |what: &str| JournalError::Foreign {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let least = bytes_of(HEADER_WORDS + SERIES * SERIES_WORDS);
    let mut start = [0; 8];
    let read = io::Read::read(&mut &file, &mut start).map_err(io("can not be read"))?;
    if read < start.len() || u64::from_le_bytes(start) != MAGIC {
        return Err(foreign(NO_JOURNAL));
    }
    if length < least {
        return Err(foreign("it was cut short"));
    }
    let wanted = to_u64(bytes) + least;
    if length < wanted {
        // What is there stays; the new part is zeros, which are free slots.
        allocate(&file, wanted).map_err(io("has no room"))?;
    }
    Ok(file)
}

/// Makes an empty journal under another name first, so that there is never half of one.
fn make(path: &Path, bytes: usize) -> Result<(), JournalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let made = (|| {
        let file = File::create(&new)?;
        let start = HEADER_WORDS + SERIES * SERIES_WORDS;
        allocate(&file, to_u64(bytes) + bytes_of(start))?;
        let header: Vec<AtomicU64> = (0..HEADER_WORDS).map(|_| AtomicU64::new(0)).collect();
        Header::of(&header).write(&random_run_id());
        io::Write::write_all(&mut &file, &Words(&header).text(..))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // Else a power cut may take the name away.
        let folder = path.parent().map(Path::as_os_str);
        let folder = folder.filter(|folder| !folder.is_empty());
        File::open(folder.unwrap_or_else(|| ".".as_ref()))?.sync_all()
    })();
    if made.is_err() {
        // Else it would keep the room that the disk still had.
        fs::remove_file(&new).ok();
    }
    made.map_err(|source| JournalError::Io {
        path: path.to_owned(),
        what: "can not be made",
        source,
    })
}

/// Takes the disk's room, so that a full disk is an error here and not the process's end later.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    // A process that passes its own limit on files is ended by a signal, without a word.
    let limit = getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < bytes) {
        return Err(rustix::io::Errno::FBIG.into());
    }
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // A file system that can not: zeros take the room as well.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let length = file.metadata()?.len();
            let mut file = file;
            io::Seek::seek(&mut file, io::SeekFrom::Start(length))?;
            io::copy(
                &mut io::Read::take(io::repeat(0), bytes - length),
                &mut file,
            )?;
            file.sync_all()
        }
        Err(error) => Err(error.into()),
    }
}

/// The header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a>(Words<'a>);

impl<'a> Header<'a> {
    pub(super) fn of(words: &'a [AtomicU64]) -> Self {
        Self(Words(words.get(..HEADER_WORDS).unwrap_or_default()))
    }

    fn write(self, instance: &str) {
        let places = [
            (0, MAGIC),
            (1, VERSION),
            (CHECK, check(instance.as_bytes())),
        ];
        for (at, value) in places {
            self.0.set(at, value);
        }
        self.0.set_text(INSTANCE, instance.as_bytes());
    }

    /// The instance's name, or what is wrong.
    pub(super) fn check(self) -> Result<String, String> {
        if self.0.get(0) != MAGIC {
            return Err(NO_JOURNAL.into());
        }
        let version = self.0.get(1);
        if version != VERSION {
            return Err(format!(
                "it is of version {version}; this Tally knows version {VERSION}"
            ));
        }
        let instance = self.0.text(INSTANCE);
        if check(&instance) != self.0.get(CHECK) {
            return Err("its header is damaged".into());
        }
        String::from_utf8(instance).map_err(|_| "its header is damaged".into())
    }

    /// Whether the file is what the last process left: it stopped in good order, or the machine
    /// did not start anew since.
    pub(super) fn is_as_left(self) -> bool {
        let boot = self.0.text(BOOT);
        let boot = String::from_utf8_lossy(&boot);
        let boot = boot.trim_end_matches('\0');
        boot.is_empty() || boot == boot_id()
    }

    /// Notes that a process has the file, and whether it `commits`: waits for the disk before it
    /// acknowledges or sends anything. Or else that it leaves the file in good order.
    pub(super) fn set_in_use(self, in_use: bool, commits: bool) {
        self.0.set(COMMITS, 0);
        let boot = if in_use { boot_id() } else { String::new() };
        self.0.set_text(BOOT, boot.as_bytes());
        self.0.set(COMMITS, commits.into());
    }

    /// Whether the last process waited for the disk before it sent anything.
    pub(super) fn commits(self) -> bool {
        self.0.get(COMMITS) == 1
    }

    pub(super) fn epoch(self) -> u64 {
        self.0.get(EPOCH)
    }

    /// Raises the epoch.
    pub(super) fn next_epoch(self) -> u64 {
        let epoch = self.epoch() + 1;
        self.0.set(EPOCH, epoch);
        epoch
    }
}

/// Names this start of the machine (Linux's `boot_id`); empty where there is no such thing, and a
/// power cut can not be told then.
pub(super) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim_end().to_owned()
}

/// The words of one series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series(Words<'static>);

impl Series {
    pub(super) fn at(words: &'static [AtomicU64], number: usize) -> Option<Self> {
        let start = HEADER_WORDS + number.checked_mul(SERIES_WORDS)?;
        Some(Self(Words(words.get(start..start + SERIES_WORDS)?)))
    }

    /// Node and database; `None` when no series is there yet; or what is wrong.
    pub(super) fn read(self) -> Result<Option<(String, u32)>, String> {
        let damaged = || "a series is damaged".to_owned();
        let Some(head) = Some(self.0.get(0)).filter(|head| *head != 0) else {
            return Ok(None);
        };
        let name = self.0.text(NAME);
        let (length, database) = (head & 0xFFFF, (head >> 16) & 0xFFFF_FFFF);
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let name = name.get(..length).ok_or_else(damaged)?;
        if self.0.get(SERIES_CHECK) != check(name) ^ head {
            return Err(damaged());
        }
        let name = String::from_utf8(name.to_vec()).map_err(|_| damaged())?;
        let database = u32::try_from(database).map_err(|_| damaged())?;
        Ok(Some((name, database)))
    }

    /// Node names have 1 to 255 bytes.
    pub(super) fn write(self, node: &str, database: u32) {
        let head = to_u64(node.len()) | u64::from(database) << 16;
        self.0.set_text(NAME, node.as_bytes());
        self.0.set(SERIES_CHECK, check(node.as_bytes()) ^ head);
        self.0.set(CLIENT, 0);
        self.0.set(0, head);
    }

    /// The word for the number of its last batch.
    pub(super) fn last(self) -> Option<&'static AtomicU64> {
        self.0.0.get(LAST)
    }

    /// The server's run id and the client id there.
    pub(super) fn connection(self) -> Option<(String, i64)> {
        let client_id = self.0.get(CLIENT).cast_signed();
        let run_id = self.0.text(RUN_ID);
        let run_id = String::from_utf8(run_id).ok()?;
        (client_id != 0).then(|| (run_id.trim_end_matches('\0').to_owned(), client_id))
    }

    pub(super) fn connect(self, run_id: &str, client_id: i64) {
        self.0.set(CLIENT, 0);
        self.0.set_text(RUN_ID, run_id.as_bytes());
        self.0.set(CLIENT, client_id.cast_unsigned());
    }
}

/// Some words of the file. One that is not there reads as 0, and takes nothing.
#[derive(Clone, Copy, Debug)]
struct Words<'a>(&'a [AtomicU64]);

impl Words<'_> {
    fn get(self, at: usize) -> u64 {
        let word = self.0.get(at);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(self, at: usize, value: u64) {
        if let Some(word) = self.0.get(at) {
            word.store(value, Ordering::Release);
        }
    }

    /// What stands at `place` as text, the zeros behind it included.
    fn text(self, place: impl SliceIndex<[AtomicU64], Output = [AtomicU64]>) -> Vec<u8> {
        let words = self.0.get(place).unwrap_or_default();
        let words = words.iter().map(|word| word.load(Ordering::Acquire));
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// Writes text to `place`, filled up with zeros.
    fn set_text(self, place: Range<usize>, text: &[u8]) {
        let mut parts = text.chunks(8);
        for word in self.0.get(place).unwrap_or_default() {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(parts.next().unwrap_or_default()) {
                *to = *from;
            }
            word.store(u64::from_le_bytes(bytes), Ordering::Release);
        }
    }
}

fn check(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(VERSION, bytes)
}

fn bytes_of(words: usize) -> u64 {
    to_u64(8 * words)
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Words of the header: one page.
pub(super) const HEADER_WORDS: usize = 512;

/// Most series, ever: sixteen databases of 1,024 nodes.
pub(super) const SERIES: usize = 16_384;

/// Words of a series.
pub(super) const SERIES_WORDS: usize = 64;

/// `TALLYJNL`.
const MAGIC: u64 = u64::from_le_bytes(*b"TALLYJNL");
const VERSION: u64 = 2;
const NO_JOURNAL: &str = "it is no journal of Tally";

/// Places in the header.
const EPOCH: usize = 2;
const CHECK: usize = 3;
const INSTANCE: Range<usize> = 4..9;
const BOOT: Range<usize> = 9..14;
const COMMITS: usize = 14;

/// Places in a series.
const NAME: Range<usize> = 1..33;
const SERIES_CHECK: usize = 33;
const RUN_ID: Range<usize> = 34..39;
const CLIENT: usize = 39;
const LAST: usize = 40;
