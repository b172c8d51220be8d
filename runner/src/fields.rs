//! Arguments in the fields of an argument.

use std::cell::RefCell;

use bytes::Bytes;
use remuda_core::{
    error::Result,
    task::{Outcome, TaskError},
    value::{PART, Template},
};
use serde::{Serializer, ser};
use serde_bytes::Bytes as RawBytes;

use crate::arg::ArgInput;

/// A type whose fields may be [`Arg`](crate::Arg)s, and so futures. Derived; needs serde's traits for worker processes only.
///
/// ```
/// use remuda::{Arg, Inputs, TaskFuture};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize, Inputs)]
/// struct Model {
///     data: Arg<Vec<f64>>,
///     scale: f64,
/// }
///
/// #[remuda::task]
/// fn fit(model: &Model) -> f64 {
///     model.data.get().iter().sum::<f64>() * model.scale
/// }
/// # fn f(flow: remuda::Flow, data: TaskFuture<Vec<f64>>) {
/// let fitted = flow.submit(fit(Model { data: (&data).into(), scale: 2.0 }));
/// # drop(fitted);
/// # }
/// ```
pub trait Inputs {
    /// Every field that is an argument, in order.
    #[doc(hidden)]
    fn fields(&self) -> Vec<&dyn Field>;

    /// The same, to be changed.
    #[doc(hidden)]
    fn fields_mut(&mut self) -> Vec<&mut dyn Field>;
}

/// A field that is an argument.
#[doc(hidden)]
pub trait Field {
    /// What it waits for, taken out: a task's closure must not hold the futures it reads.
    fn take_inputs(&mut self) -> Vec<ArgInput>;
    /// How many inputs are its.
    fn needs(&self) -> usize;
    /// Its inputs are there.
    fn resolve(&self, inputs: &[Outcome]) -> Result<(), TaskError>;
}

/// Sets the fields of a value.
pub(crate) type ResolveFn<T> = fn(&T, &[Outcome]) -> Result<(), TaskError>;

/// What can be done with a value whose type derives [`Inputs`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Fields<T> {
    pub(crate) take: fn(&mut T) -> Vec<ArgInput>,
    pub(crate) resolve: ResolveFn<T>,
}

impl<T: Inputs> Fields<T> {
    /// For one type.
    #[must_use]
    pub fn new() -> Self {
        Self { take: |value| value.fields_mut().into_iter().flat_map(|field| field.take_inputs()).collect(), resolve: resolve::<T> }
    }
}

impl<T: Inputs> Default for Fields<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn resolve<T: Inputs>(value: &T, inputs: &[Outcome]) -> Result<(), TaskError> {
    let mut begin = 0;
    for field in value.fields() {
        let end = begin + field.needs();
        field.resolve(&inputs[begin..end])?;
        begin = end;
    }
    Ok(())
}

thread_local! {
    /// The parts that the value which this thread is serialising has left out so far.
    static LEFT_OUT: RefCell<Option<Vec<Template>>> = const { RefCell::new(None) };
}

/// A value as a template, with the inputs of its fields as holes.
pub(crate) fn template(encode: impl FnOnce() -> Result<Bytes>) -> Result<Template> {
    let outer = LEFT_OUT.replace(Some(Vec::new()));
    let encoded = encode();
    let parts = LEFT_OUT.replace(outer).unwrap_or_default();
    let bytes = encoded?;
    if parts.is_empty() {
        let mut template = Template::new();
        template.raw(&bytes);
        return Ok(template);
    }
    Template::with_parts(&bytes, &parts)
}

/// Writes a mark in place of a part that is not there yet.
pub(crate) fn leave_out<S: Serializer>(part: Template, serializer: S) -> Result<S::Ok, S::Error> {
    let number = LEFT_OUT.with_borrow_mut(|parts| {
        let parts = parts.as_mut()?;
        parts.push(part);
        Some(parts.len() as u64 - 1)
    });
    let Some(number) = number else {
        return Err(ser::Error::custom("it holds a future, which only a call that is submitted can take along"));
    };
    let number = number.to_be_bytes();
    serializer.serialize_newtype_struct(EXTENSION, &(PART, RawBytes::new(&number)))
}

/// The name by which rmp-serde knows an extension.
const EXTENSION: &str = "_ExtStruct";
