//! A load generator whose latencies count waiting: `cargo run --release --example load -- --help`.
//!
//! With `--rate` it is open: requests have their times, and go at them whatever the replies do. A
//! latency is counted from the time at which the request had to go, so a server that stands still
//! for a second shows a second for all that should have gone meanwhile, not for one request of
//! each connection (coordinated omission). Times lie on a grid of a millisecond, the resolution of
//! tokio's timer; what this program itself is late counts as the server's.
//!
//! Without `--rate` it is closed: each connection sends `--pipeline` requests, waits for all
//! replies, and goes on. That is for throughput.
//!
//! Prints one line of JSON.

#![expect(clippy::print_stdout, reason = "its report")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use hdrhistogram::Histogram;
use tally::resp::{ReplyScanner, encode, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Drives a Redis server and says how it answered.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// The server's port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = 50)]
    connections: u32,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Requests a second over all connections; without it as many as are answered.
    #[arg(long)]
    rate: Option<f64>,
    /// Requests that a connection sends at once, without --rate.
    #[arg(long, default_value_t = 32)]
    pipeline: u32,
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    /// Key n is asked with a weight of 1/n^S; 0: all alike.
    #[arg(long, default_value_t = 0.0)]
    zipf: f64,
    /// Begins every key's name.
    #[arg(long, default_value = "load:")]
    prefix: String,
    /// incr, get, or pair: INCR and EXPIRE in turn.
    #[arg(long, default_value = "incr", value_parser = ["incr", "get", "pair"])]
    command: String,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let report = local.block_on(&runtime, run(options))?;
    println!("{}", report.json());
    Ok(())
}

async fn run(options: Options) -> io::Result<Report> {
    let keys = Rc::new(Keys::new(&options));
    let begin = Instant::now() + Duration::from_millis(50);
    let mut connections = JoinSet::new();
    for number in 0..options.connections {
        let source = Source::new(&options, Rc::clone(&keys), number);
        let stream = TcpStream::connect(("127.0.0.1", options.port)).await?;
        stream.set_nodelay(true)?;
        connections.spawn_local(serve(stream, source, options.clone(), begin));
    }
    let mut report = Report::new(&options);
    while let Some(served) = connections.join_next().await {
        report.add(&served.map_err(io::Error::other)??);
    }
    report.seconds = begin.elapsed().as_secs_f64();
    Ok(report)
}

/// One connection: a writer that follows the clock, or the reader.
async fn serve(
    stream: TcpStream,
    mut source: Source,
    options: Options,
    begin: Instant,
) -> io::Result<Report> {
    let (mut reader, mut writer) = stream.into_split();
    let mut report = Report::new(&options);
    let length = Duration::from_secs_f64(options.seconds);
    let Some(rate) = options.rate else {
        let mut replies = Replies::default();
        tokio::time::sleep_until(begin).await;
        while begin.elapsed() < length {
            let mut wire = Vec::new();
            let sent = Instant::now();
            for _ in 0..options.pipeline {
                source.write(&mut wire);
            }
            writer.write_all(&wire).await?;
            for _ in 0..options.pipeline {
                let (failed, heard) = replies.next(&mut reader).await?;
                report.answered(heard - sent, failed);
            }
        }
        return Ok(report);
    };
    let due = Rc::new(RefCell::new(VecDeque::new()));
    let asked = Rc::clone(&due);
    let share = rate / f64::from(options.connections);
    let write = async move {
        let mut owed = 0.0;
        let mut tick = begin;
        while tick < begin + length {
            tokio::time::sleep_until(tick).await;
            owed += share * GRID.as_secs_f64();
            let mut wire = Vec::new();
            while owed >= 1.0 {
                owed -= 1.0;
                source.write(&mut wire);
                asked.borrow_mut().push_back(tick);
            }
            if !wire.is_empty() {
                writer.write_all(&wire).await?;
            }
            tick += GRID;
        }
        // The reader ends with the last reply.
        writer.shutdown().await
    };
    let read = async {
        let mut replies = Replies::default();
        loop {
            match replies.next(&mut reader).await {
                Ok((failed, heard)) => {
                    let tick: Option<Instant> = due.borrow_mut().pop_front();
                    report.answered(tick.map_or(Duration::ZERO, |tick| heard - tick), failed);
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        report.unanswered = to_u64(due.borrow().len());
        Ok(())
    };
    tokio::try_join!(write, read)?;
    Ok(report)
}

/// The replies on one connection.
#[derive(Default)]
struct Replies {
    buffer: Vec<u8>,
    used: usize,
    scanner: ReplyScanner,
    /// When what is in the buffer was read.
    read: Option<Instant>,
}

impl Replies {
    /// Waits for the next; whether it is an error, and when it came.
    async fn next(
        &mut self,
        reader: &mut (impl AsyncReadExt + Unpin),
    ) -> io::Result<(bool, Instant)> {
        loop {
            let unread = self.buffer.get(self.used..).unwrap_or_default();
            if let Some(length) = self.scanner.scan(unread).map_err(io::Error::other)? {
                self.used += length;
                let failed = reply::is_error(unread.get(..length).unwrap_or_default());
                return Ok((failed, self.read.unwrap_or_else(Instant::now)));
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            if reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read = Some(Instant::now());
        }
    }
}

/// The keys in the order in which they are asked for, drawn beforehand: to draw them costs more
/// than to ask. Each connection begins elsewhere.
struct Keys(Vec<u32>);

impl Keys {
    fn new(options: &Options) -> Self {
        let count = options.keys.max(1);
        let mut random: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut draw = || {
            // xorshift64*
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            u32::try_from(random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or_default()
        };
        if options.zipf == 0.0 {
            return Self((0..DRAWS).map(|_| draw() % count).collect());
        }
        let mut total = 0.0;
        // Sums of the weights up to each key.
        let sums: Vec<f64> = (1..=count)
            .map(|rank| {
                total += f64::from(rank).powf(-options.zipf);
                total
            })
            .collect();
        let pick = |random: u32| {
            let point = f64::from(random) / f64::from(u32::MAX) * total;
            let rank = sums.partition_point(|sum| *sum < point);
            u32::try_from(rank).unwrap_or_default().min(count - 1)
        };
        Self((0..DRAWS).map(|_| pick(draw())).collect())
    }
}

/// The requests of one connection.
struct Source {
    command: String,
    keys: Rc<Keys>,
    next: usize,
    prefix: String,
    key: Vec<u8>,
    /// Whether the `EXPIRE` of the key before is to come.
    pair: bool,
}

impl Source {
    fn new(options: &Options, keys: Rc<Keys>, number: u32) -> Self {
        let share = DRAWS / usize::try_from(options.connections.max(1)).unwrap_or(1);
        Self {
            command: options.command.clone(),
            keys,
            next: share * usize::try_from(number).unwrap_or_default(),
            prefix: options.prefix.clone(),
            key: Vec::new(),
            pair: false,
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.pair) {
            return encode::request(out, &[b"EXPIRE".as_slice(), &self.key, b"100"]);
        }
        let mut number = self.keys.0.get(self.next).copied().unwrap_or_default();
        self.next = (self.next + 1) % DRAWS;
        let mut digits = [b'0'; 10];
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
        self.key.clear();
        self.key.extend_from_slice(self.prefix.as_bytes());
        self.key.extend_from_slice(&digits);
        let command: &[u8] = if self.command == "get" {
            b"GET"
        } else {
            b"INCR"
        };
        encode::request(out, &[command, &self.key]);
        self.pair = self.command == "pair";
    }
}

/// What came of it.
struct Report {
    rate: Option<f64>,
    latencies: Histogram<u64>,
    errors: u64,
    unanswered: u64,
    seconds: f64,
}

impl Report {
    fn new(options: &Options) -> Self {
        Self {
            rate: options.rate,
            latencies: Histogram::new_with_max(LONGEST_US, 3)
                .unwrap_or_else(|_| unreachable!("3 digits are allowed")),
            errors: 0,
            unanswered: 0,
            seconds: 0.0,
        }
    }

    fn answered(&mut self, took: Duration, failed: bool) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(us);
        self.errors += u64::from(failed);
    }

    fn add(&mut self, other: &Self) {
        if let Err(error) = self.latencies.add(&other.latencies) {
            unreachable!("histograms of one shape: {error}");
        }
        self.errors += other.errors;
        self.unanswered += other.unanswered;
    }

    fn json(&self) -> serde_json::Value {
        let ms = |quantile| {
            let us = self.latencies.value_at_quantile(quantile);
            Duration::from_micros(us).as_secs_f64() * 1e3
        };
        let answered = self.latencies.len();
        serde_json::json!({
            "rate": self.rate,
            "answered": answered,
            "errors": self.errors,
            "unanswered": self.unanswered,
            "rps": Duration::from_nanos(answered).as_secs_f64() * 1e9 / self.seconds,
            "p50_ms": ms(0.5),
            "p99_ms": ms(0.99),
            "p999_ms": ms(0.999),
            "max_ms": ms(1.0),
        })
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Longest latency that is told apart, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// Keys drawn, then the same again: some seconds of requests.
const DRAWS: usize = 1 << 22;

/// Between the times at which requests go.
const GRID: Duration = Duration::from_millis(1);
