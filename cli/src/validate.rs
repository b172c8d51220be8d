//! `remuda validate`: everything that can be checked without creating anything.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use remuda::{
    TaskRunner,
    config::{Layer, Mode, RunConfig},
    flowfile::FlowPlan,
};

use crate::{
    args::{Settings, ValidateArgs},
    failure::Failure,
    output,
    screen::Screen,
};

/// What is left to do is to run it.
pub(crate) struct Checked {
    pub(crate) plan: FlowPlan,
    pub(crate) config: RunConfig,
    pub(crate) runner: TaskRunner,
}

/// Flow file and configuration, with the mistakes of both.
pub(crate) fn check(flow: &Path, params: &[String], settings: &Settings) -> Result<Checked, Failure> {
    let (layer, plan) = FlowPlan::read_parts(flow, params);
    // The layer has the plan's mistakes.
    let (runner, config) = TaskRunner::builder().load(settings.loader(layer))?;
    Ok(Checked { plan: plan?, config, runner })
}

pub(crate) fn validate(args: &ValidateArgs, screen: &Screen) -> Result<ExitCode, Failure> {
    let checked = check(&args.flow, &args.params, &args.settings)?;
    checked.config.notices.iter().for_each(|notice| screen.lines(&format!("note: {notice}")));
    let mut text = if args.plan { checked.plan.to_string() } else { String::new() };
    text += &format!("{}: {}\n", args.flow.display(), sentence(&checked));
    output::write(text.as_bytes())
}

fn sentence(checked: &Checked) -> String {
    let tasks = &checked.plan.tasks;
    let known: usize = tasks.iter().filter_map(|task| task.calls).sum();
    let calls = match tasks.iter().any(|task| task.calls.is_none()) {
        true => format!("at least {known} calls"),
        false => format!("{known} calls"),
    };
    let place = match &checked.config.mode {
        Mode::Temporary { class, .. } => class.clone(),
        Mode::Existing { address } => address.to_string(),
    };
    format!("ok: {} tasks, {calls}, on {place}", tasks.len())
}

/// The `runner` part of a flow file, for `remuda config show`.
pub(crate) fn layer(flow: Option<&PathBuf>, params: &[String]) -> Layer {
    flow.map_or_else(Layer::new, |flow| FlowPlan::read_parts(flow, params).0)
}
