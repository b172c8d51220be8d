//! One thread that sleeps until the scheduler's next deadline.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

use remuda_core::error::{Error, ErrorKind, Result};

#[derive(Debug, Default)]
pub(crate) struct Timer(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    at: Option<Instant>,
    stopped: bool,
}

impl Timer {
    /// `tick` is called at the set time and answers with the next one.
    pub(crate) fn start(&self, tick: impl Fn() -> Option<Instant> + Send + 'static) -> Result<()> {
        let inner = self.0.clone();
        let thread = std::thread::Builder::new().name("remuda timer".into());
        let started = thread.spawn(move || inner.run(tick));
        started.map(drop).map_err(|e| Error::new(ErrorKind::Unavailable, "the engine's timer thread could not be started").with_source(e))
    }

    pub(crate) fn no_later_than(&self, at: Instant) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.at.is_none_or(|current| at < current) {
            state.at = Some(at);
            self.0.changed.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn run(&self, tick: impl Fn() -> Option<Instant>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stopped {
            let now = Instant::now();
            match state.at {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at > now => {
                    state = self.changed.wait_timeout(state, at - now).unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    state.at = None;
                    drop(state);
                    let next = tick();
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.at = state.at.into_iter().chain(next).min();
                }
            }
        }
    }
}
