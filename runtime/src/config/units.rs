//! Durations and sizes in the notations of `dask.utils.parse_timedelta` and `dask.utils.parse_bytes`.

use super::tree::Tree;

/// What a duration or size could not be read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The part before the unit is no number.
    #[error("could not interpret {0:?} as a number")]
    Number(String),
    /// An unknown unit.
    #[error("invalid unit {unit:?}; valid units are: {valid}")]
    Unit {
        /// The unit as given.
        unit: String,
        /// The units there are.
        valid: &'static str,
    },
    /// Neither a number nor a string.
    #[error("expected a number or a string with a unit, got {0}")]
    Kind(&'static str),
}

const TIME_UNITS: &str = "s, ms, us, ns, m, h, d, w, second(s), minute(s), hour(s), day(s), week(s), millisecond(s), microsecond(s), nanosecond(s)";
const BYTE_UNITS: &str = "B, k(B), M(B), G(B), T(B), P(B), Ki(B), Mi(B), Gi(B), Ti(B), Pi(B)";

/// Seconds in a duration such as `"3s"`, `"5 minutes"`, `"300ms"` or `"1.5"` (seconds).
pub fn parse_timedelta(text: &str) -> Result<f64, UnitError> {
    let mut text = text.replace(' ', "");
    if text.is_empty() {
        return Err(UnitError::Number(text));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        text.insert(0, '1');
    }
    let (number, unit) = split_unit(&text);
    let unit = if unit.is_empty() { "seconds" } else { unit };
    let multiplier = time_unit(&unit.to_lowercase()).ok_or_else(|| UnitError::Unit {
        unit: unit.to_owned(),
        valid: TIME_UNITS,
    })?;
    Ok(float(number)? * multiplier)
}

/// Bytes in a size such as `"100 MB"`, `"64MiB"`, `"1e6"`; fractions are cut off.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let mut text = text.replace(' ', "");
    if !text.chars().any(|c| c.is_ascii_digit()) {
        text.insert(0, '1');
    }
    let (number, unit) = split_unit(&text);
    let n = float(number)?;
    let multiplier = byte_unit(&unit.to_lowercase()).ok_or_else(|| UnitError::Unit {
        unit: unit.to_owned(),
        valid: BYTE_UNITS,
    })?;
    Ok(saturate(n * multiplier))
}

/// [`parse_timedelta`] for a configuration value; numbers are seconds, null is `None`.
pub fn timedelta_of(value: &Tree) -> Result<Option<f64>, UnitError> {
    match value {
        Tree::Null => Ok(None),
        Tree::Int(i) => Ok(Some(*i as f64)),
        Tree::Float(f) => Ok(Some(*f)),
        Tree::Str(s) => parse_timedelta(s).map(Some),
        other => Err(UnitError::Kind(other.kind())),
    }
}

/// [`parse_bytes`] for a configuration value; null is `None`.
pub fn bytes_of(value: &Tree) -> Result<Option<u64>, UnitError> {
    match value {
        Tree::Null => Ok(None),
        Tree::Int(i) => Ok(Some(u64::try_from(*i).unwrap_or(0))),
        Tree::Float(f) => Ok(Some(saturate(*f))),
        Tree::Str(s) => parse_bytes(s).map(Some),
        other => Err(UnitError::Kind(other.kind())),
    }
}

fn saturate(n: f64) -> u64 {
    // `as` saturates at both ends and maps NaN to 0.
    n as u64
}

/// The trailing letters are the unit, the rest the number.
fn split_unit(text: &str) -> (&str, &str) {
    let number = text.trim_end_matches(char::is_alphabetic);
    text.split_at(number.len())
}

fn float(text: &str) -> Result<f64, UnitError> {
    // Python's float() takes single underscores between digits; Rust's parse takes none.
    let bad = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    text.replace('_', "")
        .parse()
        .ok()
        .filter(|_| !bad)
        .ok_or_else(|| UnitError::Number(text.to_owned()))
}

fn time_unit(unit: &str) -> Option<f64> {
    Some(match unit {
        "s" | "second" | "seconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ns" | "nanosecond" | "nanoseconds" => 1e-9,
        "m" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

fn byte_unit(unit: &str) -> Option<f64> {
    Some(match unit {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "p" | "pb" => 1e15,
        "ki" | "kib" => f64::from(1u32 << 10),
        "mi" | "mib" => f64::from(1u32 << 20),
        "gi" | "gib" => f64::from(1u32 << 30),
        "ti" | "tib" => 1_099_511_627_776.0,
        "pi" | "pib" => 1_125_899_906_842_624.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::literal::parse_json;
    use super::*;

    /// `[function, text, result or null]` per line, written by the real `dask.utils`.
    #[test]
    fn agrees_with_dask_utils() {
        let mut seen = 0;
        for line in include_str!("testdata/units.jsonl").lines() {
            let Some(Tree::List(row)) = parse_json(line) else {
                panic!("{line}")
            };
            let [Tree::Str(function), Tree::Str(text), expected] = &row[..] else {
                panic!("{line}")
            };
            let got = match function.as_str() {
                "timedelta" => parse_timedelta(text).ok(),
                _ => parse_bytes(text).ok().map(|n| n as f64),
            };
            let expected = match expected {
                Tree::Int(i) => Some(*i as f64),
                Tree::Float(f) => Some(*f),
                _ => None,
            };
            assert_eq!(got, expected, "{function}({text:?})");
            seen += 1;
        }
        assert!(seen > 100);
    }
}
