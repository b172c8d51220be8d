//! Why a task has no result.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Key;
use crate::error::{Error, ErrorKind};

/// Why a task has no result. Cloned to every waiter and dependent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TaskError {
    /// The task's own doing: it returned an error, raised, panicked, exited non-zero (a command) or took too long.
    #[error("{0}")]
    Failed(Arc<Failure>),
    /// The worker's end: killed, exited, out of memory.
    #[error("{0}")]
    Crashed(Arc<Crash>),
    /// Somebody cancelled it, or its run ended.
    #[error("cancelled")]
    Cancelled,
    /// A task it needs has no result.
    #[error("its input {name} ({key}) has no result: {cause}")]
    UpstreamFailed {
        /// The first task that failed.
        key: Key,
        /// Its name.
        name: Arc<str>,
        /// Why.
        cause: Box<TaskError>,
    },
    /// It could not be run at all: infrastructure, or a call that cannot be made.
    #[error(transparent)]
    Refused(Error),
}

impl TaskError {
    /// The state's name, as in [`TaskState::name`](super::TaskState::name).
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Crashed(_) => "crashed",
            Self::Cancelled => "cancelled",
            Self::UpstreamFailed { .. } => "upstream_failed",
            Self::Refused(_) => "refused",
        }
    }

    /// A failure with a message and nothing else.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Arc::new(Failure { message: message.into(), ..Failure::default() }))
    }

    /// The failure at the root: of the first task up the line that failed.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::UpstreamFailed { cause, .. } => cause.root(),
            other => other,
        }
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// An error of the user's code, with as much of it as could be brought here.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Failure {
    /// Class of the exception or type of the error, where known: `ZeroDivisionError`.
    pub kind: Option<String>,
    /// What it says, with its causes.
    pub message: String,
    /// Python's traceback, a Rust backtrace, or the end of what a command wrote to standard error.
    pub traceback: Option<String>,
    /// Exit code of a command.
    pub exit_code: Option<i32>,
    /// The error itself, where the task ran in this process.
    #[serde(skip)]
    pub source: Option<Arc<anyhow::Error>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Some(kind) if !self.message.is_empty() => write!(f, "{kind}: {}", self.message),
            Some(kind) => f.write_str(kind),
            None => f.write_str(&self.message),
        }
    }
}

/// The end of what ran the task: a worker, or the task host beside one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Crash {
    /// What happened: `exit code 3`, `signal 9 (SIGKILL)`, `memory_limit 1 GiB exceeded`.
    pub cause: String,
    /// Scheduler name of the worker, which may live on where only its task host died.
    pub worker: String,
    /// How often the task has been lost like this, this time included.
    pub attempts: u32,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it was lost on worker {}: {}", self.worker, self.cause)?;
        if self.attempts > 1 {
            write!(f, " (lost {} times in all)", self.attempts)?;
        }
        Ok(())
    }
}

/// A task error as it crosses a process border, where a task takes a `Result` or a Python exception object.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WireError {
    state: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crash: Option<Crash>,
    /// State of the task at the root.
    root: String,
    /// The task at the root and what it says, where this one was not run because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<(Key, Arc<str>, String)>,
}

impl Serialize for TaskError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let root = self.root();
        WireError {
            state: self.state_name().to_owned(),
            message: self.to_string(),
            failure: if let Self::Failed(failure) = root { Some((**failure).clone()) } else { None },
            crash: if let Self::Crashed(crash) = root { Some((**crash).clone()) } else { None },
            upstream: if let Self::UpstreamFailed { key, name, .. } = self { Some((*key, name.clone(), root.to_string())) } else { None },
            root: root.state_name().to_owned(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskError {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireError::deserialize(deserializer)?;
        let refused = wire.message;
        let (upstream, text) = match wire.upstream {
            Some((key, name, text)) => (Some((key, name)), text),
            None => (None, refused),
        };
        let root = match (wire.root.as_str(), wire.failure, wire.crash) {
            ("cancelled", ..) => Self::Cancelled,
            (_, Some(failure), _) => Self::Failed(Arc::new(failure)),
            (_, _, Some(crash)) => Self::Crashed(Arc::new(crash)),
            _ => Self::Refused(Error::new(ErrorKind::Unexpected, text)),
        };
        Ok(match upstream {
            Some((key, name)) => Self::UpstreamFailed { key, name, cause: Box::new(root) },
            None => root,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{decode, encode};

    #[test]
    fn an_error_says_the_same_on_the_other_side() {
        let failed = TaskError::Failed(Arc::new(Failure { kind: Some("ValueError".into()), message: "no".into(), ..Failure::default() }));
        let crashed = TaskError::Crashed(Arc::new(Crash { cause: "exit code 3".into(), worker: "0-1".into(), attempts: 4 }));
        let refused = TaskError::Refused(Error::new(ErrorKind::Unschedulable, "no worker offers GPU=2"));
        for root in [failed, crashed, refused, TaskError::Cancelled] {
            let upstream = TaskError::UpstreamFailed { key: Key(7), name: "fetch".into(), cause: Box::new(root.clone()) };
            for error in [root, upstream] {
                let back: TaskError = decode(&encode(&error).unwrap()).unwrap();
                assert_eq!((back.to_string(), back.state_name()), (error.to_string(), error.state_name()));
            }
        }
    }
}
