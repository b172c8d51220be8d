//! The command lines and environment of `dask scheduler` and `dask worker`. No I/O: processes, pods and Fargate tasks are started with
//! the same.
//!
//! ```
//! use remuda_dask::launch::{Program, WorkerLaunch};
//!
//! let worker = WorkerLaunch { name: "0-0".into(), nthreads: 2, ..WorkerLaunch::new("tcp://10.0.0.7:8786") };
//! let command = worker.command(&Program::Dask("dask".into()));
//! assert_eq!(command.args[..2], ["worker", "tcp://10.0.0.7:8786"]);
//! assert_eq!(command.env["OMP_NUM_THREADS"], "1");
//! ```

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::Value;

/// What understands `scheduler` and `worker`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The `dask` program.
    Dask(String),
    /// An interpreter that can import `distributed`, where there is no `dask` beside it.
    Python(String),
}

/// What to start.
#[derive(Clone, PartialEq, Eq)]
pub struct DaskCommand {
    /// A path, or a name to be looked up.
    pub program: String,
    /// Its arguments. Never a secret: everybody on the machine can read them.
    pub args: Vec<String>,
    /// Environment variables to set beside those that are there.
    pub env: BTreeMap<String, String>,
}

/// Without the values of the environment: keys are among them.
impl fmt::Debug for DaskCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, args, env } = self;
        f.debug_struct("DaskCommand").field("program", program).field("args", args).field("env", &env.keys()).finish()
    }
}

/// Variables of a worker that nobody has set: what Dask's nanny sets, so that each thread of a worker has one thread of OpenMP and BLAS,
/// and freed memory goes back to the system.
pub const WORKER_ENV: [(&str, &str); 4] =
    [("MALLOC_TRIM_THRESHOLD_", "65536"), ("MKL_NUM_THREADS", "1"), ("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")];

/// A scheduler.
#[derive(Clone, Default)]
pub struct SchedulerLaunch {
    /// Where to listen; a name or number. Empty: everywhere.
    pub host: String,
    /// The network interface to listen on, instead of `host`.
    pub interface: Option<String>,
    /// 0: any that is free.
    pub port: u16,
    /// `tcp` or `tls`; `None`: Dask decides.
    pub protocol: Option<String>,
    /// Where the dashboard (or what is left of it) listens. Dask opens the port in any case.
    pub dashboard_address: String,
    /// Whether pages for people are served.
    pub dashboard: bool,
    /// Gets a JSON object with the address once the scheduler listens. Not written atomically.
    pub scheduler_file: Option<String>,
    /// Modules, files or texts of modules that are run at the start.
    pub preload: Vec<String>,
    /// Dask's `worker-saturation`: how many tasks more than its threads a worker is given, as a factor; infinite: all at once.
    pub worker_saturation: Option<f64>,
    /// How many workers a task may lose before it is given up.
    pub allowed_failures: Option<u32>,
    /// Operations that it refuses.
    pub blocked_handlers: Vec<String>,
    /// It ends this long after the last driver that owns it was heard of.
    pub lease: Option<Duration>,
    /// The same before the first one.
    pub lease_grace: Option<Duration>,
    /// Variables besides: the user's, certificates.
    pub env: BTreeMap<String, String>,
}

/// A worker: one process without a nanny, as it is replaced by whoever started it.
#[derive(Clone, Default)]
pub struct WorkerLaunch {
    /// The scheduler's address.
    pub scheduler: String,
    /// Its name at the scheduler. A number would be taken for one.
    pub name: String,
    /// Tasks that it runs at once.
    pub nthreads: u32,
    /// In bytes: Dask spills and pauses before. `None`: no limit.
    pub memory_limit: Option<u64>,
    /// What it offers besides.
    pub resources: BTreeMap<String, f64>,
    /// Where to listen; `None`: Dask decides.
    pub host: Option<String>,
    /// The network interface to listen on, instead of `host`.
    pub interface: Option<String>,
    /// `tcp` or `tls`; `None`: as the scheduler.
    pub protocol: Option<String>,
    /// Where its pages for people are served; `None`: they are not.
    pub dashboard_address: Option<String>,
    /// Where results are spilled to.
    pub local_directory: Option<String>,
    /// It ends when it has not seen the scheduler for so long.
    pub death_timeout: Option<Duration>,
    /// `package.module.Class`, instead of Dask's `Worker`.
    pub worker_class: Option<String>,
    /// Modules, files or texts of modules that are run at the start.
    pub preload: Vec<String>,
    /// The program that runs Rust tasks, and its arguments.
    pub task_host: Option<(String, Vec<String>)>,
    /// Variables besides: the user's, certificates.
    pub env: BTreeMap<String, String>,
}

/// Dask opens a port for HTTP in any case; only where is ours to say.
const ANY_PORT: &str = ":0";

impl SchedulerLaunch {
    /// What to start.
    #[must_use]
    pub fn command(&self, program: &Program) -> DaskCommand {
        let mut line = Line::new(program, "scheduler");
        line.place(&self.host, self.interface.as_deref());
        line.option("--port", self.port).maybe("--protocol", self.protocol.as_ref());
        let address = if self.dashboard_address.is_empty() { ANY_PORT } else { &self.dashboard_address };
        line.option("--dashboard-address", address).flag(if self.dashboard { "--dashboard" } else { "--no-dashboard" });
        line.maybe("--scheduler-file", self.scheduler_file.as_ref()).each("--preload", &self.preload);
        let mut env = BTreeMap::new();
        let mut set = |name: &str, value: Option<String>| env.extend(value.map(|value| (name.to_owned(), value)));
        set("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION", self.worker_saturation.map(number));
        set("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", self.allowed_failures.map(|n| n.to_string()));
        let blocked = (!self.blocked_handlers.is_empty()).then(|| Value::from(self.blocked_handlers.clone()).to_string());
        set("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", blocked);
        set("REMUDA_LEASE", self.lease.map(seconds));
        set("REMUDA_LEASE_GRACE", self.lease_grace.map(seconds));
        env.extend(self.env.clone());
        line.with(env)
    }
}

impl WorkerLaunch {
    /// A worker of that scheduler, with one thread.
    pub fn new(scheduler: impl Into<String>) -> Self {
        Self { scheduler: scheduler.into(), nthreads: 1, ..Self::default() }
    }

    /// What to start.
    #[must_use]
    pub fn command(&self, program: &Program) -> DaskCommand {
        let mut line = Line::new(program, "worker");
        line.flag(&self.scheduler).option("--name", &self.name).option("--nthreads", self.nthreads).flag("--no-nanny");
        line.option("--memory-limit", self.memory_limit.unwrap_or_default());
        if !self.resources.is_empty() {
            let pairs: Vec<_> = self.resources.iter().map(|(name, amount)| format!("{name}={}", number(*amount))).collect();
            line.option("--resources", pairs.join(" "));
        }
        line.place(self.host.as_deref().unwrap_or_default(), self.interface.as_deref());
        line.option("--worker-port", 0).maybe("--protocol", self.protocol.as_ref());
        line.option("--dashboard-address", self.dashboard_address.as_deref().unwrap_or(ANY_PORT));
        line.flag(if self.dashboard_address.is_some() { "--dashboard" } else { "--no-dashboard" });
        line.maybe("--local-directory", self.local_directory.as_ref()).maybe("--death-timeout", self.death_timeout.map(seconds));
        line.maybe("--worker-class", self.worker_class.as_ref()).each("--preload", &self.preload);
        let mut env: BTreeMap<_, _> = WORKER_ENV.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // Its results are moved before it follows a SIGTERM.
        env.insert("REMUDA_GRACEFUL".to_owned(), "1".to_owned());
        if let Some((binary, args)) = &self.task_host {
            env.insert("REMUDA_TASK_HOST_BINARY".to_owned(), binary.clone());
            env.insert("REMUDA_TASK_HOST_ARGS".to_owned(), Value::from(args.clone()).to_string());
        }
        env.extend(self.env.clone());
        line.with(env)
    }
}

struct Line(DaskCommand);

impl Line {
    fn new(program: &Program, what: &str) -> Self {
        let (program, args) = match program {
            Program::Dask(path) => (path, vec![what.to_owned()]),
            Program::Python(path) => (path, vec!["-m".to_owned(), format!("distributed.cli.dask_{what}")]),
        };
        Self(DaskCommand { program: program.clone(), args, env: BTreeMap::new() })
    }

    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.args.push(flag.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.0.args.extend([name.to_owned(), value.to_string()]);
        self
    }

    fn maybe(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.option(name, value);
        }
        self
    }

    fn each(&mut self, name: &str, values: &[String]) -> &mut Self {
        for value in values {
            self.option(name, value);
        }
        self
    }

    fn place(&mut self, host: &str, interface: Option<&str>) -> &mut Self {
        match interface {
            Some(interface) => self.option("--interface", interface),
            None if host.is_empty() => self,
            None => self.option("--host", host),
        }
    }

    fn with(mut self, env: BTreeMap<String, String>) -> DaskCommand {
        self.0.env = env;
        self.0
    }
}

/// As Python reads it: `inf`, `1.0`.
fn number(value: f64) -> String {
    if value.is_infinite() { "inf".to_owned() } else { format!("{value:?}") }
}

fn seconds(duration: Duration) -> String {
    number(duration.as_secs_f64())
}

impl fmt::Debug for SchedulerLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command(&Program::Dask("dask".to_owned())).fmt(f)
    }
}

impl fmt::Debug for WorkerLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command(&Program::Dask("dask".to_owned())).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(command: &DaskCommand) -> String {
        let env = command.env.iter().map(|(name, value)| format!("\n{name}={value}"));
        format!("{} {}{}", command.program, command.args.join(" "), env.collect::<String>())
    }

    #[test]
    fn a_plain_scheduler_and_worker() {
        let dask = Program::Dask("dask".into());
        insta::assert_snapshot!(shown(&SchedulerLaunch::default().command(&dask)), @"dask scheduler --port 0 --dashboard-address :0 --no-dashboard");
        insta::assert_snapshot!(shown(&WorkerLaunch::new("tcp://s:1").command(&Program::Python("/venv/bin/python".into()))), @"
        /venv/bin/python -m distributed.cli.dask_worker tcp://s:1 --name  --nthreads 1 --no-nanny --memory-limit 0 --worker-port 0 --dashboard-address :0 --no-dashboard
        MALLOC_TRIM_THRESHOLD_=65536
        MKL_NUM_THREADS=1
        OMP_NUM_THREADS=1
        OPENBLAS_NUM_THREADS=1
        REMUDA_GRACEFUL=1
        ");
    }

    #[test]
    fn a_scheduler_with_everything() {
        let scheduler = SchedulerLaunch {
            host: "127.0.0.1".into(),
            port: 8786,
            protocol: Some("tls".into()),
            dashboard_address: "127.0.0.1:0".into(),
            dashboard: true,
            scheduler_file: Some("/t m p/scheduler.json".into()),
            preload: vec!["/t m p/guard.py".into(), "my.setup".into()],
            worker_saturation: Some(f64::INFINITY),
            allowed_failures: Some(7),
            blocked_handlers: vec!["feed".into(), "run_function".into()],
            lease: Some(Duration::from_secs(30)),
            lease_grace: Some(Duration::from_millis(1500)),
            env: [("DASK_LOGGING__DISTRIBUTED".to_owned(), "warning".to_owned())].into(),
            ..SchedulerLaunch::default()
        };
        insta::assert_snapshot!(shown(&scheduler.command(&Program::Dask("dask".into()))), @r#"
        dask scheduler --host 127.0.0.1 --port 8786 --protocol tls --dashboard-address 127.0.0.1:0 --dashboard --scheduler-file /t m p/scheduler.json --preload /t m p/guard.py --preload my.setup
        DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=7
        DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS=["feed","run_function"]
        DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION=inf
        DASK_LOGGING__DISTRIBUTED=warning
        REMUDA_LEASE=30.0
        REMUDA_LEASE_GRACE=1.5
        "#);
    }

    #[test]
    fn a_worker_with_everything() {
        let worker = WorkerLaunch {
            name: "3-1".into(),
            nthreads: 4,
            memory_limit: Some(1 << 30),
            resources: [("GPU".to_owned(), 2.0), ("MEM".to_owned(), 10e9)].into(),
            host: Some("127.0.0.1".into()),
            protocol: Some("tls".into()),
            dashboard_address: Some("127.0.0.1:0".into()),
            local_directory: Some("/scratch".into()),
            death_timeout: Some(Duration::from_secs(60)),
            worker_class: Some("my.Worker".into()),
            preload: vec!["/guard.py".into()],
            task_host: Some(("/proc/1/exe".into(), vec!["a test".into(), "--exact".into()])),
            env: [("OMP_NUM_THREADS".to_owned(), "4".to_owned())].into(),
            ..WorkerLaunch::new("tls://s:1")
        };
        insta::assert_snapshot!(shown(&worker.command(&Program::Dask("dask".into()))), @r#"
        dask worker tls://s:1 --name 3-1 --nthreads 4 --no-nanny --memory-limit 1073741824 --resources GPU=2.0 MEM=10000000000.0 --host 127.0.0.1 --worker-port 0 --protocol tls --dashboard-address 127.0.0.1:0 --dashboard --local-directory /scratch --death-timeout 60.0 --worker-class my.Worker --preload /guard.py
        MALLOC_TRIM_THRESHOLD_=65536
        MKL_NUM_THREADS=1
        OMP_NUM_THREADS=4
        OPENBLAS_NUM_THREADS=1
        REMUDA_GRACEFUL=1
        REMUDA_TASK_HOST_ARGS=["a test","--exact"]
        REMUDA_TASK_HOST_BINARY=/proc/1/exe
        "#);
    }

    #[test]
    fn values_of_the_environment_are_not_shown() {
        let env: BTreeMap<_, _> = [("TLS_KEY".to_owned(), "secret".to_owned())].into();
        let scheduler = SchedulerLaunch { env: env.clone(), ..SchedulerLaunch::default() };
        let worker = WorkerLaunch { env, ..WorkerLaunch::new("tcp://s:1") };
        let text = format!("{scheduler:?} {worker:?}");
        assert!(text.contains("TLS_KEY") && !text.contains("secret"), "{text}");
    }
}
