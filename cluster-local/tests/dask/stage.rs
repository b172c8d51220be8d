//! A cluster, and an engine that knows who is there, and nothing of tasks.

use super::*;

/// Knows who is there, and nothing of tasks.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    pub(crate) endpoint: Mutex<Option<Endpoint>>,
}

#[derive(Debug)]
pub(crate) struct RollEngine(Address, ConnectOptions);

#[async_trait]
impl Connect for Roll {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn Engine>> {
        *self.endpoint.lock().unwrap() = Some(endpoint.clone());
        let (address, options) = way(endpoint);
        Ok(Arc::new(RollEngine(address, options)))
    }
}

pub(crate) fn way(endpoint: &Endpoint) -> (Address, ConnectOptions) {
    let Endpoint::Dask { address, security, .. } = endpoint else { panic!("{endpoint:?}") };
    (address.parse().unwrap(), ConnectOptions { security: security.clone(), ..ConnectOptions::default() })
}

#[async_trait]
impl Engine for RollEngine {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        Err(Error::new(ErrorKind::Unsupported, "no sessions"))
    }

    async fn drain(&self, workers: &[String], _: Duration) -> Result<Drains> {
        Ok(workers.iter().map(|name| (name.clone(), Drain::Done)).collect())
    }

    fn changes(&self) -> WorkerChanges {
        let (news, changes) = mpsc::unbounded_channel();
        let (address, options) = (self.0.clone(), self.1.clone());
        tokio::spawn(async move {
            let lost = follow(&address, &options, &news).await.unwrap_err();
            let _ = news.send(WorkerChange::SchedulerLost(lost));
        });
        changes
    }
}

pub(crate) async fn follow(address: &Address, options: &ConnectOptions, news: &mpsc::UnboundedSender<WorkerChange>) -> Result<()> {
    let mut scheduler = Rpc::connect(address, options).await?;
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let workers = scheduler.identity().await?.workers;
        let now: BTreeMap<_, _> = workers.into_values().map(|worker| (worker.name, worker.host)).collect();
        for (name, host) in now.iter().filter(|(name, _)| !known.contains_key(*name)) {
            let _ = news.send(WorkerChange::Joined { name: name.clone(), host: host.clone(), slots: 1 });
        }
        for name in known.keys().filter(|name| !now.contains_key(*name)) {
            let _ = news.send(WorkerChange::Left { name: name.clone(), reason: "it left the scheduler".into(), busy: false });
        }
        known = now;
        tokio::time::sleep(Duration::from_millis(50)).await; // the subject is the processes: being late does no harm
    }
}

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) endpoint: Endpoint,
    pub(crate) state: TempDir,
}

impl Stage {
    pub(crate) async fn start(config: DaskConfig) -> Self {
        Self::try_start(config).await.unwrap()
    }

    pub(crate) async fn try_start(config: DaskConfig) -> Result<Self> {
        let (connect, state) = (Arc::new(Roll::default()), TempDir::new().unwrap());
        let second = Duration::from_secs(1);
        let options = ClusterOptions {
            connect: connect.clone(),
            limits: Limits { backoff: (second / 10, second), poll: second / 5, ..Limits::default() },
            state_dir: Some(state.path().to_owned()),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(DaskCluster::from_config(config)?, options).await?;
        let endpoint = connect.endpoint.lock().unwrap().clone().unwrap();
        Ok(Self { cluster, endpoint, state })
    }

    pub(crate) fn address(&self) -> &str {
        match &self.endpoint {
            Endpoint::Dask { address, .. } => address,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn identity(&self) -> remuda_dask::Identity {
        let (address, options) = way(&self.endpoint);
        Rpc::connect(&address, &options).await.unwrap().identity().await.unwrap()
    }

    pub(crate) async fn workers(&self, count: usize) {
        self.cluster.wait_for_workers(count, PATIENCE).await.unwrap();
    }

    pub(crate) async fn close(self) {
        let before = descendants(std::process::id());
        assert!(!before.is_empty());
        let report = self.cluster.close().await.unwrap();
        assert!(report.remaining.is_empty(), "{report:?}");
        assert_eq!(self.cluster.close().await.unwrap(), report, "closing twice is closing once");
        assert_eq!(alive(&before), Vec::<u32>::new());
        assert_eq!(left_behind(self.state.path()), Vec::<PathBuf>::new());
    }
}
