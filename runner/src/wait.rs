//! Futures in the order in which their tasks end.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use crate::{future::TaskFuture, run::lock};

/// See [`crate::Flow::as_completed`].
pub struct AsCompleted<T> {
    /// `None`: handed out.
    futures: Vec<Option<TaskFuture<T>>>,
    ready: Arc<Ready>,
    left: usize,
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Ready(Mutex<(Vec<usize>, Option<Waker>)>);

/// Marks one future as worth a look; polling all of them for each event would be quadratic.
struct Mark(usize, Arc<Ready>);

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        let waker = {
            let mut ready = lock(&self.1.0);
            ready.0.push(self.0);
            ready.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> AsCompleted<T> {
    pub(crate) fn new(futures: impl IntoIterator<Item = TaskFuture<T>>) -> Self {
        let futures: Vec<_> = futures.into_iter().map(Some).collect();
        let ready = Arc::new(Ready(Mutex::new(((0..futures.len()).rev().collect(), None))));
        Self { left: futures.len(), futures, ready }
    }

    /// The next future whose task is final; `None` after the last.
    pub async fn next(&mut self) -> Option<TaskFuture<T>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for hand-written futures.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TaskFuture<T>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        loop {
            let next = {
                let mut ready = lock(&self.ready.0);
                let next = ready.0.pop();
                if next.is_none() {
                    ready.1 = Some(cx.waker().clone());
                }
                next
            };
            let Some(index) = next else { return Poll::Pending };
            let Some(future) = &self.futures[index] else { continue };
            let waker = Waker::from(Arc::new(Mark(index, self.ready.clone())));
            let done = std::pin::pin!(future.done()).poll(&mut Context::from_waker(&waker)).is_ready();
            if done {
                self.left -= 1;
                return Poll::Ready(self.futures[index].take());
            }
        }
    }
}

impl<T> Unpin for AsCompleted<T> {}

impl<T> futures_core::Stream for AsCompleted<T> {
    type Item = TaskFuture<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TaskFuture<T>>> {
        Self::poll_next(&mut self, cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
