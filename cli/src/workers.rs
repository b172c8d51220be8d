//! The workers in words: how many there are and why, and what they came to.

use remuda::{
    ClusterStatus,
    adaptive::{AdaptConfig, Decision, Reason},
};

/// How many workers there are and come; where their number follows the work, also how many there should be.
pub(crate) fn counts(status: &ClusterStatus) -> String {
    let Some(adapt) = &status.adapt else {
        let starting = if status.starting > 0 { format!(", {} starting", status.starting) } else { String::new() };
        return of(u64::from(status.running), "worker") + &starting;
    };
    let parts = [(adapt.running, "running"), (adapt.starting, "starting"), (adapt.draining, "draining")];
    let parts: Vec<_> = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    let wanted = of(u64::from(adapt.desired), "worker") + " wanted";
    if parts.is_empty() { wanted } else { format!("{wanted}: {}", parts.join(", ")) }
}

/// Why there are so many, where that was decided.
pub(crate) fn reason(status: &ClusterStatus) -> Option<String> {
    let adapt = status.adapt.as_ref()?;
    match (&adapt.trouble, &adapt.decision) {
        (Some(trouble), _) => Some(trouble.clone()),
        (None, Some(decision)) => Some(decision.reason.to_string()),
        (None, None) if adapt.native => Some("the platform decides".to_owned()),
        (None, None) => None,
    }
}

/// What an adaptive cluster came to.
pub(crate) fn used(status: &ClusterStatus) -> Option<String> {
    // A number that somebody said ends it; what was used before is told all the same.
    let adapt = status.adapt.as_ref().or(status.adapt_ended.as_ref()).filter(|adapt| !adapt.native)?;
    let usage = adapt.usage;
    let budget = adapt.config.budget.map_or(String::new(), |budget| format!(" of a budget of {}", seconds(budget.0.as_secs_f64())));
    let idle = seconds(usage.idle_worker_seconds);
    Some(format!(
        "adaptive scaling: {} started, {}{budget} used, {idle} of them idle",
        of(usage.launched, "worker"),
        seconds(usage.worker_seconds)
    ))
}

/// A word about a budget that is spent, which stops the work where nobody is there any more.
pub(crate) fn spent(reason: &Reason) -> Option<String> {
    let Reason::Budget { .. } = reason else { return None };
    Some(format!("{reason}; nobody is started any more (adapt_kwargs.budget)"))
}

/// Between which bounds the number follows the work.
pub(crate) fn bounds(config: &AdaptConfig) -> String {
    format!("the number of workers follows the work: {}", range(config))
}

/// `0 to 10 workers`.
pub(crate) fn range(config: &AdaptConfig) -> String {
    let least = config.minimum.unwrap_or(0);
    let most = config.maximum.map_or("any number of workers".to_owned(), |most| of(u64::from(most), "worker"));
    format!("{least} to {most}")
}

/// A decision that changes something.
pub(crate) fn changes(decision: &Decision) -> Option<String> {
    let changes = decision.launch > 0 || !decision.victims.is_empty() || !decision.cancelled.is_empty();
    changes.then(|| format!("scaling: {decision}")).or_else(|| spent(&decision.reason))
}

/// Somebody said a number.
pub(crate) fn ended(workers: u32) -> String {
    format!("adaptive scaling is over: {} wanted, whatever the work", of(u64::from(workers), "worker"))
}

/// `12.3 worker-seconds`.
fn seconds(count: f64) -> String {
    if count < 100.0 { format!("{count:.1} worker-seconds") } else { format!("{count:.0} worker-seconds") }
}

pub(crate) fn of(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
