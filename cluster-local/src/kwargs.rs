//! What the kwargs of both classes have in common. Their documentation stands at each class, for it is what people are shown of it.

use std::collections::BTreeMap;

use remuda_core::error::Mistake;

/// Workers, and slots of each: beyond this it is a slip of the finger.
const MOST: u32 = 10_000;

/// The kwargs that say how many workers there are, and what each of them has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workers<'a> {
    pub(crate) n_workers: Option<u32>,
    pub(crate) threads_per_worker: Option<u32>,
    pub(crate) resources: &'a BTreeMap<String, f64>,
    pub(crate) env: &'a BTreeMap<String, String>,
}

impl Workers<'_> {
    /// Everything that is wrong with them.
    pub(crate) fn check(self) -> Vec<Mistake> {
        let mut wrong = Vec::new();
        for (name, value) in [("n_workers", self.n_workers), ("threads_per_worker", self.threads_per_worker)] {
            if let Some(n) = value.filter(|n| *n > MOST) {
                wrong.push(Mistake::new(name, format!("expected at most {MOST}, found {n}")));
            }
        }
        if self.threads_per_worker == Some(0) {
            wrong.push(Mistake::new("threads_per_worker", "expected at least 1, found 0"));
        }
        for (name, value) in self.resources {
            if !value.is_finite() || *value <= 0.0 {
                wrong.push(Mistake::new(format!("resources.{name}"), format!("expected a number above 0, found {value}")));
            }
        }
        for (name, value) in self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                wrong.push(Mistake::new(format!("env.{name}"), "this cannot be an environment variable"));
            }
        }
        wrong
    }
}
