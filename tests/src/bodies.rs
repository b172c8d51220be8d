//! Task bodies that can run in threads and, by name, in task hosts.

use std::{borrow::Cow, future::Future, sync::Arc};

use bytes::Bytes;
use remuda_core::{
    error::{Error, ErrorKind},
    host::{self, TaskDef},
    task::{CommandWork, HereFn, Input, Job, Key, Outcome, PythonWork, RustWork, TaskError, TaskScope, Work},
    value::{Template, Value, decode, encode},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// An argument of a task.
#[derive(Debug, Clone)]
pub enum Arg {
    /// Anything that JSON can say.
    Value(Json),
    /// Another task's result.
    Of(Key),
    /// Another task's result or error.
    Either(Key),
    /// Several of these.
    List(Vec<Self>),
}

macro_rules! values {
    ($($type:ty)*) => {
        $(impl From<$type> for Arg {
            fn from(value: $type) -> Self {
                Self::Value(value.into())
            }
        })*
    };
}
values! { &str String i32 i64 u32 usize f64 bool Json }

impl From<Key> for Arg {
    fn from(key: Key) -> Self {
        Self::Of(key)
    }
}

impl Arg {
    fn write(&self, template: &mut Template, inputs: &mut Vec<Input>) {
        match self {
            Self::Value(value) => drop(template.raw(&encode(value).expect("JSON is MessagePack"))),
            Self::Of(key) => {
                template.append(&Template::hole());
                inputs.push(Input { key: *key, allow_failure: false });
            }
            Self::Either(key) => {
                template.append(&Template::hole());
                inputs.push(Input { key: *key, allow_failure: true });
            }
            Self::List(items) => {
                template.array(items.len());
                items.iter().for_each(|item| item.write(template, inputs));
            }
        }
    }
}

/// What to run, and on whose results.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The work.
    pub work: Work,
    /// The results it reads.
    pub inputs: Vec<Input>,
}

fn write(args: &[Arg]) -> (Template, Vec<Input>) {
    let (mut template, mut inputs) = (Template::new(), Vec::new());
    template.array(args.len());
    args.iter().for_each(|arg| arg.write(&mut template, &mut inputs));
    (template, inputs)
}

/// A call of one of the bodies of this module, in both forms.
///
/// # Panics
/// When no body has this name.
#[must_use]
pub fn rust(name: &str, args: &[Arg]) -> Prepared {
    let def = host::tasks().find(|def| def.name == name).unwrap_or_else(|| panic!("no test body is called {name}"));
    let (template, inputs) = write(args);
    let (form, allowed) = (template.clone(), inputs.iter().map(|input| input.allow_failure).collect::<Vec<_>>());
    let here: HereFn = Arc::new(move |scope, inputs: Vec<Outcome>| {
        let plain = inputs.into_iter().zip(&allowed).map(|(outcome, allowed)| plain(outcome, *allowed)).collect::<Result<Vec<_>, _>>();
        match plain.and_then(|inputs| form.fill(&inputs)) {
            Ok(bytes) => (def.call)(scope, &bytes),
            Err(error) => Job::Ready(Err(error.into())),
        }
    });
    Prepared { work: Work::Rust(RustWork { function: Cow::Borrowed(def.name), here: Some(here), args: Some(template) }), inputs }
}

/// An input as MessagePack, as it stands in the arguments of a task in another process.
fn plain(outcome: Outcome, allowed: bool) -> Result<Bytes, Error> {
    match (outcome, allowed) {
        (Ok(value), false) => value.to_plain(),
        (Err(error), false) => Err(Error::new(ErrorKind::Unexpected, "a task was begun without its input").with_source(error)),
        (Ok(value), true) => {
            let mut whole = Template::new();
            whole.map(1).text("Ok").raw(&value.to_plain()?);
            whole.fill(&[]).map(Bytes::from)
        }
        (Err(error), true) => encode(&Err::<(), _>(error)).map(Bytes::from),
    }
}

/// A closure, for slots that share our memory only.
pub fn closure(body: impl Fn(TaskScope) -> Outcome + Send + Sync + 'static) -> Prepared {
    let here: HereFn = Arc::new(move |scope, _| Job::Ready(body(scope)));
    Prepared { work: Work::Rust(RustWork { function: Cow::Borrowed("closure"), here: Some(here), args: None }), inputs: Vec::new() }
}

/// A call of a Python function with positional arguments.
#[must_use]
pub fn python(target: &str, args: &[Arg]) -> Prepared {
    let (positional, inputs) = write(args);
    let mut whole = Template::new();
    whole.array(2).append(&positional).map(0);
    Prepared { work: Work::Python(PythonWork { target: target.into(), args: whole, path: Arc::from([]) }), inputs }
}

/// A program with its arguments, and what it reads.
#[must_use]
pub fn command(argv: &[Arg], stdin: Option<Arg>) -> Prepared {
    let (argv, mut inputs) = write(argv);
    let mut whole = Template::new();
    whole.map(1 + usize::from(stdin.is_some())).text("argv").append(&argv);
    if let Some(stdin) = stdin {
        let mut form = Template::new();
        stdin.write(&mut form, &mut inputs);
        whole.text("stdin").append(&form);
    }
    Prepared { work: Work::Command(CommandWork { call: whole }), inputs }
}

fn ready<A: DeserializeOwned, R: Serialize>(args: &[u8], body: impl FnOnce(A) -> Result<R, TaskError>) -> Job {
    Job::Ready(decode::<A>(args).map_err(TaskError::from).and_then(body).and_then(|result| Ok(Value::plain(&result)?)))
}

fn later<A, R, Fut>(args: &[u8], body: impl FnOnce(A) -> Fut) -> Job
where
    A: DeserializeOwned,
    R: Serialize,
    Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
{
    match decode::<A>(args) {
        Ok(args) => {
            let result = body(args);
            Job::Future(Box::pin(async move { Ok(Value::plain(&result.await?)?) }))
        }
        Err(error) => Job::Ready(Err(error.into())),
    }
}

macro_rules! body {
    ($name:literal, $signature:literal, $call:expr) => {
        inventory::submit! { TaskDef { name: $name, signature: $signature, call: $call } }
    };
}

body!("echo", "(x) -> x", |_, args| ready(args, |(x,): (Json,)| Ok(x)));
body!("add", "(i64, i64) -> i64", |_, args| ready(args, |(a, b): (i64, i64)| Ok(a + b)));
body!("sum", "(Vec<i64>) -> i64", |_, args| ready(args, |(all,): (Vec<i64>,)| Ok(all.iter().sum::<i64>())));
body!("length", "(String) -> usize", |_, args| ready(args, |(text,): (String,)| Ok(text.len())));
body!("zeros", "(usize) -> String", |_, args| ready(args, |(n,): (usize,)| Ok("0".repeat(n))));
body!("fail", "(String) -> ()", |_, args| ready(args, |(message,): (String,)| Err::<(), _>(TaskError::failed(message))));
body!("panic", "(String) -> ()", |_, args| ready(args, |(message,): (String,)| -> Result<(), TaskError> { panic!("{message}") }));
body!("pid", "() -> u32", |_, args| ready(args, |_: Vec<Json>| Ok(std::process::id())));
body!("worker", "() -> String", |scope, args| ready(args, |_: Vec<Json>| Ok(scope.worker.to_string())));
// Fails until it is tried for the n-th time (counted from 0), then says which attempt that was.
body!("fail_until", "(u32) -> u32", |scope, args| {
    ready(
        args,
        |(n,): (u32,)| if scope.attempt < n { Err(TaskError::failed(format!("attempt {}", scope.attempt))) } else { Ok(scope.attempt) },
    )
});
body!("is_err", "(Result) -> Option<String>", |_, args| {
    ready(args, |(outcome,): (Result<Json, TaskError>,)| Ok(outcome.err().map(|error| error.to_string())))
});
// Ends the worker it runs on.
body!("exit", "(i32) -> ()", |_, args| ready(args, |(code,): (i32,)| exit(code)));
body!("abort", "() -> ()", |_, args| ready(args, |_: Vec<Json>| -> Result<(), TaskError> {
    if host::is_host() { std::process::abort() } else { exit(134) }
}));
// Arrives at a gate and waits there; async, and so that only its own thread can be blocked.
body!("gate", "(String, String) -> String", |_, args| later(args, |(address, label)| gate(address, label)));
body!("gate_sync", "(String, String) -> String", |_, args| ready(args, |(address, label): (String, String)| gate_sync(&address, label)));
// As `gate` for the first attempts; after that it returns at once.
body!("gate_until", "(String, String, u32) -> String", |scope, args| {
    later(args, move |(address, label, n): (String, String, u32)| async move {
        if scope.attempt < n { gate(address, label).await } else { Ok(label) }
    })
});

/// The end of a worker that is not a process: the fake engine takes a panic with this for one.
#[derive(Debug, Clone, Copy)]
pub struct Exit(
    /// The exit code.
    pub i32,
);

fn exit(code: i32) -> Result<(), TaskError> {
    if host::is_host() {
        std::process::exit(code);
    }
    std::panic::panic_any(Exit(code));
}

fn broken(error: std::io::Error) -> TaskError {
    TaskError::failed(format!("the gate is gone: {error}"))
}

async fn gate(address: String, label: String) -> Result<String, TaskError> {
    let mut stream = BufReader::new(TcpStream::connect(address).await.map_err(broken)?);
    stream.get_mut().write_all(format!("{label}\n").as_bytes()).await.map_err(broken)?;
    let mut word = String::new();
    stream.read_line(&mut word).await.map_err(broken)?;
    answer(&word, label)
}

fn gate_sync(address: &str, label: String) -> Result<String, TaskError> {
    use std::io::{BufRead, Write};
    let mut stream = std::net::TcpStream::connect(address).map_err(broken)?;
    stream.write_all(format!("{label}\n").as_bytes()).map_err(broken)?;
    let mut word = String::new();
    std::io::BufReader::new(stream).read_line(&mut word).map_err(broken)?;
    answer(&word, label)
}

fn answer(word: &str, label: String) -> Result<String, TaskError> {
    match word.trim_end() {
        "open" => Ok(label),
        "refuse" => Err(TaskError::failed("refused at the gate")),
        _ => Err(TaskError::failed("the gate was closed")),
    }
}
