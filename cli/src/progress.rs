//! Shows how far a run is: bars on a terminal, lines now and then elsewhere.

use std::{
    collections::{HashMap, HashSet},
    io::{IsTerminal, stderr},
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use remuda::{Cluster, ClusterStatus, Flow, TaskEvent, flowfile::FlowPlan};
use tokio::task::JoinHandle;

use crate::{
    screen::Screen,
    tally::{Row, Tally},
    workers,
};

/// Between two looks of the bars.
const TICK: Duration = Duration::from_millis(100);
/// Between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(2);
/// While the first workers come, every task waits for them: what lasts no longer than that is not worth a word.
const COMING: Duration = Duration::from_millis(500);
/// More names than these are shown as one.
const ROWS: usize = 16;

/// Where progress goes.
pub(crate) enum Display {
    /// Nowhere.
    Quiet,
    /// A line when something has changed, not too often.
    Lines {
        screen: Screen,
        last: String,
        next: Instant,
    },
    Bars(Bars),
}

pub(crate) struct Bars {
    screen: Screen,
    all: MultiProgress,
    head: ProgressBar,
    rows: HashMap<String, ProgressBar>,
}

impl Display {
    pub(crate) fn new(screen: &Screen, quiet: bool) -> Self {
        match (quiet, stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, false) => Self::Lines { screen: screen.clone(), last: String::new(), next: Instant::now() + LINE },
            (false, true) => Self::Bars(Bars::new(screen)),
        }
    }

    fn say(&self, lines: &[String]) {
        match self {
            Self::Quiet => {}
            Self::Lines { screen, .. } | Self::Bars(Bars { screen, .. }) => lines.iter().for_each(|line| screen.lines(line)),
        }
    }

    fn show(&mut self, tally: &Tally, status: &ClusterStatus, begin: Instant) {
        match self {
            Self::Quiet => {}
            Self::Lines { screen, last, next } => {
                let text = line(tally, &workers::counts(status));
                if Instant::now() >= *next && text != *last {
                    // The reason changes all the time, and alone is not worth a line.
                    let why = workers::reason(status).map_or(String::new(), |reason| format!("  ({reason})"));
                    screen.lines(&format!("{:5.1} s  {text}{why}", begin.elapsed().as_secs_f64()));
                    (*last, *next) = (text, Instant::now() + LINE);
                }
            }
            Self::Bars(bars) => bars.show(tally, status, begin),
        }
    }

    fn end(&mut self) {
        if let Self::Bars(bars) = self {
            bars.rows.values().chain([&bars.head]).for_each(ProgressBar::finish_and_clear);
            bars.screen.clear_bars();
        }
    }
}

/// What has begun and is not over, by name.
fn line(tally: &Tally, workers: &str) -> String {
    let open: Vec<_> = tally.rows().iter().filter(|row| row.has_begun() && !row.is_over()).collect();
    let sum = tally.sum();
    let shown = match open.len() {
        0 => String::new(),
        1..=4 => open.iter().map(|row| format!("  {} {}", row.name, row.counts())).collect(),
        _ => format!("  {} {}", sum.name, sum.counts()),
    };
    format!("{workers}{shown}")
}

/// What was told about tasks that wait for more than their turn: each name and reason once.
#[derive(Default)]
struct Waits {
    since: HashMap<(String, Arc<str>), Instant>,
    told: HashSet<(String, Arc<str>)>,
}

impl Waits {
    /// What is to be told now.
    fn news(&mut self, tally: &Tally, now: Instant) -> Vec<String> {
        let rows = tally.rows().iter().flat_map(|row| row.waits.keys().map(|reason| (row.name.clone(), reason.clone())));
        let current: HashSet<_> = rows.filter(|wait| !self.told.contains(wait)).collect();
        self.since.retain(|wait, _| current.contains(wait));
        let mut due: Vec<_> = current
            .into_iter()
            .filter(|wait| {
                let since = *self.since.entry(wait.clone()).or_insert(now);
                now.duration_since(since) >= COMING
            })
            .collect();
        due.sort();
        let lines = due.iter().map(|(name, reason)| format!("{name}: waiting: {reason}")).collect();
        self.told.extend(due);
        lines
    }
}

impl Bars {
    fn new(screen: &Screen) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let head = all.add(ProgressBar::new_spinner().with_style(style("{msg}")));
        screen.set_bars(all.clone());
        Self { screen: screen.clone(), all, head, rows: HashMap::new() }
    }

    fn show(&mut self, tally: &Tally, status: &ClusterStatus, begin: Instant) {
        let why = workers::reason(status).map_or(String::new(), |reason| format!(" ({reason})"));
        self.head.set_message(format!("{}, {:.1} s{why}", workers::counts(status), begin.elapsed().as_secs_f64()));
        if tally.rows().len() > ROWS {
            self.row(&tally.sum());
        } else {
            tally.rows().iter().for_each(|row| self.row(row));
        }
    }

    fn row(&mut self, row: &Row) {
        let bar = self.rows.entry(row.name.clone()).or_insert_with(|| {
            let bar = ProgressBar::no_length().with_style(style("  {prefix:16} [{bar:30}] {msg}"));
            self.all.add(bar).with_prefix(row.name.clone())
        });
        if let Some(total) = row.total {
            bar.set_length(total);
        }
        bar.set_position(row.ended());
        let reason = row.waits.keys().next().map(|reason| format!(", waiting: {reason}"));
        bar.set_message(row.counts() + &reason.unwrap_or_default());
    }
}

/// A template of ours is well-formed: indicatif's default would only look different.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}

/// Follows a run until it ends.
pub(crate) fn follow(flow: &Flow, cluster: &Cluster, plan: &FlowPlan, mut display: Display, begin: Instant) -> JoinHandle<()> {
    let tasks = plan.tasks.iter().map(|task| (task.label.clone(), task.calls.map(|calls| calls as u64)));
    let (mut tally, mut waits) = (Tally::new(tasks), Waits::default());
    // Neither holds the cluster open.
    let (mut events, status) = (flow.events(), cluster.watch());
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut some: Vec<TaskEvent> = Vec::new();
        loop {
            tokio::select! {
                count = events.recv_many(&mut some, 1024) => {
                    if count == 0 {
                        break;
                    }
                    some.drain(..).for_each(|event| tally.add(&event));
                }
                _ = tick.tick() => {
                    display.say(&waits.news(&tally, Instant::now()));
                    display.show(&tally, &status.borrow(), begin);
                }
            }
        }
        display.end();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_what_is_under_way() {
        let names = |n: usize| (0..n).map(|i| (format!("t{i}"), Some(2)));
        let start = |tally: &mut Tally, n: usize| {
            for i in 0..n {
                let state = remuda::TaskState::Running { worker: "0-0".into(), attempt: 0 };
                tally.add(&TaskEvent { key: remuda::Key(i as u64), name: format!("t{i}").into(), state });
            }
        };
        let mut few = Tally::new(names(3));
        assert_eq!(line(&few, "4 workers"), "4 workers");
        start(&mut few, 2);
        assert_eq!(line(&few, "4 workers"), "4 workers  t0 0/2, 1 running  t1 0/2, 1 running");
        let mut many = Tally::new(names(9));
        start(&mut many, 7);
        assert_eq!(line(&many, "1 worker"), "1 worker  tasks 0/18, 7 running");
    }
    #[test]
    fn a_reason_to_wait_is_told_once_and_not_while_workers_come() {
        let event = |key, reason: &str| {
            let state = remuda::TaskState::Pending { reason: Some(reason.into()) };
            TaskEvent { key: remuda::Key(key), name: "gpu".into(), state }
        };
        let (mut tally, mut waits, begin) = (Tally::default(), Waits::default(), Instant::now());
        tally.add(&event(0, "no workers yet"));
        assert_eq!(waits.news(&tally, begin), Vec::<String>::new());
        tally.add(&event(0, "no GPU"));
        tally.add(&event(1, "no GPU"));
        assert_eq!(waits.news(&tally, begin + COMING), Vec::<String>::new(), "new");
        assert_eq!(waits.news(&tally, begin + 2 * COMING), ["gpu: waiting: no GPU"]);
        tally.add(&event(2, "no GPU"));
        assert_eq!(waits.news(&tally, begin + 4 * COMING), Vec::<String>::new());
    }
}
