//! The `remuda` program: runs flow files, and says what it would do.
//!
//! Data goes to standard output, everything else to standard error; the exit code says how it went (`docs/exit-codes.md`).

mod args;
mod classes;
mod cluster;
mod configuration;
mod explain;
mod failure;
mod gc;
mod logging;
mod output;
mod progress;
mod run;
mod screen;
mod shim;
mod tally;
mod validate;
mod waits;
mod workers;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::{
    args::{Args, Command},
    failure::Failure,
    screen::Screen,
};

fn main() -> ExitCode {
    // First of all: worker processes are this program started again, and branch off here.
    remuda::init();
    let args = Args::parse();
    let screen = Screen::default();
    match dispatch(args, &screen) {
        Ok(code) => code,
        Err(failure) => {
            screen.lines(&failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(args: Args, screen: &Screen) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Run(args) => run::run(&args, screen),
        Command::Validate(args) => validate::validate(&args, screen),
        Command::Classes { json, command } => classes::classes(json, command.as_ref()),
        Command::Config { command } => configuration::show(&command, screen),
        Command::Cluster { command } => cluster::cluster(&command, screen),
        Command::ExplainScaling { log, all } => explain::explain(&log, all),
        Command::Gc { dry_run, json } => gc::gc(dry_run, json, screen),
        Command::Shim { plain } => shim::shim(plain),
        Command::Schema => output::json(&remuda::flowfile::schema()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "remuda", &mut script);
            output::write(&script)
        }
    }
}
