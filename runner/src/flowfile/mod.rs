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

use std::{collections::HashSet, path::Path};

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

    /// The same, with the file's `runner` part beside it: also where the plan has mistakes. These are in the layer, too, so that whoever puts
    /// it on top of others tells those of the flow and of the cluster together.
    ///
    /// # Errors
    /// Of the plan: as [`FlowPlan::read`].
    pub fn read_parts(path: &Path, params: &[String]) -> (Layer, Result<Self, Error>) {
        let given = Given::read(params);
        let document = match config::read(path) {
            Ok(document) => document,
            Err(unread) => {
                let mut layer = Layer::unread(unread.mistakes);
                layer.mistakes.extend(given.mistakes);
                return (layer, Err(unread.error));
            }
        };
        let (runner, plan) = Self::parse_parts(&document, given);
        // What tasks are given must not depend on where their worker was started.
        let dir = path.parent().and_then(|dir| std::path::absolute(if dir == Path::new("") { Path::new(".") } else { dir }).ok());
        (runner, plan.map(|plan| Self { dir, ..plan }))
    }
}

/// What params were given.
#[derive(Default)]
struct Given {
    values: Map<String, Value>,
    /// Named without a value that can be read.
    broken: HashSet<String>,
    mistakes: Mistakes,
}

impl Given {
    /// As `--param` takes them.
    fn read(params: &[String]) -> Self {
        let mut given = Self::default();
        for text in params {
            match config::split_assignment(text) {
                Ok((keys, value)) => drop(given.values.insert(keys.join("."), value)),
                Err(error) => {
                    // `n:3` for `n=3`.
                    given.broken.insert(text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
                    given.mistakes.add("--param", "", error);
                }
            }
        }
        given
    }
}

#[cfg(test)]
mod tests;
