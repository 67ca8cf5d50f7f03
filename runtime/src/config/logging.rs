//! Log records: to standard error, and into a bounded ring for `get_scheduler_logs` and the dashboard.

use super::Tree;
use super::cli::LogFormat;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, fmt as tfmt};

/// Longest text of one record kept in the ring.
const MAX_RECORD_BYTES: usize = 10_000;

/// One log record.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// Seconds since the epoch.
    pub time: f64,
    /// Name of the level as Python's `logging` has it: `DEBUG`, `INFO`, `WARNING`, `ERROR`.
    pub level: &'static str,
    /// The whole line as stock formats it: `time - logger - level - message`.
    pub text: String,
}

/// The latest log records of this process; clones share them.
#[derive(Clone, Debug)]
pub struct LogRing {
    records: Arc<Mutex<VecDeque<LogRecord>>>,
    capacity: usize,
}

impl LogRing {
    /// A ring of at most `capacity` records.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            records: Arc::default(),
            capacity,
        }
    }

    /// Adds a record; the oldest makes room.
    pub fn push(&self, mut record: LogRecord) {
        truncate(&mut record.text, MAX_RECORD_BYTES);
        let mut records = self.lock();
        while records.len() >= self.capacity.max(1) {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// Records not older than `start` (seconds since the epoch), newest first, at most `n` (0: all).
    #[must_use]
    pub fn latest(&self, start: f64, n: usize) -> Vec<LogRecord> {
        let limit = if n == 0 { usize::MAX } else { n };
        self.lock()
            .iter()
            .rev()
            .take_while(|record| record.time >= start)
            .take(limit)
            .cloned()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<LogRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

/// Starts logging for the process; what was the filter's source is `$OXIDASK_LOG`, else `$RUST_LOG`, else the `logging`
/// section of the configuration, else `info`.
pub fn init(format: LogFormat, capacity: usize, config: &Tree) -> Result<LogRing, TryInitError> {
    let ring = LogRing::new(capacity);
    let registry = tracing_subscriber::registry()
        .with(filter(config))
        .with(RingLayer { ring: ring.clone() });
    match format {
        LogFormat::Json => registry
            .with(tfmt::layer().json().with_writer(std::io::stderr))
            .try_init()?,
        LogFormat::Text => registry
            .with(
                tfmt::layer()
                    .event_format(StockFormat)
                    .with_writer(std::io::stderr),
            )
            .try_init()?,
    }
    Ok(ring)
}

fn filter(config: &Tree) -> EnvFilter {
    for variable in ["OXIDASK_LOG", "RUST_LOG"] {
        if let Ok(filter) = EnvFilter::try_from_env(variable) {
            return filter;
        }
    }
    EnvFilter::new(directives(config))
}

/// Stock's `logging: {distributed: debug}` as tracing directives; other loggers are not ours.
fn directives(config: &Tree) -> String {
    let level = ["distributed.logging", "logging"]
        .iter()
        .filter_map(|section| config.get(section))
        .filter_map(|section| match section {
            // Logger names contain dots, so no dotted look-up.
            Tree::Map(loggers) => loggers
                .get("distributed.scheduler")
                .or_else(|| loggers.get("distributed")),
            _ => None,
        })
        .find_map(|level| match level {
            Tree::Str(name) => level_directive(&name.to_lowercase()),
            Tree::Int(number) => Some(number_directive(*number)),
            _ => None,
        })
        .unwrap_or("info");
    format!("warn,oxidask_runtime={level},oxidask_scheduler={level}")
}

fn level_directive(name: &str) -> Option<&'static str> {
    Some(match name {
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" | "fatal" => "error",
        _ => return None,
    })
}

fn number_directive(number: i64) -> &'static str {
    match number {
        ..=10 => "debug",
        11..=20 => "info",
        21..=30 => "warn",
        _ => "error",
    }
}

struct RingLayer {
    ring: LogRing,
}

impl<S: Subscriber> Layer<S> for RingLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = SystemTime::now();
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = format_event(&mut text, now, event);
        let time = now
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |d| d.as_secs_f64());
        self.ring.push(LogRecord {
            time,
            level: level_name(*event.metadata().level()),
            text,
        });
    }
}

/// Lines as stock writes them.
struct StockFormat;

impl<S, N> tfmt::FormatEvent<S, N> for StockFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> tfmt::FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &tfmt::FmtContext<'_, S, N>,
        mut writer: tfmt::format::Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        format_event(&mut writer, SystemTime::now(), event)?;
        writeln!(writer)
    }
}

fn format_event(out: &mut impl fmt::Write, now: SystemTime, event: &Event<'_>) -> fmt::Result {
    write_time(out, now)?;
    write!(out, " - ")?;
    write_logger(out, event.metadata())?;
    write!(out, " - {} - ", level_name(*event.metadata().level()))?;
    let mut fields = Fields::default();
    event.record(&mut fields);
    out.write_str(&fields.message)?;
    out.write_str(&fields.rest)
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// `oxidask_runtime::net::reactor` is logger `oxidask.net.reactor`.
fn write_logger(out: &mut impl fmt::Write, metadata: &Metadata<'_>) -> fmt::Result {
    let target = metadata.target();
    let rest = target
        .strip_prefix("oxidask_runtime")
        .map_or(target, |rest| {
            let _ = out.write_str("oxidask");
            rest
        });
    for (i, part) in rest.split("::").enumerate() {
        if i > 0 {
            out.write_char('.')?;
        }
        out.write_str(part)?;
    }
    Ok(())
}

/// A time as log lines have it: `2026-11-24 01:17:20,123`, in UTC.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_time(&mut out, time);
    out
}

fn write_time(out: &mut impl fmt::Write, time: SystemTime) -> fmt::Result {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(
        out,
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02},{:03}",
        since.subsec_millis()
    )
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant's algorithm, for dates after it).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                let _ = write!(self.rest, " {name}={value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ring_is_bounded_and_newest_first() {
        let ring = LogRing::new(2);
        for i in 0..5 {
            ring.push(LogRecord {
                time: f64::from(i),
                level: "INFO",
                text: "x".repeat(20_000),
            });
        }
        let times: Vec<f64> = ring.latest(0.0, 0).iter().map(|r| r.time).collect();
        assert_eq!(times, [4.0, 3.0]);
        assert_eq!(ring.latest(4.0, 0).len(), 1);
        assert_eq!(ring.latest(0.0, 1).len(), 1);
        assert!(ring.latest(0.0, 1)[0].text.len() < 10_100);
    }

    #[test]
    fn time_is_civil() {
        let at = |s| {
            let mut out = String::new();
            write_time(&mut out, UNIX_EPOCH + Duration::from_millis(s)).unwrap();
            out
        };
        assert_eq!(at(0), "1970-01-01 00:00:00,000");
        assert_eq!(at(951_782_400_123), "2000-02-29 00:00:00,123");
        assert_eq!(at(1_795_483_040_000), "2026-11-24 01:17:20,000");
    }

    #[test]
    fn lines_are_stock_s() {
        let ring = LogRing::new(10);
        let subscriber = tracing_subscriber::registry().with(RingLayer { ring: ring.clone() });
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "oxidask_runtime::net", worker = "tcp://x:1", n = 3, "gone {}", 1);
        });
        let record = &ring.latest(0.0, 0)[0];
        assert_eq!(record.level, "WARNING");
        assert!(
            record
                .text
                .ends_with(" - oxidask.net - WARNING - gone 1 worker=tcp://x:1 n=3"),
            "{}",
            record.text
        );
    }

    #[test]
    fn configured_levels_apply() {
        let config = super::super::literal::parse_json(
            r#"{"logging": {"distributed": "debug", "bokeh": "error"}}"#,
        )
        .unwrap();
        assert!(directives(&config).contains("oxidask_runtime=debug"));
        assert!(directives(&Tree::Null).contains("oxidask_runtime=info"));
        EnvFilter::try_new(directives(&config)).unwrap();
    }
}
