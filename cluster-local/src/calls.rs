//! A task as a message to one of its slot's processes, and the answer as an outcome.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use remuda_core::{
    error::{Error, ErrorKind},
    host::{
        self,
        wire::{Reply, Request, frame},
    },
    task::{Outcome, TaskError, TaskSpec, Work},
    value::{Template, Value, encode},
};

use crate::{engine::Shared, processes::Who, python, scheduler::Start};

pub(crate) struct Call {
    pub(crate) who: Who,
    pub(crate) frame: Vec<u8>,
}

impl Call {
    fn host(request: &Request) -> Result<Self, TaskError> {
        Ok(Self { who: Who::Host, frame: frame(request)? })
    }
}

pub(crate) fn prepare(start: &Start, shared: &Shared) -> Result<Call, TaskError> {
    let spec = &start.spec;
    match &spec.work {
        Work::Rust(work) => {
            let args = work.args.as_ref().ok_or_else(|| {
                let text = format!("the call of `{}` cannot leave this process", work.function);
                Error::new(ErrorKind::Unserializable, text)
                    .with_hint("use a `#[remuda::task]` with serialisable arguments, or `processes: false`")
            })?;
            let args = args.fill(&plain_inputs(start, shared, true)?)?.into();
            let function = Cow::clone(&work.function).into_owned();
            let worker = start.worker_name.to_string();
            Call::host(&Request::Call { function, args, key: spec.key, attempt: start.attempt, worker })
        }
        Work::Command(work) => {
            let call = work.call.fill(&plain_inputs(start, shared, false)?)?.into();
            Call::host(&Request::Command { call })
        }
        Work::Python(work) => {
            let inputs: Result<Vec<_>, _> = start.inputs.iter().map(python::input).collect();
            let args = work.args.fill(&inputs?)?;
            Ok(Call { who: Who::Python, frame: python::call(&work.target, args, &work.path)? })
        }
    }
}

/// Inputs as MessagePack. Where a failure is allowed, Rust takes a `Result`; a command takes the value or the error as it is.
fn plain_inputs(start: &Start, shared: &Shared, results: bool) -> Result<Vec<Bytes>, TaskError> {
    let one = |(outcome, allowed): (&Outcome, bool)| -> Result<Bytes, TaskError> {
        let (variant, bytes) = match outcome {
            Ok(value) => ("Ok", shared.converter.plain_blocking(value.clone())?.to_plain()?),
            Err(error) => ("Err", encode(error)?.into()),
        };
        if !(allowed && results) {
            return Ok(bytes);
        }
        let mut wrapped = Template::new();
        wrapped.map(1).text(variant).raw(&bytes);
        Ok(wrapped.fill(&[])?.into())
    };
    start.inputs.iter().zip(allowed(&start.spec)).map(one).collect()
}

fn allowed(spec: &TaskSpec) -> impl Iterator<Item = bool> {
    spec.inputs.iter().map(|input| input.allow_failure)
}

/// What the task host said, about a call that is over.
pub(crate) fn outcome(reply: Result<Reply, Error>, work: &Work) -> Outcome {
    match reply {
        Ok(Reply::Done(bytes)) => Ok(Value::Plain(bytes)),
        Ok(Reply::Failed(failure)) => Err(TaskError::Failed(Arc::new(failure))),
        Ok(Reply::Cancelled) => Err(TaskError::Cancelled),
        Ok(Reply::Refused { unserializable, message, hint }) => {
            let kind = if unserializable { ErrorKind::Unserializable } else { ErrorKind::Unexpected };
            let error = Error::new(kind, message);
            let error = if let Work::Rust(work) = work { error.with_context("task", &work.function) } else { error };
            Err(TaskError::Refused(hint.into_iter().fold(error, Error::with_hint)))
        }
        Ok(Reply::Hello { .. } | Reply::Group(_) | Reply::Ask(_)) => Err(garbled(None)),
        Err(error) => Err(garbled(Some(error))),
    }
}

pub(crate) fn garbled(source: Option<Error>) -> TaskError {
    let error = Error::new(ErrorKind::Unexpected, "the worker process said something that is no answer");
    TaskError::Refused(source.into_iter().fold(error, Error::with_source))
}

/// Whether a task host knows every task of this program by the same signature.
pub(crate) fn check_tasks(theirs: &[(String, String)]) -> Result<(), String> {
    for ours in host::tasks() {
        match theirs.iter().find(|(name, _)| name == ours.name) {
            None => return Err(format!("it has no task `{}`", ours.name)),
            Some((name, signature)) if signature != ours.signature => {
                return Err(format!("its task `{name}` is `{signature}`, ours is `{}`", ours.signature));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
