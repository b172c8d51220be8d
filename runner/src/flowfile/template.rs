//! Templates in strings, by minijinja: `{{ n }}`, `{{ n * 2 }}`, `{% if .. %}`.
//!
//! They see the params, and in a mapped task the element, and nothing else: no environment, no files. What is not defined is a mistake.

use std::collections::{BTreeMap, HashSet};

use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;

use crate::config::did_you_mean;

pub(super) type Scope = BTreeMap<String, Value>;

/// Renders strings.
pub(super) struct Templates {
    env: Environment<'static>,
    globals: HashSet<String>,
}

impl Templates {
    pub(super) fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let globals = env.globals().map(|(name, _)| name.to_owned()).collect();
        Self { env, globals }
    }

    /// The names a template uses, beside minijinja's own.
    pub(super) fn names(&self, text: &str) -> Result<HashSet<String>, String> {
        let names = match whole_expression(text) {
            Some(expression) => self.env.compile_expression(expression).map_err(|e| words(&e))?.undeclared_variables(false),
            None => self.env.template_from_str(text).map_err(|e| words(&e))?.undeclared_variables(false),
        };
        Ok(names.into_iter().filter(|name| !self.globals.contains(name)).collect())
    }

    /// A string that is one expression keeps the value's type; anything else becomes text.
    pub(super) fn render(&self, text: &str, scope: &Scope) -> Result<Value, String> {
        let mut missing: Vec<_> = self.names(text)?.into_iter().filter(|name| !scope.contains_key(name)).collect();
        missing.sort();
        if let Some(name) = missing.first() {
            return Err(undefined(name, scope));
        }
        match whole_expression(text) {
            Some(expression) => {
                let value =
                    self.env.compile_expression(expression).and_then(|e| e.eval(minijinja::value::Serde(scope))).map_err(|e| words(&e))?;
                if value.is_undefined() {
                    return Err(format!("`{expression}` is not defined"));
                }
                serde_json::to_value(&value).map_err(|e| format!("`{expression}` is no plain value: {e}"))
            }
            None => self.env.render_str(text, minijinja::value::Serde(scope)).map(Value::String).map_err(|e| words(&e)),
        }
    }
}

fn undefined(name: &str, scope: &Scope) -> String {
    let near = did_you_mean(name, scope.keys().map(String::as_str));
    match near.is_empty() {
        true => format!("`{name}` is not defined: add it under `params`"),
        false => format!("`{name}` is not defined{near}"),
    }
}

pub(super) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|begin| text.contains(begin))
}

/// `n * 2` of `{{ n * 2 }}`.
fn whole_expression(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    let plain = !["{{", "}}", "{%", "{#"].iter().any(|mark| inner.contains(mark));
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    plain.then(|| inner.strip_suffix('-').unwrap_or(inner).trim())
}

fn words(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_expression_keeps_its_type() {
        let scope =
            Scope::from([("n".into(), json!(3)), ("xs".into(), json!([1, "a"])), ("s".into(), json!("text")), ("größe".into(), json!(2))]);
        let templates = Templates::new();
        let cases = [
            ("{{ n }}", json!(3)),
            ("{{n*2}}", json!(6)),
            ("{{- n -}}", json!(3)),
            ("{{ xs }}", json!([1, "a"])),
            ("{{ xs[1] }}", json!("a")),
            ("{{ s }}", json!("text")),
            ("{{ n > 2 }}", json!(true)),
            ("{{ range(n) }}", json!([0, 1, 2])),
            ("a{{ n }}", json!("a3")),
            ("{{ n }}{{ n }}", json!("33")),
            ("{% if n > 2 %}many{% else %}few{% endif %}", json!("many")),
            ("<{{ s }}>", json!("<text>")),
            ("hé {{ größe }} 日本", json!("hé 2 日本")),
        ];
        for (text, expected) in cases {
            assert_eq!(templates.render(text, &scope), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_a_mistake() {
        let scope = Scope::from([("count".into(), json!(3)), ("o".into(), json!({}))]);
        let error = |text: &str| Templates::new().render(text, &scope).unwrap_err();
        assert_eq!(error("{{ cuont }}"), "`cuont` is not defined, did you mean `count`?");
        assert_eq!(error("x{{ zz }}"), "`zz` is not defined: add it under `params`");
        assert_eq!(error("{{ o.x }}"), "`o.x` is not defined");
        assert!(error("{{ count").starts_with("syntax error"), "{}", error("{{ count"));
        assert!(error("{{ env('HOME') }}").contains("`env`"), "{}", error("{{ env('HOME') }}"));
    }
}
