//! `journal.fsync = "always"`: nothing leaves before the disk has it. A library loaded before the C
//! library stands between Tally and the disk.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, pause, say, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, Tally};

/// The disk takes nothing while there is a file `held`, and fails while there is one `broken`.
const DISK: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is(const char *what) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", getenv("DISK"), what);
  return access(path, F_OK) == 0;
}

int fdatasync(int file) {
  while (is("held")) usleep(1000);
  if (is("broken")) {
    errno = EIO;
    return -1;
  }
  return syscall(SYS_fdatasync, file);
}
"#;

/// Tally with a disk that the test holds up.
struct Disk {
    folder: TempDir,
    stack: Stack,
    /// On the first node; warm.
    key: String,
}

impl Disk {
    /// `None` where there is no C compiler.
    fn new() -> Option<Self> {
        if skipped_on_bare_redis() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let [source, library] = ["disk.c", "disk.so"].map(|name| folder.path().join(name));
        fs::write(&source, DISK).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]);
        if !compiler
            .arg(&library)
            .arg(&source)
            .status()
            .is_ok_and(|ended| ended.success())
        {
            say("there is no C compiler");
            return None;
        }
        let (disk, library) = (folder.path().display(), library.display());
        let script = format!("DISK={disk} LD_PRELOAD={library} exec \"$0\" \"$@\"");
        let nodes = vec![Redis::start_durable(), Redis::start_durable()];
        let addresses: Vec<_> = nodes.iter().map(|node| (node.address(), None)).collect();
        let settings = [
            ("journal.fsync", "\"always\""),
            ("counters.flush_interval", "\"20ms\""),
            ("cache.ttl", "\"1m\""),
        ];
        let mut tally = Tally::launch_by(Some(&script), &addresses, &settings);
        tally.wait_until_it_answers();
        let stack = Stack {
            tally: Some(tally),
            nodes,
        };
        let key = stack.key_on(0, "counter");
        let mut client = stack.connect();
        for want in 1..=5 {
            assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
        }
        let disk = Self { folder, stack, key };
        assert!(disk.node_has("5"), "flushed");
        Some(disk)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn node_has(&self, value: &str) -> bool {
        let get = format!("GET {}", self.key);
        let has = || self.stack.nodes[0].connect().run(&get) == Reply::Bulk(value.into());
        eventually(Duration::from_secs(10), has)
    }
}

#[test]
fn no_reply_leaves_before_the_disk_has_it() {
    let Some(disk) = Disk::new() else { return };
    let (mut client, mut other) = (disk.stack.connect(), disk.stack.connect());
    fs::write(disk.file("held"), "").unwrap();
    client.send(&["INCR", &disk.key]);
    let short = Duration::from_millis(200);
    client.set_patience(short);
    client
        .try_read_frame()
        .expect_err("a reply to an increment that the disk does not have");
    other.set_patience(short);
    other
        .try_call(&["GET", &disk.key])
        .expect_err("a reply that tells of it");
    fs::remove_file(disk.file("held")).unwrap();
    client.set_patience(Duration::from_secs(30));
    other.set_patience(Duration::from_secs(30));
    assert_eq!(client.read_frame(), b":6\r\n");
    assert_eq!(other.read_frame(), b"$1\r\n6\r\n");
}

#[test]
fn no_answer_over_http_leaves_before_the_disk_has_it() {
    let Some(disk) = Disk::new() else { return };
    let http = disk.stack.tally.as_ref().unwrap().http_address();
    let visit = || {
        let mut http = Connection::open(http);
        http.write_raw(
            b"POST /visit/home HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        );
        http
    };
    for _ in 0..5 {
        visit().read_to_close();
    }
    fs::write(disk.file("held"), "").unwrap();
    let mut late = visit();
    late.set_patience(Duration::from_millis(200));
    late.try_read_frame()
        .expect_err("an answer that tells of it");
    fs::remove_file(disk.file("held")).unwrap();
    late.set_patience(Duration::from_secs(30));
    assert!(late.read_to_close().starts_with(b"HTTP/1.1 200"));
}

#[test]
fn no_batch_leaves_before_the_disk_has_it() {
    let Some(disk) = Disk::new() else { return };
    fs::write(disk.file("held"), "").unwrap();
    disk.stack.connect().send(&["INCR", &disk.key]);
    // Ten times as long as until the next flush.
    pause(Duration::from_millis(200));
    let get = format!("GET {}", disk.key);
    assert_eq!(disk.stack.nodes[0].connect().run(&get).text(), "5");
    fs::remove_file(disk.file("held")).unwrap();
    assert!(disk.node_has("6"));
}

#[test]
fn a_disk_that_fails_ends_tally_with_nothing_acknowledged() {
    let Some(mut disk) = Disk::new() else { return };
    fs::write(disk.file("broken"), "").unwrap();
    let mut client = disk.stack.connect();
    client.send(&["INCR", &disk.key]);
    assert_eq!(client.read_to_close(), b"");
    let tally = disk.stack.tally.as_mut().unwrap();
    let status = tally.wait(Duration::from_secs(15)).expect("an end");
    assert_eq!(status.code(), Some(1), "{}", tally.log());
    let words = "the journal could not be written to the disk";
    assert!(tally.log().contains(words), "{}", tally.log());
    tally.restart();
    disk.stack.stop_tally();
    assert!(disk.node_has("6"), "nobody knows, and it may be");
}
