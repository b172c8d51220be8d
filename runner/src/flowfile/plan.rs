//! A flow file that was read: typed, checked, in an order in which it can be submitted.

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    path::PathBuf,
};

use serde_json::{Map, Value};

use super::schema::Annotations;
use crate::config::Layer;

/// What a flow file says, with its templates filled in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FlowPlan {
    /// What messages call the file.
    pub name: String,
    /// Where it lies, absolute: first on the path of Python, and what a relative `cwd` is relative to. `None`: it is no file.
    pub dir: Option<PathBuf>,
    /// Its `runner` part, as a layer of the configuration.
    pub runner: Layer,
    /// The params as they came to be.
    pub params: Map<String, Value>,
    /// Each after those it needs.
    pub tasks: Vec<TaskPlan>,
    /// What the flow comes to. `None`: nothing is asked for.
    pub result: Option<Expr>,
}

/// One entry under `tasks`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskPlan {
    /// Its key in the file.
    pub id: String,
    /// The name to show.
    pub label: String,
    /// `file:line:column`.
    pub place: String,
    /// What is called.
    pub work: Work,
    /// Once for each element of these, side by side. Empty: once.
    pub map: Vec<(String, Source)>,
    /// How many calls, where that is known: 1 where it is not mapped.
    pub calls: Option<usize>,
    /// Indices in [`FlowPlan::tasks`] of the tasks that must have ended first.
    pub after: Vec<usize>,
    /// How it is run.
    pub annotations: Annotations,
}

impl TaskPlan {
    /// Whether its result is a list, one for each element.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        !self.map.is_empty()
    }
}

/// What a task calls.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A Python function.
    Python {
        /// `pkg.mod:func`.
        target: String,
        /// Positional arguments.
        args: Vec<Expr>,
        /// Keyword arguments; in a mapped task also the elements that stand nowhere else.
        kwargs: Vec<(String, Expr)>,
    },
    /// A program.
    Command {
        /// Program and arguments.
        argv: Vec<Expr>,
        /// Variables added to the environment.
        env: Vec<(String, Expr)>,
        /// Working directory, as written.
        cwd: Option<Expr>,
        /// Standard input.
        stdin: Option<Expr>,
        /// The result is bytes, not text.
        binary: bool,
    },
}

/// A value with results of tasks in it, at any depth.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// As it is.
    Value(Value),
    /// The result of the task at that index; a list if it is mapped.
    Task(usize),
    /// In a mapped task: the element of the map's entry at that index.
    Element(usize),
    /// In a mapped task: a template filled in for each call.
    Each(Vec<Value>),
    /// A list with one of the above in it.
    List(Vec<Expr>),
    /// A mapping with one of the above in it.
    Map(Vec<(String, Expr)>),
}

/// What a map runs over.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A list.
    Items(Vec<Expr>),
    /// Whole numbers, as Python's `range`.
    Range {
        /// The first.
        start: i64,
        /// The first that is not in it.
        stop: i64,
        /// From one to the next; not 0.
        step: i64,
    },
    /// A task: element by element if that is mapped, else over the list that it returns.
    Task(usize),
}

/// The most calls of one map. Each takes some hundred bytes in the driver: a slip of the pen should not take all of its memory.
pub(super) const MOST_CALLS: usize = 10_000_000;

/// How many numbers a range has.
pub(super) fn range_len(start: i64, stop: i64, step: i64) -> usize {
    let (span, step) = if step > 0 { (i128::from(stop) - i128::from(start), step) } else { (i128::from(start) - i128::from(stop), step) };
    let step = i128::from(step).abs().max(1);
    usize::try_from((span.max(0) + step - 1) / step).unwrap_or(usize::MAX)
}

impl Source {
    /// The static elements, if they are all known now.
    pub(super) fn value(&self, index: usize) -> Option<Value> {
        match self {
            Self::Items(items) => match items.get(index) {
                Some(Expr::Value(value)) => Some(value.clone()),
                _ => None,
            },
            Self::Range { start, step, .. } => {
                let offset = i64::try_from(index).ok()?.checked_mul(*step)?;
                Some(start.checked_add(offset)?.into())
            }
            Self::Task(_) => None,
        }
    }
}

impl Expr {
    /// Calls `visit` with the index of every task in it.
    pub(super) fn tasks(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Self::Value(_) | Self::Element(_) | Self::Each(_) => {}
            Self::Task(index) => visit(*index),
            Self::List(items) => items.iter().for_each(|item| item.tasks(visit)),
            Self::Map(items) => items.iter().for_each(|(_, item)| item.tasks(visit)),
        }
    }

    /// The index of every task in it, each once.
    pub(super) fn all_tasks(&self) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        self.tasks(&mut |index| {
            all.insert(index);
        });
        all
    }

    fn show(&self, plan: &FlowPlan, task: Option<&TaskPlan>) -> String {
        let list = |items: &[Self]| items.iter().map(|i| i.show(plan, task)).collect::<Vec<_>>().join(", ");
        match self {
            Self::Value(value) => value.to_string(),
            Self::Task(index) => format!("${}", plan.tasks[*index].id),
            Self::Element(index) => format!("${}", task.and_then(|t| t.map.get(*index)).map_or("?", |(name, _)| name)),
            Self::Each(values) => format!("each of {}", Value::Array(values.clone())),
            Self::List(items) => format!("[{}]", list(items)),
            Self::Map(items) => {
                let members: Vec<_> = items.iter().map(|(k, v)| format!("{k}: {}", v.show(plan, task))).collect();
                format!("{{{}}}", members.join(", "))
            }
        }
    }
}

/// For people: one paragraph for each task, in the order of submission.
impl fmt::Display for FlowPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for task in &self.tasks {
            let mut line = format!("{}: ", task.id);
            let show = |tree: &Expr| tree.show(self, Some(task));
            let named = |items: &[(String, Expr)]| items.iter().map(|(k, v)| format!("{k}={}", show(v))).collect::<Vec<_>>();
            // Writing to a String cannot fail.
            let _ = match &task.work {
                Work::Python { target, args, kwargs } => {
                    let args: Vec<_> = args.iter().map(show).chain(named(kwargs)).collect();
                    write!(line, "{target}({})", args.join(", "))
                }
                Work::Command { argv, env, cwd, stdin, binary } => {
                    let mut parts: Vec<_> = argv.iter().map(show).collect();
                    parts.extend(named(env).into_iter().map(|text| format!("env {text}")));
                    parts.extend(cwd.iter().map(|cwd| format!("in {}", show(cwd))));
                    parts.extend(stdin.iter().map(|stdin| format!("< {}", show(stdin))));
                    parts.extend(binary.then(|| "-> bytes".to_owned()));
                    write!(line, "$ {}", parts.join(" "))
                }
            };
            for (name, source) in &task.map {
                let _ = match source {
                    Source::Items(items) => write!(line, "\n  for {name} in {}", Expr::List(items.clone()).show(self, Some(task))),
                    Source::Range { start, stop, step } => write!(line, "\n  for {name} in range({start}, {stop}, {step})"),
                    Source::Task(index) => write!(line, "\n  for {name} in ${}", self.tasks[*index].id),
                };
            }
            if task.is_mapped() {
                let _ = write!(line, "\n  {} calls", task.calls.map_or_else(|| "unknown number of".into(), |n| n.to_string()));
            }
            if !task.after.is_empty() {
                let ids: Vec<_> = task.after.iter().map(|i| self.tasks[*i].id.as_str()).collect();
                let _ = write!(line, "\n  after {}", ids.join(", "));
            }
            if task.annotations != Annotations::default() {
                let _ = write!(line, "\n  {}", serde_json::to_string(&task.annotations).unwrap_or_default());
            }
            writeln!(f, "{line}")?;
        }
        self.result.iter().try_for_each(|result| writeln!(f, "result: {}", result.show(self, None)))
    }
}
