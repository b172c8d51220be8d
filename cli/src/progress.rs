//! Shows how far a run is: bars on a terminal, lines now and then elsewhere.

use std::{
    collections::HashMap,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use remuda::{Cluster, ClusterStatus, Flow, TaskEvent, flowfile::FlowPlan};
use tokio::task::JoinHandle;

use crate::{
    screen::Screen,
    tally::{Row, Tally},
    waits::{Manner, Waits},
    workers,
};

/// Between two looks of the bars.
const TICK: Duration = Duration::from_millis(100);
/// Between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(2);
/// More names than these are shown as one.
const ROWS: usize = 16;

/// Where progress goes.
pub(crate) enum Display {
    /// Nowhere, but for a wait without an end in sight.
    Quiet(Screen),
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
            (true, _) => Self::Quiet(screen.clone()),
            (false, false) => Self::Lines { screen: screen.clone(), last: String::new(), next: Instant::now() + LINE },
            (false, true) => Self::Bars(Bars::new(screen)),
        }
    }

    fn say(&self, lines: &[String]) {
        match self {
            Self::Quiet(screen) => lines.iter().for_each(|line| screen.lines(&format!("warning: {line}"))),
            Self::Lines { screen, .. } | Self::Bars(Bars { screen, .. }) => lines.iter().for_each(|line| screen.lines(line)),
        }
    }

    fn manner(&self) -> Manner {
        match self {
            Self::Quiet(_) => Manner::Quiet,
            Self::Lines { .. } | Self::Bars(_) => Manner::Shown,
        }
    }

    fn show(&mut self, tally: &Tally, status: &ClusterStatus, begin: Instant) {
        match self {
            Self::Quiet(_) => {}
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
            self.row(&tally.sum(), status);
        } else {
            tally.rows().iter().for_each(|row| self.row(row, status));
        }
    }

    fn row(&mut self, row: &Row, status: &ClusterStatus) {
        let bar = self.rows.entry(row.name.clone()).or_insert_with(|| {
            let bar = ProgressBar::no_length().with_style(style("  {prefix:16} [{bar:30}] {msg}"));
            self.all.add(bar).with_prefix(row.name.clone())
        });
        if let Some(total) = row.total {
            bar.set_length(total);
        }
        bar.set_position(row.ended());
        // Where nobody is there all wait for the same, and the head has the workers.
        let reason = row.waits.keys().next().filter(|_| status.running > 0).map(|reason| format!(", waiting: {reason}"));
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
    let (mut tally, mut waits) = (Tally::new(tasks), Waits::new(display.manner()));
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
                    display.say(&waits.news(&tally, &status.borrow(), Instant::now()));
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
}
