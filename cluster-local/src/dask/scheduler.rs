//! Starting `dask scheduler`, until it listens.

use std::{collections::BTreeMap, path::Path, time::Duration};

use remuda_core::error::{Error, ErrorKind, Result};
use remuda_dask::launch::{DaskCommand, SchedulerLaunch};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{config::Plan, installation::Installation, process::Process};

/// From the start of Python to a scheduler that listens: half a second where nothing is in the way.
const DEADLINE: Duration = Duration::from_secs(120);

/// Between two looks at the scheduler file.
const PAUSE: Duration = Duration::from_millis(10);

/// Before the driver's first word there may be a long start of other things.
const LEASE_GRACE: Duration = Duration::from_secs(120);

/// What the scheduler says of itself in its file.
#[derive(Debug, Deserialize)]
pub(super) struct Listening {
    pub(super) address: String,
    #[serde(default)]
    services: BTreeMap<String, serde_json::Value>,
}

pub(super) fn command(plan: &Plan, installation: &Installation, directory: &str, mut env: BTreeMap<String, String>) -> DaskCommand {
    let config = &plan.config;
    // The guard's: who has it cleans up.
    env.insert("REMUDA_DIRECTORY".to_owned(), directory.to_owned());
    let scheduler = SchedulerLaunch {
        host: plan.host.clone().unwrap_or_default(),
        interface: config.interface.clone(),
        port: config.scheduler_port,
        protocol: Some(plan.protocol().to_owned()),
        dashboard_address: plan.here(config.dashboard_address.as_deref().unwrap_or(":0")),
        dashboard: config.dashboard_address.is_some(),
        scheduler_file: Some(file(directory)),
        preload: plan.preload(directory),
        worker_saturation: config.worker_saturation,
        allowed_failures: Some(config.allowed_failures),
        blocked_handlers: config.blocked_handlers.clone(),
        lease: config.lease,
        lease_grace: config.lease.map(|lease| lease.max(LEASE_GRACE)),
        env,
    };
    scheduler.command(&installation.program)
}

fn file(directory: &str) -> String {
    format!("{directory}/scheduler.json")
}

/// Returns when it listens.
///
/// # Errors
/// When it ends instead, with the end of its log; [`ErrorKind::Timeout`].
pub(super) async fn listening(process: &Process, directory: &str) -> Result<Listening> {
    let path = file(directory);
    let read = async {
        loop {
            // Not written atomically: what cannot be read yet is looked at again.
            if let Some(listening) = read(Path::new(&path)) {
                return Ok(listening);
            }
            tokio::select! {
                end = process.ended() => return Err(Error::new(ErrorKind::Unavailable, format!("Dask's scheduler ended before it listened: {end}"))),
                () = sleep(PAUSE) => {}
            }
        }
    };
    let late = || Err(Error::new(ErrorKind::Timeout, format!("Dask's scheduler did not listen within {DEADLINE:?}")));
    timeout(DEADLINE, read).await.unwrap_or_else(|_| late()).map_err(|error| with_log(error, process))
}

fn read(path: &Path) -> Option<Listening> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn with_log(error: Error, process: &Process) -> Error {
    match process.last_lines() {
        Some(lines) => error.with_source(lines),
        None => error.with_hint("it has logged nothing; try the same by hand: `dask scheduler --port 0`"),
    }
}

impl Listening {
    /// The page for people: where there is bokeh, and it was not switched off.
    pub(super) fn dashboard(&self, plan: &Plan, installation: &Installation) -> Option<String> {
        let wanted = plan.config.dashboard_address.as_deref()?;
        let port = self.services.get("dashboard")?.as_u64().filter(|_| installation.has_bokeh)?;
        let own = wanted.rsplit_once(':').map(|(host, _)| host).filter(|host| !matches!(*host, "" | "0.0.0.0" | "[::]"));
        let host = own.or_else(|| self.address.split_once("://")?.1.rsplit_once(':').map(|(host, _)| host))?;
        Some(format!("http://{host}:{port}/status"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dask::DaskConfig;

    #[test]
    fn a_torn_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scheduler.json");
        assert!(read(&path).is_none());
        std::fs::write(&path, r#"{"type": "Scheduler", "address": "tcp://127."#).unwrap();
        assert!(read(&path).is_none());
        std::fs::write(&path, r#"{"type": "Scheduler", "address": "tcp://127.0.0.1:4", "services": {"dashboard": 8787}, "workers": {}}"#)
            .unwrap();
        assert_eq!(read(&path).unwrap().address, "tcp://127.0.0.1:4");
    }

    #[test]
    fn a_dashboard_is_told_where_there_is_one() {
        let link = |address: Option<&str>, has_bokeh| {
            let plan = DaskConfig { dashboard_address: address.map(str::to_owned), ..DaskConfig::default() }.resolve().unwrap();
            let program = remuda_dask::launch::Program::Dask("dask".into());
            let installation = Installation { program, distributed: "2026.8.0".into(), has_bokeh };
            let listening: Listening =
                serde_json::from_str(r#"{"address": "tcp://127.0.0.1:4", "services": {"dashboard": 8787, "x": null}}"#).unwrap();
            listening.dashboard(&plan, &installation)
        };
        assert_eq!(link(Some(":0"), true).as_deref(), Some("http://127.0.0.1:8787/status"));
        assert_eq!(link(Some("0.0.0.0:0"), true).as_deref(), Some("http://127.0.0.1:8787/status"));
        assert_eq!(link(Some("barn:0"), true).as_deref(), Some("http://barn:8787/status"));
        assert_eq!((link(Some(":0"), false), link(None, true)), (None, None));
    }
}
