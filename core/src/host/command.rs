//! Programs, run by a task host: its own process group, its output, its end.

use std::{
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{
    HOST_ENV,
    serve::{Shared, done, lock},
    wire::Reply,
};
use crate::{
    task::{CommandCall, Failure, Stdin},
    value,
};

/// How much of standard error goes into the failure.
const TAIL: usize = 4096;

pub(super) fn run(call: &[u8], running: &Shared, group: impl FnOnce(u32)) -> Reply {
    let call: CommandCall = match value::decode(call) {
        Ok(call) => call,
        Err(error) => return failed(format!("this is not a command: {}", error.report())),
    };
    let argv: Vec<String> = call.argv.iter().map(text).collect();
    let Some((program, args)) = argv.split_first() else { return failed("a command needs at least a program".to_owned()) };
    if let Some(cwd) = call.cwd.as_deref().filter(|cwd| !Path::new(cwd).is_dir()) {
        return failed(format!("`{program}` cannot be run in `{cwd}`: there is no such directory"));
    }
    let mut command = Command::new(program);
    command.args(args).envs(call.env.iter().map(|(name, value)| (name, text(value)))).env_remove(HOST_ENV).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(cwd) = &call.cwd {
        command.current_dir(cwd);
    }
    match spawn(&mut command, running) {
        Ok(child) => {
            group(child.id());
            attend(child, call, &argv, running)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => failed(match program.contains('/') {
            true => format!("there is no program `{program}`"),
            false => format!("there is no program `{program}` on PATH"),
        }),
        Err(error) => failed(format!("`{program}` could not be started: {error}")),
    }
}

/// Starts it. When the driver dies meanwhile, the thread that notices waits for the lock, and then knows the group that it has to end.
fn spawn(command: &mut Command, running: &Shared) -> std::io::Result<Child> {
    let mut current = lock(running);
    let child = command.spawn()?;
    current.group = group_of(&child);
    if let (true, Some(group)) = (current.cancel.is_cancelled(), current.group) {
        let _ = kill_process_group(group, Signal::TERM);
    }
    Ok(child)
}

fn group_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn attend(mut child: Child, call: CommandCall, argv: &[String], running: &Shared) -> Reply {
    let pid = group_of(&child);
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // All three at once, so that no full pipe stops another. A program that does not read its input is not an error.
    let (stdout, tail) = thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(mut input) = input {
                let _ = input.write_all(&stdin(&call.stdin));
            }
        });
        let tail = scope.spawn(|| err.map(pass_on).unwrap_or_default());
        let mut stdout = Vec::new();
        let _ = out.map(|mut out| out.read_to_end(&mut stdout));
        (stdout, tail.join().unwrap_or_default())
    });
    let status = end(&mut child, pid, running);
    if lock(running).cancel.is_cancelled() {
        return Reply::Cancelled;
    }
    match status {
        Ok(status) if status.success() => result(stdout, call.binary),
        Ok(status) => Reply::Failed(Failure {
            message: format!("`{}` {}", shown(argv), ending(status)),
            traceback: (!tail.is_empty()).then_some(tail),
            exit_code: status.code(),
            ..Failure::default()
        }),
        Err(error) => failed(format!("`{}` could not be waited for: {error}", shown(argv))),
    }
}

/// Waits for the program, and ends what it has left behind. The group is forgotten before its number can belong to anybody else.
fn end(child: &mut Child, pid: Option<Pid>, running: &Shared) -> std::io::Result<ExitStatus> {
    if let Some(pid) = pid {
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    }
    let mut current = lock(running);
    current.group = None;
    if let Some(pid) = pid {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    drop(current);
    child.wait()
}

fn result(mut stdout: Vec<u8>, binary: bool) -> Reply {
    if binary {
        return done(&serde_bytes::Bytes::new(&stdout));
    }
    while let Some(b'\n' | b'\r') = stdout.last() {
        stdout.pop();
    }
    match String::from_utf8(stdout) {
        Ok(text) => done(&text),
        Err(_) => failed("its output is not UTF-8 text; use `binary: true`".to_owned()),
    }
}

/// Writes it to our own standard error, from where the driver logs it, and keeps the end.
fn pass_on(mut from: impl Read) -> String {
    let (mut tail, mut buffer) = (Vec::new(), [0; 8192]);
    let mut cut = false;
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                let _ = std::io::stderr().write_all(&buffer[..n]);
                tail.extend_from_slice(&buffer[..n]);
                if tail.len() > 2 * TAIL {
                    tail.drain(..tail.len() - TAIL);
                    cut = true;
                }
            }
        }
    }
    if tail.len() > TAIL {
        tail.drain(..tail.len() - TAIL);
        cut = true;
    }
    let text = String::from_utf8_lossy(&tail).trim_end().to_owned();
    if cut { format!("...{text}") } else { text }
}

fn stdin(stdin: &Stdin) -> Vec<u8> {
    match stdin {
        Stdin::Empty => Vec::new(),
        Stdin::Text(text) => text.clone().into_bytes(),
        Stdin::Bytes(bytes) => bytes.clone(),
        Stdin::Json(serde_json::Value::Null) => Vec::new(),
        Stdin::Json(value) => value.to_string().into_bytes(),
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn shown(argv: &[String]) -> String {
    const LONGEST: usize = 120;
    let line = argv.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by {}", super::signal_name(signal)),
        (None, None) => "ended".to_owned(),
    }
}

fn failed(message: String) -> Reply {
    Reply::Failed(Failure { message, ..Failure::default() })
}
