//! `remuda run`.

use std::{
    cell::OnceCell,
    future::Future,
    process::ExitCode,
    time::{Duration, Instant},
};

use remuda::{
    Error, ErrorKind, Finished, Interrupts, RunReport,
    config::Mode,
    flowfile::{FlowPlan, FlowResult},
    manager::ClusterEvent,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

use crate::{
    args::RunArgs,
    explain::Explain,
    failure::{self, Failure},
    logging,
    output::Output,
    progress::{Display, follow},
    screen::Screen,
    validate, workers,
};

/// How long clusters that nobody waits for any more may take to close.
const CLOSE: Duration = Duration::from_secs(90);

/// How long the display may take to end; it has nothing to wait for.
const SHOWN: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &RunArgs, screen: &Screen) -> Result<ExitCode, Failure> {
    logging::init(screen, args.quiet, Explain::new(args.explain_scaling.as_deref(), screen)?)?;
    let to = Output::parse(args.output.as_deref(), args.json)?;
    let checked = validate::check(&args.flow, &args.params, &args.settings)?;
    if !args.quiet {
        checked.config.notices.iter().for_each(|notice| screen.lines(&format!("note: {notice}")));
        if args.explain_scaling.is_some() && !matches!(checked.config.mode, Mode::Temporary { adapt: Some(_), .. }) {
            screen
                .lines("note: --explain-scaling has nothing to tell: the cluster is not adaptive; give --adapt MIN..MAX or `adapt_kwargs`");
        }
    }
    remuda::join_at_exit();
    let runtime =
        Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|e| infra("no threads for the program", &e))?;
    let stop = listen(&runtime, screen, &checked.config.mode)?;
    let (plan, runner) = (&checked.plan, &checked.runner);
    let (begin, shown, status) = (Instant::now(), OnceCell::new(), OnceCell::new());
    let (cell, forms, watched) = (&shown, to.forms(), &status);
    let finished = runtime.block_on(async {
        let finished = runner.run_on_cluster(stop, |flow, cluster| async move {
            if !args.quiet {
                tell(&cluster, screen);
            }
            // Set once: there is one run.
            let _ = watched.set(cluster.watch());
            let _ = cell.set(follow(&flow, &cluster, plan, Display::new(screen, args.quiet), begin));
            drop(cluster);
            plan.run_for(&flow, &forms).await
        });
        finished.await
    });
    // The events have ended with the run, and with them the display.
    if let Some(shown) = shown.into_inner() {
        let _ = runtime.block_on(async { tokio::time::timeout(SHOWN, shown).await });
    }
    // Whoever noticed it first: the cluster's own connection, a task, the end of the session.
    let noticed = [
        status.get().and_then(|status| status.borrow().failure.as_ref().map(Error::kind)),
        finished.result.as_ref().err().and_then(failure::kind),
        finished.report.session.as_ref().err().map(Error::kind),
    ];
    let ending = match checked.config.mode {
        Mode::Existing { .. } if noticed.contains(&Some(ErrorKind::SchedulerLost)) => "the scheduler was lost",
        Mode::Existing { .. } if finished.report.session.is_err() => "the cluster may still hold tasks of the run",
        Mode::Existing { .. } => LEFT,
        Mode::Temporary { .. } => CLOSED,
    };
    let used = status.get().and_then(|status| workers::used(&status.borrow()));
    if let (Some(used), false) = (&used, args.quiet) {
        screen.clear_bars();
        screen.lines(used);
    }
    end(finished, plan, &to, (!args.quiet).then_some(ending), screen, runtime)
}

/// What became of a cluster of ours.
const CLOSED: &str = "cluster closed";

/// What became of a cluster that is not ours.
const LEFT: &str = "the cluster is left as it was";

/// The result, the summary, what remains. `ending`: what became of a cluster that ended well; `None`: be quiet.
fn end(
    finished: Finished<FlowResult>,
    plan: &FlowPlan,
    to: &Output,
    ending: Option<&str>,
    screen: &Screen,
    runtime: Runtime,
) -> Result<ExitCode, Failure> {
    let mut remaining = finished.report.problems();
    remaining.extend(remuda::join_all(CLOSE).into_iter().map(|what| format!("still there: {what}")));
    runtime.shutdown_background();
    screen.clear_bars();
    if let Some(ending) = ending {
        screen.lines(&summary(&finished.report, ending));
    }
    remaining.iter().for_each(|what| screen.lines(&format!("warning: {what}")));
    let tasks = finished.report.tasks;
    let result = finished.result.map_err(|error| {
        // Every task has done its part: it is what they made that cannot be written like this.
        let unwritten = tasks.done == tasks.total() && failure::is_unserializable(&error);
        let mut failure = Failure::from(error);
        if unwritten {
            failure.text += &format!("\n  hint: {}", to.advice());
        }
        failure
    })?;
    if plan.result.is_none() && !to.is_asked() {
        return Ok(ExitCode::SUCCESS);
    }
    let (code, notes) = to.put(result)?;
    if ending.is_some() {
        notes.iter().for_each(|note| screen.lines(&format!("note: {note}")));
    }
    Ok(code)
}

fn infra(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure { code: 3, text: format!("error: {what}: {error}") }
}

/// Returns a future that is ready at the first Ctrl-C, SIGTERM or SIGHUP. The second one leaves the program.
fn listen(runtime: &Runtime, screen: &Screen, mode: &Mode) -> Result<impl Future<Output = ()> + use<>, Failure> {
    let _inside = runtime.enter();
    let mut interrupts = Interrupts::new().map_err(|e| infra("signals cannot be received", &e))?;
    let (tell, told) = oneshot::channel::<()>();
    let screen = screen.clone();
    let does = match mode {
        Mode::Existing { .. } => "cancelling the tasks and leaving the cluster as it is",
        Mode::Temporary { .. } => "cancelling the tasks and closing the cluster",
    };
    runtime.spawn(async move {
        interrupts.next().await;
        screen.lines(&format!("interrupted: {does}; once more to leave at once"));
        let _ = tell.send(());
        interrupts.next().await;
        screen.clear_bars();
        screen.lines("interrupted again: leaving at once");
        remuda::leave();
    });
    Ok(async move {
        // The sender lives as long as the runtime.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// The cluster's page, and its troubles while it runs.
fn tell(cluster: &remuda::Cluster, screen: &Screen) {
    if let Some(dashboard) = cluster.dashboard() {
        screen.lines(&format!("dashboard: {dashboard}"));
    }
    let (mut events, screen) = (cluster.events(), screen.clone());
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            match event {
                ClusterEvent::Lost { id, reason } => screen.lines(&format!("worker {id} was lost: {reason}")),
                ClusterEvent::Scaled { decision, .. } => workers::spent(&decision.reason).iter().for_each(|text| screen.lines(text)),
                ClusterEvent::Degraded(text) => screen.lines(&format!("cluster: {text}")),
                _ => {}
            }
        }
    });
}

/// `301 tasks done in 4.2 s; cluster closed`.
fn summary(report: &RunReport, ending: &str) -> String {
    let tasks = &report.tasks;
    let counts = [
        (tasks.failed, "failed"),
        (tasks.crashed, "crashed"),
        (tasks.refused, "could not be run"),
        (tasks.upstream_failed, "not run because of that"),
        (tasks.cancelled, "cancelled"),
        (tasks.retried, "retried"),
    ];
    let others: String = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!(", {count} {word}")).collect();
    let cluster = match &report.close {
        None if ending != CLOSED => "the cluster was not reached",
        None => "the cluster did not start",
        Some(Ok(close)) if close.remaining.is_empty() => ending,
        Some(_) => "cluster not closed",
    };
    let noun = if tasks.done == 1 { "task" } else { "tasks" };
    format!("{} {noun} done{others} in {:.1} s; {cluster}", tasks.done, report.elapsed.as_secs_f64())
}
