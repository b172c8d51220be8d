//! The keeper's part of adaptive scaling: looks at the load beside its loop, asks the [`Scaler`], lets workers go without haste.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinError,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Keeper,
    fleet::Input,
    late, moment,
    scaler::{LOOK, Scaler},
    status::{AdaptStatus, WorkerSnapshot, WorkerStage},
};
use crate::{
    adaptive::{AdaptConfig, Entry, Reason},
    engine::{Drain, Drains, Observation, Outlook},
    error::{Error, ErrorKind, Result},
    manager::{ClusterEvent, ClusterInfo, Scaling, WorkerId},
};

/// How long one call waits for workers that are let go to finish what they run and to hand over their results; then those that are
/// through are stopped, and it is asked again about the others.
const RETIRE: Duration = Duration::from_secs(10);

/// Between two such calls at least, should an engine not wait.
const AGAIN: Duration = Duration::from_secs(1);

impl Keeper {
    /// Adaptive scaling begins, or goes on with other bounds. What was learned is kept.
    pub(super) fn adapt(&mut self, config: AdaptConfig) -> Input {
        let Some((engine, manager)) = self.engine.clone().zip(self.made.manager()) else {
            self.wish.1 = Some(config);
            return Input::Tick;
        };
        let now = self.begin.elapsed();
        let retired = self.retired.take().map(|mut retired| {
            retired.skip(now);
            retired
        });
        let before = self.scaler.take().or(retired);
        self.ended = None;
        let info = manager.info();
        let scaler = Scaler::new(info.bounded(config, self.wish.0), &info, engine.arrivals(), before);
        self.looks.abort_all();
        self.report(ClusterEvent::Adapting(scaler.config().clone()));
        Input::Adapt { native: self.scaler.insert(scaler).native() }
    }

    pub(super) fn listen(&mut self, listener: mpsc::UnboundedSender<Arc<Entry>>) {
        self.log.listen(listener, self.scaler.as_ref().and_then(Scaler::beginning));
    }

    pub(super) fn look(&mut self) {
        let (Some(scaler), Some(engine)) = (&mut self.scaler, self.engine.clone()) else { return };
        scaler.look();
        self.looks.spawn(async move { timeout(LOOK, engine.load()).await.unwrap_or_else(|_| Err(late("load", LOOK))) });
    }

    pub(super) fn looked(&mut self, seen: std::result::Result<Result<Observation>, JoinError>) -> Input {
        let now = self.begin.elapsed();
        let Some(scaler) = &mut self.scaler else { return Input::Tick };
        let seen = match seen {
            Err(error) if error.is_cancelled() => return Input::Tick, // replaced meanwhile
            seen => seen.unwrap_or_else(|error| Err(Error::from_join("the engine", error))),
        };
        let (decision, news) = match seen {
            Ok(seen) => {
                let decision = scaler.decide(now, self.fleet.members(now), self.fleet.launches(now), seen, &mut self.log);
                let news = scaler.news(now, &decision);
                (decision, news.into_iter().collect())
            }
            Err(error) => {
                let decision = scaler.hold(now, self.fleet.members(now), self.fleet.launches(now), &mut self.log);
                let news: Vec<_> = scaler.failed(now, &error, &decision);
                (decision, news)
            }
        };
        if let (Reason::Blocked { .. }, Some(until)) = (&decision.reason, self.fleet.blocked_until(now)) {
            scaler.no_later_than(moment(self.begin, Some(until)));
        }
        news.into_iter().for_each(|event| self.report(event));
        Input::Decided(decision)
    }

    /// What was used until now, as no decision may follow.
    pub(super) fn settle(&mut self) {
        let now = self.begin.elapsed();
        if let Some(scaler) = &mut self.scaler {
            scaler.settle(now, self.fleet.members(now));
        }
    }

    /// Tells the engine which workers are to come, if that has changed.
    pub(super) fn foretell(&mut self, wanted: u32) {
        let Some(engine) = &self.engine else { return };
        let outlook = match &self.scaler {
            Some(scaler) => scaler.outlook(),
            None => Outlook::Fixed(wanted),
        };
        if self.outlook.as_ref() != Some(&outlook) {
            self.outlook = Some(outlook.clone());
            engine.expect(outlook);
        }
    }

    pub(super) fn retire(&mut self, workers: Vec<(WorkerId, String)>) {
        let (ids, names): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
        let (all, engine, cancel) = (ids.clone(), self.engine.clone(), self.cancel.clone());
        let refused = |ids| Input::Retired { drained: vec![], busy: vec![], refused: ids };
        self.spawn(move |_| refused(all), async move {
            let (Some(engine), begin) = (engine, Instant::now()) else { return refused(ids) };
            let answer = tokio::select! {
                answer = timeout(RETIRE * 2, engine.drain(&names, RETIRE)) => answer.unwrap_or_else(|_| Err(late("drain", RETIRE * 2))),
                () = cancel.cancelled() => return Input::Retired { drained: vec![], busy: ids, refused: vec![] },
            };
            // They may be out of work already, so they are not taken for live again; and who is not drained is not stopped.
            let (drains, again) = match answer {
                Ok(drains) => (drains, AGAIN),
                Err(error) if error.kind() == ErrorKind::Unsupported => return refused(ids),
                Err(error) => {
                    tracing::warn!(%error, workers = ?names, "not drained yet");
                    (Drains::new(), RETIRE)
                }
            };
            let of = |wanted: Drain| -> Vec<WorkerId> {
                let all = ids.iter().zip(&names);
                all.filter(|(_, name)| drains.get(*name).copied().unwrap_or(Drain::Busy) == wanted).map(|(id, _)| *id).collect()
            };
            let [drained, busy, refused] = [Drain::Done, Drain::Busy, Drain::Refused].map(of);
            if !busy.is_empty() {
                tokio::select! {
                    () = sleep_until(begin + again) => {}
                    () = cancel.cancelled() => {}
                }
            }
            Input::Retired { drained, busy, refused }
        });
    }
}

/// # Errors
/// The class's workers are not ours to scale.
pub(crate) fn can_adapt(info: &ClusterInfo) -> Result<()> {
    if info.scaling != Scaling::None {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unsupported, "the cluster is somebody else's: it is not scaled from here");
    Err(error.with_context("class", &info.class).with_hint("ask its owner for adaptive scaling, or let Remuda make the cluster"))
}

pub(super) fn status(scaler: &Scaler, desired: u32, workers: &[WorkerSnapshot]) -> AdaptStatus {
    let running = count(workers, WorkerStage::Running);
    AdaptStatus {
        config: scaler.config().clone(),
        native: scaler.native().is_some(),
        desired,
        starting: desired.saturating_sub(running),
        running,
        draining: count(workers, WorkerStage::Draining),
        decision: scaler.decision().cloned(),
        usage: scaler.state().usage(),
        startup: scaler.state().startup().map(|(all, _)| all),
        trouble: scaler.trouble().map(str::to_owned),
    }
}

pub(super) fn count(workers: &[WorkerSnapshot], stage: WorkerStage) -> u32 {
    workers.iter().filter(|worker| worker.stage == stage).count() as u32
}

pub(super) async fn due(scaler: &mut Option<Scaler>) {
    match scaler {
        Some(scaler) => scaler.due().await,
        None => std::future::pending().await,
    }
}
