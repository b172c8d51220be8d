use super::*;

/// A count that cannot rise any more stands for any defect of the policy: only where overflows are defects.
#[test]
fn a_policy_that_panics_begins_anew_whether_or_not_it_sees_the_work() {
    let config = AdaptConfig { minimum: Some(2), ..AdaptConfig::default() };
    let mut scaler = Scaler::new(config, &ClusterInfo::new("scaler::Defect"), None, None);
    let startup = (Duration::from_secs(7), Duration::from_secs(3));
    let mut full = serde_json::to_value(State::with_startup(startup.0, startup.1)).unwrap();
    full["usage"]["launched"] = u64::MAX.into();
    for sees in [true, false] {
        scaler.state = serde_json::from_value(full.clone()).unwrap();
        for launch in [0, 2] {
            let (now, launches, mut log) = (Duration::ZERO, Launches::default(), Log::default());
            let decision = match sees {
                true => scaler.decide(now, vec![], launches, Observation::default(), &mut log),
                false => scaler.hold(now, vec![], launches, &mut log),
            };
            assert_eq!(decision.launch, launch, "{decision:?}");
            assert_eq!(scaler.state().startup(), Some(startup));
        }
    }
}
