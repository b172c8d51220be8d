//! What to say about a name that nobody knows.

use remuda_core::{
    error::{Error, ErrorKind},
    kwargs::did_you_mean,
};

use super::{Registry, python};

impl Registry {
    /// `target`: what `path` is an alias of, or `path` itself.
    pub(crate) fn unknown(&self, path: &str, target: &str) -> Error {
        let error = |text: String| Error::new(ErrorKind::UnknownClass, text);
        if path.trim().is_empty() {
            return error("the name of the cluster class is empty".into()).with_hint(self.known());
        }
        if target != path {
            return error(format!("`{path}` is the class `{target}`, which this build does not have")).with_hint(self.known());
        }
        if self.aliases.values().any(|planned| planned == path) {
            return error(format!("this build does not have the cluster class `{path}`")).with_hint(self.known());
        }
        let unknown = || error(format!("no cluster class is called `{path}`"));
        if let Some(right) = self.of_that_type(path) {
            return unknown().with_hint(format!("write `{right}`"));
        }
        let names = self.entries.keys().chain(self.aliases.keys()).map(String::as_str);
        if let Some(guess) = did_you_mean(path, names) {
            return unknown().with_hint(format!("{guess} {}", self.known()));
        }
        if python::is_dotted(path) {
            let text = format!("`{path}` looks like a Python class, and this build runs cluster classes written in Rust only");
            return error(text).with_hint(self.known());
        }
        unknown().with_hint(self.known())
    }

    /// The class whose type is the last part of the path, whatever stands before and between: `LocalCluster`, `local.LocalCluster`.
    fn of_that_type(&self, path: &str) -> Option<&str> {
        let plain = |name: &str| name.rsplit([':', '.', '/']).next().unwrap_or_default().replace(['_', '-'], "").to_lowercase();
        let mut same = self.entries.keys().filter(|known| plain(known) == plain(path));
        let first = same.next()?;
        same.next().is_none().then_some(first)
    }

    fn known(&self) -> String {
        let names: Vec<_> = self.entries.keys().map(|path| format!("`{path}`")).collect();
        if names.is_empty() { "no class is registered".into() } else { format!("known are {}", names.join(", ")) }
    }
}
