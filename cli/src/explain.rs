//! The decisions of adaptive scaling: told as they are made, kept in a file, made again from one.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write as _},
    mem::{Discriminant, discriminant},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use remuda::adaptive::{Begin, Decision, Entry, Reason, Replay};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{Layer, layer::Context};

use crate::{failure::Failure, output, screen::Screen};

/// The keeper's decisions come under this target, with all they were made from.
const DECISIONS: &str = "remuda::adaptive";

/// So many decisions that come out otherwise are shown.
const SHOWN: usize = 20;

/// Takes the decisions as they are made.
#[derive(Debug)]
pub(crate) struct Explain {
    screen: Screen,
    to: Mutex<To>,
}

#[derive(Debug)]
enum To {
    /// Lines on standard error.
    Screen(Teller),
    /// All of it.
    File(PathBuf, BufWriter<File>),
    /// A file that could not be written any more.
    Nowhere,
}

impl Explain {
    /// `--explain-scaling`, and the file named with it: empty is none.
    pub(crate) fn new(asked: Option<&str>, screen: &Screen) -> Result<Option<Self>, Failure> {
        let to = match asked {
            None => return Ok(None),
            Some("") => To::Screen(Teller::default()),
            Some(path) => {
                let file = File::create(path).map_err(|error| Failure {
                    code: 2,
                    text: format!("error: --explain-scaling: {path} cannot be written: {error}\n  hint: name a file in a directory that exists, or none for standard error"),
                })?;
                To::File(path.into(), BufWriter::new(file))
            }
        };
        Ok(Some(Self { screen: screen.clone(), to: Mutex::new(to) }))
    }

    /// Whether an event is one of those.
    pub(crate) fn takes(meta: &Metadata<'_>) -> bool {
        meta.target() == DECISIONS
    }

    fn take(&self, line: &str) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *to {
            To::Nowhere => {}
            To::Screen(teller) => {
                if let Some(text) = Entry::parse(line).ok().and_then(|entry| teller.tell(&entry)) {
                    self.screen.lines(&text);
                }
            }
            // A run may end in any way: what is decided is written.
            To::File(path, file) => {
                if let Err(error) = writeln!(file, "{line}").and_then(|()| file.flush()) {
                    self.screen.lines(&format!("warning: {}: the decisions cannot be written any more: {error}", path.display()));
                    *to = To::Nowhere;
                }
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Explain {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        if let Some(line) = said.0 {
            self.take(&line);
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }
}

/// What the keeper says: a line of the log.
#[derive(Default)]
struct Said(Option<String>);

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "entry" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "entry" {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

/// Says what is new: a decision that changes something, or another reason than before.
#[derive(Debug, Default)]
struct Teller {
    last: Option<Discriminant<Reason>>,
}

impl Teller {
    fn tell(&mut self, entry: &Entry) -> Option<String> {
        if let Entry::Begin(begin) = entry {
            return Some(bounds(begin));
        }
        let (now, decision) = entry.decision()?;
        let changes = decision.launch > 0 || !decision.victims.is_empty() || !decision.cancelled.is_empty();
        let why = discriminant(&decision.reason);
        let new = changes || self.last != Some(why);
        self.last = Some(why);
        new.then(|| line(now, decision))
    }
}

/// `12.3 s  scaling: 4 workers (start +4): 4 tasks and no worker`.
fn line(at: Duration, decision: &Decision) -> String {
    format!("{:7.1} s  scaling: {decision}", at.as_secs_f64())
}

fn bounds(begin: &Begin) -> String {
    let config = &begin.config;
    let most = config.maximum.map_or("any number of".to_owned(), |most| most.to_string());
    let startup = begin.state.startup().map_or(config.startup.map_or(begin.backend.startup, |hint| hint.0), |(startup, _)| startup);
    let budget = config.budget.map_or(String::new(), |budget| format!(", a budget of {:.0} worker-seconds", budget.0.as_secs_f64()));
    format!("           scaling: from {} to {most} workers, a start is taken for {startup:?}{budget}", config.minimum.unwrap_or(0))
}

/// `remuda explain-scaling FILE`: what a log says, and whether it is decided the same today.
pub(crate) fn explain(path: &Path, every: bool) -> Result<ExitCode, Failure> {
    let unreadable = |error: &dyn fmt::Display| Failure { code: 2, text: format!("error: {}: {error}", path.display()) };
    let file = BufReader::new(File::open(path).map_err(|error| unreadable(&error))?);
    let (mut replay, mut teller, mut text) = (Replay::default(), Teller::default(), String::new());
    let (mut count, mut otherwise, mut versions) = (0, 0, BTreeSet::new());
    for (number, read) in (1..).zip(file.lines()) {
        let read = read.map_err(|error| unreadable(&error))?;
        let at = |error: remuda::Error| Failure { code: 2, text: format!("error: {}:{number}: {}", path.display(), error.report()) };
        let entry = Entry::parse(&read).map_err(at)?;
        let again = replay.next(&entry).map_err(at)?;
        let told = teller.tell(&entry);
        if let Entry::Begin(begin) = &entry {
            versions.insert(begin.version.clone());
        }
        if let Some((now, decision)) = entry.decision() {
            count += 1;
            if let Some(again) = again.filter(|again| again != decision) {
                otherwise += 1;
                if otherwise <= SHOWN {
                    text += &format!("{}\n           now: {again}\n", line(now, decision));
                }
                continue;
            }
            if every && told.is_none() {
                text += &(line(now, decision) + "\n");
            }
        }
        text += &told.map_or(String::new(), |told| told + "\n");
    }
    let noun = if count == 1 { "decision" } else { "decisions" };
    text += &match (otherwise, versions.iter().any(|version| version != env!("CARGO_PKG_VERSION"))) {
        (0, _) => format!("{count} {noun}, made again the same\n"),
        (_, false) => format!("{count} {noun}, {otherwise} of them come out otherwise: a line is missing, or was changed\n"),
        (_, true) => {
            let logged: Vec<_> = versions.into_iter().collect();
            format!(
                "{count} {noun}, {otherwise} of them come out otherwise in this version ({}): logged by {}\n",
                env!("CARGO_PKG_VERSION"),
                logged.join(", ")
            )
        }
    };
    output::write(text.as_bytes())?;
    Ok(if otherwise == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use remuda::adaptive::{AdaptConfig, Backend, Decided, Fleet, Load, State};

    use super::*;

    fn decided(at: u64, launch: u32, reason: Reason) -> Entry {
        let decision = Decision { desired: 4, launch, victims: vec![], cancelled: vec![], lost: 0, reason };
        Entry::Decided(Decided { now: Duration::from_millis(at), load: Load::default(), fleet: Fleet::default(), decision })
    }

    #[test]
    fn what_changes_something_or_has_another_reason_is_told() {
        let mut teller = Teller::default();
        let begin =
            Begin::new(AdaptConfig { maximum: Some(9), ..AdaptConfig::default() }, Backend::new(Duration::from_secs(3)), State::default());
        let told = teller.tell(&Entry::Begin(Box::new(begin)));
        assert_eq!(told.as_deref(), Some("           scaling: from 0 to 9 workers, a start is taken for 3s"));
        let enough = |tasks| Reason::Enough { tasks, finish: Some(2.0) };
        let told: Vec<_> = [
            decided(100, 4, Reason::First { tasks: 7 }),
            decided(1100, 0, enough(7)),
            decided(2100, 0, enough(3)),
            decided(3100, 1, enough(3)),
            decided(4100, 0, Reason::Asleep),
        ]
        .iter()
        .filter_map(|entry| teller.tell(entry))
        .collect();
        assert_eq!(
            told,
            [
                "    0.1 s  scaling: 4 workers (start +4): 7 tasks and no worker",
                "    1.1 s  scaling: 4 workers: 7 tasks: done in 2.0 s, more workers do not pay",
                "    3.1 s  scaling: 4 workers (start +1): 3 tasks: done in 2.0 s, more workers do not pay",
                "    4.1 s  scaling: 4 workers: no work and no workers",
            ]
        );
    }
}
