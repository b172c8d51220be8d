//! Flows on worker processes: what crosses the border, what cannot, and what is left behind.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc};

use remuda::{
    Arg, Crash, ErrorKind, TaskError, TaskFailed, TaskRunner, Tree, allow_failure, command,
    local::{LocalCluster, LocalConfig},
    python,
};
use serde::{Deserialize, Serialize};

fn processes(workers: u32) -> TaskRunner {
    let config = LocalConfig { n_workers: Some(workers), threads_per_worker: Some(1), ..Default::default() };
    TaskRunner::builder().cluster(config).build().unwrap()
}

#[remuda::task]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[remuda::task]
fn sum(values: &[i64]) -> i64 {
    values.iter().sum()
}

#[remuda::task]
fn pid() -> u32 {
    std::process::id()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    weights: BTreeMap<String, f64>,
    next: Option<Box<Part>>,
}

#[remuda::task]
async fn grow(part: &Part, by: Arc<f64>, label: &str) -> Result<Part, std::fmt::Error> {
    tokio::task::yield_now().await;
    let weights = part.weights.iter().map(|(k, w)| (k.clone(), w * *by)).collect();
    Ok(Part { name: label.to_owned(), weights, next: Some(Box::new(part.clone())) })
}

#[remuda::test]
async fn values_cross_the_border_and_come_back() {
    processes(2)
        .run(|flow| async move {
            assert_ne!(flow.submit(pid()).await?, std::process::id());
            let one = flow.submit(add(1, 2));
            let many = flow.map(add, (0..10, vec![&one; 10]))?;
            let mixed: Arg<Vec<i64>> = Arg::list([Arg::from(&one), 1000.into()]);
            assert_eq!(flow.submit(sum(&many)).await?, 45 + 30);
            assert_eq!(flow.submit(sum(mixed)).await?, 1003);
            let part = Part { name: "a".into(), weights: [("x".into(), 1.5)].into(), next: None };
            let grown = flow.submit(grow(part.clone(), 2.0, "b"));
            let again = flow.submit(grow(&grown, 2.0, "c")).await?;
            assert_eq!((again.weights["x"], again.next.unwrap().next), (6.0, Some(Box::new(part))));
            Ok(())
        })
        .await
        .unwrap();
}

#[derive(Clone, Serialize, Deserialize, remuda::Inputs)]
#[allow(clippy::large_enum_variant)]
enum Job {
    Sum { start: Arg<i64>, steps: Arg<Vec<i64>>, label: String },
    Nothing,
}

#[remuda::task]
fn run_job(job: Job) -> i64 {
    match job {
        Job::Sum { start, steps, label } => start.get() + steps.get().iter().sum::<i64>() + label.len() as i64,
        Job::Nothing => 0,
    }
}

#[remuda::test]
async fn futures_stand_in_fields() {
    processes(1)
        .run(|flow| async move {
            let (one, many) = (flow.submit(add(0, 1)), flow.map(add, (0..3, 0..3))?);
            let job = Job::Sum { start: (&one).into(), steps: many.into(), label: "four".into() };
            assert_eq!(flow.submit(run_job(job)).await?, 1 + 6 + 4);
            assert_eq!(flow.submit(run_job(Job::Nothing)).await?, 0);
            Ok(())
        })
        .await
        .unwrap();
}

struct Big(#[expect(dead_code)] Vec<u8>);

#[remuda::task]
fn weigh(_big: &Big) -> usize {
    0
}

#[remuda::task]
fn make() -> Big {
    Big(Vec::new())
}

#[remuda::test]
async fn what_cannot_cross_is_refused_by_name_before_it_is_submitted() {
    processes(1)
        .run(|flow| async move {
            for (error, name) in [
                (flow.submit(weigh(Big(vec![]))).await.unwrap_err(), "argument=_big"),
                (flow.submit(make()).shared().await.err().unwrap(), "result `processes::Big`"),
                (flow.spawn(|| 1).await.unwrap_err(), "closure"),
            ] {
                let TaskError::Refused(refused) = &error.error else { panic!("{error}") };
                assert!(refused.to_string().contains(name), "{refused}");
                assert!(refused.hint().unwrap().contains("processes: false"), "{refused:?}");
            }
            Ok(())
        })
        .await
        .unwrap();
}

#[remuda::task]
fn risky(n: i64) -> anyhow::Result<i64> {
    match n {
        0 => anyhow::bail!("zero"),
        1 => panic!("one"),
        2 => std::process::exit(3),
        n => Ok(n),
    }
}

#[remuda::task]
fn survive(part: Result<i64, TaskError>) -> String {
    part.map_or_else(|error| error.to_string(), |n| n.to_string())
}

#[remuda::test]
async fn errors_panics_and_exits_end_their_task_and_nothing_else() {
    processes(1)
        .run(|flow| async move {
            let failed = flow.submit(risky(0));
            assert_eq!(failed.clone().await.unwrap_err().to_string(), "task `risky` (#0) failed: zero");
            assert_eq!(flow.submit(survive(allow_failure(&failed))).await?, "zero");
            let panicked = flow.submit(risky(1)).await.unwrap_err();
            assert!(panicked.to_string().contains("one"), "{panicked}");
            let crashed: TaskFailed = flow.submit(risky(2).allowed_failures(1)).await.unwrap_err();
            let TaskError::Crashed(crash) = &crashed.error else { panic!("{crashed}") };
            let Crash { cause, attempts, .. } = &**crash;
            assert_eq!((cause.as_str(), *attempts), ("exit code 3", 2));
            assert_eq!(flow.submit(risky(7)).await?, 7, "the worker was replaced");
            Ok(())
        })
        .await
        .unwrap();
}

#[remuda::test]
async fn python_rust_and_commands_pass_values_to_each_other() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("parts.py"),
        r#"
import datetime, dataclasses
@dataclasses.dataclass
class Point:
    x: float
    y: float
def pair(a, b=0): return (a, b)
def point(x): return Point(x, 2 * x)
def norm(p): return p.x + p.y
def same(p): return type(p).__name__
def opaque(): return (i for i in range(3)).__class__
def text(x): return str(x)
def boom(x): raise ValueError(f"bad {x}")
def told(error): return [type(error).__name__, error.state, str(error)]
def generator(): return (i for i in range(3))
"#,
    )
    .unwrap();
    let path = dir.path().to_owned();
    let call = move |name: &str| python(format!("parts:{name}")).path(&path);
    processes(1)
        .run(|flow| async move {
            // An object stays what it is between Python tasks, and becomes plain for the driver and for Rust.
            let point = flow.submit(call("point").arg(1.5).call::<serde_json::Value>());
            assert_eq!(flow.submit(call("same").arg(&point).call::<String>()).await?, "Point");
            assert_eq!(flow.submit(call("norm").arg(&point).call::<f64>()).await?, 4.5);
            assert_eq!(point.await?, serde_json::json!({"x": 1.5, "y": 3.0}));
            let pair = flow.submit(call("pair").arg(1).kwarg("b", Tree::from(2)).call::<Vec<i64>>());
            assert_eq!(flow.submit(call("same").arg(&pair).call::<String>()).await?, "tuple");
            assert_eq!(flow.submit(sum(&pair)).await?, 3, "a Rust task reads a tuple");
            // Commands.
            let listing = flow.submit(command(["printf", "b\\na\\n"]).call());
            let sorted = flow.submit(command(["sort"]).stdin(&listing).call());
            assert_eq!(sorted.clone().await?, "a\nb");
            assert_eq!(flow.submit(call("same").arg(&sorted).call::<String>()).await?, "str");
            let three = flow.submit(add(1, 2));
            assert_eq!(flow.submit(command(["echo"]).arg(&three).arg(&pair).env("X", "y").call()).await?, "3 [1,2]");
            // Failures.
            let bad = flow.submit(call("boom").arg(&three).call::<i64>());
            let error = bad.clone().await.unwrap_err();
            let TaskError::Failed(failure) = &error.error else { panic!("{error}") };
            assert_eq!((failure.kind.as_deref(), failure.message.as_str()), (Some("ValueError"), "bad 3"));
            assert!(failure.traceback.as_ref().unwrap().contains("parts.py"), "{failure:?}");
            let told: Vec<String> = flow.submit(call("told").arg(allow_failure(&bad)).call()).await?;
            assert_eq!(&told[..2], ["TaskFailed", "failed"]);
            let exit = flow.submit(command(["sh", "-c", "echo why >&2; exit 4"]).call()).await.unwrap_err();
            let TaskError::Failed(failure) = &exit.error else { panic!("{exit}") };
            assert_eq!((failure.exit_code, failure.traceback.as_deref().map(str::trim)), (Some(4), Some("why")));
            let unpicklable = flow.submit(call("generator").call::<()>()).await.unwrap_err();
            assert!(unpicklable.to_string().contains("generator"), "{unpicklable}");
            let unconvertible = flow.submit(call("opaque").call::<serde_json::Value>()).await.unwrap_err();
            assert!(unconvertible.to_string().contains("type"), "{unconvertible}");
            let wrong = flow.submit(python("parts.pair").call::<()>()).await.unwrap_err();
            assert!(wrong.to_string().contains("expected `pkg.mod:func`"), "{wrong}");
            Ok(())
        })
        .await
        .unwrap();
}

const FORKS: &str = r#"
import os, sys
def both(): return "child" if os.fork() == 0 else "parent"
def child_raises():
    pid = os.fork()
    if pid == 0: raise ValueError("in the child")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def child_exits():
    pid = os.fork()
    if pid == 0: sys.exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def echo(x): return x
def garbage():
    for fd in range(3, 20):
        try: os.write(fd, b"garbage " * 10)
        except OSError: pass
    return 1
def close_output():
    os.close(1); os.close(2)
def say(): print("still there")
"#;

#[remuda::test]
async fn a_task_that_forks_or_writes_where_it_should_not_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("forks.py"), FORKS).unwrap();
    let path = dir.path().to_owned();
    let call = move |name: &str| python(format!("forks:{name}")).path(&path);
    processes(1)
        .run(|flow| async move {
            assert_eq!(flow.submit(call("both").call::<String>()).await?, "parent");
            let echoes = flow.submit_all((0..20).map(|x| call("echo").arg(x).call::<i64>()));
            assert_eq!(flow.gather(echoes).await?, (0..20).collect::<Vec<_>>());
            assert_eq!(flow.submit(call("child_raises").call::<i64>()).await?, 1);
            assert_eq!(flow.submit(call("child_exits").call::<i64>()).await?, 5);
            flow.submit(call("close_output").call::<()>()).await?;
            flow.submit(call("say").call::<()>()).await?;
            let error = flow.submit(call("garbage").call::<i64>().allowed_failures(0)).await.unwrap_err();
            assert!(error.to_string().contains("control socket"), "{error}");
            assert_eq!(flow.submit(call("echo").arg(7).call::<i64>()).await?, 7);
            Ok(())
        })
        .await
        .unwrap();
}

#[remuda::test]
async fn tasks_of_one_name_in_two_functions_are_two_tasks() {
    fn first() -> remuda::Call<i64> {
        #[remuda::task]
        fn step(x: i64) -> i64 {
            x + 1
        }
        step(1)
    }
    fn second() -> remuda::Call<i64> {
        #[remuda::task]
        fn step(x: i64) -> i64 {
            x * 100
        }
        step(1)
    }
    processes(1)
        .run(|flow| async move {
            let (first, second) = (flow.submit(first()), flow.submit(second()));
            assert_eq!((first.name(), first.clone().await?, second.await?), ("step", 2, 100));
            Ok(())
        })
        .await
        .unwrap();
}

#[test]
fn forgetting_init_is_an_error_before_anything_is_spawned() {
    // No `#[remuda::test]`; but another test of this binary may have prepared it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let out =
        std::process::Command::new(std::env::current_exe().unwrap()).args(["--exact", "unprepared", "--ignored", "--nocapture"]).output();
    let out = String::from_utf8_lossy(&out.unwrap().stdout).into_owned();
    assert!(out.contains("#[remuda::main]") && out.contains("processes: false"), "{out}");
    drop(runtime);
}

#[test]
#[ignore = "run by the test above, in a process where nobody called init"]
fn unprepared() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(processes(1).run(|_| async { Ok(()) })).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    println!("{error:?}");
}

#[remuda::test]
async fn a_class_by_path_by_type_and_by_factory() {
    let kwargs = || remuda::Kwargs::new().with("n_workers", 1).with("threads_per_worker", 1);
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = asked.clone();
    let factory = remuda::ClassRef::from_fn("mine::Local", async move |kwargs: remuda::Kwargs| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let config = kwargs.parse::<LocalConfig>()?;
        <LocalCluster as remuda::ClusterClass>::from_config(config)
    });
    for class in ["local::LocalCluster".into(), remuda::ClassRef::of::<LocalCluster>(), factory] {
        let runner = TaskRunner::builder().cluster(class).cluster_kwargs(kwargs()).build().unwrap();
        assert_eq!(runner.run(|flow| async move { Ok(flow.submit(add(1, 2)).await?) }).await.unwrap(), 3);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    let wrong = TaskRunner::builder().cluster("LocalCluster").build().unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::UnknownClass);
    assert!(format!("{wrong:?}").contains("local::LocalCluster"), "{wrong:?}");
}
