//! Results of a session: waited for, found, fetched; found again where they have moved.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use remuda_core::{
    engine::{Form, Shown},
    error::{Error, ErrorKind},
    task::{Key, TaskError},
};
use tokio::{sync::oneshot, time::sleep};

use super::{
    Shared,
    book::{Unit, Whereabouts},
    wire::dask_key,
};
use crate::{
    engine::{Reply, Want},
    protocol::{
        Value,
        value::{elements, get, text},
    },
};

/// How often a result may not be where it should be.
const TRIES: u32 = 12;

/// A result that is still to be fetched.
#[derive(Debug)]
struct Missing {
    /// In the answer.
    at: usize,
    key: Key,
    /// Where the scheduler says it is by now.
    moved: Option<Arc<str>>,
}

/// Each in the first of these forms that it has, in the order of the keys.
pub(super) async fn gather(shared: &Arc<Shared>, keys: &[Key], forms: &[Form]) -> Result<Vec<Shown>, TaskError> {
    let mut found: Vec<Option<Shown>> = keys.iter().map(|_| None).collect();
    let mut missing: Vec<Missing> = keys.iter().enumerate().map(|(at, key)| Missing { at, key: *key, moved: None }).collect();
    let (mut tries, mut why) = (0, None);
    while !missing.is_empty() {
        if tries == TRIES {
            return Err(vanished(missing[0].key, why).into());
        }
        let rest = round(shared, &missing, forms, &mut found, &mut why).await?;
        // Only rounds that brought nothing count.
        tries = if rest.len() < missing.len() { 1 } else { tries + 1 };
        missing = rest;
        if !missing.is_empty() {
            // "Lost" may be on its way; then the next round waits for the new place.
            sleep(Duration::from_millis(20 << tries.min(6))).await;
            locate(shared, &mut missing).await;
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// One try at everything. Returns what was not where it should be.
async fn round(
    shared: &Arc<Shared>,
    missing: &[Missing],
    forms: &[Form],
    found: &mut [Option<Shown>],
    why: &mut Option<Error>,
) -> Result<Vec<Missing>, TaskError> {
    let places = settled(shared, missing).await?;
    let mut by_worker: BTreeMap<Arc<str>, Vec<Want>> = BTreeMap::new();
    let mut answers = Vec::with_capacity(missing.len());
    let want = |prefix: &str, unit: Unit, is_python| -> Result<_, TaskError> {
        let (tell, answer) = oneshot::channel();
        let key = dask_key(prefix, &shared.id, unit.0);
        Ok((Want { key, element: unit.1, forms: wire_forms(forms, is_python)?, tell }, answer))
    };
    for (one, (unit, prefix, address, is_python, copy)) in missing.iter().zip(places) {
        if let (Some(copy), Some(Form::Plain)) = (copy, forms.first()) {
            found[one.at] = Some(Shown::Plain(copy));
            continue;
        }
        let (want, answer) = want(&prefix, unit, is_python)?;
        by_worker.entry(one.moved.clone().unwrap_or(address)).or_default().push(want);
        answers.push((one, answer));
    }
    let mut along = Vec::new();
    if let ([(one, _)], [_], [Form::Plain]) = (&answers[..], missing, forms)
        && let Some((worker, wants)) = by_worker.iter_mut().next()
    {
        for (key, unit, prefix, is_python) in shared.update(|book| book.along(one.key, worker)) {
            let (want, answer) = want(&prefix, unit, is_python)?;
            wants.push(want);
            along.push((key, worker.clone(), answer));
        }
    }
    by_worker.into_iter().for_each(|(worker, wants)| shared.inner.fetcher.ask(&worker, wants));
    let mut rest = Vec::new();
    for (one, answer) in answers {
        match answer.await.unwrap_or(Reply::Missing(None)) {
            Reply::Here(shown) => found[one.at] = Some(shown),
            Reply::Refused(error) => return Err(TaskError::Refused(error)),
            Reply::Missing(error) => {
                *why = error.or_else(|| why.take());
                rest.push(Missing { at: one.at, key: one.key, moved: None });
            }
        }
    }
    // They came in the same answer.
    for (key, worker, answer) in along {
        if let Ok(Reply::Here(Shown::Plain(bytes))) = answer.await {
            shared.update(|book| book.keep(key, &worker, bytes));
        }
    }
    Ok(rest)
}

type Place = (Unit, String, Arc<str>, bool, Option<Bytes>);

/// Waits until each has a place.
async fn settled(shared: &Arc<Shared>, missing: &[Missing]) -> Result<Vec<Place>, TaskError> {
    let keys: Vec<Key> = missing.iter().map(|one| one.key).collect();
    loop {
        let mut places = Vec::with_capacity(keys.len());
        let mut waits = Vec::new();
        for known in shared.find(&keys) {
            match known {
                Ok(Whereabouts::At { unit, prefix, address, is_python, copy }) => places.push((unit, prefix, address, is_python, copy)),
                Ok(Whereabouts::Ended(error)) => return Err(error),
                Ok(Whereabouts::Pending) => {}
                Err(wait) => waits.push(wait),
            }
        }
        if waits.is_empty() {
            return Ok(places);
        }
        for wait in waits {
            let _ = wait.await;
        }
    }
}

/// What the scheduler says of where results are: a worker that leaves hands its results on, and nobody tells.
async fn locate(shared: &Arc<Shared>, missing: &mut [Missing]) {
    let keys: Vec<Key> = missing.iter().map(|one| one.key).collect();
    let names: Vec<Option<String>> = shared
        .find(&keys)
        .into_iter()
        .map(|known| match known {
            Ok(Whereabouts::At { unit, prefix, .. }) => Some(dask_key(&prefix, &shared.id, unit.0)),
            _ => None,
        })
        .collect();
    let wanted = Value::Array(names.iter().flatten().map(|name| name.as_str().into()).collect());
    let asked = async { shared.inner.rpc().await?.call("who_has", [("keys", wanted)]).await };
    // Without an answer it is tried where it was.
    let Ok(answer) = asked.await else { return };
    for (one, name) in missing.iter_mut().zip(names) {
        let holders = name.and_then(|name| get(answer.body(), &name).and_then(elements).map(<[_]>::to_vec));
        one.moved = holders.and_then(|holders| holders.first().and_then(text).map(Into::into));
    }
}

/// Results of Rust and of commands are MessagePack there; those of Python are converted.
fn wire_forms(forms: &[Form], is_python: bool) -> Result<&'static [&'static str], TaskError> {
    let has = |form| forms.contains(&form);
    if !is_python {
        return match has(Form::Plain) {
            true => Ok(&["raw"]),
            false => Err(Error::new(ErrorKind::Unsupported, "the result of a Rust task or a command has a plain form only").into()),
        };
    }
    // They stand in the order that the caller prefers; these are all orders that make sense.
    Ok(match (has(Form::Plain), has(Form::Arrow), has(Form::Text)) {
        (true, true, true) if forms.first() == Some(&Form::Arrow) => &["arrow", "plain", "text"],
        (true, true, true) => &["plain", "arrow", "text"],
        (true, true, false) if forms.first() == Some(&Form::Arrow) => &["arrow", "plain"],
        (true, true, false) => &["plain", "arrow"],
        (true, false, true) if forms.first() == Some(&Form::Text) => &["text"],
        (true, false, true) => &["plain", "text"],
        (false, true, true) => &["arrow", "text"],
        (false, true, false) => &["arrow"],
        (false, false, true) => &["text"],
        (true, false, false) | (false, false, false) => &["plain"],
    })
}

fn vanished(key: Key, why: Option<Error>) -> Error {
    let error = Error::new(ErrorKind::Unavailable, format!("the result of task {key} is not where the scheduler says it is"))
        .with_hint("its worker may be closing or overloaded; the worker's log says more");
    why.into_iter().fold(error, Error::with_source)
}
