//! What the shim says.

use std::sync::Arc;

use remuda_core::{
    error::{Error, ErrorKind, Result},
    task::Failure,
};

use crate::protocol::{
    Value,
    value::{get, text},
};

/// From the shim.
#[derive(Debug)]
pub(crate) enum News {
    Attached {
        received: u64,
    },
    /// The session is not there any more.
    Unknown,
    Events {
        seq: u64,
        received: u64,
        events: Vec<Event>,
    },
    Closed,
}

/// What happened to one unit of work.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) unit: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Started {
        worker: Arc<str>,
        attempt: u32,
    },
    /// `cause`: of the end of its task host.
    Again {
        worker: Arc<str>,
        attempt: u32,
        failure: Option<Failure>,
        cause: Option<Arc<str>>,
    },
    Done {
        worker: Arc<str>,
        address: Arc<str>,
        attempt: u32,
        seconds: f64,
        size: u64,
        failed: Vec<(u32, Trouble)>,
    },
    Failed {
        worker: Arc<str>,
        attempt: u32,
        failure: Failure,
    },
    Refused(Error),
    /// `attempts`: how many hosts or workers it has lost. `attempt`: the last one, of whatever kind those before were.
    Crashed {
        worker: Arc<str>,
        attempts: u32,
        cause: String,
        attempt: u32,
    },
    Pending {
        reason: Option<Arc<str>>,
    },
    Lost,
    Gone,
}

/// Why one call of a batch has no result.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    Failed(Failure),
    Refused(Error),
    /// Its task host died; the others went on in another one.
    Crashed(Arc<str>),
}

/// Reads one message.
///
/// # Errors
/// [`ErrorKind::Unexpected`]: it is none of the shim's.
pub(crate) fn read(body: &Value) -> Result<News> {
    let number = |name| get(body, name).and_then(Value::as_u64).unwrap_or_default();
    match get(body, "t").and_then(text) {
        Some("attached") => {
            return Ok(News::Attached { received: number("received") });
        }
        Some("unknown") => return Ok(News::Unknown),
        Some("closed") => return Ok(News::Closed),
        _ => {}
    }
    let Some(events) = get(body, "events").and_then(Value::as_array) else {
        let keys: Vec<_> = body.as_map().into_iter().flatten().filter_map(|(key, _)| key.as_str()).collect();
        return Err(Error::new(ErrorKind::Unexpected, "a message of the shim's that is none").with_context("fields", keys.join(",")));
    };
    let events = events.iter().map(event).collect::<Option<Vec<_>>>();
    let events = events.ok_or_else(|| Error::new(ErrorKind::Unexpected, "an event of the shim's that is none"))?;
    Ok(News::Events { seq: number("e"), received: number("r"), events })
}

fn event(value: &Value) -> Option<Event> {
    let fields = value.as_array()?;
    let at = |index: usize| fields.get(index).unwrap_or(&Value::Nil);
    let word = |index| -> Arc<str> { written(at(index)).into() };
    let number = |index| u32::try_from(at(index).as_u64().unwrap_or_default()).unwrap_or(u32::MAX);
    let what = match at(0).as_str()? {
        "started" => What::Started { worker: word(2), attempt: number(3) },
        "again" => What::Again {
            worker: word(2),
            attempt: number(3),
            failure: Some(at(4)).filter(|it| it.is_map()).map(failure),
            cause: at(5).as_str().map(Into::into),
        },
        "done" => What::Done {
            worker: word(2),
            address: word(3),
            attempt: number(5),
            size: at(4).as_u64().unwrap_or(u64::MAX),
            seconds: at(6).as_f64().unwrap_or_default(),
            failed: at(7).as_array().map_or_else(Vec::new, |failed| failed.iter().filter_map(element).collect()),
        },
        "failed" => What::Failed { worker: word(2), attempt: number(3), failure: failure(at(4)) },
        "refused" => What::Refused(refusal(&written(at(2)), written(at(3)), at(4).as_str())),
        "crashed" => What::Crashed { worker: word(2), attempts: number(3), cause: written(at(4)), attempt: number(5) },
        "pending" => What::Pending { reason: at(2).as_str().map(Into::into) },
        "lost" => What::Lost,
        "gone" => What::Gone,
        _ => return None,
    };
    Some(Event { unit: at(1).as_u64()?, what })
}

fn element(value: &Value) -> Option<(u32, Trouble)> {
    let [index, cause] = value.as_array()?.as_slice() else { return None };
    let trouble = match get(cause, "refused").and_then(Value::as_array).map(Vec::as_slice) {
        Some([kind, message, hint]) => Trouble::Refused(refusal(&written(kind), written(message), hint.as_str())),
        _ => match get(cause, "crashed").and_then(text) {
            Some(crashed) => Trouble::Crashed(crashed.into()),
            None => Trouble::Failed(failure(cause)),
        },
    };
    Some((u32::try_from(index.as_u64()?).ok()?, trouble))
}

/// A failure that says less than it should still is one.
fn failure(value: &Value) -> Failure {
    let word = |name| get(value, name).and_then(Value::as_str).map(str::to_owned);
    Failure {
        kind: word("kind"),
        message: word("message").unwrap_or_else(|| if value.is_map() { String::new() } else { written(value) }),
        traceback: word("traceback"),
        exit_code: get(value, "exit_code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok()),
        source: None,
    }
}

/// Words or numbers, as text.
fn written(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        other => text(other).map_or_else(|| other.to_string(), str::to_owned),
    }
}

pub(crate) fn refusal(kind: &str, message: String, hint: Option<&str>) -> Error {
    let kind = match kind {
        "unserializable" => ErrorKind::Unserializable,
        "invalid" => ErrorKind::ConfigInvalid,
        "unschedulable" => ErrorKind::Unschedulable,
        "unsupported" => ErrorKind::Unsupported,
        "missing" => ErrorKind::NotInstalled,
        _ => ErrorKind::Unexpected,
    };
    let error = Error::new(kind, message);
    hint.into_iter().fold(error, Error::with_hint)
}
