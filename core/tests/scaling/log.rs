//! What the scaler logs, kept.

use std::{
    cell::RefCell,
    fmt::Debug,
    sync::{Arc, Mutex, Once},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::{Interest, set_global_default},
};

pub(crate) type Lines = Arc<Mutex<Vec<String>>>;

thread_local! {
    static LINES: RefCell<Option<Lines>> = const { RefCell::new(None) };
}

/// From now on, on this thread. The subscriber is everybody's: whether somebody listens at all is kept for the whole process, and what
/// other tests find out while none listens here would count here, too.
pub(crate) fn record() -> Lines {
    static SET: Once = Once::new();
    SET.call_once(|| set_global_default(Kept).unwrap());
    let lines = Lines::default();
    LINES.set(Some(lines.clone()));
    lines
}

struct Kept;

impl Subscriber for Kept {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "remuda::adaptive" && LINES.with_borrow(Option::is_some)
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        LINES.with_borrow(|lines| {
            if let Some(lines) = lines {
                event.record(&mut Fields(&mut lines.lock().unwrap()));
            }
        });
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Fields<'a>(&'a mut Vec<String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "entry" {
            self.0.push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}
