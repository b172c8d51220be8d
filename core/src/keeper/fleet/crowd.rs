//! The workers of a platform that counts, in the policy's terms: who came in answer to which request is a guess, oldest first.

use std::collections::{BTreeMap, VecDeque};

use super::{Time, adapt::Member};
use crate::adaptive::Phase;

#[derive(Debug, Default)]
pub(super) struct Crowd {
    next: u64,
    there: BTreeMap<String, Known>,
    /// Requests under way, oldest first.
    asked: VecDeque<(u64, Time)>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    id: u64,
    launched: Option<Time>,
    since: Time,
}

impl Crowd {
    pub(super) fn ask(&mut self, count: u32, now: Time) {
        for _ in 0..count {
            let id = self.fresh();
            self.asked.push_back((id, now));
        }
    }

    /// Somebody else said the number meanwhile: whatever is under way is of unknown age.
    pub(super) fn begin_anew(&mut self) {
        self.asked.clear();
    }

    /// Requests that were taken back.
    pub(super) fn forget(&mut self, ids: &[u64]) {
        self.asked.retain(|(id, _)| !ids.contains(id));
    }

    /// `joined`: the workers at the scheduler, with their slots; `target`: how many the platform was told to have.
    pub(super) fn members(&mut self, joined: &BTreeMap<String, (String, u32)>, target: u32, now: Time) -> Vec<Member> {
        self.there.retain(|name, _| joined.contains_key(name));
        for name in joined.keys() {
            if !self.there.contains_key(name) {
                let (id, launched) = self.asked.pop_front().map_or_else(|| (self.fresh(), None), |(id, at)| (id, Some(at)));
                self.there.insert(name.clone(), Known { id, launched, since: now });
            }
        }
        let missing = (target as usize).saturating_sub(self.there.len());
        self.asked.truncate(missing);
        // One that is gone is replaced by the platform.
        self.ask(u32::try_from(missing - self.asked.len()).unwrap_or(0), now);
        // Beyond the target: the platform lets them go, the youngest for all we know.
        let mut oldest: Vec<u64> = self.there.values().map(|known| known.id).collect();
        oldest.sort_unstable();
        oldest.truncate(target as usize);
        let live = self.there.iter().map(|(name, known)| Member {
            id: known.id,
            name: Some(name.clone()),
            phase: if oldest.contains(&known.id) { Phase::Live(known.since) } else { Phase::Draining },
            launched: known.launched,
            slots: joined.get(name).map_or(0, |(_, slots)| *slots),
            kept: false,
        });
        let asked = self.asked.iter().map(|(id, at)| Member {
            id: *id,
            name: None,
            phase: Phase::Starting,
            launched: Some(*at),
            slots: 0,
            kept: false,
        });
        live.chain(asked).collect()
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joins_answers_the_oldest_request_and_whoever_is_gone_is_asked_for_again() {
        let s = Time::from_secs;
        let joined = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), ("h".to_owned(), 2))).collect::<BTreeMap<_, _>>();
        let show = |members: Vec<Member>| members.into_iter().map(|m| (m.id, m.phase, m.launched)).collect::<Vec<_>>();
        let mut crowd = Crowd::default();
        crowd.ask(2, s(1));
        assert_eq!(show(crowd.members(&joined(&[]), 2, s(2))), [(1, Phase::Starting, Some(s(1))), (2, Phase::Starting, Some(s(1)))]);
        let one = [(1, Phase::Live(s(3)), Some(s(1))), (2, Phase::Starting, Some(s(1)))];
        assert_eq!(show(crowd.members(&joined(&["b"]), 2, s(3))), one);
        crowd.members(&joined(&["a", "b"]), 2, s(4));
        // `b` left, and will be replaced.
        let replaced = [(2, Phase::Live(s(4)), Some(s(1))), (3, Phase::Starting, Some(s(5)))];
        assert_eq!(show(crowd.members(&joined(&["a"]), 2, s(5))), replaced);
        // A stranger nobody asked for, and a smaller target: the youngest goes.
        crowd.forget(&[3]);
        let fewer = [(2, Phase::Live(s(4)), Some(s(1))), (4, Phase::Draining, None)];
        assert_eq!(show(crowd.members(&joined(&["a", "c"]), 1, s(6))), fewer);
    }
}
