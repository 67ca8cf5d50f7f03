//! Zero workers: they speak the worker's side of the wire protocol and answer every compute-task with task-finished at
//! once, without running it (after the one of the rsds paper). One process holds many connections, each of which the
//! scheduler sees as a worker of one thread, and never looks into a task, so that the scheduler is the bottleneck.
//!
//! `zworker tcp://127.0.0.1:8786 24` prints a line once all are registered. Then each line on standard input is
//! answered by one line of counters since the last `reset`: tasks, messages in, bytes in, messages out, bytes out, time
//! of the first task, time of the last (seconds since the epoch), CPU seconds of this process.

mod msgpack;

use std::collections::HashSet;
use std::io::{BufRead, ErrorKind, Read, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use msgpack::{Reader, Write, frame, whole_message};

/// `pickle.dumps(int)`: the class of every result.
const INT: &[u8] = b"\x80\x05\x95\x14\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.";

#[derive(Default, Clone)]
struct Counters {
    tasks: u64,
    messages_in: u64,
    bytes_in: u64,
    messages_out: u64,
    bytes_out: u64,
    first: f64,
    last: f64,
}

/// One connection: one worker as the scheduler sees it.
struct Worker {
    stream: TcpStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    keys: HashSet<Vec<u8>>,
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// User and system seconds of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |i: usize| {
        after
            .split_whitespace()
            .nth(i)
            .and_then(|v| v.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn handshake() -> Vec<u8> {
    let mut body = vec![];
    body.map(3);
    body.text("compression");
    body.nil();
    body.text("python");
    body.array(3);
    for part in [3, 11, 0] {
        body.uint(part);
    }
    body.text("pickle-protocol");
    body.uint(5);
    body
}

fn empty_maps(body: &mut Vec<u8>, names: &[&str]) {
    for name in names {
        body.text(name);
        body.map(0);
    }
}

fn numbers(body: &mut Vec<u8>, entries: &[(&str, f64)]) {
    for (name, value) in entries {
        body.text(name);
        body.float(*value);
    }
}

fn counts(body: &mut Vec<u8>, entries: &[(&str, u64)]) {
    for (name, value) in entries {
        body.text(name);
        body.uint(*value);
    }
}

fn registration(index: usize) -> Vec<u8> {
    let pid = u64::from(std::process::id());
    let time = now();
    let mut b = vec![];
    b.map(18);
    b.entry("op", "register-worker");
    b.entry("status", "running");
    b.entry("local_directory", "none");
    b.text("reply");
    b.push(0xc2);
    b.entry(
        "address",
        &format!("tcp://127.0.0.1:{}", 20_000 + pid as usize % 20_000 + index),
    );
    b.entry("name", &format!("zero-{pid}-{index}"));
    b.entry("server_id", &format!("Zero-{pid}-{index}"));
    b.entry("stimulus_id", "zero-worker-connect");
    counts(
        &mut b,
        &[("nthreads", 1), ("memory_limit", 4 << 30), ("pid", pid)],
    );
    numbers(&mut b, &[("now", time)]);
    b.text("nanny");
    b.nil();
    empty_maps(&mut b, &["resources", "services", "versions", "extra"]);
    b.text("metrics");
    b.map(13);
    empty_maps(&mut b, &["task_counts", "digests_total_since_heartbeat"]);
    b.text("bandwidth");
    b.map(3);
    counts(&mut b, &[("total", 100_000_000)]);
    empty_maps(&mut b, &["workers", "types"]);
    counts(
        &mut b,
        &[
            ("managed_bytes", 0),
            ("memory", 50_000_000),
            ("num_fds", 10),
        ],
    );
    b.text("spilled_bytes");
    b.map(2);
    counts(&mut b, &[("memory", 0), ("disk", 0)]);
    b.text("transfer");
    b.map(6);
    for way in ["incoming", "outgoing"] {
        for what in ["bytes", "count", "count_total"] {
            counts(&mut b, &[(&format!("{way}_{what}"), 0)]);
        }
    }
    numbers(
        &mut b,
        &[("event_loop_interval", 0.02), ("cpu", 0.0), ("time", time)],
    );
    for io in ["host_net_io", "host_disk_io"] {
        b.text(io);
        b.map(2);
        numbers(&mut b, &[("read_bps", 0.0), ("write_bps", 0.0)]);
    }
    b
}

fn register(address: SocketAddr, index: usize) -> Result<Worker> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut unread = vec![];
    for body in [handshake(), registration(index)] {
        let mut out = vec![];
        frame(&mut out, &body);
        stream.write_all(&out)?;
        let end = loop {
            if let Some((_, end)) = whole_message(&unread) {
                break end;
            }
            let mut chunk = [0; 65_536];
            let n = stream.read(&mut chunk)?;
            ensure!(
                n > 0,
                "the scheduler closed the connection of worker {index}"
            );
            unread.extend(&chunk[..n]);
        };
        unread.drain(..end);
    }
    stream.set_nonblocking(true)?;
    Ok(Worker {
        stream: TcpStream::from_std(stream),
        unread,
        unsent: vec![],
        keys: HashSet::new(),
    })
}

/// What one message of the scheduler says, as far as a zero worker cares. Values stay encoded.
#[derive(Default)]
struct Order<'a> {
    op: &'a [u8],
    key: &'a [u8],
    run_id: u64,
    stimulus: &'a [u8],
    dependencies: Vec<&'a [u8]>,
    keys: Vec<&'a [u8]>,
}

fn read_order<'a>(r: &mut Reader<'a>) -> Result<Order<'a>> {
    let mut order = Order::default();
    for _ in 0..r.map()? {
        match r.text()? {
            b"op" => order.op = r.text()?,
            b"key" => order.key = r.raw()?,
            b"run_id" => order.run_id = r.uint()?,
            b"stimulus_id" => order.stimulus = r.raw()?,
            b"who_has" if r.peek() != 0xc0 => {
                for _ in 0..r.map()? {
                    order.dependencies.push(r.raw()?);
                    r.skip()?;
                }
            }
            b"keys" if matches!(r.peek(), 0x90..=0x9f | 0xdc | 0xdd) => {
                for _ in 0..r.array()? {
                    order.keys.push(r.raw()?);
                }
            }
            _ => r.skip()?,
        }
    }
    Ok(order)
}

impl Worker {
    /// Answers one order; the number of messages written to `out`.
    fn obey(&mut self, order: &Order, out: &mut Vec<u8>, counters: &mut Counters) -> usize {
        match order.op {
            b"compute-task" => self.compute(order, out, counters),
            b"free-keys" | b"remove-replicas" => {
                for key in &order.keys {
                    self.keys.remove(*key);
                }
                0
            }
            b"steal-request" => {
                out.map(4);
                out.entry("op", "steal-response");
                out.entry("state", "memory");
                out.text("key");
                out.extend(order.key);
                out.text("stimulus_id");
                out.extend(order.stimulus);
                1
            }
            _ => 0,
        }
    }

    fn compute(&mut self, order: &Order, out: &mut Vec<u8>, counters: &mut Counters) -> usize {
        let time = now();
        if counters.tasks == 0 {
            counters.first = time;
        }
        counters.tasks += 1;
        counters.last = time;
        let mut messages = 1;
        let missing: Vec<_> = order
            .dependencies
            .iter()
            .filter(|d| !self.keys.contains(**d))
            .collect();
        if !missing.is_empty() {
            messages += 1;
            out.map(3);
            out.entry("op", "add-keys");
            out.text("keys");
            out.array(missing.len());
            for key in missing {
                out.extend(*key);
                self.keys.insert(key.to_vec());
            }
            out.text("stimulus_id");
            out.extend(order.stimulus);
        }
        self.keys.insert(order.key.to_vec());
        out.map(11);
        out.entry("op", "task-finished");
        out.entry("typename", "int");
        out.entry("status", "OK");
        out.text("key");
        out.extend(order.key);
        counts(
            out,
            &[
                ("run_id", order.run_id),
                ("nbytes", 28),
                ("thread", 140_000_000_000_000),
            ],
        );
        out.text("type");
        out.bin(INT);
        out.text("metadata");
        out.map(0);
        out.text("startstops");
        out.array(1);
        out.map(3);
        out.entry("action", "compute");
        numbers(out, &[("start", time), ("stop", time + 1e-5)]);
        out.text("stimulus_id");
        out.extend(order.stimulus);
        messages
    }

    /// Reads what has arrived and answers it; false once the scheduler has closed.
    fn serve(&mut self, chunk: &mut [u8], counters: &mut Counters) -> Result<bool> {
        loop {
            match self.stream.read(chunk) {
                Ok(0) => return Ok(false),
                Ok(n) => self.unread.extend(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
        let unread = std::mem::take(&mut self.unread);
        let (mut used, mut answers, mut count) = (0, vec![], 0);
        while let Some((head, end)) = whole_message(&unread[used..]) {
            let mut r = Reader::new(&unread[used + head.start..used + head.end]);
            let orders = if matches!(r.peek(), 0x80..=0x8f | 0xde) {
                1
            } else {
                r.array()?
            };
            for _ in 0..orders {
                let order = read_order(&mut r)?;
                count += self.obey(&order, &mut answers, counters);
            }
            counters.messages_in += 1;
            counters.bytes_in += end as u64;
            used += end;
        }
        self.unread = unread;
        self.unread.drain(..used);
        if count > 0 {
            let mut body = Vec::with_capacity(answers.len() + 5);
            body.array(count);
            body.extend(&answers);
            let before = self.unsent.len();
            frame(&mut self.unsent, &body);
            counters.messages_out += 1;
            counters.bytes_out += (self.unsent.len() - before) as u64;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<bool> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
        self.unsent.drain(..sent);
        Ok(true)
    }
}

/// Answers the driver's lines until standard input ends, then ends the process.
fn answer_driver(counters: &Mutex<Counters>) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut held = counters.lock().unwrap_or_else(PoisonError::into_inner);
        if line == "reset" {
            *held = Counters::default();
        }
        let c = held.clone();
        drop(held);
        println!(
            "{} {} {} {} {} {:.6} {:.6} {:.2}",
            c.tasks,
            c.messages_in,
            c.bytes_in,
            c.messages_out,
            c.bytes_out,
            c.first,
            c.last,
            cpu_seconds()
        );
    }
    std::process::exit(0);
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: zworker tcp://HOST:PORT COUNT";
    let address = arguments.next().context(usage)?;
    let address: SocketAddr = address
        .trim_start_matches("tcp://")
        .parse()
        .context(usage)?;
    let count: usize = arguments.next().context(usage)?.parse().context(usage)?;

    let mut poll = Poll::new()?;
    let mut workers = vec![];
    for index in 0..count {
        let mut worker = register(address, index).with_context(|| format!("worker {index}"))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut worker.stream, Token(index), interest)?;
        workers.push(worker);
    }
    println!("registered {count}");

    let counters = Arc::new(Mutex::new(Counters::default()));
    let shared = Arc::clone(&counters);
    std::thread::spawn(move || answer_driver(&shared));

    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; 1 << 20];
    let mut open = count;
    while open > 0 {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        let mut held = counters.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &events {
            let Some(worker) = workers.get_mut(event.token().0) else {
                continue;
            };
            if !worker.serve(&mut chunk, &mut held)? {
                poll.registry().deregister(&mut worker.stream)?;
                open -= 1;
            }
        }
    }
    Ok(())
}
