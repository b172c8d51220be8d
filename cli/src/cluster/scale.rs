//! `remuda cluster scale`, and the other end of it inside `remuda cluster start`.
//!
//! Both talk through the metadata of the scheduler, under the key `remuda`, each writing a key of its own:
//! - `holder`, by `start`: `{name, class, adaptive}`, as long as it holds the cluster;
//! - `request`, by `scale`: `{id, workers}`;
//! - `heard`, by `start`: the id of the request that it carries out.

use std::{
    hash::{BuildHasher, RandomState},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use remuda::{
    Cluster, Error, ErrorKind, Result,
    dask::{
        Address, Rpc,
        protocol::{
            Value,
            value::{get, map, text},
        },
    },
    security::Security,
};
use tokio::time::{sleep, timeout};

use crate::{args::At, failure::Failure, output, screen::Screen};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// For the holder to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// More than one scheduler of Dask's can lead: a slip of a digit, rather than a wish.
const MOST: u32 = 10_000;

pub(super) async fn scale(at: &At, workers: u32, force: bool, screen: &Screen) -> Result<ExitCode, Failure> {
    if workers > MOST && !force {
        let error = Error::new(ErrorKind::ConfigInvalid, format!("--workers {workers}: more than {MOST} workers"));
        return Err(error.with_hint("add --force if that many are meant").into());
    }
    let mut rpc = super::connect(at).await?;
    super::ask::look(&mut rpc).await?;
    let holder = read(&mut rpc, "holder").await?;
    let Some(name) = get(&holder, "name").and_then(text).map(str::to_owned) else {
        let error = Error::new(ErrorKind::Unsupported, "no `remuda cluster start` holds this cluster, so there is nobody to scale it");
        let hint = "scale it where it was started; a cluster of `remuda cluster start` can be scaled by its address";
        return Err(error.with_context("address", &at.address).with_hint(hint).into());
    };
    // Taken when nobody has said a number yet: the number ends it.
    let adaptive = get(&holder, "adaptive").and_then(Value::as_bool).unwrap_or(false);
    let id = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    write(&mut rpc, "request", map([("id", id.as_str().into()), ("workers", workers.into())])).await?;
    let heard = timeout(ANSWER, async {
        loop {
            let heard = read(&mut rpc, "heard").await?;
            let newest = read(&mut rpc, "request").await?;
            match (text(&heard), get(&newest, "id").and_then(text)) {
                (Some(heard), _) if heard == id => return Ok(()),
                (_, newest) if newest != Some(&id) => {
                    return Err(Error::new(ErrorKind::Cancelled, "somebody else asked for another number"));
                }
                _ => sleep(LOOK / 4).await,
            }
        }
    });
    heard.await.unwrap_or_else(|_| {
        let error =
            Error::new(ErrorKind::Timeout, format!("the `remuda cluster start` that holds `{name}` did not answer within {ANSWER:?}"));
        Err(error.with_hint("look whether that program still runs"))
    })?;
    match at.json {
        true => output::json(&serde_json::json!({"name": name, "workers": workers, "adaptive_ended": adaptive})),
        false => {
            screen.lines(&format!("{name}: {workers} {} wanted", if workers == 1 { "worker" } else { "workers" }));
            if adaptive {
                screen.lines("adaptive scaling is over: the number stays, whatever the work");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Says that the cluster is held, and does what is asked. Returns only with an error: the scheduler does not answer.
pub(super) async fn obey(cluster: &Cluster, address: &Address, security: Option<Arc<Security>>, screen: &Screen) -> Error {
    let result = async {
        let mut rpc = super::dial(address, security).await?;
        hold(&mut rpc, cluster, cluster.status().adapt.is_some()).await?;
        let mut done = read(&mut rpc, "heard").await?;
        loop {
            let request = read(&mut rpc, "request").await?;
            if let (Some(id), Some(workers)) = (get(&request, "id"), get(&request, "workers").and_then(Value::as_u64))
                && *id != done
            {
                let workers = u32::try_from(workers).unwrap_or(u32::MAX);
                screen.lines(&format!("asked for {workers} {}", if workers == 1 { "worker" } else { "workers" }));
                cluster.scale(workers);
                done = id.clone();
                hold(&mut rpc, cluster, false).await?;
                write(&mut rpc, "heard", done.clone()).await?;
            }
            sleep(LOOK).await;
        }
    };
    let result: Result<std::convert::Infallible> = result.await;
    let Err(error) = result;
    error
}

async fn hold(rpc: &mut Rpc, cluster: &Cluster, adaptive: bool) -> Result<()> {
    let holder = [("name", cluster.name().into()), ("class", cluster.class().into()), ("adaptive", adaptive.into())];
    write(rpc, "holder", map(holder)).await
}

async fn read(rpc: &mut Rpc, key: &str) -> Result<Value> {
    let keys = Value::Array(vec!["remuda".into(), key.into()]);
    // Not nil, which would be no default.
    let answer = rpc.call("get_metadata", [("keys", keys), ("default", false.into())]).await?;
    Ok(answer.body().clone())
}

async fn write(rpc: &mut Rpc, key: &str, value: Value) -> Result<()> {
    let keys = Value::Array(vec!["remuda".into(), key.into()]);
    match rpc.call("set_metadata", [("keys", keys), ("value", value)]).await {
        // It answers nil, and so does a scheduler that does not know it; but all of them do.
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}
