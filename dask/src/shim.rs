//! Our part in the cluster: one Python source, in the scheduler and in each worker.
//!
//! It is put there by [`install`], or preloaded with the text of [`preload_text`] where a site lets nobody put anything there. It bears the
//! hash of its source in the names of its module, its plugins and its operations, so that several versions live side by side. What it
//! answers to is described with the types that ask it.

use std::{fmt::Write as _, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use remuda_core::{
    error::{Error, ErrorKind, Result},
    host,
};
use sha2::{Digest, Sha256};

use crate::{
    Rpc,
    identity::no_scheduler,
    protocol::{
        Value,
        value::{get, text},
    },
};

mod pickle;

/// What this build and its shim say to each other. Raised with every change that the other side must know of.
pub const PROTOCOL: u64 = 1;

/// Registers the module, wherever the source comes from.
const BOOT: &str = include_str!("shim/boot.py");

static SOURCE: LazyLock<String> = LazyLock::new(|| {
    let parts = [
        include_str!("shim/errors.py"),
        host::PYTHON,
        include_str!("shim/plain.py"),
        include_str!("shim/modules.py"),
        include_str!("shim/host.py"),
        include_str!("shim/hosts.py"),
        include_str!("shim/command.py"),
        include_str!("shim/template.py"),
        include_str!("shim/task.py"),
        include_str!("shim/worker.py"),
        include_str!("shim/fetch.py"),
        include_str!("shim/graph.py"),
        include_str!("shim/heap.py"),
        include_str!("shim/session.py"),
        include_str!("shim/places.py"),
        include_str!("shim/waits.py"),
        include_str!("shim/circles.py"),
        include_str!("shim/load.py"),
        include_str!("shim/watch.py"),
        include_str!("shim/leases.py"),
        include_str!("shim/scheduler.py"),
        include_str!("shim/plugin.py"),
    ];
    parts.join("\n\n")
});

static HASH: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::new().chain_update(BOOT).chain_update(&*SOURCE).finalize();
    digest.iter().take(4).fold(String::new(), |mut hash, byte| {
        let _ = write!(hash, "{byte:02x}");
        hash
    })
});

/// Eight hexadecimal digits that tell this shim from others.
#[must_use]
pub fn hash() -> &'static str {
    &HASH
}

/// The name of one of the shim's operations: `hello`, `stream`, `watch`, `fetch`, `prepare`, `load`.
///
/// ```
/// use remuda_dask::shim;
///
/// assert_eq!(shim::op("hello"), format!("remuda_{}_hello", shim::hash()));
/// ```
#[must_use]
pub fn op(name: &str) -> String {
    format!("remuda_{}_{name}", hash())
}

/// The name under which its plugins are registered.
fn plugin_name() -> String {
    format!("remuda-{}", hash())
}

/// What a scheduler with our shim says of itself.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// Its version of `distributed`: `2026.8.0`.
    pub distributed: String,
    /// Its version of Python: `3.11.7`.
    pub python: String,
    /// Unique to its process.
    pub id: String,
    /// Where others reach it.
    pub address: String,
    /// How many workers it has.
    pub workers: u64,
    /// Where its dashboard is, where it has one.
    pub dashboard: Option<String>,
    /// What its workers run.
    pub environments: Vec<Environment>,
}

/// Workers that run the same versions.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Python's: `3.11.7.final.0`; empty where they did not tell.
    pub python: String,
    /// That of `distributed`: `2026.8.0`; empty where they did not tell.
    pub distributed: String,
    /// The names of the first five.
    pub workers: Vec<String>,
    /// How many they are.
    pub count: u64,
}

impl Environment {
    fn read(entry: &Value) -> Option<Self> {
        let [python, distributed, workers, count] = entry.as_array()?.as_slice() else { return None };
        let workers = workers.as_array()?.iter().filter_map(text).map(str::to_owned).collect();
        Some(Self { python: text(python)?.to_owned(), distributed: text(distributed)?.to_owned(), workers, count: count.as_u64()? })
    }
}

/// Makes sure that a scheduler and its workers have our shim; of use as often as one likes.
///
/// Other versions that are there stay. Workers that join later get it from the scheduler.
///
/// # Errors
/// - [`ErrorKind::PermissionDenied`] where the site lets nobody put it there: the hint says how to preload it.
/// - [`ErrorKind::ConfigInvalid`] where a worker answers.
/// - [`ErrorKind::Unsupported`] where it is there and does not work, and as [`Rpc::call`].
pub async fn install(rpc: &mut Rpc) -> Result<Hello> {
    match hello(rpc).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        answered => return answered,
    }
    rpc.identity().await?.of_scheduler()?;
    let version = rpc.versions().await?.distributed;
    let name = plugin_name();
    let plugin = |class| Value::from(pickle::plugin(BOOT, &SOURCE, hash(), env!("CARGO_PKG_VERSION"), class));
    let mut args = vec![("plugin", plugin("SchedulerShim")), ("name", name.as_str().into()), ("idempotent", true.into())];
    let registered = rpc.call("register_scheduler_plugin", args.clone()).await;
    // It answers nil, and so does an operation that is not there.
    if let Err(error) = registered
        && error.kind() != ErrorKind::Unsupported
    {
        return Err(refused(rpc, error).await);
    }
    args[0].1 = plugin("WorkerShim");
    if !takes_idempotent(&version) {
        args.pop();
    }
    match rpc.call("register_worker_plugin", args).await {
        Ok(answer) => check_workers(answer.body())?,
        Err(error) => return Err(refused(rpc, error).await),
    }
    let hello = hello(rpc).await.map_err(|error| match error.kind() {
        ErrorKind::Unsupported => Error::new(ErrorKind::Unsupported, "the scheduler took our plugin and does not run it")
            .with_hint("its log says why; `remuda shim` prints what may be preloaded instead"),
        _ => error,
    })?;
    tracing::info!(distributed = hello.distributed, hash = hash(), "the shim is installed");
    Ok(hello)
}

async fn hello(rpc: &mut Rpc) -> Result<Hello> {
    let answer = rpc.call(&op("hello"), []).await?;
    let body = answer.body();
    let protocol = get(body, "protocol").and_then(Value::as_u64);
    if protocol != Some(PROTOCOL) {
        return Err(Error::new(ErrorKind::Unexpected, format!("the shim speaks protocol {protocol:?} instead of {PROTOCOL}")));
    }
    if get(body, "distributed").is_none() {
        return Err(no_scheduler());
    }
    let field = |name| get(body, name).and_then(text).unwrap_or_default().to_owned();
    let python = get(body, "python").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let python: Vec<String> = python.iter().filter_map(Value::as_u64).map(|part| part.to_string()).collect();
    Ok(Hello {
        distributed: field("distributed"),
        python: python.join("."),
        id: field("id"),
        address: field("address"),
        workers: get(body, "workers").and_then(Value::as_u64).unwrap_or_default(),
        dashboard: get(body, "dashboard").and_then(text).map(str::to_owned),
        environments: get(body, "environments").and_then(Value::as_array).into_iter().flatten().filter_map(Environment::read).collect(),
    })
}

/// `register_worker_plugin` of 2023.9 and older does not know the argument, 2026.8 does not do without.
fn takes_idempotent(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) >= (2023, 10)
}

/// Each worker says whether it could set the plugin up.
fn check_workers(answers: &Value) -> Result<()> {
    for (worker, answer) in answers.as_map().map(Vec::as_slice).unwrap_or_default() {
        if let Some(said) = get(answer, "exception_text").and_then(text) {
            let error = Error::new(ErrorKind::Unsupported, format!("a worker cannot run our shim: {said}"));
            return Err(error.with_context("worker", worker.as_str().unwrap_or("?")).with_hint(PRELOAD));
        }
    }
    Ok(())
}

const PRELOAD: &str =
    "`remuda shim` prints a text that whoever runs the cluster passes to it: `dask scheduler --preload TEXT`, or a file with it";

/// A site that blocks injection is not got around; what others have preloaded is said.
async fn refused(rpc: &mut Rpc, error: Error) -> Error {
    let is_blocked = error.kind() == ErrorKind::PermissionDenied || error.message().contains("distributed.scheduler.pickle");
    if !is_blocked {
        return error;
    }
    let mut message = "the scheduler lets nobody install our shim".to_owned();
    if let Ok(answer) = rpc.call("remuda_shims", []).await {
        let there = answer.body().as_array().map(Vec::as_slice).unwrap_or_default();
        let versions: Vec<&str> = there.iter().filter_map(|shim| get(shim, "version").and_then(text)).collect();
        if !versions.is_empty() {
            let _ = write!(message, "; the one it has is of version {}, this is {}", versions.join(", "), env!("CARGO_PKG_VERSION"));
        }
    }
    Error::new(ErrorKind::PermissionDenied, message).with_source(error).with_hint(PRELOAD)
}

/// How [`preload_text`] is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preload {
    /// To be read by people, and kept in a file.
    Plain,
    /// One line: for a command line, an environment variable, a values file.
    Line,
}

/// Python text that brings the shim into a scheduler, which passes it on to its workers: `dask scheduler --preload TEXT` or `--preload
/// FILE.py`, or `DASK_DISTRIBUTED__SCHEDULER__PRELOAD='["TEXT"]'`. Workers take the same text.
#[must_use]
pub fn preload_text(form: Preload) -> String {
    let (hash, version, source) = (hash(), env!("CARGO_PKG_VERSION"), &*SOURCE);
    let plain = format!(
        "H = \"{hash}\"\nV = \"{version}\"\nB = r'''{BOOT}'''\nS = r'''{source}'''\nexec(B, {{\"H\": H, \"V\": V, \"B\": B, \"S\": \
         S}})\nfrom _remuda_{hash} import dask_setup\n"
    );
    match form {
        Preload::Plain => plain,
        Preload::Line => {
            let packed = STANDARD.encode(pickle::deflated(plain.as_bytes()));
            format!("import zlib, base64; exec(zlib.decompress(base64.b64decode('{packed}'), -15).decode())")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_can_stand_in_a_python_string() {
        for text in [BOOT, &SOURCE] {
            assert!(!text.contains("'''") && !text.ends_with('\\') && !text.ends_with('\''));
        }
        assert_eq!(hash().len(), 8);
    }

    #[test]
    fn versions_are_told_apart() {
        for (version, takes) in [("2023.5.0", false), ("2023.9.3", false), ("2023.10.0", true), ("2024.8.0", true), ("2026.8.0", true)] {
            assert_eq!(takes_idempotent(version), takes, "{version}");
        }
    }

    #[test]
    fn a_worker_that_cannot_run_it_is_named() {
        use crate::protocol::value::map;

        let failed = map([("status", "error".into()), ("exception_text", "ImportError('no msgpack')".into())]);
        let answers = map([("tcp://a:1", map([("status", "OK".into())])), ("tcp://b:2", failed)]);
        let error = check_workers(&answers).unwrap_err();
        assert!(error.message().contains("no msgpack") && error.report().to_string().contains("tcp://b:2"), "{error:?}");
    }
}
