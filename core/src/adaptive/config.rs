//! `adapt_kwargs`: the configuration of adaptive scaling, with Dask's names and defaults.

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = {
    "min": "unknown key; did you mean `minimum`?",
    "max": "unknown key; did you mean `maximum`?",
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
    /// Workers to have at most. Default: no bound (null), but where the class has one: `local::*` keep to the processors.
    pub maximum: Option<u32>,
    /// Time between two decisions: seconds, or a text like "1s"; at most 4 minutes. Default 1 s.
    pub interval: Seconds,
    /// How many decisions in a row must find a worker superfluous before it goes. Default 3.
    #[schemars(range(min = 1))]
    pub wait_count: u32,
    /// The time in which the work at hand should be done: to be faster has no value, so larger is cheaper. Seconds, or a text
    /// like "5s". Default 5 s.
    pub target_duration: Seconds,
    /// What time is worth: the policy makes `cost * time^time_weight` small. 0.5 is thrifty, 2 is fast. Default 1.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub time_weight: f64,
    /// The longest a worker may idle, in break-evens: the time after which keeping it has cost as much as starting another,
    /// 7.5 s at least where tasks come evenly or a worker was missed soon. Default 2.
    #[schemars(range(min = 0.15, max = 1000.0))]
    pub idle_max: f64,
    /// How long a worker takes from the request to being ready: seconds, or a text like "1m". A first guess, replaced by what is
    /// measured. Default (null): what the cluster class knows.
    pub startup: Option<Seconds>,
    /// Worker-seconds that may be paid for in all; when they are spent, no worker is started any more. Seconds, or a text like
    /// "20h". Default: no bound (null).
    pub budget: Option<Seconds>,
}

impl Default for AdaptConfig {
    fn default() -> Self {
        Self {
            minimum: Some(0),
            maximum: None,
            interval: Seconds(Duration::from_secs(1)),
            wait_count: 3,
            target_duration: Seconds(Duration::from_secs(5)),
            time_weight: 1.0,
            idle_max: 2.0,
            startup: None,
            budget: None,
        }
    }
}

impl AdaptConfig {
    /// Checks kwargs, all at once.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::error::ErrorKind::ConfigInvalid): unknown keys, wrong types, negative numbers, an `interval` of
    /// nothing, `minimum` above `maximum`.
    pub fn parse(kwargs: Kwargs) -> Result<Self> {
        let between = contradictions(&kwargs);
        match kwargs.parse::<Self>() {
            Ok(config) if between.is_empty() => Ok(config),
            Ok(_) => Err(Error::invalid(between)),
            Err(error) => Err(Error::invalid(error.mistakes().iter().cloned().map(unbounded).chain(between).collect())),
        }
    }

    /// Checks a configuration that was made by hand.
    ///
    /// # Errors
    /// As [`AdaptConfig::parse`].
    pub fn check(&self) -> Result<()> {
        let Ok(Value::Object(written)) = serde_json::to_value(self) else { return Ok(()) };
        Self::parse(written.into_iter().fold(Kwargs::new(), |kwargs, (key, value)| kwargs.with(key, value))).map(drop)
    }
}

/// Dask says `inf` for no bound, which JSON has only as a text.
fn unbounded(mut mistake: Mistake) -> Mistake {
    let infinite = |text: &str| text.trim_start_matches('.').parse().is_ok_and(|number: f64| number == f64::INFINITY);
    if mistake.path == "maximum" && mistake.value.as_ref().and_then(Value::as_str).is_some_and(infinite) {
        mistake.hint = Some("null, or leaving it out, means no bound".to_owned());
    }
    mistake
}

/// What no schema says: mistakes between keys, and an interval of nothing. They are looked for in what was written, so that
/// they are told together with wrong types elsewhere.
fn contradictions(kwargs: &Kwargs) -> Vec<Mistake> {
    let mut found = vec![];
    let bound = |key: &str| kwargs.get(key).and_then(Value::as_u64);
    if let (Some(low), Some(high)) = (bound("minimum"), bound("maximum"))
        && low > high
    {
        found.push(Mistake::new("minimum", format!("`minimum` ({low}) is more than `maximum` ({high})")));
    }
    let written = |key: &str| Some((kwargs.get(key)?, serde_json::from_value::<Seconds>(kwargs.get(key)?.clone()).ok()?));
    let mut wrong = |key: &str, value: &Value, problem: String| {
        found.push(Mistake { value: Some(value.clone()), ..Mistake::new(key, format!("`{key}` is {problem}")) });
    };
    if let Some((value, _)) = written("interval").filter(|(_, interval)| interval.0 < SHORTEST) {
        wrong("interval", value, format!("less than {SHORTEST:?}: the scaler would do nothing but decide"));
    }
    for (key, most, shown) in LONGEST {
        if let Some((value, _)) = written(key).filter(|(_, said)| said.0.as_secs_f64() > most) {
            wrong(key, value, format!("more than {shown}: expected at most that"));
        }
    }
    found
}

/// The shortest interval between two decisions.
const SHORTEST: Duration = Duration::from_millis(10);

/// The longest that each duration may be, in seconds and in words. An interval of more than some minutes: schedulers stop counting along
/// when nobody asks for five.
const LONGEST: [(&str, f64, &str); 4] = [
    ("interval", 240.0, "4 minutes"),
    ("target_duration", 365.0 * 86400.0, "365 days"),
    ("startup", 86400.0, "a day"),
    ("budget", 1e12, "1e12 seconds"),
];

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
        let config = AdaptConfig::parse(Kwargs::new().with("time_weight", 2).with("startup", "1m").with("budget", "20h")).unwrap();
        assert_eq!((config.time_weight, config.idle_max), (2.0, 2.0));
        assert_eq!((config.startup, config.budget), (Some(Seconds::parse("60s").unwrap()), Some(Seconds::parse("20h").unwrap())));
        assert!(config.check().is_ok());
    }

    #[test]
    fn no_duration_is_without_bound() {
        let longest = Kwargs::new().with("interval", "4m").with("target_duration", "365d").with("startup", "1d").with("budget", 1e12);
        AdaptConfig::parse(longest).unwrap();
        for key in ["interval", "target_duration", "startup", "budget"] {
            let error = AdaptConfig::parse(Kwargs::new().with(key, 1e19)).unwrap_err();
            let [mistake] = error.mistakes() else { panic!("{error}") };
            assert!(mistake.path == key && mistake.value.is_some() && error.to_string().contains("at most"), "{error}");
        }
        assert!(AdaptConfig { interval: Seconds(Duration::MAX), ..AdaptConfig::default() }.check().is_err());
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
        let kwargs = Kwargs::new().with("minimum", 5).with("maximum", 2).with("interval", 0).with("time_wait", 1).with("budget", -1);
        let told = AdaptConfig::parse(kwargs.with("time_weight", -1).with("idle_max", 0)).unwrap_err();
        for path in ["minimum", "interval", "time_wait", "budget", "time_weight", "idle_max"] {
            assert!(told.mistakes().iter().any(|mistake| mistake.path == path), "{path}: {told}");
        }
        let error = AdaptConfig::parse(Kwargs::new().with("min", 5).with("max", 2).with("maximum", ".inf")).unwrap_err().to_string();
        for words in ["did you mean `minimum`", "did you mean `maximum`", "null, or leaving it out, means no bound"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        let by_hand = AdaptConfig { time_weight: f64::NAN, ..AdaptConfig::default() };
        assert!(by_hand.check().is_err());
    }
}
