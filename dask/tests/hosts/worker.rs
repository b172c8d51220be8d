//! A worker without Dask.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use remuda_core::value::{decode, encode};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// The process, and what it has said.
pub(crate) struct Worker {
    pub(crate) child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
    next: u64,
    answers: HashMap<u64, Json>,
    pub(crate) log: Vec<String>,
    pub(crate) directory: TempDir,
}

impl Worker {
    pub(crate) async fn start(test: &str, binary: bool) -> Option<Self> {
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

    pub(crate) async fn begin(&mut self, mut what: Json) -> u64 {
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

    pub(crate) async fn end(&mut self, id: u64) -> Json {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            self.hear().await;
        }
    }

    pub(crate) async fn logged(&mut self, line: &str) {
        while !self.log.iter().any(|known| known == line) {
            self.hear().await;
        }
    }

    pub(crate) async fn perform(&mut self, what: Json) -> Json {
        let id = self.begin(what).await;
        self.end(id).await
    }

    pub(crate) async fn rust(&mut self, function: &str, args: &(impl serde::Serialize + Sync)) -> Json {
        self.perform(rust(function, args)).await
    }

    pub(crate) async fn command(&mut self, call: Json) -> Json {
        self.perform(command(&call)).await
    }
}

/// What a task that has begun has written.
pub(crate) async fn begun(file: &Path) -> Vec<u32> {
    let pids = eventually("the task has begun", || std::fs::read_to_string(file).ok()).await;
    pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub(crate) fn rust(function: &str, args: &impl serde::Serialize) -> Json {
    let definition = json!({"function": function, "signature": "test", "allowed": null, "timeout": null});
    json!({"op": "rust", "key": format!("{function}-0123-1f"), "definition": definition, "args": STANDARD.encode(encode(args).unwrap())})
}

pub(crate) fn command(call: &Json) -> Json {
    let args = STANDARD.encode(encode(call).unwrap());
    json!({"op": "command", "key": "command-0123-1", "definition": {"timeout": null}, "args": args})
}

pub(crate) fn with(mut what: Json, name: &str, value: Json) -> Json {
    what["definition"][name] = value;
    what
}

pub(crate) fn result(answer: &Json) -> Json {
    decode(&bytes(answer)).unwrap()
}

/// The result as it is on the wire.
pub(crate) fn bytes(answer: &Json) -> Vec<u8> {
    STANDARD.decode(answer["done"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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

pub(crate) async fn gone(pids: &[u32]) {
    eventually("the processes are gone", || pids.iter().all(|pid| !alive(*pid)).then_some(())).await;
}

pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
