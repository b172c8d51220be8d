//! A configuration that may have mistakes in it: told with those that only a builder with its classes can find.

use remuda_core::error::{Error, ErrorKind};

use super::{
    ClientConfig, Mode, RunConfig,
    layer::{Origin, Setting},
    mistakes::Mistakes,
};

/// The layers put together as far as that goes, and what is wrong with them.
pub(crate) struct Draft {
    /// `None`: which cluster is meant, and so what its keywords may be, cannot be known.
    pub(crate) mode: Option<Mode>,
    /// The default, where `client_kwargs` has mistakes.
    pub(crate) client: ClientConfig,
    pub(crate) settings: Vec<Setting>,
    pub(crate) notices: Vec<String>,
    pub(crate) mistakes: Mistakes,
}

impl Draft {
    /// The configuration, if nothing is wrong with it.
    pub(crate) fn whole(self) -> Result<RunConfig, Error> {
        let Self { mode, client, settings, notices, mistakes } = self;
        match mistakes.or(mode)? {
            Some(mode) => Ok(RunConfig { mode, client, settings, notices }),
            None => Err(Error::new(ErrorKind::Unexpected, "a configuration without a mode and without a mistake")),
        }
    }
}

/// What a builder finds wrong, and the key that it is about: `cluster_kwargs`; empty where the error names its keys whole.
pub(crate) type Wrong = (&'static str, Error);

/// What a builder found, with the place of each key, after the `mistakes` that were there before.
pub(crate) fn explain(settings: &[Setting], mut mistakes: Mistakes, wrong: &[Wrong]) -> Error {
    if let ([(root, error)], true) = (wrong, mistakes.is_empty()) {
        return match (error.kind(), origin_of(settings, "cluster_class", "")) {
            (ErrorKind::UnknownClass, Some(origin)) => error.clone().with_context("set by", origin),
            (ErrorKind::ConfigInvalid, _) => place_mistakes(settings, root, error),
            _ => error.clone(),
        };
    }
    wrong.iter().for_each(|(root, error)| add_placed(&mut mistakes, settings, root, error));
    mistakes.or(()).err().unwrap_or_else(|| Error::new(ErrorKind::Unexpected, "a builder that failed without a mistake"))
}

/// The same without a configuration: what the code said has no place.
pub(crate) fn together(mut wrong: Vec<Wrong>) -> Error {
    match wrong.pop() {
        // A class's complaint names its class, and by that its keywords.
        Some(("cluster_kwargs", error)) if wrong.is_empty() => error,
        Some((root, error)) if wrong.is_empty() => error.under(root),
        last => {
            let one = |(root, error): (&str, Error)| match error.mistakes() {
                [] => Mistakes::of(&error).into_iter().map(|(_, text)| remuda_core::error::Mistake::new(root, text)).collect(),
                _ => error.under(root).mistakes().to_vec(),
            };
            Error::invalid(wrong.into_iter().chain(last).flat_map(one).collect())
        }
    }
}

fn place_mistakes(settings: &[Setting], root: &str, error: &Error) -> Error {
    let mut mistakes = Mistakes::default();
    add_placed(&mut mistakes, settings, root, error);
    mistakes.or(()).err().unwrap_or_else(|| error.clone())
}

pub(super) fn add_placed(mistakes: &mut Mistakes, settings: &[Setting], root: &str, error: &Error) {
    for (path, text) in Mistakes::of(error) {
        let place = origin_of(settings, root, &path).map(ToString::to_string).unwrap_or_default();
        let key = [root, &path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        mistakes.add(place, key, text);
    }
}

/// Where the value that counts at `path` below `root` came from.
pub(super) fn origin_of<'a>(settings: &'a [Setting], root: &str, path: &str) -> Option<&'a Origin> {
    let full = [root, path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
    let covers = |s: &Setting| {
        let key = s.key.to_string();
        full == key || full.strip_prefix(&key).is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    let live = settings.iter().filter(|s| s.dropped.is_none());
    live.filter(|s| covers(s)).max_by_key(|s| s.key.0.len()).map(|s| &s.origin)
}
