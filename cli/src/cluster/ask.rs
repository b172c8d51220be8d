//! `remuda cluster status`, `workers`, `logs`: what a scheduler says, whoever started it.

use std::{collections::BTreeMap, fmt::Write, process::ExitCode};

use remuda::{
    Error, ErrorKind, Result,
    dask::{
        Identity, Rpc, WorkerIdentity,
        protocol::{
            Value,
            value::{elements, get, text},
        },
    },
};
use serde_json::json;

use crate::{args::At, failure::Failure, output};

/// What `identity` says of a worker beside what [`WorkerIdentity`] holds.
struct Worker {
    address: String,
    identity: WorkerIdentity,
    memory: u64,
    /// Tasks that run there.
    executing: u64,
}

async fn look(rpc: &mut Rpc) -> Result<(Identity, Vec<Worker>)> {
    let identity = rpc.identity().await?;
    if identity.kind != "Scheduler" {
        let error = Error::new(ErrorKind::Unsupported, format!("a {} answers there, not a scheduler", identity.kind.to_lowercase()));
        return Err(error.with_context("address", rpc.comm().address()).with_hint("give the scheduler's address"));
    }
    let whole = rpc.call("identity", []).await?;
    let metrics = |address: &str, path: &[&str]| {
        let mut value = get(get(whole.body(), "workers")?, address).and_then(|worker| get(worker, "metrics"))?;
        for key in path {
            value = get(value, key)?;
        }
        value.as_u64()
    };
    let workers = identity.workers.iter().map(|(address, worker)| Worker {
        address: address.clone(),
        identity: worker.clone(),
        memory: metrics(address, &["memory"]).unwrap_or_default(),
        executing: metrics(address, &["task_counts", "executing"]).or_else(|| metrics(address, &["executing"])).unwrap_or_default(),
    });
    let mut workers: Vec<_> = workers.collect();
    workers.sort_by_key(|worker| (worker.identity.name.parse::<u64>().unwrap_or(u64::MAX), worker.identity.name.clone()));
    Ok((identity, workers))
}

/// How many tasks are in each state.
async fn tasks(rpc: &mut Rpc) -> Result<BTreeMap<String, u64>> {
    let answer = rpc.call("get_task_prefix_states", []).await?;
    let mut sum = BTreeMap::new();
    for (_, states) in answer.body().as_map().map(Vec::as_slice).unwrap_or_default() {
        for (state, count) in states.as_map().map(Vec::as_slice).unwrap_or_default() {
            *sum.entry(state.as_str().unwrap_or_default().to_owned()).or_default() += count.as_u64().unwrap_or_default();
        }
    }
    Ok(sum)
}

fn dashboard(at: &At, identity: &Identity) -> Option<String> {
    let port = identity.services.get("dashboard").filter(|port| **port > 0)?;
    let address: remuda::dask::Address = at.address.parse().ok()?;
    let host = if address.host().contains(':') { format!("[{}]", address.host()) } else { address.host().to_owned() };
    Some(format!("http://{host}:{port}/status"))
}

pub(super) async fn status(at: &At) -> Result<ExitCode, Failure> {
    let mut rpc = super::connect(at).await?;
    let (identity, workers) = look(&mut rpc).await?;
    let versions = rpc.versions().await?;
    let tasks = tasks(&mut rpc).await?;
    let dashboard = dashboard(at, &identity);
    let sum = |count: fn(&Worker) -> u64| workers.iter().map(count).sum::<u64>();
    let (threads, memory, limit) = (sum(|w| w.identity.nthreads), sum(|w| w.memory), sum(|w| w.identity.memory_limit));
    if at.json {
        return output::json(&json!({
            "address": identity.address, "id": identity.id, "dashboard": dashboard,
            "versions": {"distributed": versions.distributed, "dask": versions.dask, "python": versions.python},
            "workers": workers.len(), "threads": threads,
            "memory": {"used": memory, "limit": limit}, "tasks": tasks,
        }));
    }
    let states: Vec<_> = tasks.iter().filter(|(_, count)| **count > 0).map(|(state, count)| format!("{count} {state}")).collect();
    let text = format!(
        "address    {}\ndashboard  {}\nversions   distributed {}, Python {}\nworkers    {}, {threads} threads\nmemory     {} of {}\ntasks      {}\n",
        identity.address.as_deref().unwrap_or(&at.address),
        dashboard.as_deref().unwrap_or("none"),
        versions.distributed,
        versions.python.split(".final").next().unwrap_or_default(),
        workers.len(),
        bytes(memory),
        if limit == 0 { "no limit".into() } else { bytes(limit) },
        if states.is_empty() { "none".into() } else { states.join(", ") },
    );
    output::write(text.as_bytes())
}

pub(super) async fn workers(at: &At) -> Result<ExitCode, Failure> {
    let mut rpc = super::connect(at).await?;
    let (_, workers) = look(&mut rpc).await?;
    if at.json {
        let tree = |w: &Worker| {
            let i = &w.identity;
            json!({
                "name": i.name, "address": w.address, "host": i.host, "status": i.status, "threads": i.nthreads, "executing": w.executing,
                "memory": {"used": w.memory, "limit": i.memory_limit}, "resources": i.resources,
            })
        };
        return output::json(&workers.iter().map(tree).collect());
    }
    let head = ["NAME", "ADDRESS", "STATUS", "THREADS", "RUNNING", "MEMORY", "LIMIT", "RESOURCES"].map(str::to_owned);
    let rows = workers.iter().map(|w| {
        let i = &w.identity;
        let resources: Vec<_> = i.resources.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        let limit = if i.memory_limit == 0 { "none".into() } else { bytes(i.memory_limit) };
        let status = if i.status.is_empty() { "-".into() } else { i.status.clone() };
        [
            i.name.clone(),
            w.address.clone(),
            status,
            i.nthreads.to_string(),
            w.executing.to_string(),
            bytes(w.memory),
            limit,
            resources.join(","),
        ]
    });
    output::write(table([head].into_iter().chain(rows).collect()).as_bytes())
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// `1.5 GiB`.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// The newest last, as people read.
fn lines(log: &Value) -> Vec<(String, String)> {
    let line = |entry: &Value| match elements(entry)? {
        [level, line] => Some((text(level)?.to_owned(), text(line)?.to_owned())),
        _ => None,
    };
    elements(log).unwrap_or_default().iter().rev().filter_map(line).collect()
}

pub(super) async fn logs(at: &At, count: u32, wanted: &[String]) -> Result<ExitCode, Failure> {
    let mut rpc = super::connect(at).await?;
    let (_, workers) = look(&mut rpc).await?;
    let is_wanted = |worker: &Worker, name: &String| worker.identity.name == *name || worker.address == *name;
    if let Some(unknown) = wanted.iter().find(|name| !workers.iter().any(|worker| is_wanted(worker, name))) {
        let error = Error::new(ErrorKind::ConfigInvalid, format!("there is no worker `{unknown}`"));
        return Err(error.with_hint("`remuda cluster workers` shows their names").into());
    }
    let chosen: Vec<_> = workers.iter().filter(|worker| wanted.is_empty() || wanted.iter().any(|name| is_wanted(worker, name))).collect();
    let mut logs = Vec::new();
    if wanted.is_empty() {
        logs.push(("scheduler".to_owned(), lines(rpc.call("logs", [("n", count.into())]).await?.body())));
    }
    if !chosen.is_empty() {
        let addresses = Value::Array(chosen.iter().map(|worker| worker.address.as_str().into()).collect());
        let answer = rpc.call("worker_logs", [("n", count.into()), ("workers", addresses)]).await?;
        let of = |worker: &&Worker| {
            (format!("worker {}", worker.identity.name), get(answer.body(), &worker.address).map(lines).unwrap_or_default())
        };
        logs.extend(chosen.iter().map(of));
    }
    if at.json {
        let entries =
            |lines: &[(String, String)]| lines.iter().map(|(level, line)| json!({"level": level, "line": line})).collect::<Vec<_>>();
        return output::json(&logs.iter().map(|(name, lines)| json!({"of": name, "lines": entries(lines)})).collect());
    }
    let mut text = String::new();
    for (name, lines) in &logs {
        for (_, line) in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} | {}", line.trim_end());
        }
    }
    output::write(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_sizes() {
        let rows = vec![["NAME".to_owned(), "X".to_owned()], ["a".to_owned(), String::new()]];
        assert_eq!(table(rows), "NAME  X\na\n");
        assert_eq!([0, 1023, 1536, 3 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }
}
