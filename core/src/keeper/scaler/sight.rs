//! The workers as the policy sees them.

use std::{collections::HashMap, time::Duration};

use super::Scaler;
use crate::{
    adaptive::{Fleet, Phase, Worker},
    engine::WorkerLoad,
    keeper::fleet::{Launches, Member},
};

impl Scaler {
    pub(super) fn fleet(&mut self, members: Vec<Member>, launches: Launches, loads: Vec<WorkerLoad>) -> Fleet {
        let Launches { blocked, failed } = launches;
        let mut loads: HashMap<String, WorkerLoad> = loads.into_iter().map(|load| (load.name.clone(), load)).collect();
        let workers = members
            .into_iter()
            .map(|member| {
                let load = member.name.as_ref().and_then(|name| loads.remove(name));
                self.worker(&member, load)
            })
            .collect();
        Fleet { workers, slots: self.slots, memory_limit: self.memory_limit, blocked, failed }
    }

    fn worker(&mut self, member: &Member, load: Option<WorkerLoad>) -> Worker {
        // Who is not in the answer came since, or is not known well enough to be let go.
        let unknown = load.is_none() && matches!(member.phase, Phase::Live(_));
        let load = load.unwrap_or_default();
        let slots = [load.slots, member.slots, self.slots].into_iter().find(|slots| *slots > 0).unwrap_or(0);
        if let Phase::Live(_) = member.phase {
            self.slots = slots;
            self.memory_limit = if unknown { self.memory_limit } else { load.memory_limit };
        }
        Worker {
            id: member.id,
            phase: member.phase,
            launched: member.launched,
            billed: self.billed(member),
            slots,
            processing: load.processing,
            bytes: load.bytes,
            memory_limit: load.memory_limit,
            pinned: load.pinned || unknown || member.kept,
        }
    }

    /// When the bill of a worker begins: as late after the request as the class says, and not after it is there.
    fn billed(&self, member: &Member) -> Option<Duration> {
        let unbilled = self.backend.startup.saturating_sub(self.backend.billed_startup);
        let begins = member.launched.map(|at| at.saturating_add(unbilled));
        match member.phase {
            Phase::Live(since) => Some(begins.map_or(since, |begins| begins.min(since))),
            _ => begins,
        }
    }
}
