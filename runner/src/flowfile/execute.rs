//! Runs a plan on a flow: submits what can be submitted, as early as it can be, and waits for all of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
};

use anyhow::anyhow;
use remuda_core::{engine::Form, task::TaskState, value::Codec};
use serde_json::Value;

use super::{
    ending::{Ending, FailedCall},
    failed::{Failed, together},
    graph::same_length,
    plain::Plain,
    plan::{Expr, FlowPlan, Source, TaskPlan, Work, range_len},
    result::FlowResult,
};
use crate::{Annotate, Call, Flow, TaskFailed, TaskFuture, Tree, command, gather, python};

type Future = TaskFuture<Plain>;

impl FlowPlan {
    /// Submits every task and answers with the flow's result. A mapped task is one message to the engine. A map over a result whose length
    /// nobody knows before it is there is submitted then, with what needs it; nothing else waits for that.
    /// A result is released when its task has ended and neither the flow's result nor a task that is still to be submitted refers to it.
    ///
    /// A failure ends what depends on it; the rest still runs to its end. Then one failure is returned: of the tasks in [`FlowPlan::tasks`]
    /// (each after those it needs, otherwise in the order of the file) the first that failed by itself, and of a mapped task its first
    /// call, whenever in time they failed. The others are told by [`FlowFailed`](super::FlowFailed), which goes with the error.
    ///
    /// # Errors
    /// [`TaskFailed`], naming where the task stands; a map over something that is no list, or over lists that differ in length.
    pub async fn run(&self, flow: &Flow) -> anyhow::Result<FlowResult> {
        self.run_for(flow, &[Form::Plain]).await
    }

    /// The same, with the forms in which the result is welcome, best first: where it is one task's, and that a Python object that has no
    /// plain form. In a list or a mapping, and of a mapped task, results must be plain.
    ///
    /// # Errors
    /// As [`run`](Self::run); and when the result has none of these forms.
    pub async fn run_for(&self, flow: &Flow, forms: &[Form]) -> anyhow::Result<FlowResult> {
        let tasks = self.tasks.iter().map(|_| Submitted::Not).collect();
        let mut run = Execution { plan: self, flow, tasks, lists: HashMap::new(), ending: Ending::default(), failures: Vec::new() };
        loop {
            let waiting = run.submit();
            run.let_go();
            let mut lists = flow.as_completed(waiting.values().cloned());
            // Whichever ends first: what waits for it can go on. Meanwhile, what ends and is not needed is released.
            let ended = loop {
                tokio::select! {
                    biased;
                    ended = lists.next() => break ended,
                    Some(failure) = run.ending.failure() => run.failed(failure),
                }
            };
            let Some(ended) = ended else { break };
            if let Some((task, _)) = waiting.iter().find(|(_, future)| future.key() == ended.key()) {
                run.lists.insert(*task, List::of(ended).await);
            }
        }
        run.finish(forms).await
    }
}

/// What became of a task so far.
enum Submitted {
    Not,
    /// One call, whose result is the task's.
    One(Future),
    /// A call for each element.
    Each(Vec<Future>),
    /// It was, and nothing that is still to come refers to it.
    Gone,
    /// It cannot be: what it maps over is not there, or not a list.
    Never,
}

/// The result of a task that another one maps over.
enum List {
    Elements(Vec<Plain>),
    /// It is something else.
    Other(String),
    /// The task has ended well, but its result cannot come here.
    Stuck(TaskFailed),
    /// The task failed, which is told where all failures are.
    Failed,
}

impl List {
    async fn of(future: Future) -> Self {
        let done = matches!(future.state(), TaskState::Done(_));
        match future.await {
            Ok(Plain::List(elements)) => Self::Elements(elements),
            Ok(other) => Self::Other(format!("a {}", other.type_name())),
            Err(failed) if done => Self::Stuck(failed),
            Err(_) => Self::Failed,
        }
    }
}

struct Execution<'a> {
    plan: &'a FlowPlan,
    flow: &'a Flow,
    tasks: Vec<Submitted>,
    lists: HashMap<usize, List>,
    ending: Ending,
    failures: Vec<Failed>,
}

/// What one name of a map runs over, with its length known.
enum Column<'a> {
    Items(&'a [Expr]),
    Range(i64, i64, usize),
    Futures(&'a [Future]),
    Values(&'a [Plain]),
}

impl Column<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Items(items) => items.len(),
            Self::Range(.., len) => *len,
            Self::Futures(futures) => futures.len(),
            Self::Values(values) => values.len(),
        }
    }
}

enum Columns<'a> {
    Ready(Vec<Column<'a>>),
    /// Until this task is final.
    Wait(usize, Future),
    Failed(anyhow::Error),
    /// A task it needs will never be submitted, or failed; that is told there.
    Never,
}

impl Execution<'_> {
    /// Submits what can be. Answers with the tasks whose lists the rest waits for.
    fn submit(&mut self) -> BTreeMap<usize, Future> {
        let plan = self.plan;
        let mut waiting = BTreeMap::new();
        for (at, task) in plan.tasks.iter().enumerate() {
            if !matches!(self.tasks[at], Submitted::Not) {
                continue;
            }
            let needs = task.needs();
            if needs.iter().any(|need| matches!(self.tasks[*need], Submitted::Never)) {
                self.tasks[at] = Submitted::Never;
            } else if needs.iter().all(|need| !matches!(self.tasks[*need], Submitted::Not)) {
                let submitted = match self.columns(task) {
                    Columns::Ready(columns) => Ok(self.send(task, &columns)),
                    Columns::Wait(task, future) => {
                        waiting.insert(task, future);
                        Ok(Submitted::Not)
                    }
                    Columns::Failed(error) => Err(error),
                    Columns::Never => Ok(Submitted::Never),
                };
                self.tasks[at] = submitted.unwrap_or_else(|error| {
                    self.failures.push(Failed { task: at, call: 0, place: format!("{}: {}", task.place, task.id), error });
                    Submitted::Never
                });
            }
        }
        waiting
    }

    fn columns<'s>(&'s self, task: &'s TaskPlan) -> Columns<'s> {
        let mut columns = Vec::new();
        for (name, source) in &task.map {
            columns.push(match source {
                Source::Items(items) => Column::Items(items),
                Source::Range { start, stop, step } => Column::Range(*start, *step, range_len(*start, *stop, *step)),
                Source::Task(index) => match (&self.tasks[*index], self.lists.get(index)) {
                    (Submitted::Each(futures), _) => Column::Futures(futures),
                    (Submitted::One(future), None) => return Columns::Wait(*index, future.clone()),
                    (Submitted::One(_), Some(List::Elements(values))) => Column::Values(values),
                    (Submitted::One(_), Some(List::Other(found))) => {
                        let over = &self.plan.tasks[*index].id;
                        return Columns::Failed(anyhow!("maps `{name}` over ${over}, whose result is {found}, not a list"));
                    }
                    (Submitted::One(_), Some(List::Stuck(failed))) => {
                        let failed = anyhow::Error::new(failed.clone());
                        return Columns::Failed(failed.context(format!("nothing to map `{name}` over")));
                    }
                    _ => return Columns::Never,
                },
            });
        }
        let lengths: Vec<_> = task.map.iter().zip(&columns).map(|((name, _), column)| (name.clone(), column.len())).collect();
        match same_length(&lengths) {
            Ok(()) => Columns::Ready(columns),
            Err(text) => Columns::Failed(anyhow!(text)),
        }
    }

    fn send(&self, task: &TaskPlan, columns: &[Column<'_>]) -> Submitted {
        let flow = self.flow.annotate(annotate(task));
        match columns.first() {
            None => Submitted::One(flow.submit(self.call(task, columns, 0))),
            Some(first) => Submitted::Each(flow.submit_all((0..first.len()).map(|call| self.call(task, columns, call)))),
        }
    }

    fn call(&self, task: &TaskPlan, columns: &[Column<'_>], call: usize) -> Call<Plain> {
        let tree = |expr: &Expr| self.tree(expr, columns, call);
        let made = match &task.work {
            Work::Python { target, args, kwargs } => {
                let mut made = python(target.as_str());
                if let Some(dir) = &self.plan.dir {
                    made = made.path(dir);
                }
                made = args.iter().fold(made, |made, arg| made.arg(tree(arg)));
                kwargs.iter().fold(made, |made, (name, arg)| made.kwarg(name, tree(arg))).call()
            }
            Work::Command { argv, env, cwd, stdin, binary } => {
                let mut made = command(argv.iter().map(tree));
                made = env.iter().fold(made, |made, (name, value)| made.env(name, tree(value)));
                if let Some(cwd) = cwd.as_ref().and_then(|cwd| self.directory(cwd, call)) {
                    made = made.cwd(cwd);
                }
                if let Some(stdin) = stdin {
                    made = made.stdin(tree(stdin));
                }
                if *binary { plain(made.binary().call()) } else { plain(made.call()) }
            }
        };
        task.after.iter().flat_map(|after| self.futures(*after)).fold(made, |made, future| made.wait_for(future))
    }

    fn futures(&self, task: usize) -> &[Future] {
        match &self.tasks[task] {
            Submitted::One(future) => std::slice::from_ref(future),
            Submitted::Each(futures) => futures,
            Submitted::Not | Submitted::Gone | Submitted::Never => &[],
        }
    }

    fn directory(&self, cwd: &Expr, call: usize) -> Option<PathBuf> {
        let text = match cwd {
            Expr::Value(value) => value.as_str(),
            Expr::Each(values) => values.get(call).and_then(Value::as_str),
            _ => None, // the parser refuses it
        }?;
        Some(self.plan.dir.as_ref().map_or_else(|| text.into(), |dir| dir.join(text)))
    }

    fn tree(&self, expr: &Expr, columns: &[Column<'_>], call: usize) -> Tree {
        match expr {
            Expr::Value(value) => value.into(),
            Expr::Task(index) => match &self.tasks[*index] {
                Submitted::One(future) => future.into(),
                _ => Tree::list(self.futures(*index)),
            },
            Expr::Each(values) => values.get(call).into(),
            Expr::Element(at) => match &columns[*at] {
                Column::Items(items) => self.tree(&items[call], columns, call),
                // Bounded by the length, which was computed from the same three numbers.
                Column::Range(start, step, _) => start.wrapping_add(step.wrapping_mul(call as i64)).into(),
                Column::Futures(futures) => (&futures[call]).into(),
                Column::Values(values) => (&values[call]).into(),
            },
            Expr::List(items) => Tree::list(items.iter().map(|item| self.tree(item, columns, call))),
            Expr::Map(items) => Tree::map(items.iter().map(|(key, item)| (key, self.tree(item, columns, call)))),
        }
    }

    /// Of tasks to which neither the result nor a task that is still to be submitted refers, only the end matters.
    fn let_go(&mut self) {
        let mut needed = HashSet::new();
        self.plan.result.iter().for_each(|result| needed.extend(result.all_tasks()));
        for (task, submitted) in self.plan.tasks.iter().zip(&self.tasks) {
            if matches!(submitted, Submitted::Not) {
                needed.extend(task.needs());
            }
        }
        let mut calls = Vec::new();
        for (at, task) in self.tasks.iter_mut().enumerate().filter(|(at, _)| !needed.contains(at)) {
            self.lists.remove(&at);
            match std::mem::replace(task, Submitted::Gone) {
                Submitted::One(future) => calls.push(((at, 0), future)),
                Submitted::Each(futures) => calls.extend(futures.into_iter().enumerate().map(|(call, future)| ((at, call), future))),
                same => *task = same,
            }
        }
        self.ending.add(self.flow, calls);
    }

    /// Waits for every task, also for those that nobody reads; then for the result.
    async fn finish(mut self, forms: &[Form]) -> anyhow::Result<FlowResult> {
        let result = self.plan.result.clone().unwrap_or(Expr::Value(Value::Null));
        let read = result.all_tasks();
        let calls = read.iter().flat_map(|at| self.futures(*at).iter().cloned().enumerate().map(|(call, future)| ((*at, call), future)));
        let calls: Vec<_> = calls.collect();
        self.ending.add(self.flow, calls);
        while let Some(failure) = self.ending.failure().await {
            self.failed(failure);
        }
        if let Some(error) = together(std::mem::take(&mut self.failures)) {
            return Err(error);
        }
        self.read(&result, &read, forms).await.map_err(Failed::alone)
    }

    /// The result as it is written, with values for the tasks. One that cannot come here is a failure, too.
    async fn read(&self, result: &Expr, tasks: &BTreeSet<usize>, forms: &[Form]) -> Result<FlowResult, Failed> {
        if let (Expr::Task(at), Some(Submitted::One(future)), true) = (result, self.result_of(result), forms != [Form::Plain]) {
            let shown = future.show(forms).await.map_err(|failed| Failed::of(self.plan, *at, 0, failed))?;
            return FlowResult::shown(shown).map_err(|error| Failed::of(self.plan, *at, 0, future.failed(error.into())));
        }
        let calls = tasks.iter().flat_map(|at| self.futures(*at).iter().cloned().enumerate().map(|(call, future)| ((*at, call), future)));
        let (places, futures): (Vec<_>, Vec<_>) = calls.unzip();
        let place = |failed: TaskFailed| {
            let at = futures.iter().position(|future: &Future| future.key() == failed.key).unwrap_or_default();
            let (task, call) = places[at];
            Failed::of(self.plan, task, call, failed)
        };
        let mut values: HashMap<usize, Vec<Plain>> = HashMap::new();
        for ((value, future), (task, _)) in gather::values(&futures).await.map_err(place)?.into_iter().zip(&futures).zip(&places) {
            values.entry(*task).or_default().push(future.clone().take(value).map_err(place)?);
        }
        Ok(FlowResult::plain(self.fill(result, &values)))
    }

    fn result_of(&self, result: &Expr) -> Option<&Submitted> {
        match result {
            Expr::Task(at) => self.tasks.get(*at),
            _ => None,
        }
    }

    fn fill(&self, expr: &Expr, values: &HashMap<usize, Vec<Plain>>) -> Plain {
        match expr {
            Expr::Value(value) => value.clone().into(),
            Expr::Task(at) => {
                let values = values.get(at).cloned().unwrap_or_default();
                match &self.tasks[*at] {
                    Submitted::Each(_) => Plain::List(values),
                    // Never submitted: that was a failure.
                    _ => values.into_iter().next().unwrap_or_else(|| Value::Null.into()),
                }
            }
            Expr::List(items) => Plain::List(items.iter().map(|item| self.fill(item, values)).collect()),
            Expr::Map(items) => Plain::Map(items.iter().map(|(key, item)| (key.clone(), self.fill(item, values))).collect()),
            Expr::Element(_) | Expr::Each(_) => Value::Null.into(), // only in mapped tasks
        }
    }

    fn failed(&mut self, FailedCall { task, call, failed }: FailedCall) {
        self.failures.push(Failed::of(self.plan, task, call, failed));
    }
}

/// A command writes text or bytes, which are plain.
fn plain<T>(call: Call<T>) -> Call<Plain> {
    let Call { function, inputs, after, annotate, declared, form, .. } = call;
    Call { function, inputs, after, annotate, declared, form, codec: Codec::serde() }
}

fn annotate(task: &TaskPlan) -> Annotate {
    let from = &task.annotations;
    let mut to = Annotate::new().named(&task.label);
    if let Some(priority) = from.priority {
        to = to.priority(priority);
    }
    if let Some(retries) = from.retries {
        to = to.retries(retries);
    }
    if let Some(failures) = from.allowed_failures {
        to = to.allowed_failures(failures);
    }
    if let Some(slots) = from.slots {
        to = to.slots(slots);
    }
    if let Some(allow) = from.allow_other_workers {
        to = to.allow_other_workers(allow);
    }
    if let Some(timeout) = from.timeout {
        to = to.timeout(timeout.0);
    }
    let resources = from.resources.iter().flatten();
    to = resources.fold(to, |to, (name, amount)| to.resource(name, *amount));
    from.workers.iter().flatten().fold(to, |to, worker| to.worker(worker))
}

#[cfg(test)]
mod tests;
