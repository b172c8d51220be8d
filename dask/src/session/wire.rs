//! What a session and the shim say to each other on the stream, as bytes and back. No I/O, no state.

mod news;

use std::{collections::BTreeMap, sync::Arc};

use remuda_core::{error::Result, task::Annotations};
use rmp::encode as mp;
use serde::Serialize;

pub(crate) use self::news::{Event, News, Trouble, What, read, refusal};
use super::book::Backlog;
use crate::protocol::{Value, value::map};

/// Bit of a dependency's mode: the result is a Python object there.
pub(crate) const PYTHON: u8 = 1;
/// Bit of a dependency's mode: it stands in its hole as `{"Ok": value}`.
pub(crate) const WRAPPED: u8 = 2;

/// What tasks have in common: told to the shim once per session and map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Def {
    pub(crate) kind: &'static str,
    /// The prefix of the keys at Dask.
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signature: Option<&'static str>,
    /// What a worker on this machine may run it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<Arc<Program>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Arc<str>>,
    pub(crate) path: Arc<[String]>,
    pub(crate) priority: i64,
    pub(crate) retries: u32,
    pub(crate) allowed: Option<u32>,
    pub(crate) resources: BTreeMap<String, f64>,
    pub(crate) workers: Vec<String>,
    pub(crate) loose: bool,
    /// Seconds.
    pub(crate) timeout: Option<f64>,
    pub(crate) slots: u32,
    pub(crate) batch: bool,
}

/// What Rust tasks are run with: this program, started again as a task host, or the one that the user named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Program {
    pub(crate) exe: String,
    pub(crate) args: Vec<String>,
    /// Of this machine. Absent where this program is not prepared to be started again.
    pub(crate) boot_id: Option<String>,
    /// By the user: it is wherever the worker is.
    pub(crate) named: bool,
}

impl Def {
    /// The part that annotations decide.
    pub(crate) fn annotated(kind: &'static str, name: &str, path: Arc<[String]>, annotations: &Annotations) -> Self {
        Self {
            kind,
            name: key_name(name),
            function: None,
            signature: None,
            host: None,
            target: None,
            path,
            priority: annotations.priority,
            retries: annotations.retries,
            allowed: annotations.allowed_failures,
            resources: annotations.resources.clone(),
            workers: annotations.workers.clone(),
            loose: annotations.allow_other_workers,
            timeout: annotations.timeout.map(|limit| limit.as_secs_f64()),
            slots: annotations.slots,
            batch: false,
        }
    }

    /// How many hosts and workers it may lose.
    pub(crate) fn allowed(&self) -> u32 {
        self.allowed.unwrap_or(ALLOWED)
    }
}

/// How many workers a task may lose where nobody has said it: Dask's own default.
const ALLOWED: u32 = 3;

/// Dask takes what stands before the first dash for the kind of task. As the shim does it.
pub(crate) fn key_name(name: &str) -> String {
    let kept: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '_' }).collect();
    let kept = kept.trim_start_matches(['_', '.']);
    if kept.is_empty() { "task".to_owned() } else { kept.to_owned() }
}

/// The key at Dask.
pub(crate) fn dask_key(name: &str, session: &str, unit: u64) -> String {
    format!("{name}-{session}-{unit:x}")
}

/// One task as it goes to the shim.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) unit: u64,
    pub(crate) def: u32,
    pub(crate) args: Vec<u8>,
    pub(crate) deps: Vec<Dep>,
}

/// One dependency of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dep {
    pub(crate) unit: u64,
    /// -1: the whole result.
    pub(crate) element: i64,
    pub(crate) mode: u8,
    /// -1: order only.
    pub(crate) hole: i64,
}

/// To the shim, kept until it is acknowledged.
#[derive(Debug)]
pub(crate) enum Order {
    Submit {
        defs: Vec<(u32, Arc<Def>)>,
        tasks: Vec<Sent>,
    },
    /// `defs`: definitions that no task has any more.
    Release {
        units: Vec<u64>,
        defs: Vec<u32>,
    },
    Close,
}

impl Order {
    /// `held`: what is held back after a submission, if that is to be said with it.
    // Writing to a Vec cannot fail, so what `rmp` returns is of no interest.
    pub(crate) fn encode(&self, n: u64, held: Option<&[Backlog]>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let head = |out: &mut Vec<u8>, fields: u32, kind: &str| {
            let _ = mp::write_map_len(out, fields + 2);
            let _ = mp::write_str(out, "n");
            let _ = mp::write_uint(out, n);
            let _ = mp::write_str(out, "t");
            let _ = mp::write_str(out, kind);
        };
        match self {
            Self::Submit { defs, tasks } => {
                head(&mut out, if held.is_some() { 3 } else { 2 }, "submit");
                if let Some(held) = held {
                    write_kinds(&mut out, held);
                }
                let _ = mp::write_str(&mut out, "defs");
                let _ = mp::write_array_len(&mut out, length(defs));
                for (id, def) in defs {
                    let _ = mp::write_array_len(&mut out, 2);
                    let _ = mp::write_uint(&mut out, u64::from(*id));
                    out.extend(remuda_core::value::encode(&**def)?);
                }
                let _ = mp::write_str(&mut out, "tasks");
                let _ = mp::write_array_len(&mut out, length(tasks));
                tasks.iter().for_each(|task| task.encode(&mut out));
            }
            Self::Release { units, defs } => {
                head(&mut out, 2, "release");
                let _ = mp::write_str(&mut out, "defs");
                let _ = mp::write_array_len(&mut out, length(defs));
                for def in defs {
                    let _ = mp::write_uint(&mut out, u64::from(*def));
                }
                let _ = mp::write_str(&mut out, "keys");
                let _ = mp::write_array_len(&mut out, length(units));
                for unit in units {
                    let _ = mp::write_uint(&mut out, *unit);
                }
            }
            Self::Close => head(&mut out, 0, "close"),
        }
        Ok(out)
    }
}

impl Sent {
    fn encode(&self, out: &mut Vec<u8>) {
        let _ = mp::write_array_len(out, 4);
        let _ = mp::write_uint(out, self.unit);
        let _ = mp::write_uint(out, u64::from(self.def));
        let _ = mp::write_bin(out, &self.args);
        let _ = mp::write_array_len(out, u32::try_from(4 * self.deps.len()).unwrap_or(u32::MAX));
        for dep in &self.deps {
            let _ = mp::write_uint(out, dep.unit);
            let _ = mp::write_sint(out, dep.element);
            let _ = mp::write_uint(out, u64::from(dep.mode));
            let _ = mp::write_sint(out, dep.hole);
        }
    }
}

fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// A sign of life, and what has been heard so far. `bytes`: of the message that follows, if it may take long on its way.
pub(crate) fn alive(seen: u64, bytes: Option<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = mp::write_map_len(&mut out, if bytes.is_some() { 3 } else { 2 });
    if let Some(bytes) = bytes {
        let _ = mp::write_str(&mut out, "bytes");
        let _ = mp::write_uint(&mut out, bytes as u64);
    }
    let _ = mp::write_str(&mut out, "t");
    let _ = mp::write_str(&mut out, "alive");
    let _ = mp::write_str(&mut out, "seen");
    let _ = mp::write_uint(&mut out, seen);
    out
}

/// What the scheduler does not see of the work there is, for whoever scales it.
pub(crate) fn waiting(backlog: &[Backlog]) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = mp::write_map_len(&mut out, 2);
    let _ = mp::write_str(&mut out, "t");
    let _ = mp::write_str(&mut out, "waiting");
    write_kinds(&mut out, backlog);
    out
}

fn write_kinds(out: &mut Vec<u8>, backlog: &[Backlog]) {
    let kinds: Vec<_> = backlog.iter().map(|kind| (&kind.name, kind.calls, kind.seconds)).collect();
    let _ = mp::write_str(out, "kinds");
    let _ = kinds.serialize(&mut rmp_serde::Serializer::new(out));
}

/// `fixext 4` of the type that stands for a hole.
pub(crate) fn hole(index: usize) -> Vec<u8> {
    let index = u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes();
    [&[0xd6, b'Q'][..], &index].concat()
}

/// The request that opens a session's stream.
pub(crate) fn open(op: &str, session: &str, name: &str, lease: f64, resume: bool, seen: u64) -> Value {
    map([
        ("op", op.into()),
        ("session", session.into()),
        ("name", name.into()),
        ("lease", lease.into()),
        ("resume", resume.into()),
        ("seen", seen.into()),
    ])
}
