//! What is logged: `REMUDA_LOG` for the program, and the lines that tasks write.

use std::fmt::{self, Write};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::{explain::Explain, failure::Failure, screen::Screen};

/// What tasks print comes under this target.
const TASK_OUTPUT: &str = "remuda::task_output";

/// What the program tells in its own words: a worker that is lost, and why.
const TOLD: &str = "remuda_core::keeper::told=error";

fn is_task_output(meta: &Metadata<'_>) -> bool {
    meta.target() == TASK_OUTPUT
}

/// To be called once, before anything runs.
pub(crate) fn init(screen: &Screen, quiet: bool, explain: Option<Explain>) -> Result<(), Failure> {
    let directives = std::env::var("REMUDA_LOG").unwrap_or_default();
    let filter = EnvFilter::builder()
        .with_default_directive(if quiet { LevelFilter::ERROR } else { LevelFilter::WARN }.into())
        .parse(if directives.is_empty() { TOLD } else { &directives })
        .map_err(|e| Failure { code: 2, text: format!("error: environment REMUDA_LOG={directives}: {e}\n  hint: write a level (error, warn, info, debug, trace) or target=level, with commas between") })?;
    let log = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_writer(screen.clone())
        .with_filter(filter)
        .with_filter(filter_fn(|meta| !is_task_output(meta)));
    let tasks = TaskLines { screen: screen.clone() }.with_filter(filter_fn(is_task_output));
    let decisions = explain.map(|explain| explain.with_filter(filter_fn(Explain::takes)));
    // A second call can only come from a test; the first one's choice stays.
    let _ = tracing_subscriber::registry().with(log).with(tasks).with(decisions).try_init();
    Ok(())
}

/// Prints the lines of tasks, each with its task's name in front.
struct TaskLines {
    screen: Screen,
}

#[derive(Default)]
struct Line {
    task: String,
    text: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "task" | "name" => self.task = value.to_owned(),
            "message" | "line" => self.text = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

impl<S: Subscriber> Layer<S> for TaskLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.screen.lines(&format!("{} | {}", line.task, line.text));
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(Level::TRACE))
    }
}
