//! Collects the layers from where they are.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use remuda_core::error::{Error, ErrorKind};

use super::{
    RunConfig,
    document::{Document, Format, KeyPath, NoDocument},
    draft::Draft,
    layer::{Flags, Layer},
    merge::draft,
};

/// The names under which a configuration file is found.
const NAMES: [&str; 3] = ["remuda.yaml", "remuda.yml", "remuda.toml"];

/// Collects layers: file, flow file, environment, flags, code.
///
/// It reads nothing by itself but the file; the environment is handed over, so that a test can make its own.
#[derive(Clone, Default)]
pub struct Loader {
    env: BTreeMap<String, String>,
    dir: Option<PathBuf>,
    file: Option<PathBuf>,
    file_flag: Option<String>,
    flow: Layer,
    flags: Layer,
    code: Layer,
}

impl fmt::Debug for Loader {
    /// Of the environment the names: anything may be in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { env, dir, file, file_flag, flow, flags, code } = self;
        let names: Vec<_> = env.keys().collect();
        let mut shown = f.debug_struct("Loader");
        shown.field("env", &names).field("dir", dir).field("file", file).field("file_flag", file_flag);
        shown.field("flow", flow).field("flags", flags).field("code", code).finish()
    }
}

impl Loader {
    /// No file, no environment, nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The environment of this process, and the configuration file of its working directory, if there is one.
    #[must_use]
    pub fn from_process() -> Self {
        Self::new().process_env().dir(".")
    }

    /// The environment of this process.
    #[must_use]
    pub fn process_env(self) -> Self {
        self.env(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// The environment to read.
    #[must_use]
    pub fn env(mut self, env: BTreeMap<String, String>) -> Self {
        self.env = env;
        self
    }

    /// Where to look for `remuda.yaml` or `remuda.toml`.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The file to read instead of looking for one.
    #[must_use]
    pub fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// The flag that names the file, for messages: `--config`, unless the program has another.
    #[must_use]
    pub fn file_flag(mut self, flag: impl Into<String>) -> Self {
        self.file_flag = Some(flag.into());
        self
    }

    /// The `runner` part of a flow file: above the configuration file, below the environment.
    #[must_use]
    pub fn flow(mut self, layer: Layer) -> Self {
        self.flow = layer;
        self
    }

    /// The command line.
    #[must_use]
    pub fn flags(mut self, flags: &Flags) -> Self {
        self.flags = Layer::from_flags(flags);
        self
    }

    /// What the program itself says: it wins.
    #[must_use]
    pub fn code(mut self, layer: Layer) -> Self {
        self.code = layer;
        self
    }

    /// Reads and merges. What the class thinks of its keywords is not asked: [`Builder::load`](crate::Builder::load) tells that, too.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`]: a file that is named but cannot be read, two files where one is looked for, a file that is not
    /// what it should be, and everything [`resolve`](super::resolve) finds.
    pub fn load(self) -> Result<RunConfig, Error> {
        self.draft().whole()
    }

    pub(crate) fn draft(self) -> Draft {
        let file = match self.find().map_err(NoDocument::from).and_then(|path| path.as_deref().map(read).transpose()) {
            Ok(Some(document)) => Layer::from_document(&document, &KeyPath::default()),
            Ok(None) => Layer::new(),
            Err(unread) => Layer::unread(unread.mistakes),
        };
        let [prefect, env] = Layer::from_environment(&self.env);
        draft(vec![file, self.flow, prefect, env, self.flags, self.code])
    }

    fn find(&self) -> Result<Option<PathBuf>, Error> {
        if let Some(file) = &self.file {
            return Ok(Some(file.clone()));
        }
        let Some(dir) = &self.dir else { return Ok(None) };
        let dir = if dir == Path::new(".") { Path::new("") } else { dir };
        let found: Vec<_> = NAMES.iter().map(|name| dir.join(name)).filter(|path| path.is_file()).collect();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => {
                let names: Vec<_> = several.iter().map(|p| p.display().to_string()).collect();
                Err(Error::new(ErrorKind::ConfigInvalid, format!("several configuration files: {}", names.join(", ")))
                    .with_hint(format!("keep one, or name one with {}", self.file_flag.as_deref().unwrap_or("--config"))))
            }
        }
    }
}

/// Reads a file as YAML, or as TOML if its name says so.
pub(crate) fn read(path: &Path) -> Result<Document, NoDocument> {
    let text = fs::read_to_string(path).map_err(|e| {
        let text = match e.kind() {
            io::ErrorKind::NotFound => format!("{}: no such file", path.display()),
            io::ErrorKind::InvalidData => format!("{}: not a text in UTF-8", path.display()),
            _ => format!("{}: cannot be read", path.display()),
        };
        let error = Error::new(ErrorKind::ConfigInvalid, text);
        if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) { error } else { error.with_source(e) }
    })?;
    Document::read(path.display().to_string(), text, Format::of(path))
}
