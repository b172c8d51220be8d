//! What goes wrong around a run on real Dask, each once, with real components. What the engine alone can show stands in `dask/tests`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "tests, and helpers that may panic like a test")]

mod dask_site;

use std::{collections::BTreeSet, future::pending, process::Stdio, time::Duration};

use dask_site::{FAULTS, runner, worker_of};
use remuda::{Annotate, ErrorKind, Flow, RunError, TaskError, TaskState, python};
use remuda_tests::{
    dask::{self, Dask, Site},
    gate::Gate,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

fn site() -> Site {
    Site::default().module("faults.py", FAULTS)
}

fn noop(x: i64) -> remuda::Call<i64> {
    python("faults:noop").arg(x).call()
}

fn knock(gate: &Gate, label: &str) -> remuda::Call<String> {
    python("faults:knock").arg(gate.address()).arg(label).call()
}

/// Ten words that no other run has, and ten sums over them.
async fn same_flow(flow: Flow) -> anyhow::Result<Vec<String>> {
    let words: Vec<_> = (0..10).map(|_| flow.submit(python("faults:word").call::<String>())).collect();
    let twice: Vec<_> = words.iter().map(|word| flow.submit(python("faults:twice").arg(word).call::<String>())).collect();
    let (words, twice) = (flow.gather(words).await?, flow.gather(twice).await?);
    for (word, twice) in words.iter().zip(&twice) {
        anyhow::ensure!(*twice == format!("{word}{word}"), "{twice} of {word}");
    }
    Ok(words)
}

#[remuda::test]
async fn two_drivers_share_a_scheduler_and_no_task() {
    if !dask::available("two_drivers_share_a_scheduler_and_no_task").await {
        return;
    }
    let cluster = Dask::start(site(), 2).await.unwrap();
    let (one, other) = (runner(&cluster), runner(&cluster));
    let (one, other) = tokio::join!(one.run(same_flow), other.run(same_flow));
    let words: BTreeSet<String> = one.unwrap().into_iter().chain(other.unwrap()).collect();
    assert_eq!(words.len(), 20, "each run has its own tasks, under the same names");
    cluster.forgets().await.unwrap();
}

#[remuda::test]
async fn a_lost_scheduler_is_final_and_named() {
    if !dask::available("a_lost_scheduler_is_final_and_named").await {
        return;
    }
    let mut cluster = Dask::start(site(), 1).await.unwrap();
    let (mut gate, runner) = (Gate::new().await.unwrap(), runner(&cluster));
    let call = knock(&gate, "running");
    let (submitted, ready) = tokio::sync::oneshot::channel();
    let run = runner.run_until(pending(), |flow| async move {
        let (running, waiting) = (flow.submit(call), flow.submit(noop(1)));
        let needs = flow.submit(python("faults:twice").arg(&running).call::<String>());
        submitted.send(()).ok();
        for state in [running.done().await, waiting.done().await, needs.done().await] {
            let TaskState::Ended(error) = &state else { panic!("{state:?}") };
            assert!(matches!(error.root(), TaskError::Refused(error) if error.kind() == ErrorKind::SchedulerLost), "{error:?}");
        }
        Ok(running.await?)
    });
    let kill = async {
        ready.await.unwrap();
        let _stands = gate.arrived("running").await;
        let begin = std::time::Instant::now();
        cluster.scheduler.kill().await.unwrap();
        begin
    };
    let (finished, begin) = tokio::join!(run, kill);
    // The goal is a second; the bound only tells it from a lease or a time-out, on a machine that has other things to do.
    println!("noticed and closed after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let error = finished.result.unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(error.to_string().contains("scheduler"), "{error}");
}

/// Not a test: the driver that is going to be killed.
#[remuda::test]
async fn driver_entry() {
    let Ok(address) = std::env::var("REMUDA_TEST_DRIVER") else { return };
    let (address, gate) = address.split_once(' ').unwrap();
    let runner = remuda::TaskRunner::builder().address(address).client_kwargs([("lease", "3s")]).build().unwrap();
    let gate = gate.to_owned();
    let run = runner.run(|flow| async move {
        let kept = flow.submit(noop(1));
        let needs = flow.submit(noop(2));
        kept.done().await;
        needs.done().await;
        eprintln!("results are there");
        Ok(flow.submit(python("faults:knock").arg(gate).arg("running").call::<String>()).await?)
    });
    println!("{:?}", run.await);
}

#[remuda::test]
async fn nothing_remains_of_a_driver_that_was_killed() {
    if !dask::available("nothing_remains_of_a_driver_that_was_killed").await {
        return;
    }
    let cluster = Dask::start(site(), 1).await.unwrap();
    let mut gate = Gate::new().await.unwrap();
    let mut driver = Command::new(std::env::current_exe().unwrap())
        .args(["driver_entry", "--exact", "--nocapture"])
        .env("REMUDA_TEST_DRIVER", format!("{} {}", cluster.address, gate.address()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(driver.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.push(line);
        if said.last().is_some_and(|line| line == "results are there") {
            break;
        }
    }
    assert!(said.last().is_some_and(|line| line == "results are there"), "{said:#?}");
    let running = gate.arrived("running").await;
    driver.kill().await.unwrap();
    // Results go with the lease, and so does what still runs: its thread cannot be interrupted, but nobody waits for it.
    cluster.forgets().await.unwrap();
    running.open().await;
    // The scheduler and its worker are nobody's of ours, and as good as before.
    assert_eq!(cluster.python("print(client.submit(abs, -7).result())").await.unwrap(), "7");
}

#[remuda::test]
async fn a_module_that_workers_lack_is_named() {
    if !dask::available("a_module_that_workers_lack_is_named").await {
        return;
    }
    let cluster = Dask::start(site(), 1).await.unwrap();
    let (finished, fine) = {
        let runner = runner(&cluster);
        let run = runner
            .run_until(pending(), |flow| async move { Ok(flow.submit(python("no_such_module_here:func").arg(1).call::<i64>()).await?) });
        (run.await, runner.run(|flow| async move { Ok(flow.submit(noop(1)).await?) }).await)
    };
    let error = finished.result.unwrap_err();
    assert!(error.to_string().contains("no_such_module_here"), "{error}");
    assert_eq!(fine.unwrap(), 1);
    // A function that its module lacks is named with both.
    let run = runner(&cluster).run(|flow| async move { Ok(flow.submit(python("faults:nothing").call::<i64>()).await?) }).await;
    let error = run.unwrap_err().to_string();
    assert!(error.contains("nothing") && error.contains("faults"), "{error}");
}

#[remuda::test]
async fn an_object_that_cannot_leave_is_named_with_its_type() {
    if !dask::available("an_object_that_cannot_leave_is_named_with_its_type").await {
        return;
    }
    let cluster = Dask::start(site(), 2).await.unwrap();
    let runner = runner(&cluster);
    let run = runner.run(|flow| async move {
        let on = |name: &str| flow.annotate(Annotate::new().worker(name));
        let lock = on("0").submit(python("faults:lock").call::<()>());
        lock.done().await;
        // On its own worker it is what it was.
        anyhow::ensure!(on("0").submit(python("faults:is_lock").arg(&lock).call::<bool>()).await?, "not a lock");
        // On another worker Dask itself waits for it without end, also for what came with it in one message.
        let innocent: Vec<_> = (0..5).map(|_| on("0").submit(python("faults:word").call::<String>())).collect();
        for word in &innocent {
            word.done().await;
        }
        let there = on("1").submit(python("faults:is_lock").arg(&lock).call::<bool>());
        let fine: Vec<_> = innocent.iter().map(|word| on("1").submit(python("faults:twice").arg(word).call::<String>())).collect();
        for (word, twice) in flow.gather(innocent).await?.iter().zip(flow.gather(fine).await?) {
            anyhow::ensure!(twice == format!("{word}{word}"), "{twice}");
        }
        Ok((there.await.unwrap_err().to_string(), lock.await.unwrap_err().to_string()))
    });
    let (there, here) = tokio::time::timeout(dask::PATIENCE, run).await.expect("it must not wait for what cannot come").unwrap();
    assert!(there.contains("`_thread.lock` cannot be sent to another worker"), "{there}");
    assert!(here.contains("lock"), "{here}");
    cluster.forgets().await.unwrap();
}

#[remuda::test]
async fn where_injection_is_refused_a_preload_does_it() {
    if !dask::available("where_injection_is_refused_a_preload_does_it").await {
        return;
    }
    let blocked = "['register_scheduler_plugin', 'register_worker_plugin', 'run_function']";
    let closed = site().env("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", blocked);
    let cluster = Dask::start(closed.clone(), 1).await.unwrap();
    let error = runner(&cluster).run(|flow| async move { Ok(flow.submit(noop(1)).await?) }).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(&error, RunError::Infra(error) if error.kind() == ErrorKind::PermissionDenied), "{error:?}");
    assert!(text.contains("preload") && text.contains("remuda shim"), "{text}");
    assert_eq!(error.exit_code(), 3);
    drop(cluster);

    let mut preloaded = closed.module("shim.py", &dask_site::shim());
    preloaded.scheduler = ["--preload", "shim.py"].map(str::to_owned).to_vec();
    let cluster = Dask::start(preloaded, 1).await.unwrap();
    assert_eq!(runner(&cluster).run(|flow| async move { Ok(flow.submit(noop(1)).await?) }).await.unwrap(), 1);
}

#[remuda::test]
async fn another_version_of_the_shim_stays_as_it_is() {
    if !dask::available("another_version_of_the_shim_stays_as_it_is").await {
        return;
    }
    let (theirs, hash) = dask_site::other_shim();
    let mut mixed = site().module("shim.py", &theirs);
    mixed.scheduler = ["--preload", "shim.py"].map(str::to_owned).to_vec();
    let cluster = Dask::start(mixed.clone(), 1).await.unwrap();
    assert_eq!(runner(&cluster).run(same_flow).await.unwrap().len(), 10);
    let there = cluster.python("print(sorted(x['hash'] for x in client.sync(client.scheduler.remuda_shims)))").await.unwrap();
    let ours = remuda_dask::shim::hash();
    assert!(there.contains(&hash) && there.contains(ours), "{there}: {hash} and {ours}");
    drop(cluster);

    // Where ours may not be put beside it, the version that is there is told.
    let blocked = mixed.env("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", "['register_scheduler_plugin', 'register_worker_plugin']");
    let cluster = Dask::start(blocked, 1).await.unwrap();
    let error = runner(&cluster).run(same_flow).await.unwrap_err().to_string();
    assert!(error.contains("version 9.9.9") && error.contains("remuda shim"), "{error}");
}

#[remuda::test]
async fn a_worker_that_is_killed_costs_an_attempt_and_the_cause_is_told() {
    if !dask::available("a_worker_that_is_killed_costs_an_attempt_and_the_cause_is_told").await {
        return;
    }
    let mut cluster = Dask::start(site(), 2).await.unwrap();
    let mut gate = Gate::new().await.unwrap();
    let call = knock(&gate, "victim");
    let workers = cluster.workers.iter().map(|worker| worker.id().unwrap()).collect::<Vec<_>>();
    let runner = runner(&cluster);
    let (told, told_rx) = tokio::sync::oneshot::channel();
    let run = runner.run_until(pending(), |flow| async move {
        let kept = flow.submit(noop(5));
        kept.done().await;
        let mut events = flow.events();
        let future = flow.submit(call);
        told.send(worker_of(&mut events, &future).await).ok();
        Ok((future.await?, kept.await?))
    });
    let kill = async {
        let _first = gate.arrived("victim").await;
        let worker: usize = told_rx.await.unwrap().parse().expect("workers are called by numbers");
        assert_eq!(cluster.workers[worker].id(), Some(workers[worker]));
        cluster.workers[worker].kill().await.unwrap();
        gate.arrived("victim").await.open().await;
    };
    let (finished, ()) = tokio::join!(run, kill);
    assert_eq!(finished.result.unwrap(), ("victim".to_owned(), 5));
    assert!(finished.report.tasks.retried >= 1, "{:?}", finished.report.tasks);

    // Without a second attempt, the loss is a crash with its cause.
    let mut cluster = Dask::start(site().env("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0"), 1).await.unwrap();
    let call = knock(&gate, "victim");
    let runner = dask_site::runner(&cluster);
    let run = runner.run_until(pending(), |flow| async move { Ok(flow.submit(call).await?) });
    let kill = async {
        let _first = gate.arrived("victim").await;
        cluster.workers[0].kill().await.unwrap();
    };
    let (finished, ()) = tokio::join!(run, kill);
    let error = finished.result.unwrap_err();
    assert_eq!((error.exit_code(), finished.report.tasks.crashed), (1, 1), "{error}");
    assert!(error.to_string().contains("worker"), "{error}");
}
