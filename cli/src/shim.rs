//! `remuda shim`.

use std::process::ExitCode;

use remuda::dask::shim::{Preload, preload_text};

use crate::{failure::Failure, output};

pub(crate) fn shim(plain: bool) -> Result<ExitCode, Failure> {
    let text = preload_text(if plain { Preload::Plain } else { Preload::Line });
    output::write(format!("{}\n", text.trim_end()).as_bytes())
}
