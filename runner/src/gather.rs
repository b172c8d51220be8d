//! Results of many tasks at once.

use std::sync::Arc;

use remuda_core::{
    engine::Session,
    task::{Key, Outcome, TaskError, TaskState},
    value::Value,
};

use crate::future::{TaskFailed, TaskFuture};

/// The results of these tasks, in forms that can be read here.
pub(crate) async fn values<T>(futures: &[TaskFuture<T>]) -> Result<Vec<Value>, TaskFailed> {
    let (mut values, mut elsewhere) = (Vec::with_capacity(futures.len()), Vec::new());
    for (at, future) in futures.iter().enumerate() {
        values.push(match future.done().await {
            TaskState::Done(value) => value,
            TaskState::Ended(error) => return Err(future.failed(error)),
            _ => return Err(future.failed(TaskError::Cancelled)), // `done` waits for the end
        });
        if matches!(values[at], Value::Python(_) | Value::There) {
            elsewhere.push(at);
        }
    }
    let Some(first) = elsewhere.first() else { return Ok(values) };
    let session = futures[*first].held.run.session.clone();
    // A future of another run would be asked for in the wrong place; the few of these come one by one.
    let (ours, others): (Vec<usize>, Vec<usize>) =
        elsewhere.into_iter().partition(|at| Arc::ptr_eq(&futures[*at].held.run.session, &session));
    let keys: Vec<Key> = ours.iter().map(|at| futures[*at].key()).collect();
    match session.gather(&keys).await {
        Ok(gathered) => ours.iter().zip(gathered).for_each(|(at, value)| values[*at] = value),
        Err(error) => {
            let (at, error) = blame(&*session, &keys, error).await;
            return Err(futures[ours[at]].failed(error));
        }
    }
    for at in others {
        values[at] = futures[at].clone().value().await?;
    }
    Ok(values)
}

/// Which of these keys it was that could not be gathered: the first, found by halving.
async fn blame(session: &dyn Session, keys: &[Key], error: TaskError) -> (usize, TaskError) {
    let (mut low, mut high, mut error) = (0, keys.len(), error);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        match session.gather(&keys[low..middle]).await {
            Ok(_) => low = middle,
            Err(earlier) => (high, error) = (middle, earlier),
        }
    }
    (low, error)
}

/// One result.
pub(crate) async fn one(session: &dyn Session, key: Key) -> Outcome {
    session.gather(&[key]).await?.pop().ok_or(TaskError::Cancelled)
}
