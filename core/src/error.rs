//! One error for every crate: what kind, which operation, with which values, whether to retry, what to do next.

use std::{error::Error as StdError, fmt, sync::Arc};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    UnknownClass,
    ConfigInvalid,
    Unsupported,
    Unserializable,
    PermissionDenied,
    Capacity,
    Timeout,
    Unavailable,
    CrashLoop,
    SchedulerLost,
    Cancelled,
    Closed,
    Unexpected,
}

impl ErrorKind {
    /// Whether the same call may succeed later with nothing changed by the user.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Capacity | Self::Timeout | Self::Unavailable)
    }
}

/// One pointer wide and cheap to clone: a failed start is told to every waiter, a failed task to every dependent.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    hint: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), operation: None, context: Vec::new(), hint: None, source: None }))
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    #[must_use]
    pub fn with_operation(self, operation: &'static str) -> Self {
        self.edit(|e| e.operation = Some(operation))
    }

    #[must_use]
    pub fn with_context(self, key: &'static str, value: impl fmt::Display) -> Self {
        self.edit(|e| e.context.push((key, value.to_string())))
    }

    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        self.edit(|e| e.hint = Some(hint.into()))
    }

    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.edit(|e| e.source = Some(Arc::from(source.into())))
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
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        if let Some(hint) = &self.0.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  because: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|e| &**e as _)
    }
}
