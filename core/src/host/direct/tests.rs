//! Against an engine that is told what to answer.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{
    LazyLock,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use super::*;
use crate::{
    engine::{Connect, Drains, WorkerChanges},
    host::set_connect,
    task::{Annotations, CommandWork, Work},
    value::Template,
};

/// Sessions of it answer every task at once; at `refused:1` nobody listens, at `mute:1` nobody answers.
#[derive(Debug)]
struct Answers;

static CONNECTED: AtomicUsize = AtomicUsize::new(0);
static CLOSED: AtomicUsize = AtomicUsize::new(0);

static GIVEN_UP: AtomicBool = AtomicBool::new(false);

static CONNECTING: LazyLock<(std::sync::mpsc::Sender<()>, Mutex<std::sync::mpsc::Receiver<()>>)> = LazyLock::new(|| {
    let (tell, told) = std::sync::mpsc::channel();
    (tell, Mutex::new(told))
});

struct GivenUp;

impl Drop for GivenUp {
    fn drop(&mut self) {
        GIVEN_UP.store(true, SeqCst);
    }
}

#[async_trait]
impl Connect for Answers {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn Engine>> {
        let Endpoint::Dask { address, .. } = endpoint else { panic!("an address") };
        match address.as_str() {
            "tcp://refused:1" => Err(Error::new(ErrorKind::Unavailable, "nobody listens")),
            "tcp://mute:1" => {
                let _given_up = GivenUp;
                CONNECTING.0.send(()).unwrap();
                std::future::pending().await
            }
            _ => {
                CONNECTED.fetch_add(1, SeqCst);
                Ok(Arc::new(Self))
            }
        }
    }
}

#[async_trait]
impl Engine for Answers {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        let (tell, events) = mpsc::unbounded_channel();
        Ok(Arc::new(Answering { tell, events: Mutex::new(Some(events)) }))
    }

    async fn drain(&self, _: &[String], _: Duration) -> Result<Drains> {
        Ok(Drains::new())
    }

    fn changes(&self) -> WorkerChanges {
        mpsc::unbounded_channel().1
    }
}

#[derive(Debug)]
struct Answering {
    tell: mpsc::UnboundedSender<TaskEvent>,
    events: Mutex<Option<TaskEvents>>,
}

#[async_trait]
impl Session for Answering {
    fn shares_memory(&self) -> bool {
        false
    }

    fn submit(&self, tasks: Vec<TaskSpec>) {
        for TaskSpec { key, name, .. } in tasks {
            self.tell.send(TaskEvent { key, name, state: TaskState::Done(Value::There) }).unwrap();
        }
    }

    fn cancel(&self, _: &[Key]) {}

    fn release(&self, _: &[Key]) {}

    fn events(&self) -> TaskEvents {
        lock(&self.events).take().unwrap()
    }

    async fn gather(&self, keys: &[Key]) -> std::result::Result<Vec<Value>, TaskError> {
        Ok(keys.iter().map(|key| Value::plain(&key.0).unwrap()).collect())
    }

    async fn close(&self) -> Result<()> {
        CLOSED.fetch_add(1, SeqCst);
        Ok(())
    }
}

fn link(address: &str) -> Arc<Link> {
    set_connect(Arc::new(Answers));
    Arc::new(Link::new(Access { address: address.to_owned(), security: None }))
}

fn task(key: u64) -> TaskSpec {
    let work = Work::Command(CommandWork { call: Template::new() });
    TaskSpec { key: Key(key), name: "t".into(), inputs: Vec::new(), after: Vec::new(), work, annotations: Arc::new(Annotations::default()) }
}

#[test]
fn a_session_is_opened_by_the_first_order_and_closed_with_the_task() {
    let link = link("tcp://scheduler:1");
    let idle = DirectSession::new(link.clone(), &CancellationToken::new());
    idle.end();
    assert_eq!(CONNECTED.load(SeqCst), 0, "a task that submits nothing connects nowhere");
    for closed in [1, 2] {
        let session = DirectSession::new(link.clone(), &CancellationToken::new());
        let mut events = session.events();
        session.submit(vec![task(7)]);
        let event = events.blocking_recv().unwrap();
        assert!(event.key == Key(7) && matches!(event.state, TaskState::Done(Value::There)), "{event:?}");
        let runtime = Builder::new_current_thread().build().unwrap();
        let values = runtime.block_on(session.gather(&[Key(7)])).unwrap();
        assert_eq!(values[0].to_plain().unwrap(), [7][..]);
        session.end();
        assert_eq!((CONNECTED.load(SeqCst), CLOSED.load(SeqCst)), (1, closed), "the connection stays for the next task");
        session.submit(vec![task(8)]);
        assert!(events.blocking_recv().is_none(), "too late");
        assert!(runtime.block_on(session.gather(&[Key(8)])).is_err());
    }
    let cancelled = CancellationToken::new();
    let session = DirectSession::new(link, &cancelled);
    let mut events = session.events();
    session.submit(vec![task(9)]);
    assert!(events.blocking_recv().is_some());
    cancelled.cancel();
    assert!(events.blocking_recv().is_none(), "a body that waits for events goes on");
    session.end();
    assert_eq!(CLOSED.load(SeqCst), 3);
}

#[test]
fn what_cannot_be_submitted_ends_with_the_reason() {
    let session = DirectSession::new(link("tcp://refused:1"), &CancellationToken::new());
    let mut events = session.events();
    session.submit(vec![task(1)]);
    let TaskState::Ended(error) = events.blocking_recv().unwrap().state else { panic!() };
    assert!(error.to_string().contains("nobody listens"), "{error}");
    let runtime = Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(session.gather(&[Key(1)])).unwrap_err();
    assert!(error.to_string().contains("nobody listens"), "{error}");
    session.end();
}

#[test]
fn a_task_ends_also_while_it_connects() {
    let session = DirectSession::new(link("tcp://mute:1"), &CancellationToken::new());
    session.submit(vec![task(1)]);
    CONNECTING.1.lock().unwrap().recv().unwrap();
    session.end();
    assert!(GIVEN_UP.load(SeqCst), "nobody waits for a scheduler that says nothing");
}
