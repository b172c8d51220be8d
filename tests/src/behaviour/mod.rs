//! What every cluster class does, as one suite.
//!
//! ```no_run
//! use remuda_tests::{behaviour::{self, Ability, Subject}, fake::{FakeCluster, Shape}};
//!
//! # async fn test() {
//! let subject = Subject::new("fake", |want| {
//!     FakeCluster::new(Shape { slots: want.threads_per_worker, ..Shape::default() }).into()
//! })
//! .with([Ability::SharedMemory, Ability::Scale]);
//! behaviour::run(&subject).await.check();
//! # }
//! ```

mod adaptive;
mod faults;
mod kinds;
mod lifecycle;
mod scheduling;
mod tasks;

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    time::Duration,
};

use remuda_core::{
    class::Recipe,
    cluster::{Cluster, ClusterOptions},
    error::Result,
};
use tokio::time::timeout;

use crate::gate::{OWN, PATIENCE};

/// What one case may take. It only bounds a case that fails anyway.
const LIMIT: Duration = Duration::from_secs(120);

/// What a class can be asked to do. A case that needs something else is skipped, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ability {
    /// Tasks run in the driver's memory: closures, and results that are passed by reference.
    SharedMemory,
    /// Tasks run in processes, found by name.
    Processes,
    /// A task can end its worker, and nothing else, by exiting or dying.
    Crashes,
    /// Workers are added and removed while tasks run.
    Scale,
    /// The scheduler tells its load, so that the number of workers can follow the work.
    Adaptive,
    /// Workers carry abstract resources.
    Resources,
    /// Slots of one worker can be counted: `threads_per_worker`, and `slots: 0` of a task.
    Slots,
    /// A task takes several slots of one worker.
    WideTasks,
    /// What none of the workers that are there can run is refused at once. Otherwise it waits first, with the reason shown.
    Refusals,
    /// Python tasks.
    Python,
    /// Python tasks with pandas and pyarrow.
    Tables,
    /// Commands.
    Commands,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedMemory => "shared-memory",
            Self::Processes => "processes",
            Self::Crashes => "crashes",
            Self::Scale => "scale",
            Self::Adaptive => "adaptive",
            Self::Resources => "resources",
            Self::Slots => "slots",
            Self::WideTasks => "wide-tasks",
            Self::Refusals => "refusals",
            Self::Python => "python3",
            Self::Tables => "tables",
            Self::Commands => "commands",
        })
    }
}

/// The cluster that a case asks for.
#[derive(Debug, Clone, Default)]
pub struct Want {
    /// How many workers from the start.
    pub workers: u32,
    /// How many tasks each runs at once.
    pub threads_per_worker: u32,
    /// What each worker offers.
    pub resources: BTreeMap<String, f64>,
}

type Make = dyn Fn(&Want) -> Recipe + Send + Sync;
type Census = dyn Fn() -> BTreeSet<String> + Send + Sync;

/// A cluster class under test.
pub struct Subject {
    name: String,
    make: Box<Make>,
    can: BTreeSet<Ability>,
    missing: BTreeMap<Ability, String>,
    census: Box<Census>,
    options: Box<dyn Fn() -> ClusterOptions + Send + Sync>,
    patience: Duration,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("name", &self.name).field("can", &self.can).finish_non_exhaustive()
    }
}

impl Subject {
    /// A class by a name for the report, and how to make a cluster of it.
    pub fn new(name: impl Into<String>, make: impl Fn(&Want) -> Recipe + Send + Sync + 'static) -> Self {
        Self {
            name: name.into(),
            make: Box::new(make),
            can: BTreeSet::new(),
            missing: BTreeMap::new(),
            census: Box::new(BTreeSet::new),
            options: Box::new(ClusterOptions::default),
            patience: PATIENCE,
        }
    }

    /// What it can do.
    #[must_use]
    pub fn with(mut self, abilities: impl IntoIterator<Item = Ability>) -> Self {
        self.can.extend(abilities);
        self
    }

    /// What it could do, but not on this machine, and why. Cases that need it are skipped, unless `REMUDA_REQUIRE` names it.
    #[must_use]
    pub fn without(mut self, ability: Ability, why: impl Into<String>) -> Self {
        self.can.remove(&ability);
        self.missing.insert(ability, why.into());
        self
    }

    /// How to see what exists outside of the cluster's own books: processes, sockets, containers. What is there after a case and was
    /// not before was left behind.
    #[must_use]
    pub fn with_census(mut self, census: impl Fn() -> BTreeSet<String> + Send + Sync + 'static) -> Self {
        self.census = Box::new(census);
        self
    }

    /// Limits and whatever else the keeper is told; the number of workers is the case's.
    #[must_use]
    pub fn with_options(mut self, options: impl Fn() -> ClusterOptions + Send + Sync + 'static) -> Self {
        self.options = Box::new(options);
        self
    }

    /// How long a case waits for something that should happen at once. Default: [`PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn can(&self, ability: Ability) -> bool {
        self.can.contains(&ability)
    }

    fn recipe(&self, want: &Want) -> (Recipe, ClusterOptions) {
        ((self.make)(want), ClusterOptions { workers: Some(want.workers), ..(self.options)() })
    }

    /// A cluster of `workers` workers with one slot each, all of them here.
    async fn cluster(&self, workers: u32) -> Result<Cluster> {
        self.start(Want { workers, threads_per_worker: 1, ..Want::default() }).await
    }

    async fn start(&self, want: Want) -> Result<Cluster> {
        let (recipe, options) = self.recipe(&want);
        let cluster = Cluster::start(recipe, options).await?;
        cluster.wait_for_workers(want.workers as usize, Duration::from_secs(60)).await?;
        Ok(cluster)
    }

    fn census(&self) -> BTreeSet<String> {
        (self.census)()
    }
}

/// What a case returns: infrastructure errors pass with `?`, everything else is an assertion.
type Verdict = anyhow::Result<()>;
type Running<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// One promise of the suite.
struct Case {
    name: &'static str,
    needs: &'static [Ability],
    run: for<'a> fn(&'a Subject) -> Running<'a>,
}

/// Names a case after its function, so that the two cannot differ.
macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident [$($needs:ident),*])*) => {
        pub(super) const CASES: &[super::Case] = &[$(super::Case {
            name: stringify!($name),
            needs: &[$(super::Ability::$needs),*],
            run: |subject| Box::pin($name(subject)),
        }),*];
    };
}
pub(crate) use cases;

fn all() -> impl Iterator<Item = &'static Case> {
    [lifecycle::CASES, adaptive::CASES, tasks::CASES, scheduling::CASES, faults::CASES, kinds::CASES].into_iter().flatten()
}

/// Names of all cases, in the order in which they run.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|case| case.name)
}

/// What came of each case.
#[derive(Debug, Default)]
pub struct Report {
    /// The class.
    pub subject: String,
    /// Cases that hold.
    pub passed: Vec<&'static str>,
    /// Cases that were not run, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// Cases that do not hold, and what was seen.
    pub failed: Vec<(&'static str, String)>,
}

impl Report {
    /// Ends the test unless every case that was run holds, and at least one was.
    ///
    /// # Panics
    /// With every failure, by name.
    pub fn check(&self) {
        assert!(self.failed.is_empty(), "{self}");
        assert!(!self.passed.is_empty(), "{}: no case was run", self.subject);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, skipped, failed) = (self.passed.len(), self.skipped.len(), self.failed.len());
        writeln!(f, "{}: {passed} held, {skipped} skipped, {failed} failed", self.subject)?;
        self.skipped.iter().try_for_each(|(name, why)| writeln!(f, "  skipped {name}: {why}"))?;
        self.failed.iter().try_for_each(|(name, what)| writeln!(f, "  FAILED {name}: {}", what.replace('\n', "\n    ")))
    }
}

/// Runs every case that the subject can be asked, one after the other.
///
/// The cases named in the environment variable `REMUDA_CASES` (by commas) only, if it is set.
pub async fn run(subject: &Subject) -> Report {
    match std::env::var("REMUDA_CASES") {
        Ok(chosen) => run_only(subject, &chosen.split(',').collect::<Vec<_>>()).await,
        Err(_) => run_only(subject, &names().collect::<Vec<_>>()).await,
    }
}

/// Runs these cases only.
pub async fn run_only(subject: &Subject, chosen: &[&str]) -> Report {
    let required = std::env::var("REMUDA_REQUIRE").unwrap_or_default();
    let is_required = |ability: Ability| required.split(',').any(|word| word.trim() == ability.to_string());
    let mut report = Report { subject: subject.name.clone(), ..Report::default() };
    for case in all().filter(|case| chosen.contains(&case.name)) {
        let lacking = case.needs.iter().find(|ability| !subject.can(**ability));
        match lacking.map(|ability| (ability, subject.missing.get(ability))) {
            None => match attempt(subject, case).await {
                Ok(()) => report.passed.push(case.name),
                Err(what) => report.failed.push((case.name, what)),
            },
            Some((ability, Some(why))) if is_required(*ability) => {
                report.failed.push((case.name, format!("REMUDA_REQUIRE names {ability}, and it is missing: {why}")));
            }
            Some((_, Some(why))) => report.skipped.push((case.name, why.clone())),
            Some((ability, None)) => report.skipped.push((case.name, format!("{} has no {ability}", subject.name))),
        }
    }
    report
}

async fn attempt(subject: &Subject, case: &Case) -> Result<(), String> {
    let before = subject.census();
    let caught = OWN.scope(subject.patience, Caught((case.run)(subject)));
    match timeout(LIMIT, caught).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => return Err(format!("{error:?}")),
        Ok(Err(panic)) => return Err(panic),
        Err(_) => return Err(format!("it is not through after {LIMIT:?}")),
    }
    let left: Vec<_> = subject.census().difference(&before).cloned().collect();
    if left.is_empty() { Ok(()) } else { Err(format!("it left behind: {}", left.join(", "))) }
}

/// Turns a panic of the future into a value: one broken promise must not hide the others.
struct Caught<'a>(Running<'a>);

impl Future for Caught<'_> {
    type Output = Result<Verdict, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(text_of(&*panic))),
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked without a message").to_owned()
}
