//! Tasks that ask for the same things stand in one queue: what a worker can take next is decided once for all of them.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use remuda_core::{
    error::{Error, ErrorKind},
    task::Annotations,
};

use super::TaskId;

/// Amounts in millionths, so that taking and giving back never drifts.
pub(crate) type Amount = u128;

/// What a task asks of the worker that runs it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) slots: u32,
    pub(crate) resources: Vec<(String, Amount)>,
    pub(crate) workers: Vec<String>,
    pub(crate) other_workers: bool,
}

pub(crate) fn amount(value: f64) -> Amount {
    // Saturates; negative numbers and NaN become 0 and are refused before.
    (value * 1e6).round() as Amount
}

impl Shape {
    pub(crate) fn new(annotations: &Annotations) -> Result<Self, Error> {
        let mut resources = Vec::with_capacity(annotations.resources.len());
        for (name, value) in &annotations.resources {
            if !value.is_finite() || *value < 0.0 {
                let text = format!("`resources.{name}`: {value} is not a positive number");
                return Err(Error::new(ErrorKind::ConfigInvalid, text));
            }
            if amount(*value) > 0 {
                resources.push((name.clone(), amount(*value)));
            }
        }
        let mut workers = annotations.workers.clone();
        workers.sort();
        workers.dedup();
        Ok(Self { slots: annotations.slots, resources, other_workers: annotations.allow_other_workers || workers.is_empty(), workers })
    }

    /// Whether waiting for a place means waiting for more than the next free slot.
    pub(crate) fn is_plain(&self) -> bool {
        self.slots <= 1 && self.resources.is_empty()
    }
}

/// Better first: higher priority, then further down in tasks of tasks, then older.
pub(crate) type Rank = (Reverse<i64>, Reverse<u32>, TaskId);

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) shape: Arc<Shape>,
    pub(crate) ready: BTreeSet<Rank>,
    /// Tasks that are not final, so that the group is still needed.
    members: usize,
    /// Why no worker can take its tasks.
    pub(crate) reason: Option<Arc<str>>,
    /// Ready tasks by the time since when nothing can run them; empty while somebody is sure to come.
    pub(crate) unrunnable: VecDeque<(Instant, TaskId)>,
    /// How long one of them waits. `None`: until somebody has come.
    pub(crate) patience: Option<Duration>,
    /// No worker there is, or was last, would do, so another one like them is of no use.
    pub(crate) unfit: bool,
    /// What to do about it.
    pub(crate) hint: Option<Arc<str>>,
}

pub(crate) type GroupId = u64;

#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_shape: HashMap<Arc<Shape>, GroupId>,
    groups: HashMap<GroupId, Group>,
    /// The last annotations seen: a map's tasks share theirs.
    last: Option<(Arc<Annotations>, GroupId)>,
    pub(crate) waiting: BTreeSet<GroupId>,
    next: GroupId,
}

impl Groups {
    /// The group for these annotations; true when it is new. Counts one member.
    pub(crate) fn join(&mut self, annotations: &Arc<Annotations>) -> Result<(GroupId, bool), Error> {
        if let Some((last, id)) = &self.last
            && Arc::ptr_eq(last, annotations)
            && let Some(group) = self.groups.get_mut(id)
        {
            group.members += 1;
            return Ok((*id, false));
        }
        let shape = Arc::new(Shape::new(annotations)?);
        let known = self.by_shape.get(&shape).copied();
        let id = known.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        if known.is_none() {
            self.by_shape.insert(shape.clone(), id);
        }
        let group = self.groups.entry(id).or_insert_with(|| Group {
            shape,
            ready: BTreeSet::new(),
            members: 0,
            reason: None,
            unrunnable: VecDeque::new(),
            patience: None,
            unfit: false,
            hint: None,
        });
        group.members += 1;
        self.last = Some((annotations.clone(), id));
        Ok((id, known.is_none()))
    }

    /// A member became final.
    pub(crate) fn leave(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.members -= 1;
        if group.members == 0
            && let Some(group) = self.groups.remove(&id)
        {
            self.by_shape.remove(&group.shape);
            self.waiting.remove(&id);
            if self.last.as_ref().is_some_and(|(_, last)| *last == id) {
                self.last = None;
            }
        }
    }

    pub(crate) fn push(&mut self, id: GroupId, rank: Rank, now: Instant) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.ready.insert(rank);
        self.waiting.insert(id);
        if group.patience.is_some() {
            group.unrunnable.push_back((now, rank.2));
        }
    }

    pub(crate) fn remove(&mut self, id: GroupId, rank: Rank) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.ready.remove(&rank);
        if group.ready.is_empty() {
            self.waiting.remove(&id);
            group.unrunnable.clear();
        }
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(crate) fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    pub(crate) fn ids(&self) -> Vec<GroupId> {
        self.groups.keys().copied().collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// When the first of those that nothing can run is to be given up.
    pub(crate) fn first_unrunnable(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter_map(|id| self.groups.get(id));
        waiting.filter_map(|group| Some(group.unrunnable.front()?.0 + group.patience?)).min()
    }
}
