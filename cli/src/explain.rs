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

use crate::{failure::Failure, output, screen::Screen, workers::of};

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
    /// `--explain-scaling`, and the file named with it: `-`, which it is without one, for standard error.
    pub(crate) fn new(asked: Option<&str>, screen: &Screen) -> Result<Option<Self>, Failure> {
        let to = match asked {
            None => return Ok(None),
            Some("-") => To::Screen(Teller::default()),
            Some("") => {
                let text = "error: --explain-scaling: the file is empty: write --explain-scaling=FILE, or no `=` for standard error";
                return Err(Failure { code: 2, text: text.to_owned() });
            }
            Some(path) => {
                let hint = "name a file in a directory that exists, or none for standard error";
                let file = File::create(path).map_err(|error| Failure {
                    code: 2,
                    text: format!("error: --explain-scaling: {path} cannot be written: {error}\n  hint: {hint}"),
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
    let most = config.maximum.map_or("any number of workers".to_owned(), |most| of(u64::from(most), "worker"));
    let startup = begin.state.startup().map_or(config.startup.map_or(begin.backend.startup, |hint| hint.0), |(startup, _)| startup);
    let budget = config.budget.map_or(String::new(), |budget| format!(", a budget of {:.0} worker-seconds", budget.0.as_secs_f64()));
    format!("           scaling: from {} to {most}, a start is taken for {startup:?}{budget}", config.minimum.unwrap_or(0))
}

/// `remuda explain-scaling FILE`: what a log says, and whether it is decided the same today.
pub(crate) fn explain(path: &Path, every: bool) -> Result<ExitCode, Failure> {
    let wrong = |code, error: &dyn fmt::Display| Failure { code, text: format!("error: {}{error}", path.display()) };
    let mut file = BufReader::new(File::open(path).map_err(|error| wrong(2, &format!(": {error}")))?);
    let (mut again, mut read) = (Again { every, ..Again::default() }, vec![]);
    for number in 1.. {
        read.clear();
        if file.read_until(b'\n', &mut read).map_err(|error| wrong(2, &format!(": {error}")))? == 0 {
            break;
        }
        let whole = read.ends_with(b"\n");
        match parse(&read).and_then(|entry| again.add(&entry).map_err(|error| error.report().to_string())) {
            Ok(()) => {}
            // Whoever wrote it was stopped, or the disk was full: what came before is none the worse for that.
            Err(_) if !whole && number > 1 => {
                output::write(again.told().as_bytes())?;
                let cut =
                    format!(" ends in the middle of line {number}: told is what is whole\n  hint: give the whole log, if there is one");
                return Err(wrong(if again.otherwise == 0 { 2 } else { 1 }, &cut));
            }
            Err(text) => return Err(wrong(2, &format!(":{number}: {text}"))),
        }
    }
    if again.lines == 0 {
        return Err(wrong(2, &format!(" is empty, which is no log of decisions\n  hint: {WRITES}")));
    }
    output::write(again.told().as_bytes())?;
    Ok(if again.otherwise == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const WRITES: &str = "`remuda run --explain-scaling=FILE` writes such logs";

fn parse(line: &[u8]) -> Result<Entry, String> {
    let text = str::from_utf8(line)
        .map_err(|_| format!("not a line of a decision log: it is not text\n  hint: {WRITES}, which are lines of JSON"))?;
    Entry::parse(text).map_err(|error| error.report().to_string())
}

/// What is told of a log.
#[derive(Default)]
struct Again {
    /// Also decisions that change nothing.
    every: bool,
    replay: Replay,
    teller: Teller,
    text: String,
    lines: usize,
    decisions: usize,
    otherwise: usize,
    versions: BTreeSet<String>,
}

impl Again {
    fn add(&mut self, entry: &Entry) -> remuda::Result<()> {
        let again = self.replay.next(entry)?;
        self.lines += 1;
        let told = self.teller.tell(entry);
        if let Entry::Begin(begin) = entry {
            self.versions.insert(begin.version.clone());
        }
        if let Some((now, decision)) = entry.decision() {
            self.decisions += 1;
            if let Some(again) = again.filter(|again| again != decision) {
                self.otherwise += 1;
                if self.otherwise <= SHOWN {
                    self.text += &format!("{}\n           now: {again}\n", line(now, decision));
                }
                return Ok(());
            }
            if self.every && told.is_none() {
                self.text += &(line(now, decision) + "\n");
            }
        }
        self.text += &told.map_or(String::new(), |told| told + "\n");
        Ok(())
    }

    /// All of it, with the verdict behind.
    fn told(&self) -> String {
        let Self { decisions, otherwise, versions, .. } = self;
        let noun = if *decisions == 1 { "decision" } else { "decisions" };
        let verdict = match (otherwise, versions.iter().any(|version| version != env!("CARGO_PKG_VERSION"))) {
            (0, _) => "made again the same\n".to_owned(),
            (_, false) => format!("{otherwise} of them come out otherwise: a line is missing, or was changed\n"),
            (_, true) => {
                let logged: Vec<_> = versions.iter().map(String::as_str).collect();
                let this = env!("CARGO_PKG_VERSION");
                format!("{otherwise} of them come out otherwise in this version ({this}): logged by {}\n", logged.join(", "))
            }
        };
        format!("{}{decisions} {noun}, {verdict}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use remuda::adaptive::{AdaptConfig, Backend, Decided, Fleet, Load, State};

    use super::*;

    fn decided(at: u64, launch: u32, reason: Reason) -> Entry {
        let decision = Decision { desired: 4, launch, victims: vec![], cancelled: vec![], lost: 0, reason };
        Entry::Decided(Decided { number: 0, now: Duration::from_millis(at), load: Load::default(), fleet: Fleet::default(), decision })
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
                "    1.1 s  scaling: 4 workers: 7 tasks, done in 2.0 s: more workers do not pay",
                "    3.1 s  scaling: 4 workers (start +1): 3 tasks, done in 2.0 s: more workers do not pay",
                "    4.1 s  scaling: 4 workers: no work and no workers",
            ]
        );
    }
}
