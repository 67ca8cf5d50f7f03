//! Series of memory readings, asked for by clients (`distributed.diagnostics.MemorySampler`).

use std::sync::Arc;

use super::memory::Measure;
use super::state::State;

/// Series at once.
const MAX_SERIES: usize = 1000;

/// Readings of one series; a series that is full keeps every second one and goes on at half the rate.
const MAX_SAMPLES: usize = 1 << 17;

/// Shortest interval, s.
const MIN_INTERVAL: f64 = 0.01;

/// Why a series cannot be started.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SamplerError {
    /// The measure is unknown.
    #[error("unknown memory measure {0:?}")]
    UnknownMeasure(String),
    /// The interval is no positive number.
    #[error("the interval must be a positive number of seconds")]
    BadInterval,
    /// Too many series run.
    #[error("too many memory samplers; stop some first")]
    TooMany,
}

#[derive(Clone, Debug)]
struct Series {
    key: String,
    client: Arc<str>,
    measure: Measure,
    interval: f64,
    due: f64,
    samples: Vec<(f64, i64)>,
}

impl From<SamplerError> for String {
    fn from(error: SamplerError) -> Self {
        error.to_string()
    }
}

/// All series that run.
#[derive(Clone, Debug, Default)]
pub struct Samplers {
    series: Vec<Series>,
    started: u64,
}

impl State {
    /// Starts a series and takes its first reading; the key by which it is ended.
    pub fn memory_sampler_start(
        &mut self,
        client: &str,
        measure: &str,
        interval: f64,
    ) -> Result<String, SamplerError> {
        let measure = Measure::parse(measure)
            .ok_or_else(|| SamplerError::UnknownMeasure(measure.chars().take(100).collect()))?;
        if !interval.is_finite() || interval <= 0.0 {
            return Err(SamplerError::BadInterval);
        }
        if self.samplers.series.len() >= MAX_SERIES {
            return Err(SamplerError::TooMany);
        }
        let interval = interval.max(MIN_INTERVAL);
        let first = (self.clock.wall, self.memory().get(measure));
        self.samplers.started += 1;
        let key = format!("memory-sampler-{}", self.samplers.started);
        self.samplers.series.push(Series {
            key: key.clone(),
            client: client.into(),
            measure,
            interval,
            due: self.clock.mono + interval,
            samples: vec![first],
        });
        Ok(key)
    }

    /// Ends a series; its readings as (s since the epoch, bytes), none if the key is unknown.
    pub fn memory_sampler_stop(&mut self, key: &str) -> Option<Vec<(f64, i64)>> {
        let at = self.samplers.series.iter().position(|s| s.key == key)?;
        Some(self.samplers.series.remove(at).samples)
    }

    /// Takes the readings that are due; the monotonic time of the next one.
    pub(super) fn take_memory_samples(&mut self) -> f64 {
        let now = self.clock.mono;
        let next = |series: &[Series]| series.iter().map(|s| s.due).fold(f64::INFINITY, f64::min);
        let first = next(&self.samplers.series);
        if now < first {
            return first;
        }
        let (wall, memory) = (self.clock.wall, self.memory());
        let mut series = std::mem::take(&mut self.samplers.series);
        series.retain(|s| self.client_id(&s.client).is_some());
        for s in series.iter_mut().filter(|s| s.due <= now) {
            s.due = now + s.interval;
            s.samples.push((wall, memory.get(s.measure)));
            if s.samples.len() >= MAX_SAMPLES {
                let mut odd = false;
                s.samples.retain(|_| {
                    odd = !odd;
                    odd
                });
                s.interval *= 2.0;
            }
        }
        self.samplers.series = series;
        next(&self.samplers.series)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;

    #[test]
    fn samples_are_taken_while_the_client_lives() {
        let mut bed = Bed::new();
        let w = bed.worker(1);
        bed.heartbeat(w, 100);
        let state = &mut bed.state;
        let a = state
            .memory_sampler_start("client", "process", 1.0)
            .unwrap();
        let b = state
            .memory_sampler_start("nobody", "optimistic", 1.0)
            .unwrap();
        assert_eq!(bed.state.take_memory_samples(), 101.0);
        bed.advance(1.5);
        bed.heartbeat(w, 200);
        assert_eq!(bed.state.take_memory_samples(), 102.5);
        let samples = bed.state.memory_sampler_stop(&a).unwrap();
        assert_eq!(samples, [(1e9, 100), (1e9 + 1.5, 200)]);
        assert_eq!(bed.state.memory_sampler_stop(&b), None);
        assert_eq!(bed.state.take_memory_samples(), f64::INFINITY);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut bed = Bed::new();
        for (measure, interval) in [("__class__", 1.0), ("process", 0.0), ("process", f64::NAN)] {
            let result = bed.state.memory_sampler_start("client", measure, interval);
            assert!(result.is_err());
        }
    }
}
