//! Arguments of a call that was made.

use std::{fmt, ops::Range, sync::Arc};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    task::{Outcome, TaskError},
    value::{Codec, Template},
};

use super::Node;
use crate::fields::{self, ResolveFn};

pub(super) fn read<T: Send + Sync + 'static>(outcome: &Outcome, codec: Codec<T>) -> Result<Arc<T>, TaskError> {
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
