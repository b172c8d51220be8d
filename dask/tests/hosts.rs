//! Task hosts and commands as the shim on a worker runs them: its Python source in a real interpreter, this test binary as the task host.
//! What Dask does with it is tested with a cluster.
//!
//! Skipped by name where there is no Dask (see `scheduler.rs`).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and the tasks they run")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use remuda_core::{
    engine::Connect,
    error::{Error, ErrorKind, Result},
    host::TaskDef,
    manager::Endpoint,
    task::{Annotations, CommandWork, Job, Key, TaskError, TaskScope, TaskSpec, TaskState, Work},
    value::{Template, Value, decode, encode},
};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Says whereto it was to connect.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Connect for Nowhere {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn remuda_core::engine::Engine>> {
        let Endpoint::Dask { address, security, .. } = endpoint else { panic!("{endpoint:?}") };
        let shown = security.as_ref().map(|security| [&*security.ca, &security.cert, &security.key]);
        Err(Error::new(ErrorKind::Unavailable, format!("asked for {address} with {shown:?}")))
    }
}

#[test]
fn host_entry() {
    remuda_core::host::set_connect(Arc::new(Nowhere));
    // In a task host it does not return.
    remuda_core::host::init(["host_entry", "--exact", "--nocapture"].map(String::from).to_vec());
}

fn ready(value: &impl serde::Serialize) -> Job {
    Job::Ready(Ok(Value::plain(value).unwrap()))
}

fn add(_: TaskScope, args: &[u8]) -> Job {
    let (a, b): (i64, i64) = decode(args).unwrap();
    ready(&(a + b))
}
fn length_and_copy(_: TaskScope, args: &[u8]) -> Job {
    let (bytes,): (serde_bytes::ByteBuf,) = decode(args).unwrap();
    ready(&bytes)
}
fn scope(scope: TaskScope, _: &[u8]) -> Job {
    ready(&(scope.key.0, scope.attempt, &*scope.worker, std::process::id()))
}
fn fails(_: TaskScope, _: &[u8]) -> Job {
    Job::Ready(Err(TaskError::failed("on purpose")))
}
fn panics(_: TaskScope, _: &[u8]) -> Job {
    panic!("on purpose")
}
fn aborts(_: TaskScope, _: &[u8]) -> Job {
    std::process::abort()
}
fn exits(_: TaskScope, args: &[u8]) -> Job {
    let (code,): (i32,) = decode(args).unwrap();
    std::process::exit(code)
}
/// Aborts until the file has so many letters.
fn aborts_at_first(scope: TaskScope, args: &[u8]) -> Job {
    let (file, times): (PathBuf, usize) = decode(args).unwrap();
    let begun = std::fs::read_to_string(&file).unwrap_or_default() + "x";
    std::fs::write(&file, &begun).unwrap();
    if begun.len() <= times { std::process::abort() } else { ready(&scope.attempt) }
}
/// Whole, or not there.
fn say(file: &Path, text: &str) {
    std::fs::write(file.with_extension("new"), text).unwrap();
    std::fs::rename(file.with_extension("new"), file).unwrap();
}
/// Begun when the file is there; does not look whether it is cancelled.
fn stubborn(_: TaskScope, args: &[u8]) -> Job {
    let (file,): (PathBuf,) = decode(args).unwrap();
    let mut child = std::process::Command::new("sleep").arg("3600").spawn().unwrap();
    say(&file, &format!("{} {}", std::process::id(), child.id()));
    let _ = child.wait();
    std::thread::sleep(Duration::from_secs(3600));
    ready(&())
}
/// Is dropped when it is cancelled.
fn gentle(_: TaskScope, args: &[u8]) -> Job {
    let (file,): (PathBuf,) = decode(args).unwrap();
    Job::Future(Box::pin(async move {
        say(&file, &std::process::id().to_string());
        std::future::pending().await
    }))
}
/// Waits for other tasks, twice, and tells what came of submitting one.
fn waits(scope: TaskScope, _: &[u8]) -> Job {
    let (session, slot) = (scope.session.unwrap(), scope.slot.unwrap());
    let mut events = session.events();
    for _ in 0..2 {
        slot.pause();
        slot.resume();
    }
    let work = Work::Command(CommandWork { call: Template::new() });
    let annotations = Arc::new(Annotations::default());
    session.submit(vec![TaskSpec { key: Key(1), name: "inner".into(), inputs: Vec::new(), after: Vec::new(), work, annotations }]);
    match events.blocking_recv().unwrap().state {
        TaskState::Ended(error) => ready(&error.to_string()),
        other => ready(&format!("{other:?}")),
    }
}
fn prints(_: TaskScope, _: &[u8]) -> Job {
    println!("to be read");
    ready(&())
}
macro_rules! tasks {
    ($($name:ident),*) => { $(inventory::submit! { TaskDef { name: stringify!($name), signature: "test", call: $name } })* };
}
tasks!(add, length_and_copy, scope, fails, panics, aborts, exits, aborts_at_first, stubborn, gentle, prints, waits);

/// The Python beside the `dask` that the tests use. Says so where there is none.
async fn python(test: &str) -> Option<PathBuf> {
    let dask = std::env::var_os("REMUDA_DASK").unwrap_or_else(|| "dask".into());
    let found = match Path::new(&dask) {
        path if path.components().count() > 1 => Some(path.to_owned()),
        name => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).map(|dir| dir.join(name)).find(|path| path.exists()),
    };
    let beside = found.and_then(|path| Some(path.parent()?.join("python3"))).filter(|path| path.exists());
    if let Some(python) = beside {
        let asked = Command::new(&python).args(["-c", "import distributed"]).stderr(Stdio::null()).status().await;
        if asked.is_ok_and(|status| status.success()) {
            return Some(python);
        }
    }
    let required = std::env::var("REMUDA_REQUIRE").unwrap_or_default();
    assert!(
        required.split(',').all(|word| word.trim() != "dask"),
        "REMUDA_REQUIRE names dask, and there is no Python beside {}",
        dask.display()
    );
    println!("skipped {test}: there is no Python with Dask");
    None
}

/// A worker without Dask.
struct Worker {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
    next: u64,
    answers: HashMap<u64, Json>,
    log: Vec<String>,
    directory: TempDir,
}

impl Worker {
    async fn start(test: &str, binary: bool) -> Option<Self> {
        let python = python(test).await?;
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(python);
        command.arg(here.join("tests/hosts/worker.py")).arg(here.join("src/shim")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env_remove("REMUDA_TASK_HOST_BINARY").env_remove("REMUDA_TASK_HOST_ARGS");
        if binary {
            command.env("REMUDA_TASK_HOST_BINARY", std::env::current_exe().unwrap());
            command.env("REMUDA_TASK_HOST_ARGS", r#"["host_entry", "--exact", "--nocapture"]"#);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        let directory = TempDir::new().unwrap();
        Some(Self { child, to, from, next: 0, answers: HashMap::new(), log: Vec::new(), directory })
    }

    async fn begin(&mut self, mut what: Json) -> u64 {
        self.next += 1;
        what["id"] = self.next.into();
        self.to.write_all(format!("{what}\n").as_bytes()).await.unwrap();
        self.next
    }

    async fn hear(&mut self) {
        let line = timeout(PATIENCE, self.from.next_line()).await.expect("an answer in time").unwrap().expect("the worker lives");
        let mut said: Json = serde_json::from_str(&line).unwrap();
        match said["id"].as_u64() {
            Some(id) => {
                self.answers.insert(id, said);
            }
            None => self.log.push(said["log"].take().as_str().unwrap().to_owned()),
        }
    }

    async fn end(&mut self, id: u64) -> Json {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            self.hear().await;
        }
    }

    async fn logged(&mut self, line: &str) {
        while !self.log.iter().any(|known| known == line) {
            self.hear().await;
        }
    }

    async fn perform(&mut self, what: Json) -> Json {
        let id = self.begin(what).await;
        self.end(id).await
    }

    async fn rust(&mut self, function: &str, args: &(impl serde::Serialize + Sync)) -> Json {
        self.perform(rust(function, args)).await
    }

    async fn command(&mut self, call: Json) -> Json {
        self.perform(command(&call)).await
    }

    /// What a task that has begun has written.
    async fn begun(&self, file: &Path) -> Vec<u32> {
        let pids = eventually("the task has begun", || std::fs::read_to_string(file).ok()).await;
        pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }
}

fn rust(function: &str, args: &impl serde::Serialize) -> Json {
    let definition = json!({"function": function, "signature": "test", "allowed": null, "timeout": null});
    json!({"op": "rust", "key": format!("{function}-0123-1f"), "definition": definition, "args": STANDARD.encode(encode(args).unwrap())})
}

fn command(call: &Json) -> Json {
    let args = STANDARD.encode(encode(call).unwrap());
    json!({"op": "command", "key": "command-0123-1", "definition": {"timeout": null}, "args": args})
}

fn with(mut what: Json, name: &str, value: Json) -> Json {
    what["definition"][name] = value;
    what
}

fn result(answer: &Json) -> Json {
    decode(&STANDARD.decode(answer["done"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap()).unwrap()
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            match look() {
                Some(found) => return found,
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("not so after {PATIENCE:?}: {what}"))
}

async fn gone(pids: &[u32]) {
    eventually("the processes are gone", || pids.iter().all(|pid| !alive(*pid)).then_some(())).await;
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_call_and_its_ends() {
    let Some(mut worker) = Worker::start("a_call_and_its_ends", true).await else { return };
    assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
    let mine = result(&worker.rust("scope", &()).await);
    assert_eq!((&mine[0], &mine[1], &mine[2]), (&json!(0x1f), &json!(0), &json!("w0")));
    let failed = worker.rust("fails", &()).await;
    assert_eq!(failed["failed"]["message"], "on purpose");
    let panicked = worker.rust("panics", &()).await;
    assert_eq!(panicked["failed"]["message"], "panicked: on purpose");
    worker.rust("prints", &()).await;
    worker.logged("prints-0123-1f | to be read").await;
    assert!(!worker.log.iter().any(|line| line.contains("running 1 test")), "{:?}", worker.log);
    let again = result(&worker.rust("scope", &()).await);
    assert_eq!(again[3], mine[3], "none of these has cost a process");
}

#[tokio::test]
async fn big_values_go_and_come_whole() {
    let Some(mut worker) = Worker::start("big_values_go_and_come_whole", true).await else { return };
    for size in [0, 200, 60_000, 8 << 20] {
        let bytes: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        let args = [serde_bytes::ByteBuf::from(bytes)];
        let answer = worker.rust("length_and_copy", &args).await;
        let back: serde_bytes::ByteBuf = decode(&STANDARD.decode(answer["done"].as_str().unwrap()).unwrap()).unwrap();
        assert!(back == args[0], "{size} bytes");
    }
}

#[tokio::test]
async fn a_host_that_dies_is_replaced_as_often_as_allowed() {
    let Some(mut worker) = Worker::start("a_host_that_dies_is_replaced_as_often_as_allowed", true).await else { return };
    let file = worker.directory.path().join("count");
    let answer = worker.rust("aborts_at_first", &(&file, 3)).await;
    assert_eq!(result(&answer), 3, "the attempt's number goes up");
    let crashed = worker.perform(with(rust("aborts", &()), "allowed", 1.into())).await;
    assert_eq!(crashed["crashed"], json!([2, "signal 6 (SIGABRT)"]));
    let crashed = worker.perform(with(rust("exits", &(7,)), "allowed", 0.into())).await;
    assert_eq!(crashed["crashed"], json!([1, "exit code 7"]));
    assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
    // One that dies while it has nothing to do is nobody's doing.
    let idle = worker.perform(json!({"op": "idle"})).await;
    let idle = u32::try_from(idle["pids"][0].as_u64().unwrap()).unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &idle.to_string()]).status().unwrap().success());
    gone(&[idle]).await;
    assert_eq!(result(&worker.perform(with(rust("add", &(2, 2)), "allowed", 0.into())).await), 4);
}

#[tokio::test]
async fn what_is_cancelled_or_late_ends() {
    let Some(mut worker) = Worker::start("what_is_cancelled_or_late_ends", true).await else { return };
    let file = worker.directory.path().join("gentle");
    let gentle = worker.begin(rust("gentle", &(&file,))).await;
    let host = worker.begun(&file).await;
    worker.perform(json!({"op": "kill", "key": "gentle-0123-1f"})).await;
    assert_eq!(worker.end(gentle).await["cancelled"], true);
    assert!(alive(host[0]), "it ended by itself, and serves on");

    let file = worker.directory.path().join("stubborn");
    let stubborn = worker.begin(rust("stubborn", &(&file,))).await;
    let pids = worker.begun(&file).await;
    assert_eq!(pids[0], host[0], "the same host");
    worker.perform(json!({"op": "kill", "key": "stubborn-0123-1f"})).await;
    assert_eq!(worker.end(stubborn).await["cancelled"], true);
    gone(&pids).await;

    std::fs::remove_file(&file).unwrap();
    let late = worker.begin(with(rust("stubborn", &(&file,)), "timeout", 0.3.into())).await;
    let late = worker.end(late).await;
    assert_eq!(late["failed"]["kind"], "TimeoutError");
    assert!(late["failed"]["message"].as_str().unwrap().contains("300ms"), "{late}");
    gone(&worker.begun(&file).await).await;
    worker.perform(json!({"op": "kill", "key": "nobody-0-0"})).await;
    assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
}

#[tokio::test]
async fn a_task_that_submits_tasks_connects_as_its_worker_does() {
    let Some(mut worker) = Worker::start("a_task_that_submits_tasks_connects_as_its_worker_does", true).await else { return };
    let told = result(&worker.rust("waits", &()).await);
    assert!(told.as_str().unwrap().contains("asked for tcp://127.0.0.1:2 with None"), "{told}");
    worker.perform(rust("add", &(1, 2))).await;
    assert_eq!(worker.log.iter().filter(|line| *line == "seceded").count(), 1, "{:?}", worker.log);

    let Some(mut worker) = Worker::start("a_task_that_submits_tasks_connects_as_its_worker_does", true).await else { return };
    let ca = worker.directory.path().join("ca.pem");
    std::fs::write(&ca, "CA\n").unwrap();
    let security = json!({"tls_ca_file": ca, "tls_worker_cert": "CERT\n", "tls_worker_key": null});
    worker.perform(json!({"op": "tls", "security": security})).await;
    let told = result(&worker.rust("waits", &()).await);
    assert!(told.as_str().unwrap().contains(r#"asked for tls://127.0.0.1:3 with Some(["CA\n", "CERT\n", "CERT\n"])"#), "{told}");
}

#[tokio::test]
async fn hosts_go_with_their_worker() {
    let Some(mut worker) = Worker::start("hosts_go_with_their_worker", true).await else { return };
    let idle = result(&worker.rust("scope", &()).await);
    let files = ["one", "two"].map(|name| worker.directory.path().join(name));
    let mut pids = vec![u32::try_from(idle[3].as_u64().unwrap()).unwrap()];
    for file in &files {
        worker.begin(rust("stubborn", &(file,))).await;
        pids.extend(worker.begun(file).await);
    }
    worker.child.kill().await.unwrap();
    gone(&pids).await;

    let Some(mut worker) = Worker::start("hosts_go_with_their_worker", true).await else { return };
    let file = worker.directory.path().join("closed");
    let busy = worker.begin(rust("stubborn", &(&file,))).await;
    let pids = worker.begun(&file).await;
    worker.perform(json!({"op": "close"})).await;
    assert_eq!(worker.end(busy).await["cancelled"], true);
    gone(&pids).await;
    assert_eq!(worker.rust("add", &(1, 2)).await["cancelled"], true, "a closed worker starts nothing");
}

#[tokio::test]
async fn programs_that_are_not_the_drivers_are_refused() {
    let Some(mut worker) = Worker::start("programs_that_are_not_the_drivers_are_refused", true).await else { return };
    let refused = worker.perform(with(rust("add", &(1, 2)), "signature", "other".into())).await;
    let message = refused["refused"][1].as_str().unwrap();
    assert!(["`add`", "`test`", "`other`", "`w0`"].iter().all(|part| message.contains(part)), "{refused}");
    assert!(refused["refused"][2].as_str().unwrap().contains("restart the workers"), "{refused}");
    let refused = worker.rust("nothing", &()).await;
    assert!(refused["refused"][1].as_str().unwrap().contains("no task `nothing`"), "{refused}");
    let told = worker.perform(json!({"op": "prepare", "host": null})).await;
    assert!(told["tasks"].as_array().unwrap().contains(&json!(["add", "test"])), "{told}");
}

#[tokio::test]
async fn the_drivers_own_program_serves_on_its_machine_only() {
    let Some(mut worker) = Worker::start("the_drivers_own_program_serves_on_its_machine_only", false).await else { return };
    let refused = worker.rust("add", &(1, 2)).await;
    let (message, hint) = (refused["refused"][1].as_str().unwrap(), refused["refused"][2].as_str().unwrap());
    assert!(message.contains("`w0` has no program") && hint.contains("REMUDA_TASK_HOST_BINARY"), "{refused}");
    let args = ["host_entry", "--exact", "--nocapture"];
    let exe = std::env::current_exe().unwrap();
    let refused = worker.perform(json!({"op": "prepare", "host": {"exe": exe, "args": args, "boot_id": "another"}})).await;
    assert!(refused["refused"][1].as_str().unwrap().contains("another machine"), "{refused}");
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let silent = worker.perform(json!({"op": "prepare", "host": {"exe": "/bin/true", "args": [], "boot_id": boot_id.trim()}})).await;
    assert!(silent["refused"][1].as_str().unwrap().contains("exit code 0"), "{silent}");
    let told = worker.perform(json!({"op": "prepare", "host": {"exe": exe, "args": args, "boot_id": boot_id.trim()}})).await;
    assert!(told["tasks"].as_array().unwrap().contains(&json!(["add", "test"])), "{told}");
    assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
}

#[tokio::test]
async fn commands_are_those_of_the_task_host() {
    let Some(mut worker) = Worker::start("commands_are_those_of_the_task_host", true).await else { return };
    let directory = worker.directory.path().to_str().unwrap().to_owned();
    let results = [
        (
            json!({"argv": ["echo", "a", 1, 1.5, 1e20, 1e-7, null, true, [1, {"b": "ü"}]]}),
            json!("a 1 1.5 1e20 1e-7 null true [1,{\"b\":\"ü\"}]"),
        ),
        (json!({"argv": ["sh", "-c", "echo $A $B"], "env": {"A": "x", "B": [1, 2]}}), json!("x [1,2]")),
        (json!({"argv": ["pwd"], "cwd": directory}), json!(directory)),
        (json!({"argv": ["cat"], "stdin": "text"}), json!("text")),
        (json!({"argv": ["cat"], "stdin": {"a": [1, null]}}), json!("{\"a\":[1,null]}")),
        (json!({"argv": ["cat"]}), json!("")),
        (json!({"argv": ["cat"], "stdin": null}), json!("")),
        (json!({"argv": ["true"], "stdin": "x".repeat(1 << 20)}), json!("")),
        (json!({"argv": ["printf", "a\\n\\r\\n\\n"]}), json!("a")),
        (json!({"argv": ["sh", "-c", "(sleep 0.1; echo late) & echo early"]}), json!("early\nlate")),
        (json!({"argv": ["sh", "-c", "echo $REMUDA_TASK_HOST"]}), json!("")),
    ];
    for (call, expected) in results {
        let answer = worker.command(call.clone()).await;
        assert!(answer["done"].is_string(), "{call}: {answer}");
        assert_eq!(result(&answer), expected, "{call}");
    }
    let bytes = worker.command(json!({"argv": ["printf", "\\377\\n"], "binary": true})).await;
    assert_eq!(STANDARD.decode(bytes["done"].as_str().unwrap()).unwrap(), b"\xc4\x02\xff\n");
    let failures = [
        (json!({"argv": ["sh", "-c", "echo why >&2; exit 3"]}), "`sh -c echo why >&2; exit 3` exited with code 3", json!("why"), json!(3)),
        (json!({"argv": ["sh", "-c", "kill -9 $$"]}), "`sh -c kill -9 $$` was ended by signal 9 (SIGKILL)", json!(null), json!(null)),
        (json!({"argv": ["no-such-program"]}), "there is no program `no-such-program` on PATH", json!(null), json!(null)),
        (json!({"argv": ["/no/such"]}), "there is no program `/no/such`", json!(null), json!(null)),
        (json!({"argv": []}), "a command needs at least a program", json!(null), json!(null)),
        (
            json!({"argv": ["true"], "cwd": "/no/such"}),
            "`true` cannot be run in `/no/such`: there is no such directory",
            json!(null),
            json!(null),
        ),
        (json!({"argv": ["printf", "\\377"]}), "its output is not UTF-8 text; use `binary: true`", json!(null), json!(null)),
    ];
    for (call, message, traceback, code) in failures {
        let answer = worker.command(call.clone()).await;
        let failed = &answer["failed"];
        assert_eq!(
            (&failed["message"], &failed["traceback"], &failed["exit_code"]),
            (&json!(message), &traceback, &code),
            "{call}: {answer}"
        );
    }
    let tail =
        worker.command(json!({"argv": ["sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1"]})).await;
    let tail = tail["failed"]["traceback"].as_str().unwrap();
    assert!(tail.starts_with("...") && tail.ends_with("line 2999") && tail.len() <= 4096 + 3, "{} bytes", tail.len());
    worker.logged("command-0123-1 | line 0").await;
    let wrong = worker.command(json!({"args": ["true"]})).await;
    assert!(wrong["failed"]["message"].as_str().unwrap().starts_with("this is not a command"), "{wrong}");
}

#[tokio::test]
async fn commands_end_when_they_are_cancelled_or_late() {
    let Some(mut worker) = Worker::start("commands_end_when_they_are_cancelled_or_late", true).await else { return };
    // The second one does not care for SIGTERM.
    let bodies = [
        "sleep 3600 & echo $$ $! > $F.new; mv $F.new $F; wait",
        "trap '' TERM; sleep 3600 & echo $$ $! > $F.new; mv $F.new $F; wait; sleep 3600",
    ];
    for (n, body) in bodies.iter().enumerate() {
        for timeout in [json!(null), json!(0.3)] {
            let file = worker.directory.path().join(format!("command-{n}-{timeout}"));
            let call = with(command(&json!({"argv": ["sh", "-c", body], "env": {"F": file}})), "timeout", timeout.clone());
            let id = worker.begin(call).await;
            let pids = worker.begun(&file).await;
            if timeout.is_null() {
                worker.perform(json!({"op": "kill", "key": "command-0123-1"})).await;
                assert_eq!(worker.end(id).await["cancelled"], true);
            } else {
                let late = worker.end(id).await;
                assert!(
                    late["failed"]["kind"] == "TimeoutError" && late["failed"]["message"].as_str().unwrap().contains("300ms"),
                    "{late}"
                );
            }
            gone(&pids).await;
        }
    }
    let escapes = json!({"argv": ["sh", "-c", "setsid sleep 3600 & echo $! > $F.new; mv $F.new $F; wait"], "env": {"F": worker.directory.path().join("escaped")}});
    let id = worker.begin(command(&escapes)).await;
    let pids = worker.begun(&worker.directory.path().join("escaped")).await;
    worker.perform(json!({"op": "kill", "key": "command-0123-1"})).await;
    assert_eq!(worker.end(id).await["cancelled"], true, "a slot is not lost to what has left the group");
    // It is nobody's but ours now.
    assert!(std::process::Command::new("kill").args(["-9", &pids[0].to_string()]).status().unwrap().success());
}
