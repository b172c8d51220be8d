//! `remuda cluster scale`, and the other end of it inside `remuda cluster start`.
//!
//! Both talk through the metadata of the scheduler, under the key `remuda`, each writing a key of its own:
//! - `holder`, by `start`: `{name, class, adaptive}`, as long as it holds the cluster; with `minimum` and `maximum`, as they hold, where it is adaptive;
//! - `request`, by `scale`: `{id, workers}` or `{id, adapt}`, a map of the bounds that were said;
//! - `refused`, by `start`: `{id, reason}` of a request that cannot be carried out;
//! - `heard`, by `start`: the id of the request that was answered.

use std::{
    hash::{BuildHasher, RandomState},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use remuda::{
    Cluster, Error, ErrorKind, Result,
    adaptive::AdaptConfig,
    config::parse_bounds,
    dask::{
        Address, Rpc,
        protocol::{
            Value,
            value::{get, map, text},
        },
    },
    manager::ClusterEvent,
    security::Security,
};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{sleep, timeout},
};

use crate::{args::At, failure::Failure, output, screen::Screen, workers};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// For the holder to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// More than one scheduler of Dask's can lead: a slip of a digit, rather than a wish.
const MOST: u32 = 10_000;

/// What somebody asks of the holder.
pub(super) enum Wish {
    Workers(u32),
    /// `minimum` and `maximum`, as far as they were said.
    Adapt(Bounds),
}

type Bounds = serde_json::Map<String, serde_json::Value>;

impl Wish {
    pub(super) fn new(workers: Option<u32>, adapt: Option<&str>, force: bool) -> Result<Self> {
        let few = |flag: &dyn std::fmt::Display, count: u64| {
            if count <= u64::from(MOST) || force {
                return Ok(());
            }
            let error = Error::new(ErrorKind::ConfigInvalid, format!("{flag}: more than {MOST} workers"));
            Err(error.with_hint("add --force if that many are meant"))
        };
        if let Some(workers) = workers {
            return few(&format_args!("--workers {workers}"), workers.into()).map(|()| Self::Workers(workers));
        }
        let invalid = |text: &dyn std::fmt::Display| Error::new(ErrorKind::ConfigInvalid, format!("--adapt: {text}"));
        let bounds = parse_bounds(adapt.unwrap_or_default()).map_err(|text| invalid(&text))?;
        bounded(None, &bounds).map_err(|error| invalid(&error.message()))?;
        // No bound above is a wish of its own: the work says how many.
        let most = bounds.values().filter_map(serde_json::Value::as_u64).max();
        few(&format_args!("--adapt {}", adapt.unwrap_or_default()), most.unwrap_or(0))?;
        Ok(Self::Adapt(bounds))
    }

    fn told(&self) -> (&'static str, Value) {
        match self {
            Self::Workers(workers) => ("workers", (*workers).into()),
            Self::Adapt(bounds) => {
                let sides = bounds.iter().filter_map(|(side, count)| Some((side.as_str().into(), count.as_u64()?.into())));
                ("adapt", Value::Map(sides.collect()))
            }
        }
    }

    /// What a request asks for, of which a bound that is no number would be none. `None`: another version wrote it, or somebody else.
    fn of(request: &Value) -> Option<Self> {
        if let Some(workers) = get(request, "workers").and_then(Value::as_u64) {
            return Some(Self::Workers(u32::try_from(workers).unwrap_or(u32::MAX)));
        }
        let bound = |(side, count): &(Value, Value)| Some((side.as_str()?.to_owned(), count.as_u64()?.into()));
        get(request, "adapt")?.as_map()?.iter().map(bound).collect::<Option<Bounds>>().map(Self::Adapt)
    }
}

pub(super) async fn scale(at: &At, wish: &Wish, screen: &Screen) -> Result<ExitCode, Failure> {
    let mut rpc = super::connect(at).await?;
    super::ask::look(&mut rpc).await?;
    let holder = read(&mut rpc, "holder").await?;
    let Some(name) = get(&holder, "name").and_then(text).map(str::to_owned) else {
        let error = Error::new(ErrorKind::Unsupported, "no `remuda cluster start` holds this cluster, so there is nobody to scale it");
        let hint = "scale it where it was started; a cluster of `remuda cluster start` can be scaled by its address";
        return Err(error.with_context("address", &at.address).with_hint(hint).into());
    };
    // Taken when nobody has said a number yet: the number ends it.
    let adaptive = bounds(&holder).is_some();
    ask(&mut rpc, wish, &name).await?;
    // Also with --json: what is told here is for people, on standard error.
    if matches!(wish, Wish::Workers(0)) {
        screen
            .lines("note: without workers finished results have nowhere to go: Dask drops them, and computes them again when workers come");
    }
    let lines = match wish {
        Wish::Workers(workers) => {
            if at.json {
                return output::json(&serde_json::json!({"name": name, "workers": workers, "adaptive_ended": adaptive}));
            }
            let over = adaptive.then_some("\nadaptive scaling is over: the number stays, whatever the work");
            format!("{name}: {workers} {} wanted{}", if *workers == 1 { "worker" } else { "workers" }, over.unwrap_or_default())
        }
        Wish::Adapt(_) => {
            let holds = bounds(&read(&mut rpc, "holder").await?).unwrap_or_default();
            if at.json {
                return output::json(&serde_json::json!({"name": name, "minimum": holds.minimum.unwrap_or(0), "maximum": holds.maximum}));
            }
            format!("{name}: {}", workers::bounds(&holds))
        }
    };
    screen.lines(&lines);
    Ok(ExitCode::SUCCESS)
}

/// Between which bounds the holder says that its cluster scales. `None`: not at all, or nobody holds it.
pub(super) fn bounds(holder: &Value) -> Option<AdaptConfig> {
    get(holder, "adaptive").and_then(Value::as_bool).filter(|adaptive| *adaptive)?;
    let side = |name| get(holder, name).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
    Some(AdaptConfig { minimum: Some(side("minimum").unwrap_or(0)), maximum: side("maximum"), ..AdaptConfig::default() })
}

/// Returns when the holder does it.
async fn ask(rpc: &mut Rpc, wish: &Wish, name: &str) -> Result<()> {
    let id = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    write(rpc, "request", map([("id", id.as_str().into()), wish.told()])).await?;
    let answered = timeout(ANSWER, async {
        loop {
            let heard = read(rpc, "heard").await?;
            let newest = read(rpc, "request").await?;
            match (text(&heard), get(&newest, "id").and_then(text)) {
                (Some(heard), _) if heard == id => return read(rpc, "refused").await,
                (_, newest) if newest != Some(&id) => {
                    return Err(Error::new(ErrorKind::Cancelled, "somebody else asked for another number"));
                }
                _ => sleep(LOOK / 4).await,
            }
        }
    });
    let refused = answered.await.unwrap_or_else(|_| {
        let error =
            Error::new(ErrorKind::Timeout, format!("the `remuda cluster start` that holds `{name}` did not answer within {ANSWER:?}"));
        Err(error.with_hint("look whether that program still runs"))
    })?;
    if get(&refused, "id").and_then(text) != Some(&id) {
        return Ok(());
    }
    let reason = get(&refused, "reason").and_then(text).unwrap_or("it says no reason");
    Err(Error::new(ErrorKind::ConfigInvalid, format!("the `remuda cluster start` that holds `{name}` does not do that: {reason}")))
}

/// These bounds, and the rest as it was.
fn bounded(known: Option<&AdaptConfig>, bounds: &Bounds) -> Result<AdaptConfig> {
    let side = |name: &str, was: Option<u32>| {
        let said = bounds.get(name).map(|count| count.as_u64().and_then(|count| u32::try_from(count).ok()));
        said.unwrap_or(was)
    };
    let known = known.cloned().unwrap_or_default();
    let config = AdaptConfig { minimum: side("minimum", known.minimum), maximum: side("maximum", known.maximum), ..known };
    config.check().map(|()| config)
}

/// Says that the cluster is held, and does what is asked. Returns only with an error: the scheduler does not answer. `adapt`: how it was
/// told to adapt, also where somebody has said a number since. A bound that nobody said is not in it: that is the class's affair.
pub(super) async fn obey(
    cluster: &Cluster,
    adapt: &mut Option<AdaptConfig>,
    address: &Address,
    security: Option<Arc<Security>>,
    screen: &Screen,
) -> Error {
    let result = async {
        let mut rpc = super::dial(address, security).await?;
        let now = cluster.status().adapt.map(|adapt| adapt.config);
        hold(&mut rpc, cluster, now.as_ref()).await?;
        let mut done = read(&mut rpc, "heard").await?;
        loop {
            let request = read(&mut rpc, "request").await?;
            if let Some(id) = get(&request, "id")
                && *id != done
            {
                done = id.clone();
                let begun = match Wish::of(&request) {
                    Some(Wish::Workers(workers)) => {
                        screen.lines(&format!("asked for {workers} {}", if workers == 1 { "worker" } else { "workers" }));
                        cluster.scale(workers);
                        Ok(None)
                    }
                    Some(Wish::Adapt(bounds)) => {
                        let begun = begin(cluster, bounded(adapt.as_ref(), &bounds)).await;
                        begun.map(|(said, holds)| {
                            *adapt = Some(said);
                            Some(holds)
                        })
                    }
                    None => Err(Error::new(ErrorKind::ConfigInvalid, "it does not know such a request; use the same version of `remuda`")),
                };
                match begun {
                    Ok(holds) => hold(&mut rpc, cluster, holds.as_ref()).await?,
                    Err(error) => {
                        write(&mut rpc, "refused", map([("id", done.clone()), ("reason", error.message().into())])).await?;
                    }
                }
                write(&mut rpc, "heard", done.clone()).await?;
            }
            sleep(LOOK).await;
        }
    };
    let result: Result<std::convert::Infallible> = result.await;
    let Err(error) = result;
    error
}

/// Returns what was said, and with which bounds it holds: where nobody says a maximum, a class may have one.
async fn begin(cluster: &Cluster, config: Result<AdaptConfig>) -> Result<(AdaptConfig, AdaptConfig)> {
    let (config, mut events) = (config?, cluster.events());
    cluster.adapt(config.clone())?;
    let begun = timeout(ANSWER / 2, async {
        loop {
            match events.recv().await {
                Ok(ClusterEvent::Adapting(holds)) => return Some(holds),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    // Missed among too many events, it is in the status all the same.
    let holds = begun.await.ok().flatten().or_else(|| cluster.status().adapt.map(|adapt| adapt.config));
    Ok((config.clone(), holds.unwrap_or(config)))
}

async fn hold(rpc: &mut Rpc, cluster: &Cluster, adapt: Option<&AdaptConfig>) -> Result<()> {
    let mut holder = vec![("name", cluster.name().into()), ("class", cluster.class().into()), ("adaptive", adapt.is_some().into())];
    if let Some(adapt) = adapt {
        let side = |count: Option<u32>| count.map_or(Value::Nil, Value::from);
        holder.extend([("minimum", side(adapt.minimum)), ("maximum", side(adapt.maximum))]);
    }
    write(rpc, "holder", map(holder)).await
}

pub(super) async fn read(rpc: &mut Rpc, key: &str) -> Result<Value> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_workers_are_a_slip_unless_forced() {
        for (workers, adapt) in [(Some(20_000), None), (None, Some("0..20000")), (None, Some("20000.."))] {
            let error = Wish::new(workers, adapt, false).err().expect("so many are hardly meant").report().to_string();
            assert!(error.contains("more than 10000 workers") && error.contains("--force"), "{error}");
            assert!(Wish::new(workers, adapt, true).is_ok());
        }
        assert!(Wish::new(None, Some("0..10000"), false).is_ok());
    }

    #[test]
    fn a_request_says_what_was_wished_and_anything_else_says_nothing() {
        let read = |wish: &Wish| Wish::of(&map([("id", "x".into()), wish.told()])).expect("it is a request").told();
        for wish in [Wish::new(Some(3), None, false), Wish::new(None, Some("1..4"), false), Wish::new(None, Some(".."), false)] {
            let wish = wish.unwrap();
            assert_eq!(read(&wish), wish.told());
        }
        let odd = [("adapt", Value::Nil), ("adapt", map([("maximum", (-1).into())])), ("workers", "many".into()), ("pause", true.into())];
        assert!(odd.into_iter().all(|part| Wish::of(&map([part])).is_none()), "a cluster would have no bound any more");
    }
}
