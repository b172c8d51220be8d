//! Flow files: a flow as data.
//!
//! ```
//! use remuda::{config::{Document, Format}, flowfile::FlowPlan};
//!
//! let text = r#"
//! params: {n: 100}
//! tasks:
//!   incs:  {python: "arith:inc", map: {x: {range: "{{ n }}"}}}
//!   total: {python: "arith:total", args: [$incs]}
//! result: $total
//! "#;
//! let plan = FlowPlan::parse(&Document::parse("flow.yaml", text, Format::Yaml)?, Default::default())?;
//! assert_eq!(plan.tasks[0].calls, Some(100));
//! # Ok::<(), remuda_core::error::Error>(())
//! ```
//!
//! Reading is pure: [`FlowPlan::parse`] makes a typed plan or tells every mistake with its line and column; nothing is created.
//! [`FlowPlan::run`] runs it on a [`crate::Flow`].

mod ending;
mod execute;
mod failed;
mod graph;
mod parse;
mod plain;
mod plan;
mod result;
mod schema;
mod template;

use std::path::Path;

use remuda_core::error::Error;
use serde_json::{Map, Value};

pub use self::{
    failed::{FlowFailed, OtherFailure},
    plan::{Expr, FlowPlan, Source, TaskPlan, Work},
    result::FlowResult,
    schema::{Annotations, schema},
};
use crate::config::{self, Layer, Mistakes};

impl FlowPlan {
    /// Reads a file (YAML, or TOML by its name). `params` are `name=value`, as `--param` takes them; values follow YAML's rules for scalars.
    ///
    /// # Errors
    /// As [`FlowPlan::parse`]; and when the file cannot be read, or a param is not of that form.
    pub fn read(path: &Path, params: &[String]) -> Result<Self, Error> {
        Self::read_parts(path, params).1
    }

    /// The same, with the file's `runner` part beside it: also where the plan has mistakes, so that those of the cluster can be told together
    /// with them. What is wrong with the part as such is among the plan's mistakes, and left out of the layer.
    ///
    /// # Errors
    /// Of the plan: as [`FlowPlan::read`].
    pub fn read_parts(path: &Path, params: &[String]) -> (Layer, Result<Self, Error>) {
        let (document, given) = match config::read(path).and_then(|document| Ok((document, assignments(params)?))) {
            Ok(read) => read,
            Err(error) => return (Layer::new(), Err(error)),
        };
        let (runner, plan) = Self::parse_parts(&document, given);
        // What tasks are given must not depend on where their worker was started.
        let dir = path.parent().and_then(|dir| std::path::absolute(if dir == Path::new("") { Path::new(".") } else { dir }).ok());
        (runner, plan.map(|plan| Self { dir, ..plan }))
    }
}

fn assignments(params: &[String]) -> Result<Map<String, Value>, Error> {
    let mut mistakes = Mistakes::default();
    let mut given = Map::new();
    for text in params {
        match config::split_assignment(text) {
            Ok((keys, value)) => drop(given.insert(keys.join("."), value)),
            Err(error) => mistakes.add("--param", "", error),
        }
    }
    mistakes.or(given)
}

#[cfg(test)]
mod tests;
