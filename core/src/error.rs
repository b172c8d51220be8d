//! One error for every crate: what kind, which operation, with which values, whether to retry, what to do next.
//!
//! ```
//! use remuda_core::error::{Error, ErrorKind};
//!
//! let error = Error::new(ErrorKind::Capacity, "the zone has no GPU left")
//!     .with_operation("launch")
//!     .with_context("zone", "eu-1a")
//!     .with_hint("name a second zone in `zones`");
//! assert!(error.is_retryable() && !error.is_user_error());
//! assert_eq!(error.to_string(), "launch: the zone has no GPU left · zone=eu-1a");
//! assert_eq!(error.report(), "launch: the zone has no GPU left · zone=eu-1a\n  hint: name a second zone in `zones`");
//! ```

use std::{any::Any, error::Error as StdError, fmt, sync::Arc};

use tokio::task::JoinError;

/// `std::result::Result` with our error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a program has to know it.
///
/// Whether trying again helps ([`is_retryable`](Self::is_retryable)) and whose mistake it was
/// ([`is_user_error`](Self::is_user_error)) follow from the kind alone.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No cluster class has that name. The user's.
    UnknownClass,
    /// Kwargs, a file, a variable or a flag is wrong, or two of them contradict each other. The user's.
    ConfigInvalid,
    /// This class, engine or build cannot do what was asked. The user's.
    Unsupported,
    /// A value cannot leave its process, or does not have the type its reader wants. The user's.
    Unserializable,
    /// No worker of the cluster can ever run the task: resources or worker names that nobody offers. The user's.
    Unschedulable,
    /// A program that is needed is not there (`python3`, `curl`).
    NotInstalled,
    /// The platform does not let us.
    PermissionDenied,
    /// The platform has nothing left at the moment. Retried.
    Capacity,
    /// No answer in time. Retried.
    Timeout,
    /// Not reachable or overloaded at the moment. Retried.
    Unavailable,
    /// Workers end as soon as they are started; no more are launched.
    CrashLoop,
    /// The scheduler is gone, and with it every task of every session.
    SchedulerLost,
    /// Somebody gave up on it.
    Cancelled,
    /// The cluster or session is closed.
    Closed,
    /// Anything else: a defect, ours or a class's.
    Unexpected,
}

impl ErrorKind {
    /// Whether the same call may succeed later with nothing changed by the user.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Capacity | Self::Timeout | Self::Unavailable)
    }

    /// Whether the user has to change something (exit code 2), not the infrastructure (exit code 3).
    #[must_use]
    pub fn is_user_error(self) -> bool {
        matches!(self, Self::UnknownClass | Self::ConfigInvalid | Self::Unsupported | Self::Unserializable | Self::Unschedulable)
    }
}

/// One wrong key of a configuration. An [`Error`] carries all of them, see [`Error::mistakes`].
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// Where: `cluster_kwargs.env[2]`. Empty for the whole.
    pub path: String,
    /// What is wrong: `unknown key`, `expected integer, found string "four"`.
    pub problem: String,
    /// What stands there. `None` where nothing does, and where the key looks like a secret.
    pub value: Option<serde_json::Value>,
    /// What should stand there, where that can be said in a word.
    pub expected: Option<String>,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake without value, expectation and hint.
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into(), value: None, expected: None, hint: None }
    }

    /// What to write instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn prefix(&mut self, prefix: &str) {
        self.path = match (prefix, self.path.as_str()) {
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) if path.starts_with('[') => format!("{prefix}{path}"),
            (prefix, path) => format!("{prefix}.{path}"),
        };
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path)?;
        }
        f.write_str(&self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// One pointer wide and cheap to clone: a failed start is told to every waiter, a failed task to every dependent.
///
/// `Display` says what and where, once, without the causes; [`report`](Self::report) adds hint and causes for people.
/// Never put a secret into message or context: both are printed and logged.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    hint: Option<String>,
    mistakes: Vec<Mistake>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// `message`: a lower-case fragment that says what happened.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            context: Vec::new(),
            hint: None,
            mistakes: Vec::new(),
            source: None,
        }))
    }

    /// [`ErrorKind::ConfigInvalid`] with everything that is wrong.
    #[must_use]
    pub fn invalid(mistakes: Vec<Mistake>) -> Self {
        let message = match mistakes.as_slice() {
            [one] => one.to_string(),
            all => format!("{} mistakes in the configuration", all.len()),
        };
        Self::new(ErrorKind::ConfigInvalid, message).edit(|e| e.mistakes = mistakes)
    }

    /// What a task that did not end by itself left behind: the message of its panic, or that it was aborted.
    /// `what`: who panicked, for people.
    #[must_use]
    pub fn from_join(what: &str, error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::new(ErrorKind::Unexpected, format!("{what} panicked: {}", panic_message(&*panic))),
            Err(_) => Self::new(ErrorKind::Cancelled, format!("{what} was aborted")),
        }
    }

    /// What a program has to know of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without operation and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Every wrong key, where the error is about a configuration.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0.mistakes
    }

    /// See [`ErrorKind::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }

    /// See [`ErrorKind::is_user_error`].
    #[must_use]
    pub fn is_user_error(&self) -> bool {
        self.kind().is_user_error()
    }

    /// Which call failed: `start`, `launch`. The innermost stays.
    #[must_use]
    pub fn with_operation(self, operation: &'static str) -> Self {
        self.edit(|e| e.operation = e.operation.or(Some(operation)))
    }

    /// A value that was in play. A key that is there already stays as it is.
    #[must_use]
    pub fn with_context(self, key: &'static str, value: impl fmt::Display) -> Self {
        self.edit(|e| {
            if e.context.iter().all(|(known, _)| *known != key) {
                e.context.push((key, value.to_string()));
            }
        })
    }

    /// What to do next. Replaces an earlier one.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        self.edit(|e| e.hint = Some(hint.into()))
    }

    /// What caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.edit(|e| e.source = Some(Arc::from(source.into())))
    }

    /// Puts `prefix` before the path of every mistake: kwargs do not know where they stood.
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        if self.0.mistakes.is_empty() {
            return self;
        }
        self.edit(|e| {
            e.mistakes.iter_mut().for_each(|m| m.prefix(prefix));
            if let [one] = e.mistakes.as_slice() {
                e.message = one.to_string();
            }
        })
    }

    /// For people: the error, its mistakes and causes one a line, and what to do about it.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!("\n  because: {error}");
            cause = error.source();
        }
        if let Some(hint) = &self.0.hint {
            text += &format!("\n  hint: {hint}");
        }
        text
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operation) = self.0.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&self.0.message)?;
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            write!(f, "{} {key}={value}", if i == 0 { " ·" } else { "," })?;
        }
        if self.0.mistakes.len() > 1 {
            for mistake in &self.0.mistakes {
                write!(f, "\n  {mistake}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|e| &**e as _)
    }
}

/// What a panic said, where that can be known.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_everything_once_and_is_one_pointer_wide() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Error::new(ErrorKind::NotInstalled, "python3 cannot be started")
            .with_operation("launch")
            .with_operation("outer")
            .with_context("worker", "0-0")
            .with_context("worker", "again")
            .with_context("path", "/usr/bin")
            .with_source(io)
            .with_hint("install Python 3");
        assert_eq!(error.to_string(), "launch: python3 cannot be started · worker=0-0, path=/usr/bin");
        assert_eq!(error.report(), format!("{error}\n  because: no such file\n  hint: install Python 3"));
        assert_eq!(format!("{error:?}"), format!("NotInstalled: {}", error.report()));
        assert_eq!((size_of::<Error>(), size_of::<Result<()>>()), (8, 8));
    }

    #[test]
    fn mistakes_learn_where_they_stood() {
        let one = Mistake { hint: Some("did you mean `n_workers`?".into()), ..Mistake::new("n_worker", "unknown key") };
        let error = Error::invalid(vec![one.clone()]).under("cluster_kwargs").with_context("class", "a::B");
        assert_eq!(error.to_string(), "`cluster_kwargs.n_worker`: unknown key; did you mean `n_workers`? · class=a::B");
        let both = Error::invalid(vec![one, Mistake::new("[1]", "is required")]).under("x").under("y");
        assert_eq!(both.mistakes().iter().map(|m| m.path.as_str()).collect::<Vec<_>>(), ["y.x.n_worker", "y.x[1]"]);
        assert_eq!(
            both.to_string(),
            "2 mistakes in the configuration\n  `y.x.n_worker`: unknown key; did you mean `n_workers`?\n  `y.x[1]`: is required"
        );
    }

    #[test]
    fn a_clone_that_is_edited_leaves_the_first_alone() {
        let first = Error::new(ErrorKind::Timeout, "slow");
        let second = first.clone().with_hint("wait");
        assert_eq!((first.hint(), second.hint()), (None, Some("wait")));
    }
}
