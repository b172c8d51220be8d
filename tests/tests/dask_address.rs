//! The runner on a Dask cluster that is there already, by its address.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use std::time::Duration;

use remuda::{Annotate, ErrorKind, Form, Kwargs, Shown, TaskRunner, TaskState, python};
use remuda_tests::dask::{Dask, Site, available};

fn at(dask: &Dask) -> TaskRunner {
    TaskRunner::builder().address(&dask.address).build().unwrap()
}

#[remuda::task]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[remuda::test]
async fn a_run_by_address_leaves_the_cluster_as_it_was() {
    if !available("a_run_by_address_leaves_the_cluster_as_it_was").await {
        return;
    }
    let dask = Dask::start(Site::default(), 2).await.unwrap();
    for _ in 0..2 {
        let finished = at(&dask)
            .run_on_cluster(std::future::pending(), async |flow, cluster| {
                cluster.wait_for_workers(2, Duration::from_secs(60)).await?;
                assert_eq!(cluster.info().unwrap().workers, 0);
                assert!(cluster.dashboard().is_some_and(|page| page.starts_with("http")), "{:?}", cluster.dashboard());
                cluster.scale(0); // not ours to scale
                let sums = flow.map(add, (0..500, remuda::unmapped(1)))?;
                let total = flow.submit(python("builtins:sum").arg(remuda::Tree::list(&sums)).call::<i64>());
                let all = flow.gather(sums).await?;
                Ok((all[499], total.await?, cluster.live_workers()))
            })
            .await;
        assert_eq!(finished.result.unwrap(), (500, 125_250, 2));
        assert!(finished.report.problems().is_empty());
        dask.forgets().await.unwrap();
        assert_eq!(dask.python("print(len(client.scheduler_info()['workers']))").await.unwrap(), "2");
    }
}

#[remuda::test]
async fn results_are_fetched_together_and_shown() {
    if !available("results_are_fetched_together_and_shown").await {
        return;
    }
    let dask = Dask::start(Site::default(), 2).await.unwrap();
    let relayed = Kwargs::new().with("direct_to_workers", false).with("heartbeat_interval", "1s");
    let relayed = TaskRunner::builder().address(&dask.address).client_kwargs(relayed).build().unwrap();
    let sum = relayed.run(async |flow| Ok(flow.gather(flow.map(add, (0..10, remuda::unmapped(1)))?).await?.iter().sum::<i64>()));
    assert_eq!(sum.await.unwrap(), 55, "through the scheduler");
    let runner = at(&dask);
    let shown = runner.run(async |flow| {
        let odd = flow.submit(python("re:compile").arg("a+").call::<i64>());
        let state = odd.done().await;
        assert!(matches!(state, TaskState::Done(_)), "{state:?}");
        let shown = odd.show(&[Form::Plain, Form::Arrow, Form::Text]).await?;
        let futures = flow.submit_all((0..2000).map(|n| python("operator:neg").arg(n).call::<i64>()));
        let last = futures[1999].clone();
        let mut ended = flow.as_completed([last.clone()]);
        assert_eq!(ended.next().await.unwrap().await?, -1999);
        assert_eq!(flow.gather(futures).await?.iter().sum::<i64>(), -1_999_000);
        let failed = flow.gather([last, odd.clone()]).await.unwrap_err();
        assert_eq!(failed.key, odd.key());
        Ok(shown)
    });
    match shown.await.unwrap() {
        Shown::Text { text, type_name } => assert_eq!((&*text, &*type_name), ("re.compile('a+')", "re.Pattern")),
        other => panic!("{other:?}"),
    }
    dask.forgets().await.unwrap();
}

#[remuda::test]
async fn workers_by_their_names_and_numbers() {
    if !available("workers_by_their_names_and_numbers").await {
        return;
    }
    let dask = Dask::start(Site::default(), 2).await.unwrap();
    let runner = at(&dask);
    let ports = runner.run(async |flow| {
        let name = || python("distributed.worker:get_worker").call::<i64>();
        let mut seen = Vec::new();
        for worker in ["0", "1"] {
            let task = flow.annotate(Annotate::new().worker(worker)).submit(name());
            seen.push(format!("{:?}", task.show(&[Form::Text]).await?));
            let Shown::Text { text, .. } = task.show(&[Form::Text]).await? else { panic!("no text") };
            assert!(text.contains(&format!("name: {worker}")), "{text}");
        }
        Ok(seen.len())
    });
    assert_eq!(ports.await.unwrap(), 2);
}

#[remuda::test]
async fn what_no_worker_of_the_cluster_can_run_is_an_error_at_once() {
    if !available("what_no_worker_of_the_cluster_can_run_is_an_error_at_once").await {
        return;
    }
    let dask = Dask::start(Site::default(), 2).await.unwrap();
    let asked = [
        (Annotate::new().worker("nobody"), "no worker is called `nobody`; there are 0, 1"),
        (Annotate::new().resource("UNICORN", 1.0), "no worker offers UNICORN=1; none offers any UNICORN"),
    ];
    for (annotate, told) in asked {
        // Alone, and as a map that would go in batches.
        for many in [1, 5000] {
            let (runner, annotate) = (at(&dask), annotate.clone());
            let run = runner.run(async |flow| Ok(flow.gather(flow.annotate(annotate).map(add, (0..many, remuda::unmapped(1)))?).await?));
            let error = run.await.unwrap_err();
            assert!(error.to_string().contains(told) && error.exit_code() == 1, "{error:?}");
        }
    }
    let loosely = Annotate::new().worker("nobody").allow_other_workers(true);
    assert_eq!(at(&dask).run(async |flow| Ok(flow.annotate(loosely).submit(add(1, 1)).await?)).await.unwrap(), 2);
}

#[remuda::test]
async fn nobody_there_is_said_with_the_address() {
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let client = Kwargs::new().with("timeout", "5s");
    let runner = TaskRunner::builder().address(format!("tcp://{gone}")).client_kwargs(client).build().unwrap();
    let error = runner.run(async |_| Ok(())).await.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains(&gone.to_string()), "{error}");
    let error = TaskRunner::builder().address("http://127.0.0.1:8787").build().unwrap_err();
    assert!(error.kind() == ErrorKind::ConfigInvalid && error.to_string().contains("tcp://127.0.0.1:8786"), "{error}");
}
