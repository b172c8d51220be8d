//! The yard as an engine and as a platform.

use super::*;

#[async_trait]
impl Engine for Yard {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        Err(Error::new(ErrorKind::Unsupported, "tasks come otherwise"))
    }

    async fn drain(&self, workers: &[String], deadline: Duration) -> Result<Drains> {
        let ids: Vec<WorkerId> = workers.iter().filter_map(|name| WorkerId::from_name(name)).collect();
        let drains = || {
            let state = self.state();
            let drain = |id: &WorkerId| match state.workers.get(id) {
                Some(_) if state.stuck.contains(&id.index) => Drain::Refused,
                Some(beast) if !beast.running.is_empty() => Drain::Busy,
                _ => Drain::Done,
            };
            ids.iter().map(|id| (id.to_string(), drain(id))).collect::<Drains>()
        };
        let surprise = self.state().surprise.take();
        surprise.into_iter().for_each(|takes| self.submit(1, takes));
        {
            let mut state = self.state();
            let stuck = state.stuck.clone();
            for id in ids.iter().filter(|id| !stuck.contains(&id.index)) {
                let Some(beast) = state.workers.get_mut(id) else { continue };
                let meets = !beast.draining && !beast.running.is_empty();
                beast.draining = true;
                state.met += u32::from(meets);
            }
        }
        if self.state().mute {
            return Err(Error::new(ErrorKind::Unavailable, "the connection is cut"));
        }
        let wait = async {
            loop {
                let changed = self.0.changed.notified();
                if drains().values().all(|drain| *drain != Drain::Busy) {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(deadline, wait).await;
        Ok(drains())
    }

    fn changes(&self) -> WorkerChanges {
        let (tell, listen) = mpsc::unbounded_channel();
        self.state().listeners.push(tell);
        listen
    }

    async fn load(&self) -> Result<Observation> {
        self.state().looks += 1;
        let blind = self.state().blind.clone();
        match blind {
            Some(Blind::Fails(error)) => return Err(error),
            Some(Blind::Hangs) => std::future::pending().await,
            Some(Blind::Panics) => panic!("bad day"),
            None => {}
        }
        let seen = self.observe();
        sleep(self.0.plan.load_takes).await;
        Ok(seen)
    }

    fn expect(&self, outlook: Outlook) {
        self.state().outlooks.push(outlook);
    }

    fn arrivals(&self) -> Option<watch::Receiver<u64>> {
        self.0.plan.tells_arrivals.then(|| self.0.arrivals.subscribe())
    }
}

#[async_trait]
impl ClusterManager for Yard {
    fn info(&self) -> ClusterInfo {
        self.0.plan.info.clone()
    }

    async fn start(&self, _cx: &Context) -> Result<Endpoint> {
        Ok(Endpoint::Embedded(Arc::new(self.clone())))
    }

    async fn launch(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let plan = &self.0.plan;
        if self.state().refuses() {
            return Err(Error::new(ErrorKind::Unavailable, "not now"));
        }
        for id in workers {
            let lost = {
                let mut state = self.state();
                let number = state.launches.len();
                state.launches.push((Instant::now(), *id));
                state.exists.insert(*id);
                let draining = state.workers.values().filter(|beast| beast.draining).count();
                state.most = state.most.max(state.exists.len() - draining);
                plan.lost.contains(&number)
            };
            if !lost {
                let (yard, id, startup) = (self.clone(), *id, plan.startup);
                cx.spawn(async move {
                    sleep(startup).await;
                    yard.joins(id);
                });
            }
        }
        if plan.launch_waits {
            sleep(plan.startup).await;
        }
        Ok(())
    }

    async fn stop(&self, _cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let killed = self.take_away(workers, false);
        for id in workers {
            self.state().tell(&WorkerChange::Left { name: id.to_string(), reason: "stopped".into(), busy: false });
        }
        if killed > 0 {
            self.assign();
        }
        Ok(())
    }

    async fn scale(&self, _cx: &Context, target: Target) -> Result<()> {
        self.state().told.push(target);
        let Target::Exactly(count) = target else { return Ok(()) };
        // A platform that counts: it starts at once, and lets idle ones go.
        let there: Vec<WorkerId> = self.state().exists.iter().copied().collect();
        for index in there.len() as u32..count {
            let id = WorkerId { index: index + 1000, incarnation: self.state().told.len() as u32 };
            let mut state = self.state();
            state.exists.insert(id);
            state.most = state.most.max(state.exists.len());
            drop(state);
            let (yard, startup) = (self.clone(), self.0.plan.startup);
            tokio::spawn(async move {
                sleep(startup).await;
                yard.joins(id);
            });
        }
        let surplus = there.len().saturating_sub(count as usize);
        let idle = |id: &WorkerId| self.state().workers.get(id).is_none_or(|beast| beast.running.is_empty());
        let gone: Vec<WorkerId> = there.into_iter().filter(idle).take(surplus).collect();
        let cx_free = |id: &WorkerId| {
            let mut state = self.state();
            state.exists.remove(id);
            state.workers.remove(id);
            state.tell(&WorkerChange::Left { name: id.to_string(), reason: "scaled".into(), busy: false });
        };
        gone.iter().for_each(cx_free);
        Ok(())
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
        Ok(vec![])
    }

    async fn close(&self, _cx: &Context) -> Result<CloseReport> {
        let mut state = self.state();
        state.workers.clear();
        state.exists.clear();
        Ok(CloseReport::default())
    }
}
