//! What the keeper says of workers that are to come, as the scheduler is to tell it to those whose tasks have none.

use std::time::Duration;

use remuda_core::engine::Outlook;

use crate::protocol::{Message, Value, value::map};

const NONE_WANTED: &str = "give `n_workers`, or scale the cluster up";

/// For the connection of whoever keeps the workers. `limit`: how long a task waits when nobody is to come.
pub(super) fn message(outlook: &Outlook, limit: Duration) -> Option<Message> {
    // What to do, where none is to come: then a task does not wait for ever.
    let end = match outlook {
        Outlook::Nobody { hint, .. } => Some(hint.as_str()),
        Outlook::Fixed(0) => Some(NONE_WANTED),
        // The keeper starts them again for as long as there is any hope, and gives the cluster up when there is none.
        Outlook::Fixed(_) | Outlook::Adaptive { .. } => None,
        _ => return None,
    };
    let (hint, limit) = end.map_or((Value::Nil, Value::Nil), |end| (end.into(), limit.as_secs_f64().into()));
    // For the work there is: for a task that none like them would do nobody is started.
    let adaptive = matches!(outlook, Outlook::Adaptive { .. }).into();
    let reason = outlook.absence().as_str().into();
    Some(map([("t", "expect".into()), ("reason", reason), ("hint", hint), ("limit", limit), ("adaptive", adaptive)]).into())
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
            let adaptive = matches!(outlook, Outlook::Adaptive { .. });
            assert_eq!(get(told.body(), "adaptive").and_then(Value::as_bool), Some(adaptive), "{outlook:?}");
            assert_eq!(get(told.body(), "limit").and_then(Value::as_f64), hint.map(|_| 60.0), "{outlook:?}");
        }
    }
}
