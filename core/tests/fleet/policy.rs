//! What the decisions of adaptive scaling do to the fleet.

use super::*;

fn decided(launch: u32, victims: &[WorkerId], cancelled: &[WorkerId], lost: u32) -> Input {
    let numbers = |ids: &[WorkerId]| ids.iter().map(|id| u64::from(*id)).collect();
    Input::Decided(Decision {
        desired: launch,
        launch,
        victims: numbers(victims),
        cancelled: numbers(cancelled),
        lost,
        reason: Reason::First { tasks: 1 },
    })
}

#[test]
fn the_policy_says_whether_a_place_is_filled_again_and_failures_delay_its_launches() {
    let mut fleet = open(2);
    join(&mut fleet, s(0), id(0, 0));
    fleet.step(s(0), Input::Adapt { native: None });
    assert_eq!(stops(&fleet.step(s(1), left("0-0", false))), [id(0, 0)]);
    assert_eq!((fleet.desired(), fleet.is_blocked(s(1)), fleet.is_blocked(s(2))), (1, true, false));
    assert!(launches(&fleet.step(s(9), Input::Stopped(vec![id(0, 0)], Ok(())))).is_empty());
    assert_eq!(launches(&fleet.step(s(9), decided(1, &[], &[], 0))), [id(0, 1)]);
    // A request that is written off counts as a failure; one that is not needed any more does not.
    fleet.step(s(9), Input::Launched(vec![id(0, 1), id(1, 0)], Ok(())));
    let out = fleet.step(s(40), decided(0, &[], &[id(0, 1), id(1, 0)], 1));
    assert_eq!(stops(&out), [id(0, 1), id(1, 0)]);
    let told: Vec<_> = out.iter().filter(|action| matches!(action, Action::Report(ClusterEvent::Lost { .. }))).collect();
    assert!(
        matches!(told[..], [Action::Report(ClusterEvent::Lost { id: lost, reason })] if *lost == id(0, 1) && reason.contains("31 s")),
        "{told:?}"
    );
    assert!(fleet.is_blocked(s(40)) && fleet.desired() == 0);
    // Somebody says a number: no word of the policy counts any more.
    fleet.step(s(41), Input::Stopped(vec![id(0, 1), id(1, 0)], Ok(())));
    let out = fleet.step(s(41), Input::Scale { count: 1, victims: vec![] });
    assert!(matches!(out[0], Action::Report(ClusterEvent::AdaptingEnded { workers: 1 })), "{out:?}");
    assert_eq!(launches(&out), [id(0, 2)]);
    assert!(fleet.step(s(41), decided(5, &[], &[id(0, 2)], 0)).is_empty());
}

/// A launch call that is not answered cannot be undone: who is wanted again before is not asked for beside it.
#[test]
fn requests_that_are_not_needed_are_taken_back_in_before_others_are_made() {
    let mut fleet = open(4); // four launches under way
    assert!(launches(&fleet.step(s(1), Input::Scale { count: 1, victims: vec![] })).is_empty());
    fleet.step(s(1), joined(id(2, 0)));
    assert!(calls(fleet.step(s(2), Input::Scale { count: 3, victims: vec![] })).is_empty(), "two of three come back");
    fleet.step(s(2), Input::Adapt { native: None });
    // One too old, one not needed; then two are wanted: the second of them is new.
    fleet.step(s(3), decided(0, &[], &[id(0, 0), id(2, 0)], 1));
    let wanted = |fleet: &mut Fleet| {
        fleet.members(s(4)).into_iter().filter(|member| member.phase == Phase::Starting).map(|member| member.id).collect::<Vec<_>>()
    };
    assert_eq!(wanted(&mut fleet).len(), 1);
    assert!(launches(&fleet.step(s(4), decided(2, &[], &[], 0))).is_empty(), "1-0 was not needed, 2-0 neither");
    assert_eq!((wanted(&mut fleet).len(), fleet.desired()), (3, 3));
    assert_eq!(launches(&fleet.step(s(4), decided(1, &[], &[], 0))), [id(4, 0)], "0-0 is written off");
    let out = fleet.step(s(5), Input::Launched((0..4).map(|index| id(index, 0)).collect(), Ok(())));
    assert_eq!(stops(&out), [id(0, 0)]);
    assert_eq!(fleet.live().map(|(id, _)| id).collect::<Vec<_>>(), [id(2, 0)]);
}

#[test]
fn victims_of_the_policy_finish_what_they_run_however_long_it_takes() {
    let mut fleet = open(3);
    (0..3).for_each(|index| join(&mut fleet, s(0), id(index, 0)));
    fleet.step(s(40), Input::Adapt { native: None });
    let retired = |out: Vec<Action>| match &calls(out)[..] {
        [Action::Retire(workers)] => workers.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(retired(fleet.step(s(40), decided(0, &[id(0, 0), id(1, 0)], &[], 0))), [id(0, 0), id(1, 0)]);
    assert_eq!((fleet.desired(), fleet.live().count()), (1, 1));
    assert!(fleet.step(s(4000), Input::Tick).is_empty(), "no deadline");
    let busy = Input::Retired { drained: vec![], busy: vec![id(0, 0), id(1, 0)], refused: vec![] };
    assert_eq!(retired(fleet.step(s(4000), busy)), [id(0, 0), id(1, 0)]);
    // One has finished, the other's results have no other place: it takes work again, and is not asked soon.
    let out = fleet.step(s(4001), Input::Retired { drained: vec![id(0, 0)], busy: vec![], refused: vec![id(1, 0)] });
    assert_eq!(stops(&out), [id(0, 0)]);
    let kept = |fleet: &mut Fleet, now| fleet.members(now).iter().filter(|member| member.kept).map(|member| member.id).collect::<Vec<_>>();
    assert_eq!((fleet.desired(), kept(&mut fleet, s(4001))), (2, vec![u64::from(id(1, 0))]));
    assert!(kept(&mut fleet, s(4031)).is_empty());
}

#[test]
fn a_cut_off_while_the_policy_wants_workers_is_the_end_but_not_while_it_wants_none() {
    for wanted in [0, 2] {
        let mut fleet = open(0);
        fleet.step(s(0), Input::Adapt { native: None });
        let launched = launches(&fleet.step(s(1), decided(1, &[], &[], 0)));
        fleet.step(s(2), Input::Launched(launched.clone(), Err(error(ErrorKind::PermissionDenied))));
        fleet.step(s(2), Input::Stopped(launched, Ok(())));
        let blocked = Decision { desired: 0, launch: 0, victims: vec![], cancelled: vec![], lost: 0, reason: Reason::Blocked { wanted } };
        assert!(fleet.is_blocked(s(999)));
        fleet.step(s(3), Input::Decided(blocked));
        assert!(fleet.failure().is_some(), "the first try was wanted");
        // A new try, with nothing to do: no failure.
        fleet.step(s(4), Input::Adapt { native: None });
        assert!(fleet.failure().is_none() && !fleet.is_blocked(s(4)));
    }
}

#[test]
fn a_platform_that_scales_by_itself_is_told_bounds() {
    let mut fleet = Fleet::new(Limits::default(), None);
    fleet.step(s(0), Input::Tick);
    fleet.step(s(0), Input::Adapt { native: Some((1, Some(9))) });
    let bounds = |out: Vec<Action>| matches!(out[..], [Action::SetTarget(Target::Between { minimum: 1, maximum: Some(9) })]);
    assert!(bounds(fleet.step(s(1), Input::Started(Ok((Scaling::Count, 4))))), "no number before");
    assert!(fleet.step(s(1), Input::TargetSet(Ok(()))).is_empty());
    assert_eq!(fleet.desired(), 1);
    (0..3).for_each(|index| drop(fleet.step(s(2), joined(id(index, 0)))));
    assert_eq!((fleet.desired(), fleet.snapshot().len()), (3, 3));
    let out = calls(fleet.step(s(3), Input::Scale { count: 2, victims: vec![] }));
    assert!(matches!(out[..], [Action::SetTarget(Target::Exactly(2))]), "{out:?}");
    // One that counts, and does not scale by itself, is told what the policy decides.
    fleet.step(s(4), Input::TargetSet(Ok(())));
    let out = fleet.step(s(4), Input::Adapt { native: None });
    assert!(matches!(out[..], [Action::SetTarget(Target::Exactly(2))]), "as it is, in case it was lost: {out:?}");
    fleet.step(s(4), Input::TargetSet(Ok(())));
    let out = fleet.step(s(5), decided(5, &[], &[], 0));
    assert!(matches!(out[..], [Action::SetTarget(Target::Exactly(5))]), "{out:?}");
    let starting = |fleet: &mut Fleet, now| -> Vec<u64> {
        fleet.members(now).iter().filter(|member| member.phase == Phase::Starting).map(|member| member.id).collect()
    };
    let asked = starting(&mut fleet, s(6));
    assert_eq!(asked.len(), 2);
    // The policy remembers them by number: adapting again gives none to another.
    let known: Vec<u64> = fleet.members(s(6)).iter().map(|member| member.id).collect();
    fleet.step(s(7), Input::Adapt { native: None });
    assert_eq!(fleet.members(s(7)).iter().map(|member| member.id).collect::<Vec<_>>(), known);
    fleet.step(s(8), Input::Scale { count: 3, victims: vec![] });
    fleet.step(s(9), Input::Adapt { native: None });
    fleet.step(s(9), decided(5, &[], &[], 0));
    assert!(starting(&mut fleet, s(9)).iter().all(|id| !known.contains(id)), "{:?}", fleet.members(s(9)));
    // One that is written off has another asked for in its place, with a number of its own: else it would be written off for ever.
    let waiting = starting(&mut fleet, s(39));
    let (lost, reason) = (vec![waiting[0]], Reason::Lost { after: 30.0 });
    fleet.step(s(40), Input::Decided(Decision { desired: 5, launch: 1, victims: vec![], cancelled: lost, lost: 1, reason }));
    let asked = starting(&mut fleet, s(40));
    assert_eq!((asked.len(), asked.contains(&waiting[0])), (waiting.len(), false), "{waiting:?} {asked:?}");
}
