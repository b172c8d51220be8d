//! Durations as people write them in configurations: `5`, `0.5`, `"500ms"`, `"2 minutes"` (Dask's rules).

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in a configuration: a number of seconds, or a text with a unit. Never negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

/// Seconds in each unit.
const UNITS: [(&[&str], f64); 7] = [
    (&["", "s", "sec", "secs", "second", "seconds"], 1.0),
    (&["ms", "millis", "millisecond", "milliseconds"], 1e-3),
    (&["us", "µs", "microsecond", "microseconds"], 1e-6),
    (&["ns", "nanosecond", "nanoseconds"], 1e-9),
    (&["m", "min", "mins", "minute", "minutes"], 60.0),
    (&["h", "hr", "hrs", "hour", "hours"], 3600.0),
    (&["d", "day", "days"], 86400.0),
];

impl Seconds {
    /// Reads `5`, `5s`, `1.5 hours`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let split = text.find(|c: char| c.is_alphabetic() || c.is_whitespace()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = unit.trim().to_lowercase();
        let factor = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str())).map(|(_, factor)| factor);
        match (number.parse::<f64>(), factor) {
            (Ok(number), Some(factor)) => Self::of(number * factor),
            (Ok(_), None) => Err(format!("\"{unit}\" is no unit of time: use ms, s, m, h or d")),
            (Err(_), _) => Err(format!("expected a duration like \"5s\" or \"500ms\", found \"{text}\"")),
        }
    }

    fn of(seconds: f64) -> Result<Self, String> {
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| match seconds < 0.0 {
            true => format!("a duration cannot be negative, found {seconds}"),
            false => "the duration is too long".to_owned(),
        })
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        match Written::deserialize(deserializer).map_err(|_| de::Error::custom("expected a number of seconds or a text like \"5s\""))? {
            Written::Number(seconds) => Self::of(seconds),
            Written::Text(text) => Self::parse(&text),
        }
        .map_err(de::Error::custom)
    }
}

impl JsonSchema for Seconds {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "string"], "minimum": 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_people_write() {
        for (text, millis) in [("5", 5000), ("5s", 5000), ("0.5 seconds", 500), ("500ms", 500), ("2 m", 120_000), ("1.5h", 5_400_000)] {
            assert_eq!(Seconds::parse(text), Ok(Seconds(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!(serde_json::from_str::<Seconds>("2.5").unwrap().0, Duration::from_millis(2500));
        assert_eq!(serde_json::from_str::<Seconds>("\"1d\"").unwrap().0, Duration::from_secs(86400));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in
            [("5 parsecs", "no unit"), ("soon", "found \"soon\""), ("-1s", "negative"), ("99999999999999999999h", "too long")]
        {
            let error = Seconds::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(serde_json::from_str::<Seconds>("-1").unwrap_err().to_string().contains("negative"));
        assert!(serde_json::from_str::<Seconds>("[1]").is_err());
    }
}
