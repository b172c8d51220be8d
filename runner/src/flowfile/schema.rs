//! The form of a flow file, as a JSON Schema: for the checks here, and for editors.

use std::collections::BTreeMap;

use remuda_core::{duration::Seconds, kwargs::schema_of};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

/// A flow: tasks, how they hang together, and where they run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code)] // read by schemars
pub(super) struct FlowFile {
    /// What the flow is about. For people.
    description: Option<String>,
    /// Where it runs; the same keys as in `remuda.yaml`.
    runner: Option<Runner>,
    /// Names and values for templates: `{{ name }}`. One without a value must be given by `--param`.
    params: Option<Map<String, Value>>,
    /// The tasks by name. A name that stands as `$name` in another task is its result.
    tasks: Map<String, Value>,
    /// What the flow comes to: any tree, with `$task` in it.
    result: Value,
}

/// Where a flow runs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code)]
struct Runner {
    /// Path of a cluster class: `local::LocalCluster`.
    cluster_class: Option<String>,
    /// Keyword arguments of the class.
    cluster_kwargs: Option<Map<String, Value>>,
    /// Bounds of adaptive scaling.
    adapt_kwargs: Option<Map<String, Value>>,
    /// Keyword arguments of the client.
    client_kwargs: Option<Map<String, Value>>,
    /// A scheduler that runs already, instead of a class: `tcp://host:port`.
    address: Option<String>,
}

/// A task: a Python function or a command, once or for each element of something.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = {
    "unmapped": "not needed: what is not under `map` is the same for every element",
    "depends_on": "write `after`",
    "shell": "write `command: [sh, -c, \"...\"]`",
}))]
#[allow(dead_code)]
pub(super) struct Task {
    /// A Python function: `pkg.mod:func`. Modules are looked for beside the flow file first.
    python: Option<String>,
    /// A program and its arguments. Its result is what it writes to standard output, without the line ends at the end.
    command: Option<Vec<Value>>,
    /// Positional arguments of the function.
    args: Option<Vec<Value>>,
    /// Keyword arguments of the function.
    kwargs: Option<Map<String, Value>>,
    /// One call for each element: a name, and what it runs over: a list, `{range: n}` or `$task`. Several run side by side.
    map: Option<Map<String, Value>>,
    /// Tasks that must have ended well first, without giving a result.
    after: Option<Vec<String>>,
    /// How it is run.
    pub(super) annotations: Option<Annotations>,
    /// The name to show. Default: the task's own.
    name: Option<String>,
    /// Variables added to the command's environment.
    env: Option<Map<String, Value>>,
    /// The command's working directory, relative to the flow file. Default: where `remuda` was started.
    cwd: Option<String>,
    /// What the command reads from standard input: text as it is, anything else as JSON.
    stdin: Option<Value>,
    /// The command's result is the bytes as it writes them, not text. Default: false.
    binary: Option<bool>,
}

/// How a task is run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Annotations {
    /// Higher first, across all workers. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// How often it is tried again after it failed by itself. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How often it is tried again after its worker was lost. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_failures: Option<u32>,
    /// Resources held while it runs, on one worker: `{GPU: 1}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("additionalProperties" = {"type": "number", "minimum": 0}))]
    pub resources: Option<BTreeMap<String, f64>>,
    /// Slots held while it runs. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Workers it may run on, by name, index or host: one, or a list.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "workers")]
    #[schemars(schema_with = "workers_schema")]
    pub workers: Option<Vec<String>>,
    /// `workers` is a preference, not a condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_other_workers: Option<bool>,
    /// How long one attempt may run: seconds, or a text like "5s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
}

/// A worker as Dask takes it: its name, which may be a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Worker {
    Name(String),
    Number(i64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Workers {
    One(Worker),
    Several(Vec<Worker>),
}

fn workers_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": ["string", "integer", "array", "null"], "items": {"type": ["string", "integer"]}})
}

/// All forms come to a list of names.
fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let name = |worker| match worker {
        Worker::Name(name) => name,
        Worker::Number(number) => number.to_string(),
    };
    Ok(Option::<Workers>::deserialize(deserializer)?.map(|workers| match workers {
        Workers::One(worker) => vec![name(worker)],
        Workers::Several(workers) => workers.into_iter().map(name).collect(),
    }))
}

/// The JSON Schema of flow files, for editors: wherever a number or a truth value may stand, a template may.
#[must_use]
pub fn schema() -> Value {
    let mut root = schema_of::<FlowFile>();
    let mut task = schema_of::<Task>();
    let mut definitions = take_definitions(&mut root);
    definitions.extend(take_definitions(&mut task));
    strip_meta(&mut task);
    task["oneOf"] = json!([{"required": ["python"]}, {"required": ["command"]}]);
    let mut source = json!({"description": "What a map runs over.", "anyOf": [
        {"type": "array"},
        {"type": "object", "required": ["range"], "additionalProperties": false, "properties": {"range": {"anyOf": [
            {"type": "integer"}, {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}]}}},
        {"type": "string", "pattern": "^(\\$[A-Za-z_]|\\{\\{)"},
    ]});
    for part in definitions.values_mut().chain([&mut task, &mut source]) {
        allow_templates(part);
    }
    task["properties"]["map"]["additionalProperties"] = json!({"$ref": "#/$defs/Source"});
    root["properties"]["tasks"]["additionalProperties"] = json!({"$ref": "#/$defs/Task"});
    root["patternProperties"] = json!({"^x-": {"description": "Ignored: a place for YAML anchors."}});
    root["required"] = json!(["tasks"]);
    definitions.insert("Task".into(), task);
    definitions.insert("Source".into(), source);
    root["$defs"] = Value::Object(definitions);
    root["title"] = "Remuda flow file".into();
    root
}

fn take_definitions(schema: &mut Value) -> Map<String, Value> {
    match schema.as_object_mut().and_then(|o| o.shift_remove("$defs")) {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    }
}

fn strip_meta(schema: &mut Value) {
    if let Some(members) = schema.as_object_mut() {
        members.shift_remove("$schema");
        members.shift_remove("title");
        members.shift_remove("x-refused");
    }
}

/// `{"type": "integer"}` becomes that or a text with a template.
fn allow_templates(schema: &mut Value) {
    let scalar = |name: &Value| matches!(name.as_str(), Some("integer" | "number" | "boolean"));
    let named = match &schema["type"] {
        Value::Array(names) => names.iter().any(scalar) && !names.iter().any(|n| n == "string"),
        name => scalar(name),
    };
    if named {
        let template = json!({"type": "string", "pattern": "\\{\\{.*\\}\\}"});
        let Value::Object(mut plain) = std::mem::take(schema) else { return };
        let mut either = Map::new();
        for key in ["description", "default"] {
            if let Some(value) = plain.shift_remove(key) {
                either.insert(key.into(), value);
            }
        }
        either.insert("anyOf".into(), json!([Value::Object(plain), template]));
        *schema = Value::Object(either);
        return;
    }
    match schema {
        Value::Object(members) => members.iter_mut().filter(|(key, _)| *key != "x-refused").for_each(|(_, value)| allow_templates(value)),
        Value::Array(items) => items.iter_mut().for_each(allow_templates),
        _ => {}
    }
}
