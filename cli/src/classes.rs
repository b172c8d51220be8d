//! `remuda classes`.

use std::{fmt::Write, process::ExitCode};

use remuda::Registry;
use serde_json::{Map, Value, json};

use crate::{args::ClassesCommand, failure::Failure, output};

pub(crate) fn classes(as_json: bool, command: Option<&ClassesCommand>) -> Result<ExitCode, Failure> {
    let registry = Registry::with_builtins();
    if let Some(ClassesCommand::Describe { path }) = command {
        let class = registry.describe(path)?;
        return match class.schema {
            Some(schema) if as_json => output::json(&schema),
            Some(schema) => output::write(describe(&class.path, &schema).as_bytes()),
            None => output::write(format!("{}: takes any keyword arguments\n", class.path).as_bytes()),
        };
    }
    let classes = registry.classes();
    if as_json {
        let list = classes.iter().map(|c| json!({"path": c.path, "aliases": c.aliases, "kwargs": c.schema})).collect();
        return output::json(&Value::Array(list));
    }
    let mut text = String::new();
    for class in &classes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {}", class.path, class.summary.as_deref().unwrap_or_default());
        if !class.aliases.is_empty() {
            let _ = writeln!(text, "  also: {}", class.aliases.join(", "));
        }
    }
    text += "\nremuda classes describe PATH shows a class's keyword arguments.\n";
    output::write(text.as_bytes())
}

/// One paragraph for each keyword argument.
fn describe(path: &str, schema: &Value) -> String {
    let mut text = format!("{path}\n");
    // What follows the first paragraph is for those who write Rust.
    if let Some(about) = schema["description"].as_str().and_then(|about| about.split("\n\n").next()) {
        text += &format!("{about}\n");
    }
    let empty = Map::new();
    for (name, field) in schema["properties"].as_object().unwrap_or(&empty) {
        let default = match &field["default"] {
            Value::Null => String::new(),
            value => format!(" = {value}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{name}: {}{default}", kind(schema, field));
        for line in field["description"].as_str().unwrap_or_default().lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// `integer or null`.
fn kind(root: &Value, field: &Value) -> String {
    if let Some(target) = field["$ref"].as_str().and_then(|r| root.pointer(r.trim_start_matches('#'))) {
        return kind(root, target);
    }
    if let Some(choices) = field["anyOf"].as_array().or(field["oneOf"].as_array()) {
        return choices.iter().map(|choice| kind(root, choice)).collect::<Vec<_>>().join(" or ");
    }
    if let Some(values) = field["enum"].as_array() {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
    }
    match &field["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any value".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_reads_as_a_list_of_arguments() {
        let schema = json!({
            "description": "Workers here. And more.",
            "properties": {
                "n_workers": {"type": ["integer", "null"], "description": "How many.\nAt least 1.", "default": null},
                "processes": {"type": "boolean", "default": true},
                "memory": {"$ref": "#/$defs/Memory"},
            },
            "$defs": {"Memory": {"anyOf": [{"type": "string"}, {"enum": ["auto", 0]}]}},
        });
        let expected = "a::B\nWorkers here. And more.\n\nn_workers: integer or null\n    How many.\n    At least 1.\n\nprocesses: boolean = true\n\nmemory: string or \"auto\" or 0\n";
        assert_eq!(describe("a::B", &schema), expected);
    }
}
