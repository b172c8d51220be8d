//! Python objects to plain values. (process to be written)
use remuda_core::{
    task::{TaskError, TaskSpec},
    value::Value,
};

use crate::engine::Options;

#[derive(Debug)]
pub(crate) struct Converter;

impl Converter {
    pub(crate) fn new(_: &Options) -> Self {
        Self
    }
    pub(crate) fn note_paths(&self, _: &[TaskSpec]) {}
    pub(crate) async fn plain(&self, value: Value) -> Result<Value, TaskError> {
        self.plain_blocking(value)
    }
    pub(crate) fn plain_blocking(&self, value: Value) -> Result<Value, TaskError> {
        match value {
            Value::Python(_) => value.to_plain().map(Value::Plain).map_err(TaskError::Refused),
            value => Ok(value),
        }
    }
    pub(crate) fn stop(&self) {}
}
