//! A Python process of the scheduler's own: started with a socket as standard input, its output drained, its end
//! explained.

use super::channel::Channel;
use super::sources::BOOTSTRAP;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Last lines of standard error that are kept.
const LAST_LINES: usize = 20;
/// Longest line that is kept or logged; the rest of a longer line counts as the next line.
const LINE: u64 = 4096;
/// Lines per second that are logged; more are counted only.
const LINES_PER_SECOND: u32 = 100;
/// How long a message may still take to arrive once its sender has ended.
const LAST_MESSAGE: Duration = Duration::from_millis(500);
/// Libraries of numbers need no threads of their own here.
const SINGLE_THREADED: [&str; 3] = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"];

/// The interpreter: `$OXIDASK_PYTHON`, else `python3` or `python` from the path.
pub fn find_python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("OXIDASK_PYTHON").filter(|v| !v.is_empty()) {
        return Some(python.into());
    }
    let path: OsString = std::env::var_os("PATH")?;
    let mut candidates = ["python3", "python"]
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |d| d.join(name)));
    candidates.find(|candidate| candidate.is_file())
}

/// How to start a process.
#[derive(Debug, Clone)]
pub struct ChildConfig {
    /// Name in the log.
    pub name: &'static str,
    /// The interpreter.
    pub python: PathBuf,
    /// What runs after the bootstrap, which has put the socket in `sock`.
    pub entry: String,
    /// Modules as [`packed`](super::sources::packed).
    pub sources: Bytes,
}

/// A running process and the socket to it. Dropping it kills the process.
#[derive(Debug)]
pub struct PythonChild {
    /// Messages to and from it.
    pub channel: Channel,
    process: Process,
}

/// A running process without its socket. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    last_lines: LastLines,
}

type LastLines = Arc<Mutex<VecDeque<String>>>;

impl PythonChild {
    /// Starts a process and hands it its sources.
    pub async fn start(config: &ChildConfig) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let mut command = Command::new(&config.python);
        command
            .arg("-c")
            .arg(format!("{BOOTSTRAP}\n{}", config.entry))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("PYTHONUNBUFFERED", "1")
            .kill_on_drop(true);
        for name in SINGLE_THREADED {
            if std::env::var_os(name).is_none() {
                command.env(name, "1");
            }
        }
        let mut child = command.spawn()?;
        // The command holds the child's end of the socket: while it lives, the child's death would not be seen.
        drop(command);
        let last_lines = LastLines::default();
        let pid = child.id().unwrap_or_default();
        if let Some(out) = child.stdout.take() {
            tokio::spawn(drain(out, config.name, pid, None));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(drain(err, config.name, pid, Some(last_lines.clone())));
        }
        let mut channel = Channel::new(ours);
        channel.write_raw(&config.sources).await?;
        let process = Process { child, last_lines };
        Ok(PythonChild { channel, process })
    }

    /// The socket and the process.
    pub fn into_parts(self) -> (Channel, Process) {
        (self.channel, self.process)
    }

    /// The next message. A process that has ended is noticed even if children of its own keep the socket open.
    pub async fn receive(&mut self) -> io::Result<Vec<Bytes>> {
        let mut receive = pin!(self.channel.receive());
        tokio::select! {
            biased;
            message = &mut receive => message,
            _ = self.process.child.wait() => match timeout(LAST_MESSAGE, receive).await {
                Ok(message) => message,
                Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// The process number, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.child.try_wait(), Ok(None))
    }

    /// Ends the process and says why it ended, if it had already.
    pub async fn autopsy(self) -> String {
        self.process.autopsy().await
    }

    /// Its last lines on standard error.
    pub fn last_lines(&self) -> String {
        self.process.last_lines()
    }
}

impl Process {
    /// The process number, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the process and says why it ended, if it had already.
    pub async fn autopsy(mut self) -> String {
        let waited = tokio::time::timeout(Duration::from_millis(500), self.child.wait()).await;
        let cause = match waited {
            Ok(Ok(status)) => describe(status),
            _ => {
                let _ = self.child.kill().await;
                "it closed its socket and was killed".to_owned()
            }
        };
        // What it wrote last may still be on its way through the pipe.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let lines = self.last_lines();
        if lines.is_empty() {
            cause
        } else {
            format!("{cause}. It wrote last:\n{lines}")
        }
    }

    /// Its last lines on standard error.
    pub fn last_lines(&self) -> String {
        let lines = self
            .last_lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// `exited with code 3` or `was killed by signal 11 (SIGSEGV, segmentation fault)`.
pub fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("it was killed by signal {signal}{}", signal_name(signal)),
        (None, Some(code)) => format!("it exited with code {code}"),
        (None, None) => "it ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL, illegal instruction)",
        6 => " (SIGABRT, aborted)",
        7 => " (SIGBUS, bus error)",
        8 => " (SIGFPE, arithmetic error)",
        9 => " (SIGKILL: by hand, or by the system for want of memory)",
        11 => " (SIGSEGV, segmentation fault)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// Reads a stream to its end; logs its lines and keeps the last ones.
async fn drain(
    stream: impl AsyncRead + Unpin,
    name: &'static str,
    pid: u32,
    keep: Option<LastLines>,
) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let (mut second, mut logged) = (tokio::time::Instant::now(), 0);
    loop {
        line.clear();
        match (&mut reader).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        if second.elapsed() >= Duration::from_secs(1) {
            (second, logged) = (tokio::time::Instant::now(), 0);
        }
        logged += 1;
        if logged <= LINES_PER_SECOND {
            tracing::info!(target: "oxidask::python", process = name, pid, "{text}");
        } else if logged == LINES_PER_SECOND + 1 {
            tracing::warn!(
                process = name,
                pid,
                "more than {LINES_PER_SECOND} lines a second: some are not logged"
            );
        }
        if let Some(keep) = &keep {
            let mut lines = keep.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() >= LAST_LINES {
                lines.pop_front();
            }
            lines.push_back(text.to_owned());
        }
    }
}
