//! A task as the core describes it, made ready for Dask. What cannot be run there is refused here.

use std::sync::Arc;

use remuda_core::{
    error::{Error, ErrorKind},
    host,
    task::{Annotations, Input, Key, TaskSpec, Work},
    value::Template,
};

use super::wire::{Def, Program};

/// A task, ready for the books.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) key: Key,
    pub(crate) name: Arc<str>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) after: Vec<Input>,
    /// Or why it cannot be run.
    pub(crate) call: Result<Call, Error>,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) def: Arc<Def>,
    pub(crate) args: Template,
    pub(crate) gate: Gate,
}

/// What has to be known of the workers before a task goes there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Gate {
    /// Nothing.
    None,
    /// That their task hosts are of this build.
    Host,
    /// That they have this module.
    Module { name: String, path: Arc<[String]> },
}

/// Remembers the last definition: a map's tasks share theirs.
#[derive(Debug, Default)]
pub(crate) struct Translator {
    named_host: Option<Arc<Program>>,
    last: Option<(Arc<Annotations>, Arc<Def>)>,
}

impl Translator {
    pub(crate) fn new(named_host: Option<Arc<Program>>) -> Self {
        Self { named_host, last: None }
    }

    pub(crate) fn translate(&mut self, spec: TaskSpec) -> Submission {
        let TaskSpec { key, name, inputs, after, work, annotations } = spec;
        let call = check(&annotations).and_then(|()| self.call(&name, work, &annotations));
        Submission { key, name, inputs, after, call }
    }

    fn call(&mut self, name: &Arc<str>, work: Work, annotations: &Arc<Annotations>) -> Result<Call, Error> {
        let (args, gate) = match &work {
            Work::Rust(work) => {
                let text = || format!("the call of `{}` cannot leave this process", work.function);
                let args = work.args.clone().ok_or_else(|| {
                    Error::new(ErrorKind::Unserializable, text()).with_hint("use a `#[remuda::task]` with serialisable arguments")
                })?;
                (args, Gate::Host)
            }
            Work::Python(work) => {
                let module = work.target.split(':').next().unwrap_or_default().to_owned();
                (work.args.clone(), Gate::Module { name: module, path: work.path.clone() })
            }
            Work::Command(work) => (work.call.clone(), Gate::None),
        };
        // Where only some workers are meant, what the others lack is of no interest.
        let is_anywhere = annotations.workers.is_empty() && annotations.resources.is_empty();
        let gate = if is_anywhere { gate } else { Gate::None };
        Ok(Call { def: self.def(name, &work, annotations), args, gate })
    }

    fn def(&mut self, name: &str, work: &Work, annotations: &Arc<Annotations>) -> Arc<Def> {
        let build = || match work {
            Work::Rust(work) => {
                let signature = host::tasks().find(|task| task.name == work.function).map(|task| task.signature);
                let def = Def::annotated("rust", name, Arc::default(), annotations);
                Def {
                    function: Some(work.function.to_string()),
                    signature,
                    host: Some(super::check::program(self.named_host.as_ref())),
                    ..def
                }
            }
            Work::Python(work) => {
                Def { target: Some(work.target.clone()), ..Def::annotated("python", name, work.path.clone(), annotations) }
            }
            Work::Command(_) => Def::annotated("command", name, Arc::default(), annotations),
        };
        if let Some((same, def)) = &self.last
            && (Arc::ptr_eq(same, annotations) || same == annotations)
            && fits(def, name, work)
        {
            return def.clone();
        }
        let def = Arc::new(build());
        self.last = Some((annotations.clone(), def.clone()));
        def
    }
}

fn fits(def: &Def, name: &str, work: &Work) -> bool {
    // Names are mostly plain words, so that this is the comparison of two texts.
    let named = def.name == name || def.name == super::wire::key_name(name);
    named
        && match work {
            Work::Rust(work) => def.function.as_deref() == Some(&work.function),
            Work::Python(work) => def.target.as_ref() == Some(&work.target) && def.path == work.path,
            Work::Command(_) => def.kind == "command",
        }
}

/// What annotations may ask of Dask.
fn check(annotations: &Annotations) -> Result<(), Error> {
    if annotations.slots > 1 {
        let text = format!("`slots: {}`: a task of Dask's takes one thread of its worker, not several", annotations.slots);
        let hint = "give the workers a resource (`resources: {CPU: 4}`) and let the task ask for it";
        return Err(Error::new(ErrorKind::Unsupported, text).with_hint(hint));
    }
    for (name, value) in &annotations.resources {
        if !value.is_finite() || *value < 0.0 {
            let text = format!("`resources.{name}`: {value} is not a positive number");
            return Err(Error::new(ErrorKind::ConfigInvalid, text));
        }
    }
    Ok(())
}
