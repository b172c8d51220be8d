//! Where workers come from: how long they take to start, and what they cost.

use std::time::Duration;

use remuda_core::adaptive::Backend;

/// A platform. Times in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    pub(crate) name: &'static str,
    /// From the request until the start of billing, where that is later (from, to).
    pub(crate) provision: (f64, f64),
    /// From the start of billing until the worker is connected (from, to).
    pub(crate) boot: (f64, f64),
    pub(crate) billed_from_launch: bool,
    pub(crate) minimum_charge: f64,
    /// Token bucket of launches.
    pub(crate) burst: f64,
    pub(crate) refill: f64,
    /// Dask's `SpecCluster`: awaiting a worker object waits for its start.
    pub(crate) dask_blocks: bool,
    /// Share of launches that never arrive.
    pub(crate) lost: f64,
}

pub(crate) const NAMES: [&str; 3] = ["local", "k8s", "fargate"];

const UNLIMITED: f64 = 1e9;

impl Platform {
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let plain = |name, boot| Self {
            name,
            provision: (0.0, 0.0),
            boot,
            billed_from_launch: true,
            minimum_charge: 0.0,
            burst: UNLIMITED,
            refill: UNLIMITED,
            dask_blocks: true,
            lost: 0.0,
        };
        Some(match name {
            "local" => plain("local", (0.8, 1.2)),
            "k8s" => Self { burst: 100.0, refill: 50.0, dask_blocks: false, ..plain("k8s", (5.0, 15.0)) },
            // Throttling quotas, per-second billing and the one-minute minimum as AWS documents them.
            "fargate" => Self {
                provision: (10.0, 20.0),
                billed_from_launch: false,
                minimum_charge: 60.0,
                burst: 100.0,
                refill: 20.0,
                ..plain("fargate", (25.0, 70.0))
            },
            _ => return None,
        })
    }

    pub(crate) fn mean_startup(&self) -> f64 {
        (self.provision.0 + self.provision.1 + self.boot.0 + self.boot.1) / 2.0
    }

    pub(crate) fn mean_billed_startup(&self) -> f64 {
        let boot = (self.boot.0 + self.boot.1) / 2.0;
        if self.billed_from_launch { boot + (self.provision.0 + self.provision.1) / 2.0 } else { boot }
    }

    pub(crate) fn longest_startup(&self) -> f64 {
        self.provision.1 + self.boot.1
    }

    /// What a cluster class would tell the policy of it.
    pub(crate) fn hints(&self) -> Backend {
        let limited = self.burst < UNLIMITED;
        Backend {
            startup: Duration::from_secs_f64(self.mean_startup()),
            billed_startup: Duration::from_secs_f64(self.mean_billed_startup()),
            minimum_charge: Duration::from_secs_f64(self.minimum_charge),
            launch_burst: if limited { self.burst as u32 } else { 0 },
            launch_rate: if limited { self.refill } else { 0.0 },
        }
    }
}
