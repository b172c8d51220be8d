//! What the policy answers, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is to be done now. Victims and cancelled requests are idle and unneeded at the time of the decision, unless there are more
/// than there may be ([`Reason::Above`]); whoever carries it out drains the victims: what they run meanwhile, they finish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Workers that should be there or on their way once this is done; draining ones do not count.
    pub desired: u32,
    /// Workers to ask for now.
    pub launch: u32,
    /// Workers to drain, by id: idle ones, fewest stored bytes first, then busy ones if there are more than there may be.
    pub victims: Vec<u64>,
    /// Requests to take back, by id.
    pub cancelled: Vec<u64>,
    /// How many of `cancelled` are written off: they should have arrived long ago. They stand first.
    pub lost: u32,
    /// Why.
    pub reason: Reason,
}

/// Why a [`Decision`] is what it is. Times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Nothing to do and nobody there.
    Asleep,
    /// There is work and nobody there.
    First {
        /// Tasks that are ready.
        tasks: u64,
    },
    /// More workers make cost times time smaller.
    Faster {
        /// Unfinished tasks.
        tasks: u64,
        /// The work at hand takes this long with the workers there are. `None`: for ever.
        before: Option<f64>,
        /// And this long with those asked for.
        after: f64,
        /// Seconds of work that arrive per second meanwhile, and keep workers from it; 0: no stream of tasks, or not told.
        #[serde(default)]
        beside: f64,
    },
    /// Nothing is known of how long these tasks take: between one worker and one for each.
    Unknown {
        /// Tasks of unknown duration.
        tasks: u64,
    },
    /// Work keeps coming.
    Stream {
        /// Seconds of work that arrive per second.
        rate: f64,
    },
    /// Graphs like this one keep coming, and a fleet of this size pays in the long run.
    Recurring {
        /// Workers that would have been best for the recent graphs.
        workers: u32,
    },
    /// The stored results need the room.
    Memory {
        /// Bytes stored.
        stored: u64,
    },
    /// The lower bound.
    Minimum {
        /// It.
        workers: u32,
    },
    /// The upper bound holds back.
    Maximum {
        /// It.
        workers: u32,
        /// Unfinished tasks; 0: not told.
        #[serde(default)]
        tasks: u64,
        /// The work at hand takes this long with those there are and come. `None`: for ever, as far as can be seen.
        finish: Option<f64>,
    },
    /// There are more than there may be: it was lowered.
    Above {
        /// The upper bound.
        maximum: u32,
        /// Busy workers that finish what they run, then go.
        busy: u32,
        /// Workers above it that cannot go yet: nobody has room for their results, or they must stay for now.
        kept: u32,
    },
    /// The budget is spent, so nothing is started.
    Budget {
        /// Worker-seconds used so far.
        spent: f64,
        /// Worker-seconds that may be; 0: none, or not told.
        #[serde(default)]
        budget: f64,
        /// Workers that would have been asked for.
        wanted: u32,
    },
    /// Workers that were asked for before failed, so none is asked for now.
    Blocked {
        /// Workers that would have been asked for.
        wanted: u32,
    },
    /// The scheduler does not tell of its work, so the number stays.
    Unseen {
        /// It.
        workers: u32,
    },
    /// The scheduler cannot keep the workers busy, so more of them would not help.
    SchedulerBound {
        /// Tasks that are ready.
        ready: u64,
    },
    /// The right number is there or on its way.
    Enough {
        /// Unfinished tasks.
        tasks: u64,
        /// The work at hand takes this long. `None`: for ever, as far as can be seen.
        finish: Option<f64>,
    },
    /// Workers are starting, after others could not be started.
    Failing {
        /// How many are tried.
        starting: u32,
        /// How often in a row it failed.
        failed: u32,
    },
    /// Workers on their way should be there by now.
    Late {
        /// How many are starting.
        starting: u32,
        /// How long the oldest request has been waited for.
        waited: f64,
        /// What a start usually takes.
        usual: f64,
    },
    /// Some are idle but were needed not long ago.
    Idling {
        /// Workers beyond what the work needs now.
        surplus: u32,
        /// How long they stay after they were needed last.
        patience: f64,
    },
    /// Some are idle, and will be needed before others could come in their place.
    Ahead {
        /// How many.
        surplus: u32,
    },
    /// Some on their way are not needed now.
    Coming {
        /// How many.
        surplus: u32,
    },
    /// Some are idle and not needed, and cannot go.
    Held {
        /// How many.
        surplus: u32,
        /// What holds them.
        by: Hold,
    },
    /// Requests were not needed for long enough.
    Unneeded {
        /// How many.
        requests: u32,
        /// At so many decisions in a row.
        decisions: u32,
    },
    /// Some were not needed for long enough.
    Surplus {
        /// Workers the work needed at most in that time.
        needed: u32,
        /// The time looked at.
        window: f64,
    },
    /// Requests did not arrive in time.
    Lost {
        /// How long they were waited for.
        after: f64,
    },
}

/// What holds idle workers that nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Hold {
    /// They are paid for already: the platform has a minimum charge.
    Charge,
    /// The others have no room for their results.
    Results,
    /// Paused, at something that is no task of the load, or asked to go in vain not long ago.
    Pinned,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Charge => "kept for as long as they are paid for anyway",
            Self::Results => "kept as their results have no other place",
            Self::Pinned => "must stay for now (pinned work, or results without another place)",
        })
    }
}

/// `1 task`, `2 tasks`.
fn of(count: impl Into<u64>, noun: &str) -> String {
    let count = count.into();
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What the work at hand comes to.
fn done(tasks: u64, finish: Option<f64>) -> String {
    of(tasks, "task") + &finish.map_or(String::new(), |finish| format!(", done in {finish:.1} s"))
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asleep => f.write_str("no work and no workers"),
            Self::First { tasks } => write!(f, "{} and no worker", of(*tasks, "task")),
            Self::Faster { tasks, before, after, beside } => {
                let before = before.map_or("never".to_owned(), |before| format!("{before:.1} s"));
                write!(f, "{} instead of {before}", done(*tasks, Some(*after)))?;
                if *beside > 0.0 {
                    write!(f, ", as {beside:.1} s of work arrive per second")?;
                }
                Ok(())
            }
            Self::Unknown { tasks } => write!(f, "{} of unknown duration", of(*tasks, "task")),
            Self::Stream { rate } => write!(f, "{rate:.1} s of work arrive per second"),
            Self::Recurring { workers: 1 } => f.write_str("graphs like this keep coming: 1 worker pays"),
            Self::Recurring { workers } => write!(f, "graphs like this keep coming: {workers} workers pay"),
            Self::Memory { stored } => write!(f, "{} MiB of results need the memory", stored >> 20),
            Self::Minimum { workers } => write!(f, "the minimum is {workers}"),
            Self::Maximum { workers, tasks: 0, .. } => write!(f, "the maximum is {workers}"),
            Self::Maximum { workers, tasks, finish } => write!(f, "the maximum is {workers}: {}", done(*tasks, *finish)),
            Self::Above { maximum, busy, kept } => {
                write!(f, "the maximum is {maximum}: ")?;
                match (busy, kept) {
                    (0, 0) => f.write_str("those above it go"),
                    (0, kept) => write!(f, "{kept} above it cannot go yet (results without another place, or pinned work)"),
                    (busy, 0) => write!(f, "those above it go, {busy} when they have finished what they run"),
                    (busy, kept) => write!(f, "{busy} above it go when they have finished what they run, {kept} cannot go yet"),
                }
            }
            Self::Budget { spent, budget, wanted } => {
                let wanted = of(*wanted, "more worker");
                let of = if *budget > 0.0 { format!(" of {budget:.0}") } else { String::new() };
                write!(f, "the budget is spent ({spent:.0}{of} worker-seconds used): {wanted} would help")
            }
            Self::Blocked { wanted } => {
                write!(f, "{} wanted, but starting workers fails: none is asked for now", of(*wanted, "more worker"))
            }
            Self::Failing { starting, failed: 1 } => write!(f, "starting workers failed: {} tried again", of(*starting, "worker")),
            Self::Failing { starting, failed } => {
                write!(f, "starting workers failed {failed} times in a row: {} tried again", of(*starting, "worker"))
            }
            Self::Late { starting, waited, usual } => {
                write!(f, "{} on the way for {waited:.1} s: a start usually takes {usual:.1} s", of(*starting, "worker"))
            }
            Self::Unseen { workers } => write!(f, "the work cannot be seen: the number stays at {workers}"),
            Self::SchedulerBound { ready: 1 } => f.write_str("1 task is ready and workers idle: the scheduler is the limit"),
            Self::SchedulerBound { ready } => write!(f, "{ready} tasks are ready and workers idle: the scheduler is the limit"),
            Self::Enough { tasks: 0, .. } => f.write_str("no work"),
            Self::Enough { tasks, finish } => write!(f, "{}: more workers do not pay", done(*tasks, *finish)),
            Self::Idling { surplus, patience } => write!(f, "{surplus} idle, kept for {patience:.1} s in case of more work"),
            Self::Ahead { surplus } => write!(f, "{surplus} idle, kept for tasks that can run soon"),
            Self::Coming { surplus } => write!(f, "{surplus} on the way, not needed now but perhaps when there"),
            Self::Held { surplus, by } => write!(f, "{surplus} idle and not needed, {by}"),
            Self::Unneeded { requests, decisions: 1 } => write!(f, "{} not needed any more", of(*requests, "request")),
            Self::Unneeded { requests, decisions } => {
                write!(f, "{} not needed at {decisions} decisions in a row", of(*requests, "request"))
            }
            Self::Surplus { needed: 0, window } => write!(f, "none was needed in the last {window:.1} s"),
            Self::Surplus { needed: 1, window } => write!(f, "not more than 1 was needed in the last {window:.1} s"),
            Self::Surplus { needed, window } => write!(f, "not more than {needed} were needed in the last {window:.1} s"),
            Self::Lost { after } => write!(f, "requests did not arrive within {after:.0} s"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&of(self.desired, "worker"))?;
        let parts = [(self.launch as usize, "+", "start"), (self.victims.len(), "-", "drain"), (self.cancelled.len(), "-", "take back")];
        for (count, sign, what) in parts.iter().filter(|part| part.0 > 0) {
            write!(f, " ({what} {sign}{count})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logs that were written before these reasons told more.
    #[test]
    fn reasons_of_older_logs_are_read() {
        let read = |line: &str| serde_json::from_str::<Reason>(line).unwrap().to_string();
        assert_eq!(read(r#"{"why":"faster","tasks":9,"before":8.0,"after":4.0}"#), "9 tasks, done in 4.0 s instead of 8.0 s");
        assert_eq!(read(r#"{"why":"maximum","workers":5}"#), "the maximum is 5");
        let budget = read(r#"{"why":"budget","spent":70.0,"wanted":2}"#);
        assert_eq!(budget, "the budget is spent (70 worker-seconds used): 2 more workers would help");
    }
}
