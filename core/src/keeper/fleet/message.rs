//! What goes into the fleet and what comes out.

use crate::{
    adaptive::Decision,
    error::{Error, Result},
    manager::{CloseReport, ClusterEvent, Scaling, Target, WorkerId, WorkerInfo},
};

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// Nothing but time.
    Tick,
    /// The answer to [`Action::Start`]: how the class scales, and how many workers its kwargs ask for.
    Started(Result<(Scaling, u32)>),
    /// The user wants so many; where some have to go, these first.
    Scale {
        /// How many.
        count: u32,
        /// Preferred to go.
        victims: Vec<WorkerId>,
    },
    /// Adaptive scaling begins, or goes on with other bounds; until [`Input::Scale`].
    Adapt {
        /// The platform is left to scale by itself within these; `None`: decisions follow.
        native: Option<(u32, Option<u32>)>,
    },
    /// The scaler decided.
    Decided(Decision),
    /// The answer to [`Action::Launch`].
    Launched(Vec<WorkerId>, Result<()>),
    /// What the platform says exists.
    Platform(Vec<WorkerInfo>),
    /// A worker is at the scheduler.
    Joined {
        /// Its name there.
        name: String,
        /// The host part of its address.
        host: String,
        /// How many tasks it runs at once.
        slots: u32,
    },
    /// A worker is no longer at the scheduler.
    Left {
        /// Its name there.
        name: String,
        /// For people.
        reason: String,
        /// It was running tasks, one of which may have ended it.
        busy: bool,
    },
    /// The answer to [`Action::Drain`]: as far as the deadline allowed.
    Drained(Vec<WorkerId>),
    /// The answer to [`Action::Retire`].
    Retired {
        /// They run nothing, and their results are elsewhere.
        drained: Vec<WorkerId>,
        /// They still run something.
        busy: Vec<WorkerId>,
        /// They cannot be drained, and take work again.
        refused: Vec<WorkerId>,
    },
    /// The answer to [`Action::Stop`].
    Stopped(Vec<WorkerId>, Result<()>),
    /// The answer to [`Action::SetTarget`].
    TargetSet(Result<()>),
    /// For people; nothing follows from it.
    Note(String),
    /// The scheduler is gone.
    SchedulerLost(Error),
    /// The handle is gone, the user asked, or the run ended.
    Close,
    /// The answer to [`Action::Close`]. The last input.
    Closed(Result<CloseReport>),
}

/// What to do about it.
#[derive(Debug, Clone)]
pub enum Action {
    /// Make the manager and start it. First and once.
    Start,
    /// Launch these.
    Launch(Vec<WorkerId>),
    /// Take these (with their scheduler names) out of work.
    Drain(Vec<(WorkerId, String)>),
    /// The same without haste: it is asked again until each has finished what it runs, and no task is interrupted.
    Retire(Vec<(WorkerId, String)>),
    /// Stop these.
    Stop(Vec<WorkerId>),
    /// Tell a platform that counts. One at a time.
    SetTarget(Target),
    /// Ask the calls in flight to end; their answers still come in.
    Cancel,
    /// Drop what is still in flight, then close the manager.
    Close,
    /// Tell people.
    Report(ClusterEvent),
    /// The cluster is of no use any more; the owner hears it.
    Failed(Error),
    /// Nothing follows.
    Finished(Result<CloseReport>),
}
