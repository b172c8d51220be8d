//! `remuda config show`.

use std::process::ExitCode;

use crate::{args::ConfigCommand, failure::Failure, output, screen::Screen, validate};

pub(crate) fn show(command: &ConfigCommand, screen: &Screen) -> Result<ExitCode, Failure> {
    let ConfigCommand::Show { origin, flow, params, settings } = command;
    let config = settings.loader(validate::layer(flow.as_ref(), params)).load()?;
    config.notices.iter().for_each(|notice| screen.lines(&format!("note: {notice}")));
    output::write(config.show(*origin).as_bytes())
}
