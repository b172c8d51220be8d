//! Managers that a function makes.

use super::*;

fn factory(class: ClassRef) -> Recipe {
    let ClassRef::Entry(entry) = class else { unreachable!() };
    entry.prepare(Kwargs::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_recipe_that_never_answers_meets_the_deadline_and_one_given_up_is_dropped() {
    let dropped = Arc::new(());
    let held = dropped.clone();
    let stuck = Recipe::new("stuck::Factory", move || async move {
        std::future::pending::<()>().await;
        drop(held);
        unreachable!()
    });
    let error = Cluster::start(stuck, here(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(Arc::strong_count(&dropped), 1);
    // One that answers within the grace: what it made is closed although it never started.
    let late = Fake::default();
    let made = late.clone();
    let recipe = Recipe::new("late::Factory", || async move {
        time::sleep(s(4)).await;
        Ok(made.into())
    });
    assert!(time::timeout(s(1), Cluster::start(recipe, here(1))).await.is_err());
    late.hears("closed").await;
}

#[tokio::test]
async fn factories_of_every_form_make_clusters() {
    let fake = Fake::default();
    let (a, b, c) = (fake.clone(), fake.clone(), fake.clone());
    let all = [
        ClassRef::from_fn("my::Sync", move |_: Kwargs| Ok::<_, Error>(a.clone())),
        ClassRef::from_fn("my::Async", async move |_: Kwargs| {
            time::sleep(Duration::from_millis(1)).await; // asks some service
            anyhow::Ok(b.clone())
        }),
        ClassRef::from_fn("my::Boxed", move |_: Kwargs| -> Result<Box<dyn ClusterManager>, std::io::Error> { Ok(c.clone().into()) }),
    ];
    for class in all {
        let path = class.path().to_owned();
        let cluster = Cluster::start(factory(class), ClusterOptions::default()).await.unwrap();
        assert_eq!(cluster.class(), path);
        cluster.close().await.unwrap();
    }
    assert_eq!(fake.said(), ["start", "close", "closed"].repeat(3));
}

#[tokio::test]
async fn a_factory_that_fails_or_panics_says_so() {
    let ours = || Error::new(ErrorKind::PermissionDenied, "who are you");
    let all = [
        (ClassRef::from_fn("my::Foreign", |_: Kwargs| Err::<Fake, _>("no licence")), ErrorKind::Unexpected, "because: no licence"),
        (ClassRef::from_fn("my::Ours", move |_: Kwargs| Err::<Fake, _>(ours())), ErrorKind::PermissionDenied, "who are you"),
        (
            ClassRef::from_fn("my::Anyhow", async move |_: Kwargs| Err::<Fake, _>(anyhow::Error::from(ours()).context("asking"))),
            ErrorKind::PermissionDenied,
            "who are you",
        ),
        (
            ClassRef::from_fn("my::Panic", |_: Kwargs| -> Result<Fake> { panic!("at the disco") }),
            ErrorKind::Unexpected,
            "the cluster factory panicked: at the disco",
        ),
    ];
    for (class, kind, text) in all {
        let path = class.path().to_owned();
        let error = Cluster::start(factory(class), ClusterOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.report().contains(text) && error.to_string().contains(&path), "{error:?}");
    }
}

#[tokio::test]
async fn a_factory_that_blocks_until_the_flow_is_long_gone_has_its_manager_closed() {
    let fake = Fake::default();
    let made = fake.clone();
    let (go, gate) = mpsc::channel::<()>();
    let (reached, entered) = mpsc::channel::<()>();
    let (gate, reached) = (Mutex::new(gate), Mutex::new(reached));
    let class = ClassRef::from_fn("slow::Factory", move |_: Kwargs| {
        reached.lock().unwrap().send(()).unwrap();
        gate.lock().unwrap().recv()?;
        anyhow::Ok(made.clone())
    });
    // Long enough that the factory has begun by then.
    let limits = Limits { grace: Duration::from_millis(20), start: s(1), ..Limits::default() };
    let error = Cluster::start(factory(class), ClusterOptions { limits, ..ClusterOptions::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    entered.recv().unwrap();
    assert!(fake.said().is_empty());
    go.send(()).unwrap();
    fake.hears("closed").await;
    assert_eq!(fake.said(), ["close", "closed"], "never started");
}

#[tokio::test]
async fn an_async_factory_that_never_returns_is_dropped() {
    let (dropped, gone) = tokio::sync::oneshot::channel::<()>();
    let dropped = Mutex::new(Some(dropped));
    let class = ClassRef::from_fn("stuck::Factory", async move |_: Kwargs| -> Result<Fake> {
        let _held = dropped.lock().unwrap().take();
        std::future::pending().await
    });
    let limits = Limits { grace: Duration::from_millis(20), start: Duration::from_millis(50), ..Limits::default() };
    let error = Cluster::start(factory(class), ClusterOptions { limits, ..ClusterOptions::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(gone.await.is_err(), "dropped with the future");
}
