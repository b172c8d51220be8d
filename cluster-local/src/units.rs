//! Bytes and durations as people write them.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How much memory one worker may use.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum MemoryLimit {
    /// An equal share of this machine's memory.
    #[default]
    Auto,
    /// Without a limit.
    None,
    /// A part of this machine's memory, above 0 and at most 1.
    Fraction(f64),
    /// So many bytes.
    Bytes(u64),
}

/// Less than this is not a worker: `500` without a unit, most likely.
const LEAST: u64 = 1 << 20;

impl MemoryLimit {
    /// In bytes. The error is a sentence for the user.
    pub(crate) fn bytes(self, workers: u32, machine: u64) -> Result<Option<u64>, String> {
        match self {
            Self::Auto => Ok(Some(machine / u64::from(workers.max(1)))),
            Self::None => Ok(None),
            Self::Fraction(part) if part > 0.0 && part <= 1.0 => Ok(Some((machine as f64 * part) as u64)),
            Self::Fraction(part) => Err(format!("expected a fraction above 0 and up to 1, found {part}")),
            Self::Bytes(bytes) if bytes < LEAST => {
                Err(format!("{bytes} bytes is less than any process needs: at least \"1MiB\"; a number without a unit is bytes"))
            }
            Self::Bytes(bytes) => Ok(Some(bytes)),
        }
    }

    fn number(value: f64) -> Result<Self, String> {
        match value {
            0.0 => Ok(Self::None),
            v if v > 0.0 && v <= 1.0 => Ok(Self::Fraction(v)),
            v if v.is_finite() && v > 1.0 => Ok(Self::Bytes(v as u64)),
            v => Err(format!("expected \"auto\", a fraction, bytes or a text like \"4GiB\", found {v}")),
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if let Ok(number) = text.parse::<f64>() {
            return Self::number(number);
        }
        let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()));
        match (number.parse::<f64>(), known) {
            (Ok(number), Some((_, factor))) => Ok(Self::Bytes((number * factor) as u64)),
            _ => Err(format!("\"{text}\" is not an amount of memory; write \"auto\", \"0.5\", \"500MB\" or \"4GiB\"")),
        }
    }
}

const UNITS: &[(&str, f64)] = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
];

/// For messages: `1.5 GiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let (name, factor) = match bytes {
        b if b >= 1 << 30 => ("GiB", 1_073_741_824.0),
        b if b >= 1 << 20 => ("MiB", 1_048_576.0),
        _ => ("KiB", 1024.0),
    };
    let value = bytes as f64 / factor;
    if value.fract() < 0.05 { format!("{value:.0} {name}") } else { format!("{value:.1} {name}") }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = MemoryLimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", null, a fraction, bytes or a text like \"4GiB\"")
            }
            fn visit_unit<E: de::Error>(self) -> Result<MemoryLimit, E> {
                Ok(MemoryLimit::None)
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<MemoryLimit, E> {
                match value {
                    0 | 1 => self.visit_f64(value as f64),
                    bytes => Ok(MemoryLimit::Bytes(bytes)),
                }
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<MemoryLimit, E> {
                self.visit_f64(value as f64)
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<MemoryLimit, E> {
                MemoryLimit::number(value).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<MemoryLimit, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_unit(),
            Self::Fraction(part) => serializer.serialize_f64(*part),
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
        }
    }
}

impl JsonSchema for MemoryLimit {
    fn schema_name() -> Cow<'static, str> {
        "MemoryLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "null"], "examples": ["auto", 0.5, "4GiB"]})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Schema of a duration: seconds, or a text with a unit.
#[derive(Debug)]
pub(crate) struct DurationText;

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number"], "examples": ["5s", "2m", 1.5]})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Seconds, or a text like `5s`, `1m 30s`, `2 minutes`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Seconds(f64),
        Text(String),
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let wrong = |found: String| D::Error::custom(format!("expected seconds or a text like \"5s\" or \"2m\", found {found}"));
        match Text::deserialize(deserializer).map_err(|_| wrong("something else".into()))? {
            Text::Seconds(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong(seconds.to_string())),
            Text::Text(text) => match text.trim().parse::<f64>() {
                Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong(text)),
                Err(_) => humantime::parse_duration(text.trim()).map_err(|_| wrong(format!("\"{text}\""))),
            },
        }
    }

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&humantime::format_duration(*value).to_string())
    }
}
