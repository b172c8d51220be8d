//! The Dask that is here, for tests that need one: skipped by name where there is none; with `dask` in `REMUDA_REQUIRE` that is a failure.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::Place;

fn program() -> PathBuf {
    env::var_os("REMUDA_DASK").unwrap_or_else(|| "dask".into()).into()
}

pub(crate) fn dask() -> Command {
    let mut command = Command::new(program());
    command.stdin(Stdio::null()).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    command
}

pub(crate) fn can_run(test: &str) -> bool {
    let there = dask().args(["scheduler", "--version"]).output().is_ok_and(|output| output.status.success());
    let required = env::var("REMUDA_REQUIRE").unwrap_or_default();
    assert!(there || required.split(',').all(|word| word.trim() != "dask"), "REMUDA_REQUIRE names dask, and `dask` cannot be run");
    if !there {
        println!("skipped {test}: `dask` cannot be run");
    }
    there
}

/// Where that Dask is the one that is found, with a state directory `state`.
pub(crate) fn place(files: &[(&str, &str)]) -> Place {
    let place = Place::new(files);
    let state = place.path().join("state");
    let place = place.env("REMUDA_STATE_DIR", state.to_str().unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    match program().parent().filter(|parent| *parent != Path::new("")) {
        Some(directory) => place.env("PATH", &format!("{}:{}", directory.display(), env::var("PATH").unwrap())),
        None => place,
    }
}
