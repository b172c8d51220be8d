//! The runner on an engine that keeps results in the cluster: what is fetched, when, and as how many messages.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use remuda::{ClassRef, ClusterOptions, Kwargs, TaskError, TaskRunner};
use remuda_tests::fake::{FakeCluster, Shape};

fn keeping() -> (FakeCluster, TaskRunner) {
    let cluster = FakeCluster::new(Shape { slots: 4, ..Shape::default() });
    cluster.engine().keep_results();
    let fake = cluster.clone();
    let class = ClassRef::from_fn("fake::FakeCluster", move |_: Kwargs| anyhow::Ok(fake.clone()));
    let options = ClusterOptions { workers: Some(1), ..Default::default() };
    (cluster, TaskRunner::builder().cluster(class).options(options).build().unwrap())
}

/// Knows no way out of this process.
#[derive(Clone)]
struct Secluded;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_results_are_one_message() {
    let (cluster, runner) = keeping();
    let sum = runner.run(async |flow| {
        let futures = flow.map(echo, 0..100)?;
        assert_eq!(flow.wait(&futures, None).await.0.len(), 100);
        assert!(cluster.engine().gathers().is_empty(), "waiting fetches nothing");
        let all = flow.gather(futures).await?;
        Ok(all.iter().sum::<i64>())
    });
    assert_eq!(sum.await.unwrap(), 4950);
    assert_eq!(cluster.engine().gathers(), [100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_result_is_fetched_for_whoever_asks() {
    let (cluster, runner) = keeping();
    let values = runner.run(async |flow| {
        let future = flow.submit(echo(7));
        let twice = flow.submit(add(&future, &future));
        let mut ended = flow.as_completed([flow.submit(echo(1))]);
        let one = ended.next().await.unwrap().await?;
        Ok((future.await?, *twice.shared().await?, one))
    });
    assert_eq!(values.await.unwrap(), (7, 14, 1));
    assert_eq!(cluster.engine().gathers(), [1, 1, 1]);
}

#[remuda::task]
fn echo(x: i64) -> i64 {
    x
}

#[remuda::task]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_the_one_that_cannot_come_is_named() {
    let (cluster, runner) = keeping();
    let failed = runner.run(async |flow| {
        let futures = flow.map(echo, 0..64)?;
        let refused = flow.submit(remuda::python("x:y").call::<i64>()); // by the fake, which has no Python
        let secluded: Vec<_> = (0..3).map(|_| flow.spawn(|| Secluded)).collect();
        let failed = flow.gather(secluded.clone()).await.err().unwrap();
        assert_eq!(failed.key, secluded[0].key());
        let all = futures.iter().cloned().chain([refused.clone()]).chain(futures.iter().cloned());
        let failed = flow.gather(all).await.unwrap_err();
        assert_eq!(failed.key, refused.key());
        Ok(flow.gather(mixed(&flow)).await.unwrap_err())
    });
    let failed = failed.await.unwrap();
    assert!(matches!(&failed.error, TaskError::Refused(error) if error.to_string().contains("Odd")), "{failed}");
    assert_eq!(&*failed.name, "odd-5");
    let asked = cluster.engine().gathers();
    assert!(asked.len() <= 12, "one message, and a few to find the culprit: {asked:?}");
}

/// Of a type that can be read, or not, as its sign says.
#[derive(Debug, Clone, serde::Deserialize)]
struct Odd(i64);

impl serde::Serialize for Odd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0.. => serializer.serialize_i64(self.0),
            _ => Err(serde::ser::Error::custom("below zero")),
        }
    }
}

#[remuda::task]
fn odd(n: i64) -> Odd {
    Odd(n)
}

fn mixed(flow: &remuda::Flow) -> Vec<remuda::TaskFuture<Odd>> {
    (0..9).map(|n| flow.submit(odd(if matches!(n, 5 | 7) { -n } else { n }).named(format!("odd-{n}")))).collect()
}
