//! Puts layers on top of each other.

use std::fmt::Write;

use remuda_core::{
    adaptive::AdaptConfig,
    error::Error,
    kwargs::{Kwargs, is_secret, redacted},
};
use serde_json::{Map, Value};

use super::{
    Address, ClientConfig, DEFAULT_CLASS, Mode, RunConfig,
    client::read_scheduler_file,
    document::Step,
    draft::{Draft, add_placed, origin_of},
    layer::{Layer, Origin, Setting, type_name},
    mistakes::Mistakes,
    unread::Unread,
};

/// Lowest layer first.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`](remuda_core::error::ErrorKind::ConfigInvalid) with everything that is wrong in any layer, and with the result.
pub fn resolve(layers: Vec<Layer>) -> Result<RunConfig, Error> {
    draft(layers).whole()
}

/// The same as far as it goes, so that what else may be wrong can be told with it.
pub(crate) fn draft(layers: Vec<Layer>) -> Draft {
    let mut merge = Merge::default();
    for layer in layers {
        merge.put(layer);
    }
    merge.finish()
}

#[derive(Default)]
struct Merge {
    settings: Vec<Setting>,
    mistakes: Mistakes,
    notices: Vec<String>,
    unclear: bool,
    unread: Unread,
}

impl Merge {
    fn put(&mut self, layer: Layer) {
        self.clash(&layer);
        if let Some(origin) = layer.origin("cluster_class").or(layer.origin("address")) {
            let named = if layer.origin("address").is_some() { "address" } else { "cluster_class" };
            for old in self.settings.iter_mut().filter(|s| s.root() != "client_kwargs") {
                old.dropped.get_or_insert_with(|| format!("replaced by {named} from {origin}"));
            }
            self.unclear = false;
        }
        self.mistakes.extend(layer.mistakes);
        self.unclear |= layer.unclear;
        self.unread.put(layer.unread, &layer.settings);
        self.notices.extend(layer.notices);
        for setting in layer.settings {
            self.assign(setting);
        }
    }

    /// An address excludes the rest: inside a layer, and for kwargs alone that would be merged into it.
    fn clash(&mut self, layer: &Layer) {
        let rest = ["cluster_class", "cluster_kwargs", "adapt_kwargs"];
        let own = layer.origin("address");
        let below = self.live().find(|s| s.root() == "address").map(|s| &s.origin);
        let address = match (own, layer.origin("cluster_class")) {
            (Some(own), _) => own,
            (None, None) => match below {
                Some(below) => below,
                None => return,
            },
            (None, Some(_)) => return,
        };
        let others: Vec<_> = rest.iter().filter_map(|key| layer.origin(key).map(|origin| (*key, origin))).collect();
        if let Some((_, first)) = others.first() {
            let said: Vec<_> = others.iter().map(|(key, origin)| format!("`{key}` ({origin})")).collect();
            let text = format!(
                "`address` ({address}) means a cluster that runs already, so {} cannot stand beside it: keep one or the other",
                said.join(", ")
            );
            self.mistakes.add(first.to_string(), "", text);
        }
    }

    fn assign(&mut self, setting: Setting) {
        for old in self.settings.iter_mut().filter(|old| old.dropped.is_none()) {
            // An empty mapping only says that there is one; it takes nothing away.
            let replaces = old.key.0.starts_with(&setting.key.0) && !is_empty_map(&setting.value);
            if replaces || old.key == setting.key {
                old.dropped = Some(format!("overridden by {}", setting.origin));
            }
        }
        self.settings.push(setting);
    }

    fn live(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter().filter(|s| s.dropped.is_none())
    }

    /// The value of a `*_kwargs` key. `None`: nobody spoke of it, or it was set to null.
    fn kwargs(&mut self, root: &str) -> Option<Map<String, Value>> {
        let mut tree = None;
        let mut wrong = Mistakes::default();
        for setting in self.settings.iter().filter(|s| s.dropped.is_none() && s.root() == root && !s.value.is_null_at_root(s)) {
            let members = tree.get_or_insert_with(Map::new);
            let keys: Vec<&str> = setting.key.0[1..].iter().map(|s| if let Step::Key(key) = s { key.as_str() } else { "" }).collect();
            if let Err(text) = put(members, &keys, &setting.value) {
                wrong.add(setting.origin.to_string(), setting.key.to_string(), text);
            }
        }
        self.mistakes.extend(wrong);
        tree
    }

    fn finish(mut self) -> Draft {
        let kwargs = self.kwargs("cluster_kwargs").unwrap_or_default();
        let adapt = self.kwargs("adapt_kwargs").and_then(|kwargs| self.checked("adapt_kwargs", AdaptConfig::parse(to_kwargs(kwargs))));
        let client = self.kwargs("client_kwargs").unwrap_or_default();
        let elsewhere = self.unread.has("scheduler_file");
        let named = client.contains_key("scheduler_file") || elsewhere;
        let client = self.checked("client_kwargs", ClientConfig::read(to_kwargs(client), !self.unread.has("lease")));
        let text =
            |root: &str| self.live().find(|s| s.root() == root).and_then(|s| Some((s.value.as_str()?.trim().to_owned(), s.origin.clone())));
        let (class, address) = (text("cluster_class"), text("address"));
        let file = match &client {
            Some(client) if !elsewhere => self.scheduler_file(client, class.as_ref().or(address.as_ref()).map(|(_, origin)| origin)),
            _ => named.then_some(None),
        };
        let address = address.map(|(address, origin)| {
            let parsed = Address::parse(&address);
            parsed.map_err(|error| self.mistakes.add(origin.to_string(), "address", error)).ok()
        });
        let mode = match (class, address.or(file)) {
            // An address beside it is a mistake by now.
            (Some((class, _)), _) => Some(Mode::Temporary { class, kwargs: to_kwargs(kwargs), adapt }),
            // Whether its certificates are there only `client_kwargs` can tell.
            (None, Some(address)) => {
                address.filter(|_| client.is_some() && !self.unread.has("security")).map(|address| Mode::Existing { address })
            }
            (None, None) => {
                let class = DEFAULT_CLASS.to_owned();
                let setting =
                    Setting { key: ["cluster_class"].into(), value: class.clone().into(), origin: Origin::Default, dropped: None };
                self.settings.insert(0, setting);
                Some(Mode::Temporary { class, kwargs: to_kwargs(kwargs), adapt })
            }
        };
        self.client_notices(mode.as_ref());
        let mode = mode.filter(|_| !self.unclear);
        Draft { mode, client: client.unwrap_or_default(), settings: self.settings, notices: self.notices, mistakes: self.mistakes }
    }

    /// `Some`: a scheduler file says where the cluster is; `Some(None)`: and that cannot be read.
    fn scheduler_file(&mut self, client: &ClientConfig, named: Option<&Origin>) -> Option<Option<Address>> {
        let file = client.scheduler_file.as_deref()?;
        let place = origin_of(&self.settings, "client_kwargs", "scheduler_file").map(ToString::to_string).unwrap_or_default();
        let read = match named {
            Some(origin) => Err(format!("it names a scheduler that runs already, and {origin} names a cluster too: keep one or the other")),
            None => read_scheduler_file(file),
        };
        Some(read.map_err(|text| self.mistakes.add(place, "client_kwargs.scheduler_file", text)).ok())
    }

    /// The embedded engine runs in the driver, so there is no connection to be configured.
    fn client_notices(&mut self, mode: Option<&Mode>) {
        if !matches!(mode, Some(Mode::Temporary { class, .. }) if class == DEFAULT_CLASS) {
            return;
        }
        let keys = self.settings.iter().filter(|s| s.dropped.is_none() && s.root() == "client_kwargs" && s.key.0.len() > 1);
        let notices: Vec<_> =
            keys.map(|s| format!("{} ({}) has no meaning on the embedded engine: there is no connection", s.key, s.origin)).collect();
        self.notices.extend(notices);
    }

    fn checked<T>(&mut self, root: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                add_placed(&mut self.mistakes, &self.settings, root, &error);
                None
            }
        }
    }
}

trait NullAtRoot {
    fn is_null_at_root(&self, setting: &Setting) -> bool;
}

impl NullAtRoot for Value {
    /// `adapt_kwargs: null` takes back what lower layers said.
    fn is_null_at_root(&self, setting: &Setting) -> bool {
        self.is_null() && setting.key.0.len() == 1
    }
}

fn is_empty_map(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn to_kwargs(members: Map<String, Value>) -> Kwargs {
    members.into_iter().fold(Kwargs::new(), |kwargs, (key, value)| kwargs.with(key, value))
}

/// Sets `keys` below `members`, making the mappings on the way.
fn put(members: &mut Map<String, Value>, keys: &[&str], value: &Value) -> Result<(), String> {
    match keys {
        [] => Ok(()),
        [key] => {
            members.insert((*key).to_owned(), value.clone());
            Ok(())
        }
        [key, rest @ ..] => match members.entry(*key).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(below) => put(below, rest, value),
            other => Err(format!("`{key}` is a {}, so there is no `{}` in it", type_name(other), rest.join("."))),
        },
    }
}

pub(crate) fn show(config: &RunConfig, origins: bool) -> String {
    let mut lines = Vec::new();
    for setting in &config.settings {
        let has_members =
            config.settings.iter().any(|s| s.key != setting.key && s.key.0.starts_with(&setting.key.0) && s.origin_same(setting));
        if is_empty_map(&setting.value) && has_members {
            continue;
        }
        let secret = setting.key.0.iter().any(|step| matches!(step, Step::Key(key) if is_secret(key)));
        let value = if secret { "***".into() } else { redacted(&setting.value) };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let text = format!("{}: {value}", setting.key);
        match &setting.dropped {
            Some(why) if origins => lines.push((text, format!("{} (dropped: {why})", setting.origin))),
            Some(_) => {}
            None => lines.push((text, setting.origin.to_string())),
        }
    }
    let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0);
    lines.into_iter().fold(String::new(), |mut out, (text, origin)| {
        // Writing to a String cannot fail.
        let _ = if origins { writeln!(out, "{text:width$}  # {origin}") } else { writeln!(out, "{text}") };
        out
    })
}

impl Setting {
    /// Whether both were said by the same file, variable, flag or the code.
    fn origin_same(&self, other: &Self) -> bool {
        match (&self.origin, &other.origin) {
            (Origin::File(a), Origin::File(b)) => a.split(':').next() == b.split(':').next(),
            (a, b) => a == b,
        }
    }
}
