//! How a failure is told: once, with what, where, why, and what to do.

use remuda::{
    Error, ErrorKind, RunError, TaskError, TaskFailed,
    flowfile::{FlowFailed, OtherFailure},
};

/// So many further failures are named.
const NAMED: usize = 10;

/// What ends the program, and with which exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.is_user_error() { 2 } else { 3 };
        Self { code, text: format!("error: {}", error.report()) }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = error.exit_code();
        let text = match &error {
            RunError::Interrupted => "interrupted".to_owned(),
            RunError::Infra(error) => format!("error: {}", error.report()),
            RunError::Flow(error) => format!("error: {}", flow(error)),
        };
        Self { code, text }
    }
}

/// Whether the flow ended because something has no form in which it can be handed on.
pub(crate) fn is_unserializable(error: &RunError) -> bool {
    matches!(error, RunError::Flow(_)) && kind(error) == Some(ErrorKind::Unserializable)
}

/// What ended the run, where that was no failure of a task itself.
pub(crate) fn kind(error: &RunError) -> Option<ErrorKind> {
    match error {
        RunError::Interrupted => None,
        RunError::Infra(error) => Some(error.kind()),
        RunError::Flow(error) => match error.downcast_ref::<TaskFailed>()?.error.root() {
            TaskError::Refused(error) => Some(error.kind()),
            _ => None,
        },
    }
}

fn flow(error: &anyhow::Error) -> String {
    let Some(failed) = error.downcast_ref::<FlowFailed>() else { return first(error, 0) };
    // What keeps one task from being run keeps many from it: that is told with the first.
    let same = |other: &&OtherFailure| error.downcast_ref::<TaskFailed>().is_some_and(|first| is_refused_alike(first, other));
    let (alike, rest): (Vec<_>, Vec<_>) = failed.others.iter().partition(same);
    first(error, alike.len()) + &others(&rest)
}

fn is_refused_alike(first: &TaskFailed, other: &OtherFailure) -> bool {
    let cause = first.error.root().to_string();
    other.state == "refused" && first.error.state_name() == other.state && cause.lines().next().unwrap_or_default() == other.cause
}

/// A line for each; one for all that could not be run for the same reason, such as a scheduler that is gone.
fn others(failures: &[&OtherFailure]) -> String {
    if failures.is_empty() {
        return String::new();
    }
    let mut lines: Vec<(&OtherFailure, usize)> = Vec::new();
    for &failure in failures {
        let alike =
            |of: &&mut (&OtherFailure, usize)| failure.state == "refused" && of.0.state == failure.state && of.0.cause == failure.cause;
        match lines.iter_mut().find(alike) {
            Some((_, more)) => *more += 1,
            None => lines.push((failure, 0)),
        }
    }
    let line = |&(failure, more): &(&OtherFailure, usize)| match more {
        0 => format!("\n  {failure}"),
        _ => format!("\n  {failure} (and {more} more for the same reason)"),
    };
    let mut text: String = lines.iter().take(NAMED).map(line).collect();
    if lines.len() > NAMED {
        let rest: usize = lines[NAMED..].iter().map(|(_, more)| 1 + more).sum();
        text += &format!("\n  and {rest} more");
    }
    format!("\nalso:{text}")
}

/// `more`: so many others could not be run for the same reason.
fn first(error: &anyhow::Error, more: usize) -> String {
    if let Some(failed) = error.downcast_ref::<TaskFailed>() {
        return task(error, failed, more);
    }
    match error.downcast_ref::<Error>() {
        Some(error) => error.report(),
        None => format!("{error:#}"),
    }
}

/// Where the task stands, what became of it, and the traceback or the end of what a command wrote.
fn task(error: &anyhow::Error, failed: &TaskFailed, more: usize) -> String {
    let mut text = format!("{error:#}");
    match failed.error.root() {
        TaskError::Failed(failure) => {
            if let Some(traceback) = &failure.traceback {
                let indented: String = traceback.trim_end().lines().map(|line| format!("\n  | {line}")).collect();
                text += &indented;
            }
        }
        TaskError::Refused(error) => {
            // On a line of its own.
            let hint = error.hint().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
            if let Some(hint) = error.hint() {
                text = text.replacen(&format!(" (hint: {hint})"), "", 1);
            }
            if more > 0 {
                text += &format!(" (and {more} more for the same reason)");
            }
            text += &hint;
        }
        _ => {}
    }
    text
}
