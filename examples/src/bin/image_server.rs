//! Starts the slow web server, runs a command beside it, and ends with it. `{server}` in an argument becomes the server's address.
//!
//!     cargo run -p remuda-examples --bin image_server -- remuda run examples/images.yaml --param server={server}
#![allow(clippy::print_stderr)]

use std::process::{Command, ExitCode};

use anyhow::Context;
use remuda_examples::image_server;

fn main() -> anyhow::Result<ExitCode> {
    let server = format!("http://{}", image_server()?);
    let argv: Vec<String> = std::env::args().skip(1).map(|arg| arg.replace("{server}", &server)).collect();
    let Some((program, args)) = argv.split_first() else {
        eprintln!("usage: image_server PROGRAM [ARGUMENT ..]");
        return Ok(ExitCode::from(2));
    };
    let status = Command::new(program).args(args).status().with_context(|| format!("`{program}` could not be run"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
