//! Annotations: how tasks are to be run. On a call, for a scope, or where the task is declared.

use std::{collections::BTreeMap, time::Duration};

use remuda_core::{
    error::{Error, ErrorKind},
    task::Annotations,
};

/// Annotations as far as they are set. Scopes nest: what is set further in wins, key by key.
///
/// ```
/// use remuda::Annotate;
///
/// let outer = Annotate::new().priority(1).resource("GPU", 1.0);
/// let inner = Annotate::new().priority(10);
/// let both = inner.over(&outer);
/// assert_eq!(both, Annotate::new().priority(10).resource("GPU", 1.0));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct Annotate {
    priority: Option<i64>,
    retries: Option<u32>,
    allowed_failures: Option<u32>,
    resources: Option<BTreeMap<String, f64>>,
    slots: Option<u32>,
    workers: Option<Vec<String>>,
    allow_other_workers: Option<bool>,
    timeout: Option<Duration>,
    name: Option<String>,
}

/// The setters, for [`Annotate`] and for every call that carries one.
macro_rules! annotation_setters {
    ($($field:tt)*) => {
        /// Higher first, across all workers. Default 0.
        pub fn priority(mut self, priority: i64) -> Self {
            self.$($field)*.set_priority(priority);
            self
        }

        /// How often the task is tried again after it failed by itself. Default 0.
        pub fn retries(mut self, retries: u32) -> Self {
            self.$($field)*.set_retries(retries);
            self
        }

        /// How often it is tried again after its worker was lost. Default: the cluster's (3).
        pub fn allowed_failures(mut self, failures: u32) -> Self {
            self.$($field)*.set_allowed_failures(failures);
            self
        }

        /// An abstract resource of the worker, held while the task runs. May be called for several.
        pub fn resource(mut self, name: impl Into<String>, amount: f64) -> Self {
            self.$($field)*.set_resource(name.into(), amount);
            self
        }

        /// Slots held while it runs. Default 1; 0 for a task that only waits.
        pub fn slots(mut self, slots: u32) -> Self {
            self.$($field)*.set_slots(slots);
            self
        }

        /// A worker it may run on, by name, index or host. May be called for several.
        pub fn worker(mut self, worker: impl std::fmt::Display) -> Self {
            self.$($field)*.set_worker(worker.to_string());
            self
        }

        /// The workers named are a preference, not a condition.
        pub fn allow_other_workers(mut self, allow: bool) -> Self {
            self.$($field)*.set_allow_other_workers(allow);
            self
        }

        /// How long one attempt may run; after that the task has failed. A worker process that does not stop is killed; in a thread
        /// (`processes: false`) a sync body that does not look at its context runs on, while what it held is given to others.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($field)*.set_timeout(timeout);
            self
        }

        /// The name shown for the task. Default: the function's.
        pub fn named(mut self, name: impl Into<String>) -> Self {
            self.$($field)*.set_name(name.into());
            self
        }
    };
}
pub(crate) use annotation_setters;

impl Annotate {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn set_priority(&mut self, priority: i64) {
        self.priority = Some(priority);
    }

    pub(crate) fn set_retries(&mut self, retries: u32) {
        self.retries = Some(retries);
    }

    pub(crate) fn set_allowed_failures(&mut self, failures: u32) {
        self.allowed_failures = Some(failures);
    }

    pub(crate) fn set_resource(&mut self, name: String, amount: f64) {
        self.resources.get_or_insert_default().insert(name, amount);
    }

    pub(crate) fn set_slots(&mut self, slots: u32) {
        self.slots = Some(slots);
    }

    pub(crate) fn set_worker(&mut self, worker: String) {
        self.workers.get_or_insert_default().push(worker);
    }

    pub(crate) fn set_allow_other_workers(&mut self, allow: bool) {
        self.allow_other_workers = Some(allow);
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    pub(crate) fn set_name(&mut self, name: String) {
        self.name = Some(name);
    }

    /// These, and where they say nothing, `outer`.
    pub fn over(self, outer: &Self) -> Self {
        Self {
            priority: self.priority.or(outer.priority),
            retries: self.retries.or(outer.retries),
            allowed_failures: self.allowed_failures.or(outer.allowed_failures),
            resources: self.resources.or_else(|| outer.resources.clone()),
            slots: self.slots.or(outer.slots),
            workers: self.workers.or_else(|| outer.workers.clone()),
            allow_other_workers: self.allow_other_workers.or(outer.allow_other_workers),
            timeout: self.timeout.or(outer.timeout),
            name: self.name.or_else(|| outer.name.clone()),
        }
    }

    /// Names differ from call to call where the rest does not; so the name goes its own way.
    pub(crate) fn take_name(&mut self) -> Option<String> {
        self.name.take()
    }

    /// The annotations as the engine takes them.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`]: an amount of a resource that is not a positive number, or a timeout of nothing.
    pub fn build(&self) -> Result<Annotations, Error> {
        for (name, amount) in self.resources.iter().flatten() {
            if !(amount.is_finite() && *amount >= 0.0) {
                let text = format!("annotation `resources.{name}`: {amount} is not an amount");
                return Err(Error::new(ErrorKind::ConfigInvalid, text).with_hint("use a number that is not negative"));
            }
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err(Error::new(ErrorKind::ConfigInvalid, "annotation `timeout`: 0 leaves no time to run")
                .with_hint("leave it out for no limit"));
        }
        let default = Annotations::default();
        Ok(Annotations {
            priority: self.priority.unwrap_or(default.priority),
            retries: self.retries.unwrap_or(default.retries),
            allowed_failures: self.allowed_failures,
            resources: self.resources.clone().unwrap_or_default(),
            slots: self.slots.unwrap_or(default.slots),
            workers: self.workers.clone().unwrap_or_default(),
            allow_other_workers: self.allow_other_workers.unwrap_or_default(),
            timeout: self.timeout,
        })
    }
}

/// `self.own` reads better than a second copy of the setters.
impl Annotate {
    annotation_setters!(own_mut());

    fn own_mut(&mut self) -> &mut Self {
        self
    }
}
