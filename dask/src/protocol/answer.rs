//! Telling an operation's answer from its failure.

use remuda_core::error::{Error, ErrorKind, Result};

use super::{
    Message,
    value::{get, text},
};

/// What the peer answered to an operation, unless it failed there.
///
/// # Errors
/// - [`ErrorKind::Unsupported`]: the answer is nil, which is how a peer says that it has no such operation. (A few operations answer nil
///   when all is well: `log_event`, `check_idle` of a busy scheduler. Do not ask here for those.)
/// - [`ErrorKind::PermissionDenied`]: whoever runs the scheduler has blocked the operation.
/// - [`ErrorKind::Unexpected`]: it failed; with the peer's words, and its traceback as the cause. Neither is unpickled.
pub fn answer(op: &str, message: Message) -> Result<Message> {
    let body = message.body();
    if body.is_nil() {
        return Err(Error::new(ErrorKind::Unsupported, format!("the peer has no operation `{op}`"))
            .with_hint("its version of `distributed` may be too old or too new, or it is not the kind of peer that was meant"));
    }
    if get(body, "status").and_then(text) != Some("uncaught-error") {
        return Ok(message);
    }
    let said = |name| get(body, name).and_then(text).map(str::trim).filter(|said| !said.is_empty());
    let exception = said("exception_text").unwrap_or("no text came with it");
    if exception.contains("explicitly disallowed") {
        return Err(Error::new(ErrorKind::PermissionDenied, format!("the peer has blocked the operation `{op}`"))
            .with_source(exception.to_owned())
            .with_hint("`distributed.scheduler.blocked-handlers` of the scheduler's configuration names it: ask who runs it"));
    }
    let error = Error::new(ErrorKind::Unexpected, format!("the operation `{op}` failed in the peer: {exception}"));
    Err(match said("traceback_text") {
        Some(traceback) => error.with_source(traceback.to_owned()),
        None => error,
    })
}
