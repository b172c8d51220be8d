//! `remuda cluster`: a cluster that is held for others, and questions to one that runs.

mod ask;
mod hold;
mod scale;

use std::{future::Future, process::ExitCode, sync::Arc};

use remuda::{
    Result,
    dask::{Address, ConnectOptions, Rpc},
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
    logging::init(screen, false)?;
    wait(async {
        match command {
            ClusterCommand::Start(_) => Ok(ExitCode::SUCCESS),
            ClusterCommand::Status(at) => ask::status(at).await,
            ClusterCommand::Workers(at) => ask::workers(at).await,
            ClusterCommand::Logs { at, lines, workers } => ask::logs(at, *lines, workers).await,
            ClusterCommand::Scale { at, workers } => scale::scale(at, *workers, screen).await,
        }
    })
}

fn wait(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure { code: 3, text: format!("error: no threads for the program: {e}") })?.block_on(work)
}

async fn connect(at: &At) -> Result<Rpc> {
    let address: Address = at.address.parse()?;
    let security = at.security().map(|security| security.resolve()).transpose()?;
    dial(&address, security.map(Arc::new)).await
}

async fn dial(address: &Address, security: Option<Arc<Security>>) -> Result<Rpc> {
    Rpc::connect(address, &ConnectOptions { security, ..ConnectOptions::default() }).await
}
