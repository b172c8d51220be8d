//! What the keeper says of workers that are to come, as the scheduler is to tell it to those whose tasks have none.

use std::time::Duration;

use remuda_core::engine::Outlook;

use crate::protocol::{Message, Value, value::map};

/// Why tasks have no worker, for as long as there is none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Absence {
    reason: String,
    /// What to do, where none is to come: then a task does not wait for ever.
    end: Option<String>,
}

const NONE_WANTED: &str = "give `n_workers`, or scale the cluster up";

/// The words are those of the embedded engine.
fn absence(outlook: &Outlook) -> Option<Absence> {
    let (reason, end) = match outlook {
        Outlook::Adaptive { held: None } => ("no workers now: adaptive scaling starts them".to_owned(), None),
        Outlook::Adaptive { held: Some(held) } => (format!("no workers now: {held}"), None),
        Outlook::Nobody { reason, hint } => (reason.clone(), Some(hint.clone())),
        Outlook::Fixed(0) => ("the cluster has no workers, and none are wanted".to_owned(), Some(NONE_WANTED.to_owned())),
        // The keeper starts them again for as long as there is any hope, and gives the cluster up when there is none.
        Outlook::Fixed(wanted) => (format!("no workers yet: 0 of {wanted} joined"), None),
        _ => return None,
    };
    Some(Absence { reason, end })
}

/// For the connection of whoever keeps the workers. `limit`: how long a task waits when nobody is to come.
pub(super) fn message(outlook: &Outlook, limit: Duration) -> Option<Message> {
    let Absence { reason, end } = absence(outlook)?;
    let limit = end.as_ref().map_or(Value::Nil, |_| limit.as_secs_f64().into());
    let hint = end.map_or(Value::Nil, |hint| hint.as_str().into());
    Some(map([("t", "expect".into()), ("reason", reason.as_str().into()), ("hint", hint), ("limit", limit)]).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::value::{get, text};

    #[test]
    fn a_task_without_workers_is_given_up_only_where_none_is_to_come() {
        let nobody = Outlook::Nobody { reason: "the budget is spent".into(), hint: "raise the budget".into() };
        let held = Outlook::Adaptive { held: Some("starting them fails".into()) };
        let cases = [
            (Outlook::Adaptive { held: None }, "no workers now: adaptive scaling starts them", None),
            (held, "no workers now: starting them fails", None),
            (nobody, "the budget is spent", Some("raise the budget")),
            (Outlook::Fixed(0), "the cluster has no workers, and none are wanted", Some(NONE_WANTED)),
            (Outlook::Fixed(3), "no workers yet: 0 of 3 joined", None),
        ];
        for (outlook, reason, hint) in cases {
            let told = message(&outlook, Duration::from_secs(60)).unwrap();
            assert_eq!(get(told.body(), "reason").and_then(text), Some(reason));
            assert_eq!(get(told.body(), "hint").and_then(text), hint);
            assert_eq!(get(told.body(), "limit").and_then(Value::as_f64), hint.map(|_| 60.0), "{outlook:?}");
        }
    }
}
