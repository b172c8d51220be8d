//! Arguments of Rust tasks: a value, a future, or a container of futures.

mod containers;
mod taken;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use remuda_core::{
    error::Result,
    task::{Outcome, TaskError},
    value::{Codec, Template},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

pub use self::taken::Taken;
use self::taken::read;
pub(crate) use self::taken::unfit;
use crate::{fields, future::TaskFuture, run::Held};

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
