//! Arguments of Rust tasks: a value, a future, or a container of futures.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hash,
    ops::Range,
    sync::{Arc, OnceLock},
};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    task::{Outcome, TaskError},
    value::{Codec, Template},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use crate::{
    fields::{self, ResolveFn},
    future::TaskFuture,
    run::Held,
};

/// What a parameter of type `T` takes: a `T`, an `Arc<T>`, a [`TaskFuture<T>`] or a reference to one; for `Vec`, `Option`, maps and tuples
/// also that container full of futures, and [`Arg::list`] for any mixture, at any depth.
///
/// ```
/// # use remuda::{Arg, TaskFuture};
/// # fn f(one: TaskFuture<i64>, two: &TaskFuture<i64>) {
/// let a: Arg<i64> = 3.into();
/// let b: Arg<i64> = two.into();
/// let c: Arg<Vec<i64>> = Arg::list([Arg::from(1), one.into()]);
/// let d: Arg<Vec<Vec<i64>>> = Arg::list([c]);
/// # }
/// ```
pub struct Arg<T> {
    pub(crate) inputs: Vec<ArgInput>,
    node: Node<T>,
    /// What the inputs came to, for an argument in a field: see [`Arg::get`].
    resolved: OnceLock<Arc<T>>,
}

/// A result that an argument needs.
#[derive(Debug, Clone)]
pub struct ArgInput {
    pub(crate) held: Arc<Held>,
    pub(crate) allow_failure: bool,
}

impl<T> Clone for Arg<T> {
    fn clone(&self) -> Self {
        Self { inputs: self.inputs.clone(), node: self.node.clone(), resolved: self.resolved.clone() }
    }
}

pub(crate) enum Node<T> {
    Value(Arc<T>),
    /// The one input as it is, read by its future's codec.
    Input(Codec<T>),
    /// Made of the inputs, in order.
    Built(Getter<T>, Result<Template>),
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Value(value) => Self::Value(value.clone()),
            Self::Input(codec) => Self::Input(*codec),
            Self::Built(get, template) => Self::Built(get.clone(), template.clone()),
        }
    }
}

type Getter<T> = Arc<dyn Fn(&[Outcome]) -> Result<Arc<T>, TaskError> + Send + Sync>;

impl<T> fmt::Debug for Arg<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arg({} inputs)", self.inputs.len())
    }
}

impl<T> Arg<T> {
    fn value(value: Arc<T>) -> Self {
        Self { inputs: Vec::new(), node: Node::Value(value), resolved: OnceLock::new() }
    }

    fn built(inputs: Vec<ArgInput>, get: Getter<T>, template: Result<Template>) -> Self {
        Self { inputs, node: Node::Built(get, template), resolved: OnceLock::new() }
    }

    /// The value, in the body of a task: for an argument that is a field of another argument, whose type derives [`crate::Inputs`].
    ///
    /// # Panics
    /// Outside of a task's body, for an argument that is not a plain value; and where the type that holds it does not derive `Inputs`.
    #[must_use]
    pub fn get(&self) -> &T {
        match (&self.node, self.resolved.get()) {
            (Node::Value(value), _) | (_, Some(value)) => value,
            (_, None) => panic!(
                "an `Arg<{}>` was read before its inputs were there: derive `remuda::Inputs` for the type that holds it, and read it in the task",
                std::any::type_name::<T>()
            ),
        }
    }

    /// The value itself, and what it still waits for: nothing, as the arguments of a call are taken one by one.
    pub(crate) fn value_mut(&mut self) -> Option<&mut T> {
        match &mut self.node {
            Node::Value(value) => Arc::get_mut(value),
            _ => None,
        }
    }

    pub(crate) fn into_node(self) -> Node<T> {
        self.node
    }
}

impl<T: Send + Sync + 'static> Arg<T> {
    /// A list of arguments of one type: values and futures in any mixture.
    pub fn list<A: Into<Arg<T>>>(items: impl IntoIterator<Item = A>) -> Arg<Vec<T>>
    where
        T: Clone + Serialize,
    {
        let items: Vec<Arg<T>> = items.into_iter().map(Into::into).collect();
        let mut template = Template::new();
        template.array(items.len());
        let mut parts = Parts::new(Ok(template));
        let gets: Vec<_> = items.into_iter().map(|item| parts.add(item)).collect();
        parts.finish(move |inputs| gets.iter().map(|get| get(inputs).map(Arc::unwrap_or_clone)).collect())
    }
}

type Part<T> = Box<dyn Fn(&[Outcome]) -> Result<Arc<T>, TaskError> + Send + Sync>;

/// An argument under construction: the inputs so far, and the template with a place for each.
struct Parts {
    inputs: Vec<ArgInput>,
    template: Result<Template>,
}

impl Parts {
    fn new(template: Result<Template>) -> Self {
        Self { inputs: Vec::new(), template }
    }

    fn add<T: Serialize + Send + Sync + 'static>(&mut self, arg: Arg<T>) -> Part<T> {
        let begin = self.inputs.len();
        self.inputs.extend(arg.inputs);
        let range = begin..self.inputs.len();
        let part = match &arg.node {
            Node::Value(value) => Template::value(&**value),
            Node::Input(_) => Ok(Template::hole()),
            Node::Built(_, template) => template.clone(),
        };
        self.append(part);
        match arg.node {
            Node::Value(value) => Box::new(move |_| Ok(value.clone())),
            Node::Input(codec) => Box::new(move |inputs| read(&inputs[range.start], codec)),
            Node::Built(get, _) => Box::new(move |inputs| get(&inputs[range.clone()])),
        }
    }

    fn future<T: Send + Sync + 'static>(&mut self, future: &TaskFuture<T>) -> Part<T> {
        let (at, codec) = (self.inputs.len(), future.codec);
        self.inputs.push(input(future, false));
        self.append(Ok(Template::hole()));
        Box::new(move |inputs| read(&inputs[at], codec))
    }

    fn append(&mut self, part: Result<Template>) {
        match (&mut self.template, part) {
            (Ok(template), Ok(part)) => {
                template.append(&part);
            }
            (Ok(_), Err(error)) => self.template = Err(error),
            (Err(_), _) => {}
        }
    }

    fn finish<T>(self, get: impl Fn(&[Outcome]) -> Result<T, TaskError> + Send + Sync + 'static) -> Arg<T> {
        Arg::built(self.inputs, Arc::new(move |inputs| get(inputs).map(Arc::new)), self.template)
    }
}

impl<T: Send + Sync + 'static> fields::Field for Arg<T> {
    fn take_inputs(&mut self) -> Vec<ArgInput> {
        std::mem::take(&mut self.inputs)
    }

    fn needs(&self) -> usize {
        match &self.node {
            Node::Value(_) => 0,
            Node::Input(_) => 1,
            Node::Built(_, template) => template.as_ref().map_or(0, Template::holes),
        }
    }

    fn resolve(&self, inputs: &[Outcome]) -> Result<(), TaskError> {
        let value = match &self.node {
            Node::Value(_) => return Ok(()),
            Node::Input(codec) => read(&inputs[0], *codec)?,
            Node::Built(get, _) => get(inputs)?,
        };
        let _ = self.resolved.set(value); // the same again, when the task is tried again
        Ok(())
    }
}

impl<T: Serialize> Serialize for Arg<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.node, self.resolved.get()) {
            (Node::Value(value), _) | (_, Some(value)) => value.serialize(serializer),
            (Node::Input(_), None) => fields::leave_out(Template::hole(), serializer),
            (Node::Built(_, template), None) => match template {
                Ok(template) => fields::leave_out(template.clone(), serializer),
                Err(error) => Err(ser::Error::custom(error)),
            },
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Arg<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self::value(Arc::new(value)))
    }
}

fn input<T>(future: &TaskFuture<T>, allow_failure: bool) -> ArgInput {
    ArgInput { held: future.held.clone(), allow_failure }
}

fn read<T: Send + Sync + 'static>(outcome: &Outcome, codec: Codec<T>) -> Result<Arc<T>, TaskError> {
    Ok(codec.unwrap(outcome.as_ref().map_err(Clone::clone)?)?)
}

/// An argument whose place among the task's inputs is known.
pub struct Taken<T> {
    pub(crate) node: Node<T>,
    pub(crate) range: Range<usize>,
    pub(crate) codec: Codec<T>,
    /// For a value whose type derives [`crate::Inputs`]: sets its fields.
    pub(crate) resolve: Option<ResolveFn<T>>,
}

impl<T> fmt::Debug for Taken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taken").field(&self.range).finish()
    }
}

impl<T: Send + Sync + 'static> Taken<T> {
    /// The value, when the inputs are there. Copies nothing.
    ///
    /// # Errors
    /// An input of another type than the parameter.
    pub fn get(&self, inputs: &[Outcome]) -> Result<Arc<T>, TaskError> {
        match &self.node {
            Node::Value(value) => {
                if let Some(resolve) = self.resolve {
                    resolve(value, &inputs[self.range.clone()])?;
                }
                Ok(value.clone())
            }
            Node::Input(_) => read(&inputs[self.range.start], self.codec),
            Node::Built(get, _) => get(&inputs[self.range.clone()]),
        }
    }

    pub(crate) fn template(&self) -> Result<Template> {
        if self.codec.decode.is_none() {
            let text = format!("`{}` does not implement Deserialize, so no worker process can take it", std::any::type_name::<T>());
            return Err(unfit(text));
        }
        match &self.node {
            Node::Value(value) => fields::template(|| self.codec.wrap(value.clone()).to_plain()),
            Node::Input(_) => Ok(Template::hole()),
            Node::Built(_, template) => template.clone(),
        }
    }
}

pub(crate) fn unfit(text: String) -> Error {
    Error::new(ErrorKind::Unserializable, text).with_hint("derive serde's Serialize and Deserialize, or use `processes: false`")
}

impl<T> From<T> for Arg<T> {
    fn from(value: T) -> Self {
        Self::value(Arc::new(value))
    }
}

impl<T> From<Arc<T>> for Arg<T> {
    fn from(value: Arc<T>) -> Self {
        Self::value(value)
    }
}

impl<T> From<&TaskFuture<T>> for Arg<T> {
    fn from(future: &TaskFuture<T>) -> Self {
        Self { inputs: vec![input(future, false)], node: Node::Input(future.codec), resolved: OnceLock::new() }
    }
}

impl<T> From<TaskFuture<T>> for Arg<T> {
    fn from(future: TaskFuture<T>) -> Self {
        (&future).into()
    }
}

impl From<&str> for Arg<String> {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<T: Clone> From<&[T]> for Arg<Vec<T>> {
    fn from(items: &[T]) -> Self {
        items.to_vec().into()
    }
}

/// The futures of a list, each cloned out when the task runs.
fn list<'a, T: Clone + Send + Sync + 'static>(futures: impl ExactSizeIterator<Item = &'a TaskFuture<T>>) -> Arg<Vec<T>> {
    let mut template = Template::new();
    template.array(futures.len());
    let mut parts = Parts::new(Ok(template));
    let gets: Vec<_> = futures.map(|future| parts.future(future)).collect();
    parts.finish(move |inputs| gets.iter().map(|get| get(inputs).map(Arc::unwrap_or_clone)).collect())
}

impl<T: Clone + Send + Sync + 'static> From<&[TaskFuture<T>]> for Arg<Vec<T>> {
    fn from(futures: &[TaskFuture<T>]) -> Self {
        list(futures.iter())
    }
}

impl<T: Clone + Send + Sync + 'static> From<&Vec<TaskFuture<T>>> for Arg<Vec<T>> {
    fn from(futures: &Vec<TaskFuture<T>>) -> Self {
        list(futures.iter())
    }
}

impl<T: Clone + Send + Sync + 'static> From<Vec<TaskFuture<T>>> for Arg<Vec<T>> {
    fn from(futures: Vec<TaskFuture<T>>) -> Self {
        list(futures.iter())
    }
}

impl<T: Clone + Send + Sync + 'static> From<Vec<&TaskFuture<T>>> for Arg<Vec<T>> {
    fn from(futures: Vec<&TaskFuture<T>>) -> Self {
        list(futures.iter().copied())
    }
}

impl<T: Send + Sync + 'static> From<Vec<TaskFuture<T>>> for Arg<Vec<Arc<T>>> {
    fn from(futures: Vec<TaskFuture<T>>) -> Self {
        let mut template = Template::new();
        template.array(futures.len());
        let mut parts = Parts::new(Ok(template));
        let gets: Vec<_> = futures.iter().map(|future| parts.future(future)).collect();
        parts.finish(move |inputs| gets.iter().map(|get| get(inputs)).collect())
    }
}

impl<T: Clone + Send + Sync + 'static> From<Option<TaskFuture<T>>> for Arg<Option<T>> {
    fn from(future: Option<TaskFuture<T>>) -> Self {
        let Some(future) = future else {
            return Self::built(Vec::new(), Arc::new(|_| Ok(Arc::new(None))), Template::value(&()));
        };
        let mut parts = Parts::new(Ok(Template::new()));
        let get = parts.future(&future);
        parts.finish(move |inputs| get(inputs).map(|value| Some(Arc::unwrap_or_clone(value))))
    }
}

/// Futures as the values of a map.
macro_rules! map_of_futures {
    ($map:ident, $($bound:ident),+) => {
        impl<K, T> From<$map<K, TaskFuture<T>>> for Arg<$map<K, T>>
        where
            K: $($bound +)+ Clone + Serialize + Send + Sync + 'static,
            T: Clone + Send + Sync + 'static,
        {
            fn from(futures: $map<K, TaskFuture<T>>) -> Self {
                let mut template = Template::new();
                template.map(futures.len());
                let mut parts = Parts::new(Ok(template));
                let mut gets = Vec::with_capacity(futures.len());
                for (key, future) in futures {
                    parts.append(Template::value(&key));
                    gets.push((key, parts.future(&future)));
                }
                parts.finish(move |inputs| {
                    gets.iter().map(|(key, get)| Ok((key.clone(), get(inputs).map(Arc::unwrap_or_clone)?))).collect()
                })
            }
        }
    };
}
map_of_futures!(BTreeMap, Ord);
map_of_futures!(HashMap, Eq, Hash);

/// Futures in a tuple.
macro_rules! tuple_of_futures {
    ($len:literal: $($name:ident $part:ident),+) => {
        impl<$($name: Clone + Send + Sync + 'static),+> From<($(TaskFuture<$name>,)+)> for Arg<($($name,)+)> {
            fn from(($($part,)+): ($(TaskFuture<$name>,)+)) -> Self {
                let mut template = Template::new();
                template.array($len);
                let mut parts = Parts::new(Ok(template));
                $(let $part = parts.future(&$part);)+
                parts.finish(move |inputs| Ok(($($part(inputs).map(Arc::unwrap_or_clone)?,)+)))
            }
        }
    };
}
tuple_of_futures!(2: A a, B b);
tuple_of_futures!(3: A a, B b, C c);
tuple_of_futures!(4: A a, B b, C c, D d);

/// A future whose failure is passed on as a value: for a parameter of type `Result<T, TaskError>`, or a Python task (where it becomes an
/// exception object). Made by [`allow_failure`].
#[derive(Debug, Clone)]
pub struct AllowFailure<T>(pub(crate) TaskFuture<T>);

/// Lets a task run although `future` may fail; it is given a `Result`.
///
/// ```
/// use remuda::{TaskError, TaskFuture, allow_failure};
///
/// #[remuda::task]
/// fn describe(part: Result<i64, TaskError>) -> String {
///     part.map_or_else(|error| error.to_string(), |n| n.to_string())
/// }
/// # fn f(flow: remuda::Flow, risky: TaskFuture<i64>) {
/// let text = flow.submit(describe(allow_failure(&risky)));
/// # drop(text);
/// # }
/// ```
pub fn allow_failure<T>(future: &TaskFuture<T>) -> AllowFailure<T> {
    AllowFailure(future.clone())
}

impl<T: Clone + Send + Sync + 'static> From<AllowFailure<T>> for Arg<Result<T, TaskError>> {
    fn from(AllowFailure(future): AllowFailure<T>) -> Self {
        let codec = future.codec;
        let get = move |inputs: &[Outcome]| {
            Ok(Arc::new(match &inputs[0] {
                Ok(value) => Ok(Arc::unwrap_or_clone(codec.unwrap(value)?)),
                Err(error) => Err(error.clone()),
            }))
        };
        Self::built(vec![input(&future, true)], Arc::new(get), Ok(Template::hole()))
    }
}
