//! After a cut: when to try again, and when the scheduler is gone. Without I/O and without a clock.

use std::{
    error::Error as _,
    io,
    time::{Duration, Instant},
};

use remuda_core::error::{Error, ErrorKind};

/// The first pause; each is twice the one before.
const FIRST: Duration = Duration::from_millis(40);
const LONGEST: Duration = Duration::from_secs(2);

/// One cut, from the moment it was noticed.
#[derive(Debug)]
pub(crate) struct Redial {
    since: Instant,
    refused_since: Option<Instant>,
    pause: Duration,
    lease: Duration,
    /// How long nothing may listen at the address: what is between us may be starting again.
    refused: Duration,
}

impl Redial {
    pub(crate) fn new(now: Instant, lease: Duration, refused: Duration) -> Self {
        Self { since: now, refused_since: None, pause: FIRST, lease, refused }
    }

    /// How long to wait before the next try.
    ///
    /// # Errors
    /// [`ErrorKind::SchedulerLost`]: there is no use in another.
    pub(crate) fn next(&mut self, now: Instant, error: &Error) -> Result<Duration, Error> {
        let lost = |message: String| Error::new(ErrorKind::SchedulerLost, message);
        if is_refused(error) {
            let since = *self.refused_since.get_or_insert(now);
            if now.duration_since(since) >= self.refused {
                return Err(lost("the scheduler is gone: nothing listens at its address any more".to_owned())
                    .with_hint("its log says why it ended; what it had computed is lost with it, so run the flow again"));
            }
        } else {
            self.refused_since = None;
        }
        let left = self.lease.saturating_sub(now.duration_since(self.since));
        if left.is_zero() {
            let why = told(error);
            return Err(lost(format!("the scheduler cannot be reached since {:?}, longer than it keeps our tasks: {why}", self.lease))
                .with_hint("check the network; a longer `lease` survives longer cuts"));
        }
        let pause = if self.refused_since.is_some() { self.pause.min(self.refused / 4) } else { self.pause };
        self.pause = (self.pause * 2).min(LONGEST);
        Ok(pause.min(left))
    }
}

/// The error with its causes, but without the address, which is said of the scheduler already.
fn told(error: &Error) -> String {
    let mut text = error.message().to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn is_refused(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const REFUSED: Duration = Duration::from_millis(600);

    fn run(error: &Error) -> (Duration, Error) {
        let start = Instant::now();
        let mut now = start;
        let mut redial = Redial::new(now, LEASE, REFUSED);
        loop {
            match redial.next(now, error) {
                Ok(pause) => now += pause.max(Duration::from_millis(1)),
                Err(error) => return (now - start, error),
            }
        }
    }

    #[test]
    fn a_scheduler_that_is_gone_is_given_up_in_less_than_a_second() {
        let refused = Error::new(ErrorKind::Unavailable, "x").with_source(io::Error::from(io::ErrorKind::ConnectionRefused));
        let (after, error) = run(&refused);
        assert!(after >= REFUSED && after < Duration::from_secs(1), "{after:?}");
        assert_eq!(error.kind(), ErrorKind::SchedulerLost);
        assert!(error.source().is_none(), "it says all there is to say: {}", error.report());
    }

    #[test]
    fn one_that_cannot_be_reached_is_tried_until_its_lease_is_over() {
        let deaf =
            Error::new(ErrorKind::Timeout, "no answer").with_context("address", "tcp://far:1").with_source(io::Error::other("lines down"));
        let (after, error) = run(&deaf);
        assert_eq!(after, LEASE);
        assert!(error.message().contains("30s") && error.message().ends_with(": no answer: lines down"), "{error}");
        let told = error.with_context("address", "tcp://far:1").report();
        assert_eq!(told.matches("tcp://far:1").count(), 1, "{told}");
    }
}
