//! One run's side of the embedded engine.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    engine::{Form, Session, Shown, TaskEvents},
    error::{Error, ErrorKind, Result},
    task::{Key, TaskError, TaskSpec},
    value::Value,
};

use crate::{engine::Shared, scheduler::SessionId};

#[derive(Debug)]
pub(crate) struct LocalSession {
    shared: Arc<Shared>,
    id: SessionId,
    /// Until somebody listens, nothing is lost.
    events: Mutex<Option<TaskEvents>>,
}

impl LocalSession {
    /// Every task is final, nothing is held any more. Does not wait for what is still interrupted.
    pub(crate) fn end(&self) {
        self.shared.update(|state, now| state.scheduler.close_session(self.id, now));
    }

    pub(crate) fn new(shared: Arc<Shared>, id: SessionId, events: TaskEvents) -> Self {
        Self { shared, id, events: Mutex::new(Some(events)) }
    }
}

#[async_trait]
impl Session for LocalSession {
    fn shares_memory(&self) -> bool {
        !self.shared.options.processes
    }

    fn submit(&self, tasks: Vec<TaskSpec>) {
        self.shared.converter.note_paths(&tasks);
        self.shared.update(|state, now| state.scheduler.submit(self.id, tasks, now));
        self.shared.note_arrival();
    }

    fn cancel(&self, keys: &[Key]) {
        self.shared.update(|state, now| state.scheduler.cancel(self.id, keys, now));
    }

    fn release(&self, keys: &[Key]) {
        self.shared.update(|state, now| state.scheduler.release(self.id, keys, now));
    }

    fn events(&self) -> TaskEvents {
        let first = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.shared.update(|state, _| state.scheduler.listen(self.id)))
    }

    async fn gather(&self, keys: &[Key]) -> Result<Vec<Value>, TaskError> {
        let waits = self.shared.update(|state, _| keys.iter().map(|key| state.scheduler.wait(self.id, *key)).collect::<Vec<_>>());
        let mut values = Vec::with_capacity(waits.len());
        for wait in waits {
            values.push(wait.await.unwrap_or(Err(TaskError::Cancelled))?);
        }
        // All are asked for before the first is waited for: the converter takes them as one batch.
        let plain: Vec<_> = values.into_iter().map(|value| self.shared.converter.plain(value)).collect();
        let mut values = Vec::with_capacity(plain.len());
        for value in plain {
            values.push(value.await?);
        }
        Ok(values)
    }

    async fn show(&self, key: Key, forms: &[Form]) -> Result<Shown, TaskError> {
        let wait = self.shared.update(|state, _| state.scheduler.wait(self.id, key));
        match wait.await.unwrap_or(Err(TaskError::Cancelled))? {
            Value::Python(object) => self.shared.converter.show(object, forms).await,
            value if forms.contains(&Form::Plain) => Ok(Shown::Plain(value.to_plain()?)),
            _ => Err(Error::new(ErrorKind::Unserializable, "the result is a plain value, neither a table nor a Python object").into()),
        }
    }

    async fn close(&self) -> Result<()> {
        self.end();
        // Every task is final now. Bodies in processes are stopped within the grace.
        let limit = self.shared.options.grace + Duration::from_secs(2);
        self.shared.wait_until(limit, |state| state.scheduler.running_of(self.id) == 0).await;
        self.shared.flush();
        Ok(())
    }
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        self.end();
    }
}
