//! `remuda gc`: what killed programs left behind.

use std::process::ExitCode;

use remuda::{
    Registry,
    ledger::{Found, Identity, Outcome, Record, Recorded, Sweep, Verdict, state_dir, sweep},
};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::{failure::Failure, logging, output, screen::Screen};

pub(crate) fn gc(dry_run: bool, as_json: bool, screen: &Screen) -> Result<ExitCode, Failure> {
    logging::init(screen, false, None)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure { code: 3, text: format!("error: no threads for the program: {e}") })?;
    let (state, registry) = (state_dir()?, Registry::with_builtins());
    let sweeps = runtime.block_on(sweep(&state, registry.collectors(), dry_run))?;
    match as_json {
        true => output::json(&Value::Array(sweeps.iter().map(tree).collect()))?,
        false => output::write(sweeps.iter().map(text).collect::<String>().as_bytes())?,
    };
    if sweeps.is_empty() {
        screen.lines(&format!("no ledgers in {}: nothing was left behind", state.display()));
    }
    let kept = sweeps.iter().filter(|sweep| is_left(sweep)).count();
    if kept > 0 {
        let text = format!("error: {kept} ledger{} could not be settled; see above", if kept == 1 { "" } else { "s" });
        return Err(Failure { code: 3, text });
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether something is left that somebody has to look at.
fn is_left(sweep: &Sweep) -> bool {
    match &sweep.outcome {
        Outcome::Live | Outcome::OutOfSight(_) => false,
        Outcome::Unreadable(_) => true,
        Outcome::Swept { found, .. } => found.iter().any(|found| matches!(found.verdict, Verdict::Kept { .. })),
    }
}

fn head(sweep: &Sweep) -> String {
    match &sweep.record {
        Some(Record { cluster, class, driver, .. }) => format!("{cluster} ({class}), driver {} on {}", driver.process.pid, driver.host),
        None => sweep.path.display().to_string(),
    }
}

fn text(sweep: &Sweep) -> String {
    let said = match &sweep.outcome {
        Outcome::Live => "in use".to_owned(),
        Outcome::OutOfSight(why) => format!("left alone: {why}"),
        Outcome::Unreadable(error) => format!("left alone: {}", error.report()),
        Outcome::Swept { found, .. } if found.is_empty() => "nothing was left".to_owned(),
        Outcome::Swept { .. } => "no longer in use".to_owned(),
    };
    let found = match &sweep.outcome {
        Outcome::Swept { found, .. } => found.iter().map(|found| format!("  {}\n", line(found))).collect(),
        _ => String::new(),
    };
    format!("{}: {said}\n{found}", head(sweep))
}

fn line(found: &Found) -> String {
    let what = format!("{} {}{}", found.entry.item.kind, found.entry.item.name, known(&found.entry));
    match &found.verdict {
        Verdict::Gone => format!("{what}: gone already"),
        Verdict::Removable => format!("{what}: would be removed"),
        Verdict::Removed => format!("{what}: removed"),
        Verdict::Kept { why } => format!("{what}: kept: {why}"),
    }
}

fn known(entry: &Recorded) -> String {
    match &entry.identity {
        Some(Identity::Process(process)) => format!(" ({})", process.pid),
        Some(Identity::Id(id)) => format!(" ({id})"),
        _ => String::new(),
    }
}

fn tree(sweep: &Sweep) -> Value {
    let (state, why) = match &sweep.outcome {
        Outcome::Live => ("live", None),
        Outcome::OutOfSight(why) => ("elsewhere", Some(why.clone())),
        Outcome::Unreadable(error) => ("unreadable", Some(error.to_string())),
        Outcome::Swept { .. } => ("dead", None),
    };
    let mut tree = json!({"ledger": sweep.path.display().to_string(), "state": state});
    if let Some(Record { cluster, class, driver, created, .. }) = &sweep.record {
        tree["cluster"] = json!(cluster);
        tree["class"] = json!(class);
        tree["driver"] = json!({"pid": driver.process.pid, "host": driver.host});
        tree["created"] = json!(created);
    }
    if let Some(why) = why {
        tree["why"] = json!(why);
    }
    if let Outcome::Swept { found, settled } = &sweep.outcome {
        tree["settled"] = json!(settled);
        tree["found"] = found.iter().map(leaf).collect();
    }
    tree
}

fn leaf(found: &Found) -> Value {
    let (verdict, why) = match &found.verdict {
        Verdict::Gone => ("gone", None),
        Verdict::Removable => ("removable", None),
        Verdict::Removed => ("removed", None),
        Verdict::Kept { why } => ("kept", Some(why)),
    };
    let mut tree = json!({"kind": found.entry.item.kind, "name": found.entry.item.name, "verdict": verdict});
    match &found.entry.identity {
        Some(Identity::Process(process)) => tree["pid"] = json!(process.pid),
        Some(Identity::Id(id)) => tree["id"] = json!(id),
        _ => {}
    }
    if let Some(why) = why {
        tree["why"] = json!(why);
    }
    tree
}
