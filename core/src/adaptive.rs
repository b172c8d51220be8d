//! Adaptive scaling: its configuration, with Dask's names and defaults. The policy itself comes with the scaler.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    duration::Seconds,
    error::{Error, Mistake, Result},
    kwargs::Kwargs,
};

/// `adapt_kwargs`. `{}` switches adaptive scaling on with these defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = {
    "minimum_cores": "bounds are numbers of workers: use `minimum`",
    "maximum_cores": "bounds are numbers of workers: use `maximum`",
    "minimum_memory": "bounds are numbers of workers: use `minimum`",
    "maximum_memory": "bounds are numbers of workers: use `maximum`",
    "worker_key": "it is a Python function, which a configuration cannot hold: leave it out",
    "Adaptive": "it is a Python class, which a configuration cannot hold: leave it out",
}))]
pub struct AdaptConfig {
    /// Workers to keep at least. Default 0; null: no bound, which is 0.
    pub minimum: Option<u32>,
    /// Workers to have at most. Default: no bound (null).
    pub maximum: Option<u32>,
    /// Time between two decisions: seconds, or a text like "1s". Default 1 s.
    pub interval: Seconds,
    /// How many decisions in a row must find a worker superfluous before it goes. Default 3.
    #[schemars(range(min = 1))]
    pub wait_count: u32,
    /// The time in which the work at hand should be done: seconds, or a text like "5s". Default 5 s.
    pub target_duration: Seconds,
}

impl Default for AdaptConfig {
    fn default() -> Self {
        Self {
            minimum: Some(0),
            maximum: None,
            interval: Seconds(Duration::from_secs(1)),
            wait_count: 3,
            target_duration: Seconds(Duration::from_secs(5)),
        }
    }
}

impl AdaptConfig {
    /// Checks kwargs, all at once.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::error::ErrorKind::ConfigInvalid): unknown keys, wrong types, negative numbers, `minimum` above `maximum`.
    pub fn parse(kwargs: Kwargs) -> Result<Self> {
        let bounds = serde_json::to_value(&kwargs).unwrap_or(Value::Null);
        let config = kwargs.parse::<Self>()?;
        if let (Some(low), Some(high)) = (config.minimum, config.maximum)
            && low > high
        {
            let written = |key: &str| bounds.get(key).map_or_else(|| "the default".to_owned(), Value::to_string);
            let text = format!("`minimum` ({}) is more than `maximum` ({})", written("minimum"), written("maximum"));
            return Err(Error::invalid(vec![Mistake::new("minimum", text)]));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dask_names_and_defaults() {
        assert_eq!(AdaptConfig::parse(Kwargs::new()).unwrap(), AdaptConfig::default());
        let config = AdaptConfig::parse(
            Kwargs::new().with("minimum", 1).with("maximum", Value::Null).with("interval", "500ms").with("target_duration", 10),
        )
        .unwrap();
        assert_eq!((config.minimum, config.maximum), (Some(1), None));
        assert_eq!((config.interval.0, config.target_duration.0), (Duration::from_millis(500), Duration::from_secs(10)));
    }

    #[test]
    fn mistakes_are_told_together() {
        let kwargs = Kwargs::new().with("maxmum", 2).with("minimum", -1).with("wait_count", 0).with("interval", "soon");
        let error = AdaptConfig::parse(kwargs.with("minimum_cores", 2)).unwrap_err().to_string();
        for words in ["maxmum", "did you mean `maximum`", "minimum", "wait_count", "soon", "numbers of workers"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        let error = AdaptConfig::parse(Kwargs::new().with("minimum", 5).with("maximum", json!(2))).unwrap_err().to_string();
        assert!(error.contains("`minimum` (5) is more than `maximum` (2)"), "{error}");
    }
}
