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
                let failed = replies.next(&mut reader).await?;
                report.answered(sent.elapsed(), failed);
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
                Ok(failed) => {
                    let tick: Option<Instant> = due.borrow_mut().pop_front();
                    report.answered(tick.map_or(Duration::ZERO, |tick| tick.elapsed()), failed);
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
}

impl Replies {
    /// Waits for the next; whether it is an error.
    async fn next(&mut self, reader: &mut (impl AsyncReadExt + Unpin)) -> io::Result<bool> {
        loop {
            let unread = self.buffer.get(self.used..).unwrap_or_default();
            if let Some(length) = self.scanner.scan(unread).map_err(io::Error::other)? {
                self.used += length;
                return Ok(reply::is_error(unread.get(..length).unwrap_or_default()));
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            if reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// How likely each key is.
struct Keys {
    count: u32,
    /// Sums of the weights up to each key, ascending to 1; empty when all are alike.
    sums: Vec<f64>,
}

impl Keys {
    fn new(options: &Options) -> Self {
        let count = options.keys.max(1);
        if options.zipf == 0.0 {
            return Self {
                count,
                sums: Vec::new(),
            };
        }
        let mut total = 0.0;
        let mut sums: Vec<f64> = (1..=count)
            .map(|rank| {
                total += f64::from(rank).powf(-options.zipf);
                total
            })
            .collect();
        for sum in &mut sums {
            *sum /= total;
        }
        Self { count, sums }
    }

    /// The number of a key, by a random 32-bit number.
    fn pick(&self, random: u32) -> u32 {
        if self.sums.is_empty() {
            return random % self.count;
        }
        let point = f64::from(random) / f64::from(u32::MAX);
        let rank = self.sums.partition_point(|sum| *sum < point);
        u32::try_from(rank).unwrap_or_default().min(self.count - 1)
    }
}

/// The requests of one connection.
struct Source {
    options: Options,
    keys: Rc<Keys>,
    random: u64,
    /// The key of the `INCR` before, to which the `EXPIRE` belongs.
    pair: Option<String>,
}

impl Source {
    fn new(options: &Options, keys: Rc<Keys>, number: u32) -> Self {
        Self {
            options: options.clone(),
            keys,
            random: 0x9E37_79B9_7F4A_7C15 ^ u64::from(number + 1) << 17,
            pair: None,
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        if let Some(key) = self.pair.take() {
            return encode::request(out, &["EXPIRE", &key, "100"]);
        }
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let random = self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        let number = self.keys.pick(u32::try_from(random).unwrap_or_default());
        let key = format!("{}{number:010}", self.options.prefix);
        match self.options.command.as_str() {
            "get" => encode::request(out, &["GET", &key]),
            command => {
                encode::request(out, &["INCR", &key]);
                self.pair = (command == "pair").then_some(key);
            }
        }
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

/// Between the times at which requests go.
const GRID: Duration = Duration::from_millis(1);
