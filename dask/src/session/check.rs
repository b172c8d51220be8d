//! What is asked of the workers before the first task of a kind goes there, so that a stale image or a missing module is one clear error.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, OnceLock},
};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    host,
};

use super::{call::Gate, wire::Program};
use crate::{
    engine::Inner,
    protocol::{
        Value,
        value::{get, map, text},
    },
    shim,
};

/// Whether the workers that are here can run such tasks. Those that come later refuse by themselves.
///
/// # Errors
/// What is missing, where, and the remedy.
pub(super) async fn check(inner: &Inner, gate: &Gate) -> Result<()> {
    let answer = match ask(inner, gate).await {
        Ok(answer) => answer,
        Err(error) => {
            // No reason to refuse: a worker that cannot run the task says so.
            tracing::warn!(%error, "the workers could not be asked what they have");
            return Ok(());
        }
    };
    match gate {
        Gate::None => Ok(()),
        Gate::Host => answer.iter().try_for_each(|(worker, answer)| check_host(worker, answer, inner.named_host.is_some())),
        Gate::Module { name, .. } => check_module(name, &answer),
    }
}

async fn ask(inner: &Inner, gate: &Gate) -> Result<BTreeMap<String, Value>> {
    let strings = |texts: &[String]| Value::Array(texts.iter().map(|text| text.as_str().into()).collect());
    let (modules, paths, host) = match gate {
        Gate::None => return Ok(BTreeMap::new()),
        Gate::Host => (Value::Array(vec![]), Value::Array(vec![]), as_map(&program(inner.named_host.as_ref()))),
        Gate::Module { name, path } => (Value::Array(vec![name.as_str().into()]), strings(path), Value::Nil),
    };
    // Starting a program on a busy machine takes its time.
    let mut rpc = inner.rpc().await?.with_patience(std::time::Duration::from_secs(90));
    let args = [("modules", modules), ("paths", paths), ("host", host), ("workers", Value::Nil)];
    let answer = rpc.call(&shim::op("prepare"), args).await?;
    let workers = answer.body().as_map().map(Vec::as_slice).unwrap_or_default();
    Ok(workers.iter().filter_map(|(name, answer)| Some((text(name)?.to_owned(), answer.clone()))).collect())
}

/// What the user named, else this program, for workers on this machine.
pub(super) fn program(named: Option<&Arc<Program>>) -> Arc<Program> {
    named.cloned().unwrap_or_else(own_program)
}

fn own_program() -> Arc<Program> {
    static PROGRAM: OnceLock<Arc<Program>> = OnceLock::new();
    let find = || {
        let exe = std::env::current_exe().ok().and_then(|exe| exe.to_str().map(str::to_owned));
        let args = host::args().ok();
        // Without it the worker takes us for another machine.
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().filter(|_| exe.is_some() && args.is_some());
        let boot_id = boot_id.map(|id| id.trim().to_owned());
        Program { exe: exe.unwrap_or_default(), args: args.unwrap_or_default().to_vec(), boot_id, named: false }
    };
    // A program that is not prepared yet may be so later.
    if host::args().is_err() {
        return Arc::new(find());
    }
    PROGRAM.get_or_init(|| Arc::new(find())).clone()
}

fn as_map(program: &Program) -> Value {
    let args = program.args.iter().map(|arg| arg.as_str().into()).collect();
    map([
        ("exe", program.exe.as_str().into()),
        ("args", Value::Array(args)),
        ("boot_id", program.boot_id.as_deref().map_or(Value::Nil, Into::into)),
        ("named", program.named.into()),
    ])
}

fn check_host(worker: &str, answer: &Value, is_named: bool) -> Result<()> {
    let refused = |message: String| Error::new(ErrorKind::ConfigInvalid, message).with_context("worker", worker);
    if let Some(error) = get(answer, "error").and_then(text) {
        // That nobody prepared this program for it is the nearer cause.
        let error = refused(format!("worker {worker} cannot run Rust tasks: {error}"));
        return Err(host::args().err().filter(|_| !is_named).into_iter().fold(error, |error, cause| {
            let hint = cause.hint().map(str::to_owned);
            hint.into_iter().fold(error.with_source(cause), Error::with_hint)
        }));
    }
    let tasks = get(answer, "tasks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let theirs = |name: &str| {
        tasks.iter().find_map(|task| match task.as_array().map(Vec::as_slice) {
            Some([known, signature]) if text(known) == Some(name) => text(signature),
            _ => None,
        })
    };
    let remedy = "build the workers' image, `task_host` or `REMUDA_TASK_HOST_BINARY` from the same sources as this driver";
    for ours in host::tasks() {
        let what = match theirs(ours.name) {
            Some(signature) if signature == ours.signature => continue,
            Some(signature) => format!("its task `{}` is `{signature}`, ours is `{}`", ours.name, ours.signature),
            None => format!("it has no task `{}` (`{}`)", ours.name, ours.signature),
        };
        return Err(refused(format!("the program of worker {worker} is of another build: {what}")).with_hint(remedy));
    }
    Ok(())
}

fn check_module(module: &str, answer: &BTreeMap<String, Value>) -> Result<()> {
    let lacks = |answer: &Value| get(answer, "missing").and_then(Value::as_array).is_some_and(|missing| !missing.is_empty());
    let lacking: Vec<&str> = answer.iter().filter(|(_, answer)| lacks(answer)).map(|(worker, _)| worker.as_str()).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let shown = lacking.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = if lacking.len() > 5 { format!(" and {} more", lacking.len() - 5) } else { String::new() };
    let which = if lacking.len() == answer.len() { "no worker has it" } else { "these have not" };
    Err(Error::new(ErrorKind::NotInstalled, format!("the Python module `{module}` is missing on the workers; {which}: {shown}{more}"))
        .with_hint(
            "install it in the environment or image of the workers, or put its file into a directory that they share with the driver",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_modules_name_the_workers() {
        let answer = |missing: &[&str]| map([("missing", Value::Array(missing.iter().map(|name| (*name).into()).collect()))]);
        let workers = BTreeMap::from([("a".to_owned(), answer(&["pandas"])), ("b".to_owned(), answer(&[]))]);
        let error = check_module("pandas", &workers).unwrap_err();
        assert!(error.message().contains("`pandas`") && error.message().ends_with("these have not: a"), "{error}");
    }

    #[test]
    fn a_worker_without_a_program_says_what_to_do() {
        let answer = map([("error", "it has no program".into())]);
        let error = check_host("w", &answer, false).unwrap_err();
        assert!(error.message().contains("it has no program") && error.hint().is_some(), "{error:?}");
    }
}
