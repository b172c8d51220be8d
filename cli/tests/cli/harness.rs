//! Runs the program in a directory and an environment of its own.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const LIMIT: Duration = Duration::from_secs(90);

/// A directory to run in.
pub(crate) struct Place {
    dir: TempDir,
    env: Vec<(String, String)>,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    /// Standard output as it was, where it is no text.
    pub(crate) raw: Vec<u8>,
    pub(crate) err: String,
}

impl Place {
    /// With these files in it. The developer's own environment is not seen.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        Self { dir, env: vec![("PATH".into(), path)] }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn variable(&self, name: &str) -> &str {
        self.env.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_remuda"));
        command.args(args).current_dir(self.path()).env_clear().envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running(Some(self.command(args).spawn().unwrap()))
    }

    pub(crate) fn remuda(&self, args: &[&str]) -> Ended {
        self.start(args).end()
    }

    /// A named pipe: who holds its other end open is alive.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }
}

/// A run in progress. Dropped by a failing test, it is killed.
pub(crate) struct Running(Option<Child>);

impl Running {
    /// Its first line on standard output, as soon as it is there.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let child = self.0.as_mut().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut line, mut byte) = (Vec::new(), [0]);
            while out.read(&mut byte).is_ok_and(|n| n == 1) && byte != *b"\n" {
                line.push(byte[0]);
            }
            let _ = send.send((line, out));
        });
        let (line, out) = receive.recv_timeout(LIMIT).expect("a line on standard output");
        child.stdout = Some(out);
        assert!(!line.is_empty(), "it ended: {}", self.0.take().map(finish).unwrap().err);
        String::from_utf8(line).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.0.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn end(mut self) -> Ended {
        finish(self.0.take().unwrap())
    }
}

fn finish(mut child: Child) -> Ended {
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let status = wait(&mut child);
    let (raw, err) = (out.join().unwrap(), err.join().unwrap());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: status.code(), out: text(&raw), raw, err: text(&err) }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    })
}

fn wait(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("the program did not end within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Ended {
    /// Checks the exit code, showing everything when it is another.
    #[track_caller]
    pub(crate) fn code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "\nstdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in stderr:\n{}", self.err);
        }
        self
    }
}
