//! `silence_logs`: a level of Python's logging, as people write it.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Schema of a value that may be written in several ways.
macro_rules! json_text {
    ($type:ident, $name:literal, $types:tt, $examples:tt) => {
        #[derive(Debug)]
        pub(crate) struct $type;

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": $types, "examples": $examples})
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}
pub(crate) use json_text;

/// The least that is logged: Python's number of it. Default: what Dask's configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogLevel(Option<u32>);

const NAMES: [(&str, u32); 6] = [("debug", 10), ("info", 20), ("warning", 30), ("warn", 30), ("error", 40), ("critical", 50)];

impl LogLevel {
    /// As Dask's configuration wants it.
    pub(crate) fn name(self) -> Option<String> {
        self.0.map(|level| {
            let name = NAMES.iter().find(|(_, number)| *number >= level).map_or("critical", |(name, _)| name);
            name.to_owned()
        })
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = LogLevel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a level like \"warning\" or 30, or null")
            }
            fn visit_unit<E: de::Error>(self) -> Result<LogLevel, E> {
                Ok(LogLevel(None))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<LogLevel, E> {
                if value { Err(E::custom("true is no level; write one like \"warning\", or false")) } else { Ok(LogLevel(None)) }
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<LogLevel, E> {
                let level = u32::try_from(value).ok().filter(|level| *level <= 50);
                level
                    .map(|level| LogLevel((level > 0).then_some(level)))
                    .ok_or_else(|| E::custom(format!("expected 0 to 50, found {value}")))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<LogLevel, E> {
                u64::try_from(value)
                    .map_err(|_| E::custom(format!("expected 0 to 50, found {value}")))
                    .and_then(|value| self.visit_u64(value))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<LogLevel, E> {
                let text = text.trim().rsplit('.').next().unwrap_or_default(); // logging.WARN
                let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| LogLevel(Some(*number)));
                known
                    .or_else(|| self.visit_u64::<E>(text.parse().ok()?).ok())
                    .ok_or_else(|| E::custom(format!("\"{text}\" is no level; known are debug, info, warning, error, critical")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for LogLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(level) => serializer.serialize_u32(level),
            None => serializer.serialize_unit(),
        }
    }
}

impl JsonSchema for LogLevel {
    fn schema_name() -> Cow<'static, str> {
        "LogLevel".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer", "boolean", "null"], "examples": ["warning", 30, false]})
    }

    fn inline_schema() -> bool {
        true
    }
}
