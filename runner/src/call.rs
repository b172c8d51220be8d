//! A task with its arguments, not yet submitted.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    sync::{Arc, Mutex, Weak},
};

use remuda_core::{
    error::{Error, Result},
    task::{CommandWork, Failure, HereFn, Input, Job, Outcome, PythonWork, RustWork, TaskError, TaskScope, Work},
    value::{Codec, Template},
};

use crate::{
    annotate::{Annotate, annotation_setters},
    arg::{Arg, ArgInput, Taken, unfit},
    context::{Leased, TaskContext, run_sync},
    fields::Fields,
    future::{TaskFailed, TaskFuture},
    run::{Run, lock},
};

/// A task with its arguments. What a function under `#[remuda::task]` returns; [`crate::Flow::submit`] takes it.
///
/// ```
/// #[remuda::task]
/// fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
/// # fn f(flow: remuda::Flow) {
/// let three = flow.submit(add(1, 2).priority(10).retries(2));
/// let six = flow.submit(add(&three, &three).named("double"));
/// # drop((three, six));
/// # }
/// ```
#[must_use = "a call does nothing until it is submitted"]
pub struct Call<T> {
    pub(crate) function: Cow<'static, str>,
    pub(crate) inputs: Vec<ArgInput>,
    pub(crate) after: Vec<ArgInput>,
    pub(crate) annotate: Annotate,
    pub(crate) declared: Option<Box<Annotate>>,
    pub(crate) codec: Codec<T>,
    pub(crate) form: Form,
}

/// How the call becomes work.
pub(crate) enum Form {
    Rust { here: Here, args: Args },
    Python { target: Arc<str>, args: Result<Template>, path: Arc<[String]> },
    Command { call: Result<Template> },
}

type Args = Box<dyn FnOnce() -> Result<Template> + Send>;
type Here = Box<dyn FnOnce(Weak<Run>) -> HereFn + Send>;

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("function", &self.function).field("annotate", &self.annotate).finish_non_exhaustive()
    }
}

impl<T> Call<T> {
    annotation_setters!(annotate);

    /// Runs only after `future` is done, without taking its result. May be called for several.
    pub fn wait_for<U>(mut self, future: &TaskFuture<U>) -> Self {
        self.after.push(ArgInput { held: future.held.clone(), allow_failure: false });
        self
    }

    /// Runs only after `future` is final, however it ends.
    pub fn wait_for_end_of<U>(mut self, future: &TaskFuture<U>) -> Self {
        self.after.push(ArgInput { held: future.held.clone(), allow_failure: true });
        self
    }

    /// What stands at the task's declaration; scopes and calls win over it.
    #[doc(hidden)]
    pub fn declared(mut self, annotations: Annotate) -> Self {
        self.declared = Some(Box::new(annotations));
        self
    }

    pub(crate) fn new(function: Cow<'static, str>, inputs: Vec<ArgInput>, codec: Codec<T>, form: Form) -> Self {
        Self { function, inputs, after: Vec::new(), annotate: Annotate::new(), declared: None, codec, form }
    }
}

/// For people: the function without its module.
pub(crate) fn last_segment(function: &str) -> &str {
    let name = function.rsplit("::").next().unwrap_or(function);
    // Behind it stands where it was declared: see `#[remuda::task]`.
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// The engine's form of a call. `shares_memory`: see [`remuda_core::engine::Session::shares_memory`].
pub(crate) fn work(form: Form, function: Cow<'static, str>, run: &Arc<Run>, shares_memory: bool) -> Result<Work> {
    Ok(match form {
        Form::Rust { here, .. } if shares_memory => Work::Rust(RustWork { function, here: Some(here(Arc::downgrade(run))), args: None }),
        Form::Rust { args, .. } => Work::Rust(RustWork { function, here: None, args: Some(args()?) }),
        Form::Python { target, args, path } => Work::Python(PythonWork { target, args: args?, path }),
        Form::Command { call } => Work::Command(CommandWork { call: call? }),
    })
}

pub(crate) fn inputs_of(inputs: &[ArgInput]) -> Vec<Input> {
    inputs.iter().map(|input| Input { key: input.held.key, allow_failure: input.allow_failure }).collect()
}

/// The arguments of a call to a Rust function, taken one by one. For `#[remuda::task]`.
#[derive(Default)]
pub struct Builder {
    inputs: Vec<ArgInput>,
    templates: Vec<(&'static str, Args)>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("inputs", &self.inputs.len()).finish()
    }
}

impl Builder {
    /// The argument for the parameter `name`.
    pub fn take<T: Send + Sync + 'static>(
        &mut self,
        name: &'static str,
        mut arg: Arg<T>,
        codec: Codec<T>,
        fields: Option<Fields<T>>,
    ) -> Arc<Taken<T>> {
        let begin = self.inputs.len();
        self.inputs.append(&mut arg.inputs);
        if let (Some(fields), Some(value)) = (&fields, arg.value_mut()) {
            self.inputs.extend((fields.take)(value));
        }
        let range = begin..self.inputs.len();
        let taken = Arc::new(Taken { node: arg.into_node(), range, codec, resolve: fields.map(|fields| fields.resolve) });
        let encoded = taken.clone();
        self.templates.push((name, Box::new(move || encoded.template())));
        taken
    }

    /// The call. `body` is handed the values of the inputs each time it runs.
    pub fn call<T: Send + Sync + 'static>(
        self,
        function: &'static str,
        codec: Codec<T>,
        body: impl Fn(&TaskContext, &[Outcome]) -> Body<T> + Send + Sync + 'static,
    ) -> Call<T> {
        let templates = self.templates;
        let args: Args = Box::new(move || {
            if codec.encode.is_none() || codec.decode.is_none() {
                let text = format!("its result `{}` does not implement Serialize and Deserialize", std::any::type_name::<T>());
                return Err(unfit(text).with_context("task", function));
            }
            let mut all = Template::new();
            all.array(templates.len());
            for (name, template) in templates {
                let template = template().map_err(|e| e.with_context("task", function).with_context("argument", name))?;
                all.append(&template);
            }
            Ok(all)
        });
        let here: Here = Box::new(move |run| here(run, codec, body));
        Call::new(Cow::Borrowed(function), self.inputs, codec, Form::Rust { here, args })
    }
}

/// What a task function returned, before it is known whether it went well.
pub enum Body<T> {
    /// A sync function's result.
    Ready(Result<T, TaskError>),
    /// An async function's.
    Future(std::pin::Pin<Box<dyn Future<Output = Result<T, TaskError>> + Send>>),
}

impl<T> fmt::Debug for Body<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Ready(_)) { "Ready" } else { "Future" })
    }
}

impl<T: Send + Sync + 'static> Body<T> {
    pub(crate) fn job(self, codec: Codec<T>, lease: Option<Arc<dyn remuda_core::task::SlotLease>>) -> Job {
        match self {
            Self::Ready(result) => Job::Ready(result.map(|value| codec.wrap(Arc::new(value)))),
            Self::Future(future) => {
                let body = async move { future.await.map(|value| codec.wrap(Arc::new(value))) };
                match lease {
                    Some(lease) => Job::Future(Box::pin(Leased { lease, paused: false, body: Box::pin(body) })),
                    None => Job::Future(Box::pin(body)),
                }
            }
        }
    }
}

fn here<T: Send + Sync + 'static>(
    run: Weak<Run>,
    codec: Codec<T>,
    body: impl Fn(&TaskContext, &[Outcome]) -> Body<T> + Send + Sync + 'static,
) -> HereFn {
    Arc::new(move |scope: TaskScope, inputs: Vec<Outcome>| {
        let lease = scope.slot.clone();
        let cx = TaskContext::new(scope, Some(run.clone()));
        run_sync(lease.as_ref(), || body(&cx, &inputs)).job(codec, lease.clone())
    })
}

/// A closure as a task: for slots that share our memory only, and once only.
pub(crate) fn closure<T: Send + Sync + 'static>(name: &str, body: impl FnOnce() -> Result<T, TaskError> + Send + 'static) -> Call<T> {
    let body = Mutex::new(Some(body));
    let codec = Codec::here_only();
    let run = move |_: &TaskContext, _: &[Outcome]| {
        let taken = lock(&body).take();
        Body::Ready(match taken {
            Some(body) => body(),
            None => {
                Err(TaskError::failed("a closure runs once: a task that is to be tried again must be a function under #[remuda::task]"))
            }
        })
    };
    let args: Args = Box::new(|| {
        Err(Error::new(remuda_core::error::ErrorKind::Unsupported, "a closure cannot be sent to a worker process")
            .with_hint("make it a function under `#[remuda::task]`, or use `processes: false`"))
    });
    Call::new(Cow::Owned(name.to_owned()), Vec::new(), codec, Form::Rust { here: Box::new(move |weak| here(weak, codec, run)), args })
}

/// A user's error as a failure, with all its causes.
pub fn failure(error: anyhow::Error) -> TaskError {
    // A failed sub-task that was passed on by `?` keeps what is known of it: exit code, traceback. The text says whose they are.
    let task = error.downcast_ref::<TaskError>().or_else(|| error.downcast_ref::<TaskFailed>().map(|failed| &failed.error));
    let known = match task.map(TaskError::root) {
        Some(TaskError::Failed(inner)) => (**inner).clone(),
        _ => Failure::default(),
    };
    let message = format!("{error:#}");
    TaskError::Failed(Arc::new(Failure { message, kind: None, source: Some(Arc::new(error)), ..known }))
}
