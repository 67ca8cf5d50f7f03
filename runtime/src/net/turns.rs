//! How long the turns of the core thread take: the counterpart of the stock event loop's ticks.

/// Seconds over which the recent maximum is taken, at least; at most twice as many.
const WINDOW_S: f64 = 5.0;

/// Figures of the core thread's turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    /// Turns so far.
    pub count: u64,
    /// Longest since [`Turns::take_longest`], s.
    longest_s: f64,
    /// Longest of this window and of the one before, s.
    recent_s: [f64; 2],
    window_end: f64,
}

impl Turns {
    /// A turn of `seconds` has ended at `now`, on the monotonic clock.
    #[inline]
    pub(super) fn note(&mut self, now: f64, seconds: f64) {
        self.count += 1;
        self.longest_s = self.longest_s.max(seconds);
        self.roll(now);
        self.recent_s[0] = self.recent_s[0].max(seconds);
    }

    fn roll(&mut self, now: f64) {
        if now < self.window_end {
            return;
        }
        let gap = now - self.window_end > WINDOW_S;
        self.recent_s = [0.0, if gap { 0.0 } else { self.recent_s[0] }];
        self.window_end = now + WINDOW_S;
    }

    /// The longest turn since this was asked last, s.
    pub fn take_longest(&mut self) -> f64 {
        std::mem::take(&mut self.longest_s)
    }

    /// The longest turn of the last few seconds.
    pub fn recent(&self) -> f64 {
        self.recent_s[0].max(self.recent_s[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maxima_are_forgotten_in_time() {
        let mut turns = Turns::default();
        turns.note(1.0, 0.3);
        turns.note(2.0, 0.1);
        assert_eq!((turns.count, turns.recent()), (2, 0.3));
        turns.note(7.0, 0.2);
        assert_eq!(turns.recent(), 0.3);
        turns.note(12.5, 0.1);
        assert_eq!(turns.recent(), 0.2);
        turns.note(60.0, 0.05);
        assert_eq!(turns.recent(), 0.05);
        assert_eq!((turns.take_longest(), turns.take_longest()), (0.3, 0.0));
    }
}
