//! `remuda cluster start`: a cluster for others to use.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    future::Future,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use remuda::{
    Cluster, ClusterClass, Error, ErrorKind, Interrupts, Registry, TaskRunner,
    adaptive::AdaptConfig,
    config::Mode,
    dask::Address,
    ledger::{Item, state_dir},
    local::LocalCluster,
    manager::{ClusterEvent, Endpoint},
    security::Security,
};
use serde_json::{Value, json};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::sleep,
};

use crate::{args::StartArgs, explain::Explain, failure::Failure, logging, output, screen::Screen, workers};

/// How long a cluster that nobody waits for any more may take to close.
const CLOSE: Duration = Duration::from_secs(90);

/// Before a scheduler that did not answer is asked again for requests.
const AGAIN: Duration = Duration::from_secs(2);

pub(super) fn start(args: &StartArgs, screen: &Screen) -> Result<ExitCode, Failure> {
    logging::init(screen, args.quiet, Explain::new(args.explain_scaling.as_deref(), screen)?)?;
    let (runner, config) = TaskRunner::builder().load(args.loader())?;
    let say = |text: &str| {
        if !args.quiet {
            screen.lines(text)
        }
    };
    config.notices.iter().for_each(|notice| say(&format!("note: {notice}")));
    if let Mode::Existing { address } = &config.mode {
        let text = format!("there is nothing to start: the configuration names the cluster at {address}");
        return Err(Error::new(ErrorKind::ConfigInvalid, text).with_hint("name a class with --cluster-class").into());
    }
    if let Some(path) = &args.scheduler_file {
        try_place(path).map_err(|error| misplaced(path, &error))?;
    }
    if let Mode::Temporary { class, .. } = &config.mode
        && Registry::with_builtins().describe(class).is_ok_and(|class| class.path == LocalCluster::PATH)
    {
        return Err(no_address(class).into());
    }
    remuda::join_at_exit();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Failure { code: 3, text: format!("error: no threads for the program: {e}") })?;
    let stop = listen(&runtime, screen)?;
    let adapt = if let Mode::Temporary { adapt, .. } = &config.mode { adapt.clone() } else { None };
    let result = runtime.block_on(hold((&runner, adapt), args, screen, stop));
    let remaining = remuda::join_all(CLOSE);
    runtime.shutdown_background();
    remaining.iter().for_each(|what| screen.lines(&format!("warning: still there: {what}")));
    match result {
        Ok(_) if !remaining.is_empty() => Err(left()),
        result => result,
    }
}

fn no_address(class: &str) -> Error {
    let text = format!("`{class}` has no address: its scheduler lives inside this program, where nobody else can use it");
    let hint = "choose a class with a Dask scheduler, as in --cluster-class local::DaskCluster";
    Error::new(ErrorKind::Unsupported, text).with_hint(hint)
}

/// Whether a file can be written there. Leaves nothing.
fn try_place(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let new = beside(path)?;
    OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
    fs::remove_file(new)
}

fn misplaced(path: &Path, error: &io::Error) -> Error {
    let error = Error::new(ErrorKind::ConfigInvalid, format!("--scheduler-file: no file can be written there: {error}"));
    error.with_context("path", path.display()).with_hint("name a file in a directory that exists and can be written")
}

fn left() -> Failure {
    Failure { code: 3, text: "error: not everything was removed\n  hint: `remuda gc` removes what this program cannot".into() }
}

/// `adapt`: how the configuration says that it adapts.
async fn hold(
    (runner, mut adapt): (&TaskRunner, Option<AdaptConfig>),
    args: &StartArgs,
    screen: &Screen,
    stop: impl Future<Output = ()>,
) -> Result<ExitCode, Failure> {
    let mut stop = std::pin::pin!(stop);
    let say = |text: &str| {
        if !args.quiet {
            screen.lines(text)
        }
    };
    let begin = Instant::now();
    let cluster = tokio::select! {
        biased;
        () = &mut stop => return Err(Failure { code: 130, text: "interrupted before the cluster was there".into() }),
        started = runner.start_cluster() => started?,
    };
    if !args.quiet {
        tell(&cluster, screen);
    }
    let held = async {
        let published = publish(&cluster, args).await?;
        if let Some(keys) = &published.keys {
            say(&format!("clients need the certificates in {}: ca.pem, cert.pem and key.pem", keys.display()));
        }
        say(&format!("{} `{}` is there after {:.1} s; Ctrl-C closes it", cluster.class(), cluster.name(), begin.elapsed().as_secs_f64()));
        let (address, security) = (&published.address, &published.security);
        let obeying = async {
            loop {
                let error = super::scale::obey(&cluster, &mut adapt, address, security.clone(), screen).await;
                tracing::debug!(%error, "requests cannot be received");
                sleep(AGAIN).await;
            }
        };
        tokio::select! {
            biased;
            () = &mut stop => Ok(()),
            error = cluster.failed() => Err(Failure::from(error)),
            () = obeying => Ok(()),
        }
    };
    let held = held.await;
    say("closing the cluster");
    let status = cluster.watch();
    let closed = cluster.close().await;
    workers::used(&status.borrow()).iter().for_each(|used| say(used));
    match (held, closed) {
        (Err(failure), _) => Err(failure),
        (Ok(()), Err(error)) => Err(error.into()),
        (Ok(()), Ok(report)) if !report.remaining.is_empty() => {
            report.remaining.iter().for_each(|what| screen.lines(&format!("warning: still there: {what}")));
            Err(left())
        }
        (Ok(()), Ok(_)) => {
            say("cluster closed");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What others know of a held cluster. Files are removed with it; those of a killed program by `remuda gc`.
struct Published {
    address: Address,
    security: Option<Arc<Security>>,
    keys: Option<PathBuf>,
    scheduler_file: Option<(PathBuf, Vec<u8>)>,
}

impl Drop for Published {
    fn drop(&mut self) {
        // What somebody else has removed is no trouble, and what somebody else has put there stays.
        if let Some(keys) = &self.keys {
            let _ = fs::remove_dir_all(keys);
        }
        if let Some((path, content)) = &self.scheduler_file
            && fs::read(path).is_ok_and(|now| now == *content)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Says where the cluster is: on standard output, and in the scheduler file.
async fn publish(cluster: &Cluster, args: &StartArgs) -> Result<Published, Failure> {
    let Endpoint::Dask { address, security, dashboard } = cluster.endpoint()? else { return Err(no_address(cluster.class()).into()) };
    let mut published = Published { address: address.parse()?, security: security.clone(), keys: None, scheduler_file: None };
    let files = match security.as_deref() {
        Some(security) => Some(keys(cluster, security, &mut published.keys).await?),
        None => None,
    };
    if let Some(path) = &args.scheduler_file {
        let identity = super::dial(&published.address, security).await?.identity().await?;
        let content = json!({
            "type": identity.kind, "id": identity.id, "address": address, "services": identity.services, "workers": {},
        });
        let content = format!("{content:#}\n").into_bytes();
        cluster.ledger()?.will_create(Item::file(path, &identity.id)?).await?;
        write(path, &content, 0o644).map_err(|error| misplaced(path, &error))?;
        published.scheduler_file = Some((path.clone(), content));
    }
    let dashboard = dashboard.or_else(|| cluster.dashboard().map(|dashboard| dashboard.to_string()));
    match args.json {
        true => {
            let (name, class) = (cluster.name(), cluster.class());
            let line = json!({"address": address, "dashboard": dashboard, "name": name, "class": class, "security": files});
            output::write(format!("{line}\n").as_bytes())?;
        }
        false => drop(output::write(format!("{address}\n").as_bytes())?),
    }
    Ok(published)
}

/// Puts what a client needs into files, for the user alone. By the names of the keywords of Python's `Security`.
async fn keys(cluster: &Cluster, security: &Security, made: &mut Option<PathBuf>) -> Result<Value, Failure> {
    let parent = state_dir()?.join("security");
    let unwritable = |path: &Path, error: io::Error| {
        let error = Error::new(ErrorKind::Unavailable, format!("the certificates cannot be written: {error}"));
        error.with_context("path", path.display()).with_hint("set REMUDA_STATE_DIR to a directory that can be written")
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&parent).map_err(|error| unwritable(&parent, error))?;
    let (_, directory) = cluster.ledger()?.create_directory(parent).await?;
    *made = Some(directory.clone());
    for (file, text) in [("ca.pem", &security.ca), ("cert.pem", &security.cert), ("key.pem", &security.key)] {
        write(&directory.join(file), text.as_bytes(), 0o600).map_err(|error| unwritable(&directory, error))?;
    }
    let path = |file: &str| directory.join(file).display().to_string();
    Ok(json!({"tls_ca_file": path("ca.pem"), "tls_client_cert": path("cert.pem"), "tls_client_key": path("key.pem")}))
}

/// Whole or not at all: who waits for the file reads it as soon as it is there.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = beside(path)?;
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        fs::rename(&new, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// A name that nobody else uses.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    Ok(path.with_file_name(name))
}

/// Returns a future that is ready at the first Ctrl-C, SIGTERM or SIGHUP. The second one leaves the program.
fn listen(runtime: &Runtime, screen: &Screen) -> Result<impl Future<Output = ()> + use<>, Failure> {
    let _inside = runtime.enter();
    let interrupts = Interrupts::new();
    let mut interrupts = interrupts.map_err(|e| Failure { code: 3, text: format!("error: signals cannot be received: {e}") })?;
    let (tell, told) = oneshot::channel::<()>();
    let screen = screen.clone();
    runtime.spawn(async move {
        interrupts.next().await;
        let _ = tell.send(());
        interrupts.next().await;
        screen.lines("interrupted again: leaving at once");
        remuda::leave();
    });
    Ok(async move {
        // The sender lives as long as the runtime.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn tell(cluster: &Cluster, screen: &Screen) {
    let (mut events, screen) = (cluster.events(), screen.clone());
    tokio::spawn(async move {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            match events.recv().await {
                Ok(ClusterEvent::Progress(text) | ClusterEvent::Degraded(text)) => screen.lines(&format!("cluster: {text}")),
                Ok(ClusterEvent::Adapting(config)) => screen.lines(&workers::bounds(&config)),
                Ok(ClusterEvent::Scaled { decision, .. }) => workers::changes(&decision).iter().for_each(|text| screen.lines(text)),
                Ok(ClusterEvent::AdaptingEnded { workers }) => screen.lines(&workers::ended(workers)),
                Ok(ClusterEvent::Joined { name, slots, .. }) => screen.lines(&format!("worker {name} joined, {slots} threads")),
                Ok(ClusterEvent::Lost { id, reason }) => screen.lines(&format!("worker {id} was lost: {reason}")),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}
