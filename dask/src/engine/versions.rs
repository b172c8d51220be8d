//! Whether scheduler and workers run what is supported, and the same. Without I/O.

use remuda_core::error::{Error, ErrorKind, Result};

use crate::shim::{Environment, Hello};

/// The oldest that are supported.
const DISTRIBUTED: (u32, u32) = (2023, 5);
const PYTHON: (u32, u32) = (3, 8);

/// Before anything of ours goes there.
pub(super) fn check_scheduler(distributed: &str, python: &str) -> Result<()> {
    check_age("the scheduler", distributed, python)
}

/// Python and Dask promise nothing for pickles and messages between releases: what fails then fails in the middle of a run, and unclearly.
/// Releases that differ in their last number only get on. Who comes later is not asked.
pub(super) fn check_workers(hello: &Hello) -> Result<()> {
    for there in &hello.environments {
        check_age(&who(there), &there.distributed, &there.python)?;
        let differs = |ours: &str, theirs: &str| Some(numbers(ours)? != numbers(theirs)?).filter(|differs| *differs);
        let refused = |what: &str, ours: &str, theirs: &str, remedy: String| {
            let text = format!("the scheduler runs {what} {ours}, but {} {theirs}: they do not understand each other reliably", who(there));
            Err(Error::new(ErrorKind::Unsupported, text).with_hint(remedy))
        };
        if differs(&hello.distributed, &there.distributed).is_some() {
            let remedy = "in the environment of each: pip install 'dask[distributed]==VERSION', the same for scheduler and workers";
            return refused("distributed", &hello.distributed, &there.distributed, remedy.replace("VERSION", &hello.distributed));
        }
        if differs(&hello.python, &there.python).is_some() {
            let remedy = "start scheduler and workers in the same environment or image".to_owned();
            return refused("Python", &hello.python, release(&there.python), remedy);
        }
        if !there.distributed.is_empty() && there.distributed != hello.distributed {
            tracing::warn!(
                scheduler = hello.distributed,
                workers = there.distributed,
                "scheduler and workers run different releases of Dask"
            );
        }
    }
    Ok(())
}

fn check_age(who: &str, distributed: &str, python: &str) -> Result<()> {
    let too_old = |what: &str, has: &str, needs: (u32, u32), remedy: &str| {
        let text = format!("{who} runs {what} {has}, which is too old: {}.{} or later is needed", needs.0, needs.1);
        Err(Error::new(ErrorKind::Unsupported, text).with_hint(remedy))
    };
    if numbers(distributed).is_some_and(|has| has < DISTRIBUTED) {
        let remedy = "in its environment: pip install --upgrade 'dask[distributed]>=2023.5'; scheduler and workers alike";
        return too_old("distributed", distributed, DISTRIBUTED, remedy);
    }
    if numbers(python).is_some_and(|has| has < PYTHON) {
        let remedy = "use an environment or an image with a later Python; scheduler and workers alike";
        return too_old("Python", release(python), PYTHON, remedy);
    }
    Ok(())
}

fn who(there: &Environment) -> String {
    let names = there.workers.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match there.count.saturating_sub(there.workers.len() as u64) {
        0 => format!("worker {names}"),
        more => format!("worker {names} and {more} more"),
    }
}

/// The first two parts of a version; `None` for one that says nothing, as that of a build from a checkout may.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// `3.11.7` of `3.11.7.final.0`.
fn release(python: &str) -> &str {
    python.split_once(".final").map_or(python, |(release, _)| release)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(distributed: &str, python: &str, workers: &[(&str, &str, &[&str], u64)]) -> Hello {
        let environments = workers.iter().map(|(distributed, python, names, count)| Environment {
            python: (*python).to_owned(),
            distributed: (*distributed).to_owned(),
            workers: names.iter().map(|name| (*name).to_owned()).collect(),
            count: *count,
        });
        Hello { distributed: distributed.to_owned(), python: python.to_owned(), environments: environments.collect(), ..Hello::default() }
    }

    #[test]
    fn old_versions_are_refused_with_the_remedy() {
        for (distributed, python) in [("2023.5.0", "3.8.18.final.0"), ("2026.8.0", "3.11.7"), ("0+unknown", "3.8.0"), ("2026.8.1.dev3", "")]
        {
            check_scheduler(distributed, python).unwrap();
        }
        let error = check_scheduler("2023.4.1", "3.11.7").unwrap_err();
        assert!(error.is_user_error() && error.hint().unwrap().contains("pip install"), "{error:?}");
        let error = check_scheduler("2023.5.0", "3.7.17.final.0").unwrap_err();
        assert_eq!(error.message(), "the scheduler runs Python 3.7.17, which is too old: 3.8 or later is needed");
    }

    #[test]
    fn workers_that_are_too_old_or_of_another_release_are_named() {
        let same = ("2026.8.0", "3.11.7.final.0", &["a"][..], 1);
        check_workers(&hello("2026.8.0", "3.11.9", &[])).unwrap();
        check_workers(&hello("2026.8.0", "3.11.9", &[same, ("2026.8.1", "3.11.1.final.0", &["b"], 1), ("", "", &["c"], 1)])).unwrap();
        for (other, message, remedy) in [
            (
                ("2026.7.0", "3.11.7", &["b", "c"][..], 2),
                "the scheduler runs distributed 2026.8.0, but worker `b`, `c` 2026.7.0: they",
                "==2026.8.0'",
            ),
            (
                ("2026.8.0", "3.12.1.final.0", &["b"], 9),
                "the scheduler runs Python 3.11.9, but worker `b` and 8 more 3.12.1: they",
                "same environment",
            ),
            (("2022.1.0", "3.11.7", &["b"], 1), "worker `b` runs distributed 2022.1.0, which is too old", "pip install"),
            (("2026.8.0", "3.7.1.final.0", &["b"], 1), "worker `b` runs Python 3.7.1, which is too old", "later Python"),
        ] {
            let error = check_workers(&hello("2026.8.0", "3.11.9", &[same, other])).unwrap_err();
            assert!(error.is_user_error() && error.message().starts_with(message), "{error:?}");
            assert!(error.hint().unwrap().contains(remedy), "{error:?}");
        }
    }
}
