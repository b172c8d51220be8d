//! Python functions and commands as tasks.

use std::{borrow::Cow, fmt, marker::PhantomData, path::PathBuf};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    value::{Codec, Template},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    arg::{AllowFailure, ArgInput},
    call::{Call, Form},
    future::TaskFuture,
};

/// An argument of a Python function or a command: anything serde can write, a future, or a list or map of these at any depth.
///
/// ```
/// # use remuda::{TaskFuture, Tree};
/// # fn f(part: TaskFuture<f64>) {
/// let plain = Tree::from([1, 2, 3]);
/// let mixed = Tree::map([("parts", Tree::list([Tree::from(&part), Tree::from(0.5)])), ("name", "x".into())]);
/// # drop((plain, mixed));
/// # }
/// ```
pub struct Tree {
    inputs: Vec<ArgInput>,
    template: Result<Template>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} inputs)", self.inputs.len())
    }
}

impl Tree {
    fn begin(template: &Template) -> Self {
        Self { inputs: Vec::new(), template: Ok(template.clone()) }
    }

    fn add(&mut self, part: Self) {
        self.inputs.extend(part.inputs);
        match (&mut self.template, part.template) {
            (Ok(template), Ok(part)) => {
                template.append(&part);
            }
            (Ok(_), Err(error)) => self.template = Err(error),
            (Err(_), _) => {}
        }
    }

    fn text(&mut self, text: &str) {
        if let Ok(template) = &mut self.template {
            template.text(text);
        }
    }

    fn input<T>(future: &TaskFuture<T>, allow_failure: bool) -> Self {
        Self { inputs: vec![ArgInput { held: future.held.clone(), allow_failure }], template: Ok(Template::hole()) }
    }

    /// A list.
    pub fn list<A: Into<Self>>(items: impl IntoIterator<Item = A>) -> Self {
        let items: Vec<Self> = items.into_iter().map(Into::into).collect();
        let mut tree = Self::begin(Template::new().array(items.len()));
        items.into_iter().for_each(|item| tree.add(item));
        tree
    }

    /// A map with text keys (a dictionary in Python).
    pub fn map<K: AsRef<str>, A: Into<Self>>(items: impl IntoIterator<Item = (K, A)>) -> Self {
        let items: Vec<(K, Self)> = items.into_iter().map(|(key, item)| (key, item.into())).collect();
        let mut tree = Self::begin(Template::new().map(items.len()));
        for (key, item) in items {
            tree.text(key.as_ref());
            tree.add(item);
        }
        tree
    }

    /// Raw bytes (`bytes` in Python); a `Vec<u8>` is a list of numbers.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        struct Raw<'a>(&'a [u8]);
        impl Serialize for Raw<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.0)
            }
        }
        Raw(bytes).into()
    }
}

impl<T: Serialize> From<T> for Tree {
    fn from(value: T) -> Self {
        Self { inputs: Vec::new(), template: Template::value(&value) }
    }
}

impl<T> From<&TaskFuture<T>> for Tree {
    fn from(future: &TaskFuture<T>) -> Self {
        Self::input(future, false)
    }
}

impl<T> From<TaskFuture<T>> for Tree {
    fn from(future: TaskFuture<T>) -> Self {
        Self::input(&future, false)
    }
}

impl<T> From<AllowFailure<T>> for Tree {
    fn from(AllowFailure(future): AllowFailure<T>) -> Self {
        Self::input(&future, true)
    }
}

/// A call of the Python function `target`, as `pkg.mod:func` (or `pkg.mod:Class.method`), in a resident interpreter of the worker.
///
/// Between Python tasks any picklable object passes; it becomes a plain value only when it reaches Rust, a command or the driver.
///
/// ```
/// # async fn f(flow: remuda::Flow) -> anyhow::Result<()> {
/// let frame = flow.submit(remuda::python("reports:load").arg("2026").call::<()>());
/// let mean: f64 = flow.submit(remuda::python("reports:mean").arg(&frame).kwarg("column", "x").call()).await?;
/// # Ok(())
/// # }
/// ```
pub fn python(target: impl Into<String>) -> PythonCall {
    PythonCall { target: target.into(), args: Vec::new(), kwargs: Vec::new(), path: Vec::new() }
}

/// See [`python`].
#[derive(Debug)]
#[must_use = "a call does nothing until it is submitted"]
pub struct PythonCall {
    target: String,
    args: Vec<Tree>,
    kwargs: Vec<(String, Tree)>,
    path: Vec<String>,
}

impl PythonCall {
    /// The next positional argument.
    pub fn arg(mut self, value: impl Into<Tree>) -> Self {
        self.args.push(value.into());
        self
    }

    /// A keyword argument.
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Into<Tree>) -> Self {
        self.kwargs.push((name.into(), value.into()));
        self
    }

    /// A directory to find modules in, before the interpreter's own path.
    pub fn path(mut self, directory: impl Into<PathBuf>) -> Self {
        self.path.push(directory.into().to_string_lossy().into_owned());
        self
    }

    /// The call, with the type that its result is read as (`serde_json::Value` for any plain one).
    pub fn call<T: Serialize + DeserializeOwned + Send + Sync + 'static>(self) -> Call<T> {
        let mut all = Tree::list([Tree::list(self.args), Tree::map(self.kwargs)]);
        let inputs = std::mem::take(&mut all.inputs);
        let args = valid_target(&self.target).and(all.template);
        // For people: the function, not the module.
        let name = self.target.rsplit(':').next().unwrap_or(&self.target).to_owned();
        let form = Form::Python { target: self.target.into(), args, path: self.path.into() };
        Call::new(Cow::Owned(name), inputs, Codec::serde(), form)
    }
}

/// `pkg.mod:func`, with a hint for what people write instead.
pub(crate) fn valid_target(target: &str) -> Result<()> {
    let names = |part: &str| part.split('.').all(is_name);
    match target.split_once(':') {
        Some((module, function)) if names(module) && names(function) => Ok(()),
        _ => {
            let error = Error::new(ErrorKind::ConfigInvalid, format!("`{target}` is not a Python function: expected `pkg.mod:func`"));
            Err(match target.rsplit_once('.') {
                Some((module, function)) if !target.contains(':') && names(target) => {
                    error.with_hint(format!("write `{module}:{function}`"))
                }
                _ => error,
            })
        }
    }
}

/// What Python takes for a name (and minijinja, for templates).
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// A program to run, with its arguments, on a worker. Its result is what it wrote to standard output, as text without the line ends at its
/// end (what `$(..)` gives in a shell). An exit code other than 0 is a failure, with the end of standard error.
///
/// ```
/// # async fn f(flow: remuda::Flow) -> anyhow::Result<()> {
/// let listing = flow.submit(remuda::command(["ls", "-1"]).cwd("data").call());
/// let count: String = flow.submit(remuda::command(["wc", "-l"]).stdin(&listing).call()).await?;
/// # Ok(())
/// # }
/// ```
pub fn command<A: Into<Tree>>(argv: impl IntoIterator<Item = A>) -> CommandCall<String> {
    let argv = argv.into_iter().map(Into::into).collect();
    CommandCall { argv, env: Vec::new(), cwd: None, stdin: None, binary: false, result: PhantomData }
}

/// See [`command`].
#[derive(Debug)]
#[must_use = "a call does nothing until it is submitted"]
pub struct CommandCall<T> {
    argv: Vec<Tree>,
    env: Vec<(String, Tree)>,
    cwd: Option<String>,
    stdin: Option<Tree>,
    binary: bool,
    result: PhantomData<fn() -> T>,
}

impl CommandCall<String> {
    /// The result is the bytes as they were written.
    pub fn binary(self) -> CommandCall<serde_bytes::ByteBuf> {
        let Self { argv, env, cwd, stdin, .. } = self;
        CommandCall { argv, env, cwd, stdin, binary: true, result: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> CommandCall<T> {
    /// A further argument. What is not text is written as JSON.
    pub fn arg(mut self, value: impl Into<Tree>) -> Self {
        self.argv.push(value.into());
        self
    }

    /// A variable added to the worker's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<Tree>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The working directory. Default: the driver's.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into().to_string_lossy().into_owned());
        self
    }

    /// What it reads: text and bytes as they are, anything else as JSON. Default: nothing.
    pub fn stdin(mut self, value: impl Into<Tree>) -> Self {
        self.stdin = Some(value.into());
        self
    }

    /// The call.
    pub fn call(self) -> Call<T> {
        let empty = self.argv.is_empty();
        let mut members =
            vec![("argv", Tree::list(self.argv)), ("env", Tree::map(self.env)), ("cwd", self.cwd.into()), ("binary", self.binary.into())];
        members.extend(self.stdin.map(|stdin| ("stdin", stdin)));
        let mut all = Tree::map(members);
        let inputs = std::mem::take(&mut all.inputs);
        let call =
            if empty { Err(Error::new(ErrorKind::ConfigInvalid, "a command needs at least the program's name")) } else { all.template };
        Call::new(Cow::Borrowed("command"), inputs, Codec::serde(), Form::Command { call })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_checked_where_they_are_written() {
        assert!(valid_target("pkg.mod:func").is_ok());
        assert!(valid_target("mod:Class.method").is_ok());
        let error = valid_target("pkg.mod.func").unwrap_err();
        assert_eq!(error.hint(), Some("write `pkg.mod:func`"));
        assert!(valid_target("größe._x:f1").is_ok());
        for wrong in ["", "mod", ":f", "mod:", "a b:f", "m:f:g", "m..n:f", "m:f()", "m.py:1f", "a-b:f"] {
            assert!(valid_target(wrong).is_err(), "{wrong}");
        }
    }
}
