//! What is to be sent, and what was sent and is not acknowledged.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use remuda_core::{
    task::{Key, TaskError},
    value::{self, Template},
};

use super::{Book, Phase, Place};
use crate::session::wire::{Def, Dep, Order, PYTHON, Sent, WRAPPED, hole};

/// Tasks of one message: the scheduler's loop stands still while it takes them in.
const TASKS: usize = 1000;
/// Bytes of arguments of one message; one task alone may have more.
const BYTES: usize = 4 << 20;
/// Messages that are not acknowledged, before the next waits.
const WINDOW: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Units that Dask does not know; some may be dead by now.
    submits: VecDeque<u64>,
    /// Units that Dask need not keep.
    releases: VecDeque<u64>,
    close: Close,
    /// With their numbers, ascending.
    unacked: VecDeque<(u64, Kept)>,
    /// How many of those are sent on this connection.
    resent: usize,
    /// The last number.
    n: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Close {
    #[default]
    No,
    Wanted,
    Sent,
}

/// What has to be sent again after a cut.
#[derive(Debug, Clone)]
enum Kept {
    Submit { defs: Vec<u32>, units: Vec<u64> },
    Release { units: Vec<u64>, defs: Vec<u32> },
    Close,
}

impl Outbox {
    pub(super) fn submit(&mut self, unit: u64) {
        self.submits.push_back(unit);
    }

    pub(super) fn release(&mut self, unit: u64) {
        self.releases.push_back(unit);
    }

    /// Everything is released by it.
    pub(super) fn close(&mut self) {
        self.submits.clear();
        self.releases.clear();
        if self.close == Close::No {
            self.close = Close::Wanted;
        }
    }

    pub(super) fn drop_all(&mut self) {
        *self = Self { n: self.n, close: Close::Sent, ..Self::default() };
    }

    pub(super) fn is_due(&self) -> bool {
        self.resent < self.unacked.len() || !self.submits.is_empty() || !self.releases.is_empty() || self.close == Close::Wanted
    }

    fn keep(&mut self, kept: Kept) -> u64 {
        self.n += 1;
        self.unacked.push_back((self.n, kept));
        self.resent = self.unacked.len();
        self.n
    }
}

impl Book {
    /// The next message for the shim. `None`: nothing to send, or too much that is not acknowledged.
    pub(crate) fn next_order(&mut self) -> Option<(u64, Order)> {
        if let Some((n, kept)) = self.outbox.unacked.get(self.outbox.resent).cloned() {
            self.outbox.resent += 1;
            return Some((n, self.write(&kept)));
        }
        if self.outbox.unacked.len() >= WINDOW {
            return None;
        }
        let kept = self.next_release().or_else(|| self.next_submit()).or_else(|| {
            let wanted = self.outbox.close == Close::Wanted;
            wanted.then(|| self.outbox.close = Close::Sent).map(|()| Kept::Close)
        })?;
        let order = self.write(&kept);
        Some((self.outbox.keep(kept), order))
    }

    fn next_release(&mut self) -> Option<Kept> {
        let many = self.outbox.releases.len().min(TASKS);
        // No task that is sent from now on has these definitions.
        let is_due = many > 0 || self.defs.has_forgotten();
        is_due.then(|| Kept::Release { units: self.outbox.releases.drain(..many).collect(), defs: self.defs.take_forgotten() })
    }

    fn next_submit(&mut self) -> Option<Kept> {
        let (mut units, mut defs, mut bytes) = (Vec::new(), Vec::new(), 0);
        while units.len() < TASKS
            && bytes < BYTES
            && let Some(unit) = self.outbox.submits.pop_front()
        {
            let Some((def, size)) = self.begin(unit) else { continue };
            if self.defs.is_news(def) {
                defs.push(def);
            }
            bytes += size;
            units.push(unit);
        }
        (!units.is_empty()).then_some(Kept::Submit { defs, units })
    }

    /// A unit goes out for the first time. Gives back its definition and size; `None`: nobody wants it any more.
    fn begin(&mut self, unit: u64) -> Option<(u32, usize)> {
        if let Some(batch) = self.batches.get_mut(&unit) {
            // Those that were cancelled meanwhile need no place in it.
            let is_alive = |key: &Key| self.tasks.get(key).is_some_and(|task| task.unit.is_some_and(|(at, _)| at == unit));
            batch.members.retain(is_alive);
            let mut packed = Template::new();
            packed.array(batch.members.len());
            for (element, key) in batch.members.iter().enumerate() {
                let Some(task) = self.tasks.get_mut(key) else { continue };
                task.unit = Some((unit, i64::try_from(element).unwrap_or(i64::MAX)));
                task.is_sent = true;
                let args = task.args.as_ref().and_then(|args| args.fill(&[]).ok()).unwrap_or_default();
                packed.raw(&binary(&args));
            }
            let packed = packed.fill(&[]).unwrap_or_default();
            let size = packed.len();
            (batch.packed, batch.is_sent) = (Some(packed), true);
            return Some((batch.def, size));
        }
        let task = self.tasks.get_mut(&Key(unit)).filter(|task| task.unit == Some((unit, -1)))?;
        task.is_sent = true;
        Some((task.def, task.args.as_ref().map_or(0, Template::size)))
    }

    fn write(&self, kept: &Kept) -> Order {
        match kept {
            Kept::Close => Order::Close,
            Kept::Release { units, defs } => Order::Release { units: units.clone(), defs: defs.clone() },
            Kept::Submit { defs, units } => Order::Submit {
                defs: defs.iter().filter_map(|def| Some((*def, self.defs.get(*def)?.clone()))).collect(),
                tasks: units.iter().filter_map(|unit| self.sent(*unit)).collect(),
            },
        }
    }

    /// A unit as the shim takes it. `None`: it was let go.
    fn sent(&self, unit: u64) -> Option<Sent> {
        if let Some(batch) = self.batches.get(&unit) {
            let args = batch.packed.clone()?;
            return Some(Sent { unit, def: batch.def, args, deps: Vec::new() });
        }
        let task = self.tasks.get(&Key(unit)).filter(|task| task.unit == Some((unit, -1)) && matches!(task.phase, Phase::Placed))?;
        let def = self.defs.get(task.def)?;
        let (mut holes, mut deps) = (Vec::with_capacity(task.inputs.len()), Vec::new());
        for (index, input) in task.inputs.iter().enumerate() {
            match self.dep(input.key) {
                Ok((unit, element, python)) => {
                    let wrapped = input.allow_failure && def.kind == "rust";
                    let mode = (if python { PYTHON } else { 0 }) | (if wrapped { WRAPPED } else { 0 });
                    deps.push(Dep { unit, element, mode, hole: i64::try_from(index).unwrap_or(i64::MAX) });
                    holes.push(Bytes::from(hole(index)));
                }
                Err(error) => holes.push(failed(def, &error)),
            }
        }
        for input in &task.after {
            if let Ok((unit, element, _)) = self.dep(input.key) {
                deps.push(Dep { unit, element, mode: 0, hole: -1 });
            }
        }
        let args = task.args.as_ref()?.fill(&holes).unwrap_or_default();
        Some(Sent { unit, def: task.def, args, deps })
    }

    /// What a dependency is at Dask, or why it has no result.
    fn dep(&self, key: Key) -> Result<(u64, i64, bool), TaskError> {
        let Some(task) = self.tasks.get(&key) else { return Err(TaskError::Cancelled) };
        match (&task.phase, task.unit) {
            (Phase::Ended(error) | Phase::Done(Place::Gone(error)), _) => Err(error.clone()),
            (_, Some((unit, element))) => {
                let python = self.defs.get(task.def).is_some_and(|def| def.kind == "python");
                Ok((unit, element, python))
            }
            (_, None) => Err(TaskError::Cancelled),
        }
    }

    /// The first message that is sent and not known to have arrived.
    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        self.outbox.unacked.front().map(|(n, _)| *n)
    }

    /// The connection stands: what the shim has not received is sent again.
    pub(crate) fn attached(&mut self, received: u64) {
        self.acknowledge(received);
        self.outbox.resent = 0;
    }

    pub(super) fn acknowledge(&mut self, received: u64) {
        while let Some((n, _)) = self.outbox.unacked.front()
            && *n <= received
        {
            let Some((_, kept)) = self.outbox.unacked.pop_front() else { return };
            self.outbox.resent = self.outbox.resent.saturating_sub(1);
            let Kept::Submit { units, .. } = kept else { continue };
            for unit in units {
                if let Some(batch) = self.batches.get_mut(&unit) {
                    batch.packed = None;
                } else if let Some(task) = self.tasks.get_mut(&Key(unit)).filter(|task| task.unit == Some((unit, -1))) {
                    task.args = None;
                }
            }
        }
    }
}

/// An allowed failure in the place of a result.
fn failed(def: &Arc<Def>, error: &TaskError) -> Bytes {
    // An error is plain text and numbers: it can always be encoded.
    let plain = value::encode(error).unwrap_or_default();
    match def.kind {
        "rust" => {
            let mut wrapped = Template::new();
            wrapped.map(1).text("Err").raw(&plain);
            wrapped.fill(&[]).unwrap_or_default().into()
        }
        "python" => {
            let mut out = Vec::with_capacity(plain.len() + 6);
            let _ = rmp::encode::write_ext_meta(&mut out, u32::try_from(plain.len()).unwrap_or(u32::MAX), 2);
            out.extend_from_slice(&plain);
            out.into()
        }
        _ => plain.into(),
    }
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 5);
    let _ = rmp::encode::write_bin(&mut out, bytes);
    mem::take(&mut out)
}
