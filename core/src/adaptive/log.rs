//! A log of decisions that can be made again: what was asked and what was answered, a line of JSON each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AdaptConfig, Adaptive, Backend, Decision, Fleet, Load, State};
use crate::error::{Error, ErrorKind, Result};

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Adaptive scaling was switched on, or anew.
    Begin(Box<Begin>),
    /// A decision was made.
    Decided(Decided),
    /// A decision was made without knowing the work: see [`Adaptive::hold`].
    Held(Held),
}

/// What decisions begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// Which line of the log of its cluster this is, from 1; of a log that begins later: the last one before it; 0: not counted.
    #[serde(default)]
    pub number: u64,
    /// The version of Remuda that decided.
    pub version: String,
    /// `adapt_kwargs`, defaults filled in.
    pub config: AdaptConfig,
    /// What the cluster class knows of its platform.
    pub backend: Backend,
    /// What was known from before.
    pub state: State,
}

impl Begin {
    /// Of this version, not counted.
    #[must_use]
    pub fn new(config: AdaptConfig, backend: Backend, state: State) -> Self {
        Self { number: 0, version: env!("CARGO_PKG_VERSION").to_owned(), config, backend, state }
    }
}

/// A decision with all it was made from, but for the state, which follows from the lines before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Which line of the log of its cluster this is, from 1; 0: not counted.
    #[serde(default)]
    pub number: u64,
    /// The time, on the clock of the fleet's times.
    pub now: Duration,
    /// What there was to do.
    pub load: Load,
    /// What there was to do it with.
    pub fleet: Fleet,
    /// What followed.
    pub decision: Decision,
}

/// The same where the work was not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Which line of the log of its cluster this is, from 1; 0: not counted.
    #[serde(default)]
    pub number: u64,
    /// The time, on the clock of the fleet's times.
    pub now: Duration,
    /// Who was there.
    pub fleet: Fleet,
    /// What followed.
    pub decision: Decision,
}

impl Entry {
    /// The decision and its time; `None` for a [`Begin`].
    #[must_use]
    pub fn decision(&self) -> Option<(Duration, &Decision)> {
        match self {
            Self::Begin(_) => None,
            Self::Decided(Decided { now, decision, .. }) | Self::Held(Held { now, decision, .. }) => Some((*now, decision)),
        }
    }

    /// Which line of the log of its cluster it is, from 1; 0: not counted.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Begin(begin) => begin.number,
            Self::Decided(decided) => decided.number,
            Self::Held(held) => held.number,
        }
    }

    pub(crate) fn numbered(mut self, number: u64) -> Self {
        match &mut self {
            Self::Begin(begin) => begin.number = number,
            Self::Decided(decided) => decided.number = number,
            Self::Held(held) => held.number = number,
        }
        self
    }

    /// The entry as one line, without its end.
    ///
    /// # Errors
    /// [`Unexpected`](ErrorKind::Unexpected): a number that JSON does not have. The policy makes none.
    pub fn to_line(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::new(ErrorKind::Unexpected, "a decision cannot be written as JSON").with_source(error))
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`ConfigInvalid`](ErrorKind::ConfigInvalid): it is none, or of another version that wrote other things.
    pub fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line).map_err(|error| {
            Error::new(ErrorKind::ConfigInvalid, format!("not a line of a decision log: {error}"))
                .with_hint("`remuda run --explain-scaling=FILE` writes such logs; read one with the version that wrote it")
        })
    }
}

/// Makes the decisions of a log again.
#[derive(Debug, Default)]
pub struct Replay {
    begun: Option<(Adaptive, State)>,
    /// The number of the last entry.
    last: u64,
}

impl Replay {
    /// The decision that follows now from an entry and those before; `None` for a [`Begin`].
    ///
    /// # Errors
    /// [`ConfigInvalid`](ErrorKind::ConfigInvalid): a decision before any [`Begin`], entries that are missing before this one or do not
    /// follow each other, or a configuration that is refused.
    pub fn next(&mut self, entry: &Entry) -> Result<Option<Decision>> {
        self.follows(entry)?;
        match entry {
            Entry::Begin(begin) => {
                begin.config.check()?;
                self.begun = Some((Adaptive::new(begin.config.clone(), begin.backend.clone()), begin.state.clone()));
                Ok(None)
            }
            Entry::Decided(Decided { now, load, fleet, .. }) => self.again(|adaptive, state| adaptive.decide(state, *now, load, fleet)),
            Entry::Held(Held { now, fleet, .. }) => self.again(|adaptive, state| adaptive.hold(state, *now, fleet)),
        }
    }

    fn follows(&mut self, entry: &Entry) -> Result<()> {
        let (last, number) = (std::mem::replace(&mut self.last, entry.number()), entry.number());
        let next = last.saturating_add(1);
        let anew = number == 1 && matches!(entry, Entry::Begin(_)); // another cluster's
        if last == 0 || number == 0 || anew || number == next {
            return Ok(());
        }
        let text = match number.checked_sub(next) {
            Some(1) => "a line of the log is missing before this one".to_owned(),
            Some(missing) => format!("{missing} lines of the log are missing before this one"),
            None => format!("the lines of the log are not in order: number {number} follows number {last}"),
        };
        Err(Error::new(ErrorKind::ConfigInvalid, text).with_hint("give the whole log, as it was written"))
    }

    fn again(&mut self, decide: impl FnOnce(&Adaptive, State) -> (State, Decision)) -> Result<Option<Decision>> {
        let Some((adaptive, state)) = &mut self.begun else {
            let error = Error::new(ErrorKind::ConfigInvalid, "the log does not begin with a line that says what it was made with");
            return Err(error.with_hint("give the whole log, from its first line"));
        };
        let (next, decision) = decide(adaptive, std::mem::take(state));
        *state = next;
        Ok(Some(decision))
    }
}
