//! The driver's side of a task in a process that submits further tasks: a session of its own, ended with the attempt.

use std::sync::Arc;

use remuda_core::{
    engine::Session,
    error::{Error, ErrorKind},
    host::{
        nested::{Ask, News, Parcel, State},
        wire::{Request, frame},
    },
    task::{Key, TaskError, TaskEvent},
};

use crate::{engine::Shared, mailbox::Mailbox, runner::Message, scheduler::RunId, session::LocalSession};

pub(crate) struct Nested {
    shared: Arc<Shared>,
    run: RunId,
    mailbox: Arc<Mailbox<Message>>,
    /// Opened by the first thing the task asks for.
    session: Option<Arc<LocalSession>>,
}

impl Nested {
    pub(crate) fn new(shared: Arc<Shared>, run: RunId, mailbox: Arc<Mailbox<Message>>) -> Self {
        Self { shared, run, mailbox, session: None }
    }

    /// Never waits: what there is to say comes as a message.
    pub(crate) fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Pause => self.shared.update(|state, now| state.scheduler.pause(self.run, now)),
            Ask::Resume => self.shared.update(|state, now| state.scheduler.resume(self.run, now)),
            Ask::Submit(tasks) => match self.open() {
                Ok(session) => session.submit(tasks),
                Err(error) => {
                    for task in tasks {
                        self.say(News::Event { key: task.key, name: task.name, state: State::Ended(error.clone().into()) });
                    }
                }
            },
            Ask::Cancel(keys) => {
                if let Some(session) = &self.session {
                    session.cancel(&keys);
                }
            }
            Ask::Release(keys) => {
                if let Some(session) = &self.session {
                    session.release(&keys);
                }
            }
            Ask::Gather(number, keys) => {
                if let Err(error) = self.gather(number, keys) {
                    self.say(News::Gathered(number, Err(error.into())));
                }
            }
        }
    }

    fn say(&self, news: News) {
        self.mailbox.send(Message::News(self.run, Box::new(news)));
    }

    fn open(&mut self) -> Result<Arc<LocalSession>, Error> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let session = Arc::new(self.shared.open_session(Some(self.run))?);
        let (mut events, mailbox, run) = (session.events(), self.mailbox.clone(), self.run);
        thread("remuda news", move || {
            // Ends with the session.
            while let Some(TaskEvent { key, name, state }) = events.blocking_recv() {
                let news = News::Event { key, name, state: State::pack(&state) };
                mailbox.send(Message::News(run, Box::new(news)));
            }
        })?;
        self.session = Some(session.clone());
        Ok(session)
    }

    fn gather(&mut self, number: u64, keys: Vec<Key>) -> Result<(), Error> {
        let (session, mailbox, run) = (self.open()?, self.mailbox.clone(), self.run);
        thread("remuda gather", move || {
            let parcels = match tokio::runtime::Builder::new_current_thread().build() {
                Ok(runtime) => runtime
                    .block_on(session.gather(&keys))
                    .and_then(|values| values.iter().map(|value| Parcel::pack(value).map_err(TaskError::from)).collect()),
                Err(error) => Err(Error::new(ErrorKind::Unavailable, "results could not be gathered").with_source(error).into()),
            };
            mailbox.send(Message::News(run, Box::new(News::Gathered(number, parcels))));
        })
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        // Others may hold the session still; its tasks end now.
        if let Some(session) = self.session.take() {
            session.end();
        }
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|e| Error::new(ErrorKind::Unavailable, "a thread for a task's tasks could not be started").with_source(e))
}

/// News as a frame for the host; what is too long is told as that.
pub(crate) fn frame_of(news: News) -> Option<Vec<u8>> {
    let about = match &news {
        News::Event { key, name, .. } => Ok((*key, name.clone())),
        News::Gathered(number, _) => Err(*number),
    };
    frame(&Request::News(news))
        .or_else(|error| {
            frame(&Request::News(match about {
                Ok((key, name)) => News::Event { key, name, state: State::Ended(error.into()) },
                Err(number) => News::Gathered(number, Err(error.into())),
            }))
        })
        .ok()
}
