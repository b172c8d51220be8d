//! What tasks have in common, numbered for the shim. What no task has any more is forgotten on both sides: a flow may annotate each task
//! differently.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::session::wire::Def;

/// So many are kept though no task has them: the next map may.
const KEPT: usize = 64;
/// A flow has few; one that makes a new one for each task is not compared with all of them.
const COMPARED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Defs {
    known: BTreeMap<u32, Known>,
    next: u32,
    /// Those without users, the longest so first; some may have users again.
    unused: VecDeque<u32>,
    /// The shim need not keep these.
    forgotten: Vec<u32>,
}

#[derive(Debug)]
struct Known {
    def: Arc<Def>,
    users: usize,
    is_sent: bool,
    /// It stands among the unused.
    is_listed: bool,
}

impl Defs {
    /// The number of a definition, which has one user more.
    pub(super) fn enter(&mut self, def: Arc<Def>) -> u32 {
        let same = |known: &Known| Arc::ptr_eq(&known.def, &def) || *known.def == *def;
        if let Some((number, known)) = self.known.iter_mut().rev().take(COMPARED).find(|(_, known)| same(known)) {
            known.users += 1;
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.known.insert(number, Known { def, users: 1, is_sent: false, is_listed: false });
        number
    }

    /// It has one user less.
    pub(super) fn leave(&mut self, number: u32) {
        let Some(known) = self.known.get_mut(&number) else { return };
        known.users = known.users.saturating_sub(1);
        if known.users > 0 || std::mem::replace(&mut known.is_listed, true) {
            return;
        }
        self.unused.push_back(number);
        while self.unused.len() > KEPT
            && let Some(number) = self.unused.pop_front()
        {
            match self.known.get_mut(&number) {
                Some(known) if known.users > 0 => known.is_listed = false,
                Some(known) => {
                    self.forgotten.extend(known.is_sent.then_some(number));
                    self.known.remove(&number);
                }
                None => {}
            }
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Arc<Def>> {
        self.known.get(&number).map(|known| &known.def)
    }

    /// Whether the shim is to be sent it, now that it is needed.
    pub(super) fn is_news(&mut self, number: u32) -> bool {
        self.known.get_mut(&number).is_some_and(|known| !std::mem::replace(&mut known.is_sent, true))
    }

    pub(super) fn has_forgotten(&self) -> bool {
        !self.forgotten.is_empty()
    }

    pub(super) fn take_forgotten(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.forgotten)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
