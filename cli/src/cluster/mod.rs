//! `remuda cluster`: a cluster that is held for others, and questions to one that runs.

mod ask;
mod hold;
mod scale;

use std::{future::Future, process::ExitCode, sync::Arc};

use remuda::{
    Error, ErrorKind, Result,
    dask::{Address, ConnectOptions, Rpc, Scheme},
    security::Security,
};
use tokio::runtime::Builder;

use crate::{
    args::{At, ClusterCommand},
    failure::Failure,
    logging,
    screen::Screen,
};

pub(crate) fn cluster(command: &ClusterCommand, screen: &Screen) -> Result<ExitCode, Failure> {
    if let ClusterCommand::Start(args) = command {
        return hold::start(args, screen);
    }
    logging::init(screen, false, None)?;
    wait(async {
        match command {
            ClusterCommand::Start(_) => Ok(ExitCode::SUCCESS),
            ClusterCommand::Status(at) => ask::status(at).await,
            ClusterCommand::Workers(at) => ask::workers(at).await,
            ClusterCommand::Logs { at, lines, workers } => ask::logs(at, *lines, workers).await,
            ClusterCommand::Scale { at, workers, adapt, force } => {
                scale::scale(at, &scale::Wish::new(*workers, adapt.as_deref(), *force)?, screen).await
            }
        }
    })
}

fn wait(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure { code: 3, text: format!("error: no threads for the program: {e}") })?.block_on(work)
}

async fn connect(at: &At) -> Result<Rpc> {
    let address: Address = at.address.parse()?;
    let security = at.security().map(|security| security.resolve().map_err(by_flag)).transpose()?;
    if address.scheme() == Scheme::Tls && security.is_none() {
        let error = Error::new(ErrorKind::ConfigInvalid, "a `tls://` address needs certificates").with_context("address", address);
        return Err(error.with_hint("give --tls-ca-file, --tls-cert and --tls-key; `remuda cluster start --json` tells where they are"));
    }
    dial(&address, security.map(Arc::new)).await
}

/// Names what is wrong as the command line does.
fn by_flag(error: Error) -> Error {
    let mut mistakes = error.mistakes().to_vec();
    mistakes.iter_mut().for_each(|mistake| mistake.path = format!("--{}", mistake.path.replace('_', "-")));
    if mistakes.is_empty() { error } else { Error::invalid(mistakes) }
}

async fn dial(address: &Address, security: Option<Arc<Security>>) -> Result<Rpc> {
    Rpc::connect(address, &ConnectOptions { security, ..ConnectOptions::default() }).await
}
