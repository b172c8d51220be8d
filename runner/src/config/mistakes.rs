//! Everything that is wrong, told at once.

use std::{error::Error as _, fmt};

use remuda_core::{
    error::{Error, ErrorKind},
    kwargs,
};

use super::document::Location;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it was written: `flow.yaml:3:5`, `environment REMUDA_ADDRESS`, `--kwarg`.
    pub place: String,
    /// Which key.
    pub key: String,
    /// What is wrong, and what is right.
    pub message: String,
    /// For the order; `None` first.
    pub location: Option<Location>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&at(&self.place, &self.key))?;
        f.write_str(&self.message)
    }
}

/// What a message about `key` begins with. A flag has its key's name: that is said once.
pub(super) fn at(place: &str, key: &str) -> String {
    let flag = place.strip_prefix("--").is_some_and(|flag| flag.replace('-', "_") == key);
    let parts = [place, if flag { "" } else { key }];
    parts.iter().filter(|part| !part.is_empty()).map(|part| format!("{part}: ")).collect()
}

/// A list that grows while the checks go on.
#[derive(Debug, Clone, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Notes one more, unless it stands there already.
    pub fn add(&mut self, place: impl Into<String>, key: impl Into<String>, message: impl Into<String>) {
        self.push(Mistake { place: place.into(), key: key.into(), message: message.into(), location: None });
    }

    /// The same of what ended a check: its text, causes and remedy.
    pub(crate) fn add_error(&mut self, error: &Error) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.add("", "", text + &hint);
    }

    pub(crate) fn push(&mut self, mistake: Mistake) {
        if !self.0.contains(&mistake) {
            self.0.push(mistake);
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order they were found.
    #[must_use]
    pub fn list(&self) -> &[Mistake] {
        &self.0
    }

    /// In the order of the text.
    pub fn sort(&mut self) {
        self.0.sort_by_key(|mistake| mistake.location);
    }

    /// Takes over another list.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Path and text of what a check of kwargs found.
    pub(crate) fn of(error: &Error) -> Vec<(String, String)> {
        let text = |m: &remuda_core::error::Mistake| match &m.hint {
            Some(hint) => format!("{}; {hint}", m.problem),
            None => m.problem.clone(),
        };
        match error.mistakes() {
            [] => vec![(String::new(), error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}")))],
            several => several.iter().map(|m| (m.path.clone(), text(m))).collect(),
        }
    }

    /// `value`, if nothing is wrong.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] with one line for each mistake.
    pub fn or<T>(self, value: T) -> Result<T, Error> {
        match self.0.as_slice() {
            [] => Ok(value),
            [one] => Err(Error::new(ErrorKind::ConfigInvalid, one.to_string())),
            many => {
                let lines: String = many.iter().map(|m| format!("\n  {m}")).collect();
                Err(Error::new(ErrorKind::ConfigInvalid, format!("{} mistakes:{lines}", many.len())))
            }
        }
    }
}

/// `, did you mean `x`?` for the closest of `names`, or nothing when none is close.
pub(crate) fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    kwargs::did_you_mean(word, names).map(|hint| format!(", {hint}")).unwrap_or_default()
}
