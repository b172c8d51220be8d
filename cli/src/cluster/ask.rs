//! `remuda cluster status`, `workers`, `logs`: what a scheduler says, whoever started it.

use std::{collections::BTreeMap, fmt::Write, process::ExitCode};

use remuda::{
    Error, ErrorKind, Result,
    dask::{Identity, LogLine, Rpc, WorkerIdentity},
};
use serde_json::json;

use crate::{args::At, failure::Failure, output, workers};

/// A worker and its address.
pub(super) type Worker = (String, WorkerIdentity);

/// The scheduler and its workers, by name.
///
/// # Errors
/// When it is no scheduler.
pub(super) async fn look(rpc: &mut Rpc) -> Result<(Identity, Vec<Worker>)> {
    let address = rpc.comm().address().clone();
    let identity = rpc.identity().await?.of_scheduler().map_err(|error| error.with_context("address", address))?;
    let mut workers: Vec<_> = identity.workers.clone().into_iter().collect();
    workers.sort_by_cached_key(|(_, worker)| (worker.name.parse::<u64>().unwrap_or(u64::MAX), worker.name.clone()));
    Ok((identity, workers))
}

/// How many tasks are in each state.
async fn tasks(rpc: &mut Rpc) -> Result<BTreeMap<String, u64>> {
    let mut sum = BTreeMap::new();
    for (state, count) in rpc.prefix_states().await?.into_values().flatten() {
        *sum.entry(state.to_string()).or_default() += count;
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
    // Where a site lets nobody read the metadata, there is the rest.
    let adapt = super::scale::read(&mut rpc, "holder").await.ok().and_then(|holder| super::scale::bounds(&holder));
    let dashboard = dashboard(at, &identity);
    let sum = |count: fn(&WorkerIdentity) -> u64| workers.iter().map(|(_, worker)| count(worker)).sum::<u64>();
    let (threads, memory, limit) = (sum(|w| w.nthreads), sum(|w| w.memory), sum(|w| w.memory_limit));
    if at.json {
        return output::json(&json!({
            "address": identity.address, "id": identity.id, "dashboard": dashboard,
            "versions": {"distributed": versions.distributed, "dask": versions.dask, "python": versions.python},
            "workers": workers.len(), "threads": threads,
            "memory": {"used": memory, "limit": limit}, "tasks": tasks,
            "adaptive": adapt.map(|adapt| json!({"minimum": adapt.minimum, "maximum": adapt.maximum})),
        }));
    }
    let scaling = adapt.map_or(String::new(), |adapt| format!("scaling    adaptive, {}\n", workers::range(&adapt)));
    let states: Vec<_> = tasks.iter().filter(|(_, count)| **count > 0).map(|(state, count)| format!("{count} {state}")).collect();
    let text = format!(
        "address    {}\ndashboard  {}\nversions   distributed {}, Python {}\nworkers    {}, {threads} threads\n{scaling}memory     {} of {}\ntasks      {}\n",
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
        let tree = |(address, w): &Worker| {
            json!({
                "name": w.name, "address": address, "host": w.host, "status": w.status, "threads": w.nthreads, "executing": w.executing,
                "memory": {"used": w.memory, "limit": w.memory_limit}, "resources": w.resources,
            })
        };
        return output::json(&workers.iter().map(tree).collect());
    }
    let head = ["NAME", "ADDRESS", "STATUS", "THREADS", "RUNNING", "MEMORY", "LIMIT", "RESOURCES"].map(str::to_owned);
    let rows = workers.iter().map(|(address, w)| {
        let resources: Vec<_> = w.resources.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        let limit = if w.memory_limit == 0 { "none".into() } else { bytes(w.memory_limit) };
        let status = if w.status.is_empty() { "-".into() } else { w.status.clone() };
        [
            w.name.clone(),
            address.clone(),
            status,
            w.nthreads.to_string(),
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

pub(super) async fn logs(at: &At, count: u32, wanted: &[String]) -> Result<ExitCode, Failure> {
    let mut rpc = super::connect(at).await?;
    let (_, workers) = look(&mut rpc).await?;
    let is_wanted = |(address, worker): &Worker, name: &String| worker.name == *name || address == name;
    if let Some(unknown) = wanted.iter().find(|name| !workers.iter().any(|worker| is_wanted(worker, name))) {
        let error = Error::new(ErrorKind::ConfigInvalid, format!("there is no worker `{unknown}`"));
        return Err(error.with_hint("`remuda cluster workers` shows their names").into());
    }
    let mut logs = Vec::new();
    if wanted.is_empty() {
        logs.push(("scheduler".to_owned(), rpc.logs(Some(count.into())).await?));
    }
    let is_chosen = |worker: &&Worker| wanted.is_empty() || wanted.iter().any(|name| is_wanted(worker, name));
    let chosen: Vec<_> = workers.iter().filter(is_chosen).collect();
    if !chosen.is_empty() {
        let addresses: Vec<_> = chosen.iter().map(|(address, _)| address.clone()).collect();
        let mut answers = rpc.worker_logs(Some(&addresses), Some(count.into()), false).await?;
        logs.extend(
            chosen.iter().map(|(address, worker)| (format!("worker {}", worker.name), answers.remove(address).unwrap_or_default())),
        );
    }
    // The newest last, as people read.
    logs.iter_mut().for_each(|(_, lines)| lines.reverse());
    if at.json {
        let entries = |lines: &[LogLine]| lines.iter().map(|line| json!({"level": line.level, "line": line.text})).collect::<Vec<_>>();
        return output::json(&logs.iter().map(|(name, lines)| json!({"of": name, "lines": entries(lines)})).collect());
    }
    let mut text = String::new();
    for (name, lines) in &logs {
        for line in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} | {}", line.text.trim_end());
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
