//! How long and how often.

use std::time::Duration;

/// Deadlines and delays of a keeper. The defaults suit clouds as well as one machine: none of them is on the way of a cluster that
/// works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the start of the factory to a scheduler that accepts connections. Default 10 min: a node may have to be bought and an
    /// image pulled.
    pub start: Duration,
    /// How long a cancelled call may still take before its future is dropped. Default 5 s.
    pub grace: Duration,
    /// For one `launch`, `stop`, `scale` or `list`. Default 2 min: twice what cloud SDKs take with their retries.
    pub call: Duration,
    /// From a launch to the worker's joining; then it is written off, stopped and replaced. Default 5 min.
    pub join: Duration,
    /// For a worker to finish what it runs when it has to go; then it is stopped. Default 1 min.
    pub drain: Duration,
    /// For the manager's `close`. Default 1 min.
    pub close: Duration,
    /// Between a worker that failed and its replacement: first and longest delay; it doubles. Default 1 s to 60 s.
    pub backoff: (Duration, Duration),
    /// The same where the platform has no capacity. Default 5 s to 5 min.
    pub capacity_backoff: (Duration, Duration),
    /// A worker that lived this long was well: its end is no sign of a crash loop. Default 30 s.
    pub stable: Duration,
    /// So many failures for the same reason, one after the other, end all launching until the user scales. Workers that fail
    /// together count once; lack of capacity does not count. Default 5.
    pub crash_loop: u32,
    /// Between two `list` calls. Default 5 s.
    pub poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            start: s(600),
            grace: s(5),
            call: s(120),
            join: s(300),
            drain: s(60),
            close: s(60),
            backoff: (s(1), s(60)),
            capacity_backoff: (s(5), s(300)),
            stable: s(30),
            crash_loop: 5,
            poll: s(5),
        }
    }
}

/// Doubles from `first` with each failure after the first, at most `most`. Never nothing: a loop would spin.
pub(super) fn backoff((first, most): (Duration, Duration), failures: u32) -> Duration {
    let delay = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most);
    delay.max(Duration::from_millis(10))
}
