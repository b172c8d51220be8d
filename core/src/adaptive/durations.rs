//! How long a task of each kind takes, from what has finished and what runs.

use super::load::{Load, Prefix};

/// The guess for the first kind of task ever, in seconds. Dask takes 0.5.
pub(super) const UNKNOWN: f64 = 1.0;

/// What is believed of one kind of task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    /// Seconds a task takes.
    pub(super) mean: f64,
    /// None has finished.
    pub(super) unknown: bool,
    /// None has finished, nor run long enough to say anything.
    pub(super) blind: bool,
}

/// The durations per prefix.
///
/// With n completions of total S, and running tasks of total E and longest e, the mean is
/// `max(S/n, min((S+E)/n, 2 max(longest, e)))`: the maximum likelihood mean of exponential durations with censoring, capped so
/// that many tasks that have only begun do not inflate it. Plain means beat Dask's average (weight 0.5 on the newest task), which
/// follows the noise. With none: the prior, or twice the longest that runs. The prior is the geometric mean of [`UNKNOWN`] and
/// the known means.
pub(super) fn durations(load: &Load) -> Vec<Estimate> {
    let known: Vec<f64> = load.prefixes.iter().filter(|prefix| prefix.completions > 0).map(|prefix| plain_mean(prefix).max(1e-3)).collect();
    let prior = ((UNKNOWN.ln() + known.iter().map(|mean| mean.ln()).sum::<f64>()) / (1.0 + known.len() as f64)).exp();
    load.prefixes.iter().map(|prefix| duration(prefix, prior)).collect()
}

fn duration(prefix: &Prefix, prior: f64) -> Estimate {
    let running = prefix.running.iter().map(std::time::Duration::as_secs_f64);
    let (sum, longest) = running.fold((0.0, 0.0f64), |(sum, longest), elapsed| (sum + elapsed, longest.max(elapsed)));
    if prefix.completions == 0 {
        return Estimate { mean: prior.max(2.0 * longest), unknown: true, blind: 2.0 * longest <= UNKNOWN };
    }
    let censored = (prefix.total.as_secs_f64() + sum) / prefix.completions as f64;
    let cap = 2.0 * prefix.longest.as_secs_f64().max(longest);
    Estimate { mean: censored.min(cap).max(plain_mean(prefix)), unknown: false, blind: false }
}

fn plain_mean(prefix: &Prefix) -> f64 {
    prefix.total.as_secs_f64() / prefix.completions.max(1) as f64
}

/// Workers to plan for `tasks` of which nothing is known: the middle, on a logarithmic scale, between one and one for each, but
/// never fewer than three where there are three tasks. Being wrong by a factor q costs (2 + q + 1/q)/4 either way.
pub(super) fn cautious(tasks: f64) -> f64 {
    tasks.sqrt().max(tasks.min(3.0))
}

/// What is left for a task that has run for `elapsed`: never nothing, and the longer it has overrun, the longer.
pub(super) fn residual(mean: f64, elapsed: f64) -> f64 {
    (mean - elapsed).max(0.1 * mean).max(0.5 * (elapsed - mean))
}

#[cfg(test)]
mod tests {
    use std::time::Duration as Time;

    use super::*;

    fn prefix(completions: u64, total: u64, longest: u64, running: &[u64]) -> Prefix {
        let running = running.iter().map(|seconds| Time::from_secs(*seconds)).collect();
        Prefix { completions, total: Time::from_secs(total), longest: Time::from_secs(longest), running, arrived: 0 }
    }

    fn means(prefixes: Vec<Prefix>) -> Vec<f64> {
        durations(&Load { prefixes, groups: vec![] }).iter().map(|duration| duration.mean).collect()
    }

    #[test]
    fn running_tasks_count_but_not_without_bound() {
        assert_eq!(means(vec![prefix(10, 20, 3, &[])]), [2.0]);
        assert_eq!(means(vec![prefix(10, 20, 3, &[10, 10])]), [4.0]);
        assert_eq!(means(vec![prefix(1, 1, 1, &[1; 100])]), [2.0]);
    }

    #[test]
    fn unknown_kinds_take_after_the_known_ones() {
        assert_eq!(means(vec![prefix(0, 0, 0, &[])]), [1.0]);
        assert!((means(vec![prefix(4, 400, 100, &[]), prefix(0, 0, 0, &[])])[1] - 10.0).abs() < 1e-9);
        assert_eq!(means(vec![prefix(0, 0, 0, &[7])]), [14.0]);
    }
}
