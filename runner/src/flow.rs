//! What the body of a run works with.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use remuda_core::{
    engine::TaskEvents,
    error::{Error, ErrorKind},
    task::{Annotations, TaskError, TaskEvent, TaskSpec, TaskState},
};

use crate::{
    annotate::Annotate,
    call::{Call, closure, failure, inputs_of, last_segment, work},
    future::{TaskFailed, TaskFuture},
    gather,
    map::MapInputs,
    report::Counts,
    run::{Cell, Held, Run, lock},
    wait::AsCompleted,
};

/// A run in progress: submits tasks and waits for them. Cheap to clone; the body of [`crate::TaskRunner::run`] is given one.
#[derive(Clone)]
pub struct Flow {
    run: Arc<Run>,
    scope: Arc<Annotate>,
    /// The annotations last built: a map's calls nearly always share them.
    last: Arc<Mutex<Option<Built>>>,
}

/// Annotations as written, and as the engine takes them.
type Built = (Annotate, Arc<Annotations>);

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Futures that are final, and those that are not.
pub type Waited<'f, T> = (Vec<&'f TaskFuture<T>>, Vec<&'f TaskFuture<T>>);

impl Flow {
    pub(crate) fn of(run: Arc<Run>) -> Self {
        Self { run, scope: Arc::default(), last: Arc::default() }
    }

    /// Submits one call. Never waits, never fails: what goes wrong is the future's failure.
    pub fn submit<T: Send + Sync + 'static>(&self, call: Call<T>) -> TaskFuture<T> {
        let (spec, held, future) = self.prepare(call);
        self.send(spec.into_iter().collect());
        drop(held); // only now may the inputs be released: the engine counts their readers
        future
    }

    /// Submits many calls as one message.
    ///
    /// ```
    /// # #[remuda::task] fn inc(x: i64) -> i64 { x + 1 }
    /// # fn f(flow: remuda::Flow) {
    /// let incs = flow.submit_all((0..100).map(|x| inc(x).priority(-x)));
    /// # drop(incs);
    /// # }
    /// ```
    pub fn submit_all<T: Send + Sync + 'static>(&self, calls: impl IntoIterator<Item = Call<T>>) -> Vec<TaskFuture<T>> {
        let calls = calls.into_iter();
        let (mut specs, mut kept, mut futures) = (Vec::with_capacity(calls.size_hint().0), Vec::new(), Vec::new());
        for call in calls {
            let (spec, held, future) = self.prepare(call);
            specs.extend(spec);
            kept.push(held);
            futures.push(future);
        }
        self.send(specs);
        drop(kept);
        futures
    }

    /// One task for each element: of a list, a range, a list of futures; of several of them side by side, given as a tuple, with
    /// [`crate::unmapped`] for what is the same in every call.
    ///
    /// ```
    /// # use remuda::unmapped;
    /// # #[remuda::task] fn inc(x: i64) -> i64 { x + 1 }
    /// # #[remuda::task] fn add(a: i64, b: i64) -> i64 { a + b }
    /// # fn f(flow: remuda::Flow) -> anyhow::Result<()> {
    /// let incs = flow.map(inc, 0..100)?;
    /// let sums = flow.map(add, (&incs, 100..200))?;
    /// let more = flow.map(add, (sums, unmapped(7)))?;
    /// # drop(more); Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when the inputs differ in length, naming each.
    pub fn map<F, T: Send + Sync + 'static, M>(&self, task: F, inputs: impl MapInputs<F, T, M>) -> Result<Vec<TaskFuture<T>>, Error> {
        Ok(self.submit_all(inputs.calls(task)?))
    }

    /// Runs a closure as a task. Needs slots that share the driver's memory (`processes: false`); elsewhere the task is refused.
    ///
    /// ```
    /// # async fn f(flow: remuda::Flow) -> anyhow::Result<()> {
    /// let words = vec!["a", "b"];
    /// let count = flow.spawn(move || words.len()).await?;
    /// assert_eq!(count, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn<T: Send + Sync + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> TaskFuture<T> {
        self.submit(closure("closure", move || Ok(body())))
    }

    /// The same for a closure that can fail.
    pub fn try_spawn<T, E>(&self, body: impl FnOnce() -> Result<T, E> + Send + 'static) -> TaskFuture<T>
    where
        T: Send + Sync + 'static,
        E: Into<anyhow::Error>,
    {
        self.submit(closure("closure", move || body().map_err(|error| failure(error.into()))))
    }

    /// A handle on the same run whose calls carry `annotations`, where they say nothing themselves. Scopes nest.
    ///
    /// ```
    /// # use remuda::Annotate;
    /// # #[remuda::task] fn train(x: i64) -> i64 { x }
    /// # fn f(flow: remuda::Flow) -> anyhow::Result<()> {
    /// let gpu = flow.annotate(Annotate::new().resource("GPU", 1.0).priority(10));
    /// let models = gpu.map(train, 0..4)?;
    /// # drop(models); Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn annotate(&self, annotations: Annotate) -> Self {
        Self { scope: Arc::new(annotations.over(&self.scope)), last: Arc::default(), ..self.clone() }
    }

    /// All results, in order. Those that are still in the cluster come as one message, once all tasks are final: cheaper than to await
    /// future by future.
    ///
    /// # Errors
    /// The first task, in order, that has none.
    pub async fn gather<T: Clone + Send + Sync + 'static>(
        &self,
        futures: impl IntoIterator<Item = TaskFuture<T>>,
    ) -> Result<Vec<T>, TaskFailed> {
        let futures: Vec<_> = futures.into_iter().collect();
        gather::values(&futures).await?.into_iter().zip(futures).map(|(value, future)| future.take(value)).collect()
    }

    /// Waits until every future is final, or `timeout` is over. Answers with those final and those not, in the order given; fails for
    /// nothing, as each future knows how its task ended.
    pub async fn wait<'f, T>(&self, futures: &'f [TaskFuture<T>], timeout: Option<Duration>) -> Waited<'f, T> {
        let all = async {
            for future in futures {
                future.done().await;
            }
        };
        match timeout {
            Some(limit) => drop(tokio::time::timeout(limit, all).await),
            None => all.await,
        }
        futures.iter().partition(|future| future.state().is_final())
    }

    /// The futures in the order in which their tasks end.
    ///
    /// ```
    /// # async fn f(flow: remuda::Flow, futures: Vec<remuda::TaskFuture<i64>>) -> anyhow::Result<()> {
    /// let mut ended = flow.as_completed(futures);
    /// while let Some(future) = ended.next().await {
    ///     println!("{}", future.await?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_completed<T>(&self, futures: impl IntoIterator<Item = TaskFuture<T>>) -> AsCompleted<T> {
        AsCompleted::new(futures)
    }

    /// Every change of state of every task of this run, from now on: for progress displays.
    ///
    /// The event of a task that is done holds its result: read them as they come, or drop the receiver.
    #[must_use]
    pub fn events(&self) -> TaskEvents {
        self.run.listen()
    }

    /// How many tasks ended, and how.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.run.catch_up();
        *lock(&self.run.counts)
    }

    fn prepare<T: Send + Sync + 'static>(&self, call: Call<T>) -> (Option<TaskSpec>, Vec<Arc<Held>>, TaskFuture<T>) {
        let mut annotate = call.annotate.over(&self.scope);
        if let Some(declared) = &call.declared {
            annotate = annotate.over(declared);
        }
        let name = annotate.take_name().unwrap_or_else(|| last_segment(&call.function).to_owned());
        let name: Arc<str> = name.into();
        let (key, cell) = (self.run.key(), Cell::new(name.clone()));
        let held = Arc::new(Held { key, run: self.run.clone() });
        let future = TaskFuture::new(held, cell.clone(), call.codec);
        self.run.watch(key, cell);
        let (inputs, after) = (inputs_of(&call.inputs), inputs_of(&call.after));
        let kept: Vec<_> = call.inputs.into_iter().chain(call.after).map(|input| input.held).collect();
        let made = self.check(&kept).and_then(|()| {
            let annotations = self.build(annotate)?;
            let work = work(call.form, call.function, &self.run, self.run.session.shares_memory())?;
            Ok(TaskSpec { key, name: name.clone(), inputs, after, work, annotations })
        });
        match made {
            Ok(spec) => (Some(spec), kept, future),
            Err(error) => {
                self.run.pass_on(TaskEvent { key, name, state: TaskState::Ended(TaskError::Refused(error)) });
                (None, kept, future)
            }
        }
    }

    fn check(&self, inputs: &[Arc<Held>]) -> Result<(), Error> {
        self.run.check()?;
        if inputs.iter().all(|held| Arc::ptr_eq(&held.run, &self.run)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::ConfigInvalid, "an argument is a future of another run")
            .with_hint("await it there and pass its value on"))
    }

    fn build(&self, annotate: Annotate) -> Result<Arc<Annotations>, Error> {
        let mut last = lock(&self.last);
        if let Some((same, built)) = &*last
            && *same == annotate
        {
            return Ok(built.clone());
        }
        let built = Arc::new(annotate.build()?);
        *last = Some((annotate, built.clone()));
        Ok(built)
    }

    fn send(&self, specs: Vec<TaskSpec>) {
        if !specs.is_empty() {
            self.run.session.submit(specs);
        }
    }

    /// The body, and beside it the events: nothing is spawned, so nothing borrows or outlives more than the body does.
    pub(crate) async fn drive<R>(&self, body: impl Future<Output = R>) -> R {
        let mut body = pin!(body);
        poll_fn(|cx| {
            let _ = self.run.pump(cx);
            body.as_mut().poll(cx)
        })
        .await
    }
}
