//! Workers that end before they join, of themselves and for a reason that no further start mends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    manager::{ClusterEvent, WorkerId},
};
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

use super::process::{LOG, LastLines, Process};

/// What Python says when something that is to be imported is not there or is no Python: it is not there at the next start either.
const FINAL: [&str; 4] = ["ModuleNotFoundError", "ImportError", "SyntaxError", "IndentationError"];

/// So many launches one after the other that end with the same words are enough; the keeper by itself goes on for longer, as what ends
/// workers elsewhere may pass.
const ROUNDS: u32 = 2;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastWords {
    end: Arc<str>,
    complaint: Option<String>,
    tail: Vec<String>,
}

impl LastWords {
    /// Of a process that has ended. Blocks for a moment.
    pub(super) fn of(process: &Process) -> Self {
        Self { end: process.end().unwrap_or_default(), complaint: process.complaints().pop(), tail: process.tail(LOG) }
    }
}

/// What became of the launches.
#[derive(Debug, Default)]
pub(super) struct Starts {
    news: Option<Receiver<ClusterEvent>>,
    joined: BTreeSet<WorkerId>,
    /// One has joined, ever: what is imported is there, and what is missing now may come back.
    possible: bool,
    /// In which launch a worker was asked for.
    rounds: BTreeMap<WorkerId, u64>,
    last: u64,
    failed: Option<Failed>,
}

/// The same end, again and again.
#[derive(Debug)]
struct Failed {
    words: LastWords,
    complaint: String,
    round: u64,
    count: u32,
}

/// Has `listen` called whenever there is news, until it says that nobody is there to listen: between two launches more may be told than is
/// kept for who comes late.
pub(super) async fn follow(mut news: Receiver<ClusterEvent>, listen: impl Fn() -> bool) {
    while !matches!(news.recv().await, Err(RecvError::Closed)) && listen() {}
}

impl Starts {
    /// `news`: those of the cluster, in which it is told who joins.
    pub(super) fn new(news: Receiver<ClusterEvent>) -> Self {
        Self { news: Some(news), ..Self::default() }
    }

    /// These are to be launched.
    ///
    /// # Errors
    /// When those before ended in a way that these would, too: [`ErrorKind::CrashLoop`]. Told once: who asks again has mended something.
    pub(super) fn begin(&mut self, workers: &[WorkerId]) -> Result<()> {
        self.listen();
        if let Some(failed) = self.failed.take_if(|failed| failed.is_final(self.possible)) {
            return Err(failed.into_error());
        }
        self.last += 1;
        self.rounds.extend(workers.iter().map(|id| (*id, self.last)));
        Ok(())
    }

    /// A worker ended before it was asked to.
    pub(super) fn ended(&mut self, id: WorkerId, words: LastWords) {
        self.listen();
        let round = self.rounds.remove(&id);
        let (Some(round), false) = (round, self.joined.remove(&id)) else { return };
        // By a signal, or killed by us: nothing that it said has to do with it.
        let Some(complaint) = words.complaint.clone().filter(|_| words.end.starts_with("exit code")) else { return };
        match &mut self.failed {
            Some(failed) if failed.complaint == complaint => {
                failed.count += u32::from(round > failed.round);
                failed.round = round.max(failed.round);
            }
            failed => *failed = Some(Failed { words, complaint, round, count: 1 }),
        }
    }

    /// It is gone.
    pub(super) fn forget(&mut self, id: WorkerId) {
        self.rounds.remove(&id);
        self.joined.remove(&id);
    }

    /// Takes in what was told.
    pub(super) fn listen(&mut self) {
        let Some(news) = &mut self.news else { return };
        loop {
            match news.try_recv() {
                Ok(ClusterEvent::Joined { id: Some(id), .. }) => {
                    self.joined.insert(id);
                    (self.possible, self.failed) = (true, None);
                }
                Ok(_) => {}
                // Who has joined meanwhile is not known: what was counted says nothing.
                Err(TryRecvError::Lagged(_)) => {
                    self.rounds.clear();
                    (self.possible, self.failed) = (true, None);
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

impl Failed {
    fn is_final(&self, possible: bool) -> bool {
        let word = self.complaint.split([':', ' ']).next().unwrap_or_default();
        self.count >= ROUNDS || !possible && FINAL.contains(&word)
    }

    fn into_error(self) -> Error {
        let text = format!("Dask's workers end before they join: {}: {}", self.words.end, self.complaint);
        let error = Error::new(ErrorKind::CrashLoop, text).with_source(LastLines(self.words.tail));
        error.with_hint("mend what they import at their start (`preload`, `worker_class`, `python`, `env`), then scale or start again")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::broadcast::{self, Sender};

    use super::*;

    const A: WorkerId = WorkerId { index: 0, incarnation: 0 };
    const B: WorkerId = WorkerId { index: 1, incarnation: 0 };

    fn starts() -> (Sender<ClusterEvent>, Starts) {
        let (news, heard) = broadcast::channel(8);
        (news, Starts::new(heard))
    }

    fn words(end: &str, complaint: &str) -> LastWords {
        LastWords { end: end.into(), complaint: Some(complaint.into()), tail: vec!["Traceback".into(), complaint.into()] }
    }

    fn next(id: WorkerId) -> WorkerId {
        WorkerId { incarnation: id.incarnation + 1, ..id }
    }

    #[test]
    fn what_cannot_be_imported_is_not_tried_again() {
        let (_news, mut starts) = starts();
        starts.begin(&[A, B]).unwrap();
        [A, B].into_iter().for_each(|id| starts.ended(id, words("exit code 1", "ModuleNotFoundError: No module named 'nope'")));
        let error = starts.begin(&[next(A)]).unwrap_err();
        assert!(error.kind() == ErrorKind::CrashLoop && !error.is_retryable(), "{error:?}");
        assert!(error.report().contains("Traceback") && error.report().contains("No module named 'nope'"), "{}", error.report());
        starts.begin(&[next(A)]).expect("who scales has mended it");
    }

    #[test]
    fn the_same_end_of_two_launches_is_enough_and_of_one_is_not() {
        let (_news, mut starts) = starts();
        starts.begin(&[A, B]).unwrap();
        [A, B].into_iter().for_each(|id| starts.ended(id, words("exit code 1", "OSError: no port")));
        starts.begin(&[next(A)]).expect("they ended together");
        starts.ended(next(A), words("exit code 1", "OSError: no port"));
        assert!(starts.begin(&[next(next(A))]).is_err());
        starts.begin(&[B]).unwrap();
        starts.ended(B, words("exit code 1", "OSError: 1"));
        starts.begin(&[next(B)]).unwrap();
        starts.ended(next(B), words("exit code 1", "OSError: 2"));
        starts.begin(&[A]).expect("another end each time");
    }

    #[test]
    fn who_has_joined_or_was_killed_tells_nothing_of_the_next() {
        let (news, mut starts) = starts();
        starts.begin(&[A, B]).unwrap();
        news.send(ClusterEvent::Joined { id: Some(A), name: "0-0".into(), slots: 1 }).unwrap();
        starts.ended(A, words("exit code 1", "ImportError: of a task"));
        starts.ended(B, words("signal 9 (SIGKILL)", "ImportError: of a task"));
        starts.begin(&[next(A)]).unwrap();
        starts.ended(next(A), words("exit code 1", "ImportError: x"));
        news.send(ClusterEvent::Joined { id: Some(B), name: "1-0".into(), slots: 1 }).unwrap();
        starts.begin(&[next(next(A))]).expect("another one could");
    }

    #[test]
    fn where_others_could_import_it_one_that_could_not_says_little() {
        let (news, mut starts) = starts();
        starts.begin(&[A, B]).unwrap();
        news.send(ClusterEvent::Joined { id: Some(A), name: "0-0".into(), slots: 1 }).unwrap();
        starts.ended(B, words("exit code 1", "ImportError: the disk is away"));
        starts.begin(&[next(B)]).expect("the disk may come back");
        starts.ended(next(B), words("exit code 1", "ImportError: the disk is away"));
        assert!(starts.begin(&[next(next(B))]).is_err(), "twice in a row");
    }

    #[tokio::test]
    async fn however_much_is_told_between_two_launches_nothing_is_missed() {
        let (news, mut starts) = starts();
        starts.begin(&[A]).unwrap();
        let starts = Arc::new(Mutex::new(starts));
        let listens = Arc::downgrade(&starts);
        let follows =
            tokio::spawn(follow(news.subscribe(), move || listens.upgrade().inspect(|starts| starts.lock().unwrap().listen()).is_some()));
        for _ in 0..40 {
            news.send(ClusterEvent::Progress("x".into())).unwrap();
            tokio::task::yield_now().await;
        }
        {
            let mut starts = starts.lock().unwrap();
            starts.ended(A, words("exit code 1", "ImportError: x"));
            assert!(starts.begin(&[next(A)]).is_err(), "it is known that nobody has joined");
        }
        drop(starts);
        news.send(ClusterEvent::Progress("x".into())).unwrap();
        follows.await.unwrap();
    }

    #[test]
    fn what_was_not_heard_counts_for_nothing() {
        let (news, mut starts) = starts();
        starts.begin(&[A]).unwrap();
        (0..20).for_each(|_| drop(news.send(ClusterEvent::Progress("x".into()))));
        starts.ended(A, words("exit code 1", "ImportError: x"));
        starts.begin(&[next(A)]).unwrap();
    }
}
