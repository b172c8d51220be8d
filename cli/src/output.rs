//! Standard output, or a file: data and nothing else.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use remuda::{Form, flowfile::FlowResult};
use serde_json::Value;

use crate::failure::Failure;

/// Writes `bytes`. A reader that has gone away (`| head`) wants no more: that is no failure.
pub(crate) fn write(bytes: &[u8]) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure { code: 3, text: format!("error: the result cannot be written to standard output: {error}") }),
    }
}

/// JSON to read.
pub(crate) fn json(value: &Value) -> Result<ExitCode, Failure> {
    write(format!("{value:#}\n").as_bytes())
}

/// A flow's result: text as it is, anything else as JSON; with `compact` one line of JSON.
fn result(value: &Value, compact: bool) -> String {
    match value {
        Value::String(text) if !compact => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{end}")
        }
        value if compact => format!("{value}\n"),
        value => format!("{value:#}\n"),
    }
}

/// `--output` and `--json`: where a flow's result goes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// `None`: standard output.
    file: Option<PathBuf>,
    form: Wanted,
    /// It was asked for, so that something is written also where a flow has no result.
    asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Plain as it is, a table as a table, anything else as text.
    Any,
    Json,
    Arrow,
    Text,
}

impl Output {
    /// Reads the flags; checks what can be checked before the flow runs.
    pub(crate) fn parse(output: Option<&str>, json: bool) -> Result<Self, Failure> {
        let (file, form) = match output {
            None | Some("-") => (None, Wanted::Any),
            Some("arrow") => (None, Wanted::Arrow),
            Some("json") => (None, Wanted::Json),
            Some("text") => (None, Wanted::Text),
            Some(file) => (Some(PathBuf::from(not_a_slip(file)?)), by_name(Path::new(file))),
        };
        let form = match (json, form) {
            (true, Wanted::Any | Wanted::Json) => Wanted::Json,
            (true, _) => return Err(usage(&format!("--json beside --output {}: one of them says how", output.unwrap_or_default()))),
            (false, form) => form,
        };
        if let Some(file) = &file {
            check(file)?;
        }
        Ok(Self { file, form, asked: json || output.is_some() })
    }

    /// What the result may be, best first.
    pub(crate) fn forms(&self) -> Vec<Form> {
        match self.form {
            // A table is no sight for a terminal.
            Wanted::Any if self.file.is_none() && io::stdout().is_terminal() => vec![Form::Plain, Form::Text],
            Wanted::Any => vec![Form::Plain, Form::Arrow, Form::Text],
            Wanted::Json => vec![Form::Plain],
            Wanted::Arrow => vec![Form::Arrow],
            Wanted::Text => vec![Form::Plain, Form::Text],
        }
    }

    /// Whether something is to be written for a flow without a result.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked
    }

    /// What would have helped, where the result has none of the forms that are asked for.
    pub(crate) fn advice(&self) -> &'static str {
        match self.form {
            Wanted::Json | Wanted::Arrow => "`--output text` writes what Python's `repr` says, where the result is one task's",
            Wanted::Any | Wanted::Text => {
                "a result that is one task's, as in `result: $task`, is written as its text; inside a list it is not"
            }
        }
    }

    /// Writes the result. Answers with notes about what it is, where it is not what one may think.
    pub(crate) fn put(&self, result: FlowResult) -> Result<(ExitCode, Vec<String>), Failure> {
        let mut notes = Vec::new();
        match (result.type_name(), result.text()) {
            (Some(name), Some(_)) => notes.push(format!("the result is a Python object of type {name}: what is written is its text")),
            (Some(name), None) if self.form == Wanted::Any => {
                notes.push(format!("the result is a {name}: what is written is an Arrow IPC stream"));
            }
            _ => {}
        }
        let json = self.form == Wanted::Json;
        let bytes = match result.bytes() {
            Some(bytes) if !json => return Ok((self.write(bytes)?, notes)),
            _ => {
                let (value, odd) = result.into_json();
                notes.extend(odd);
                self::result(&value, json)
            }
        };
        Ok((self.write(bytes.as_bytes())?, notes))
    }

    fn write(&self, bytes: &[u8]) -> Result<ExitCode, Failure> {
        let Some(file) = &self.file else { return write(bytes) };
        std::fs::write(file, bytes)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| Failure { code: 3, text: format!("error: the result cannot be written to {}: {error}", file.display()) })
    }
}

fn by_name(file: &Path) -> Wanted {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("arrow" | "arrows") => Wanted::Arrow,
        Some("json") => Wanted::Json,
        _ => Wanted::Any,
    }
}

/// A bare word that is nearly a form's name is more likely that than a file's.
fn not_a_slip(file: &str) -> Result<&str, Failure> {
    let near = if file.contains(['.', '/']) { None } else { remuda::did_you_mean(file, ["arrow", "json", "text"]) };
    match near {
        Some(near) => Err(usage(&format!("--output {file}: no form; {near}\n  hint: for a file of that name write `./{file}`"))),
        None => Ok(file),
    }
}

/// A flow of an hour should not end with a file that cannot be written.
fn check(file: &Path) -> Result<(), Failure> {
    let refuse = |why: &str| Err(usage(&format!("--output {}: {why}", file.display())));
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    if file.is_dir() {
        return refuse("it is a directory");
    }
    if !folder.is_dir() {
        return refuse("there is no such directory");
    }
    Ok(())
}

fn usage(text: &str) -> Failure {
    Failure { code: 2, text: format!("error: {text}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_raw_and_the_rest_is_json() {
        assert_eq!(result(&json!("a\nb"), false), "a\nb\n");
        assert_eq!(result(&json!("a\n"), false), "a\n");
        assert_eq!(result(&json!("a\n"), true), "\"a\\n\"\n");
        assert_eq!(result(&json!({"a": [1]}), true), "{\"a\":[1]}\n");
        assert_eq!(result(&json!([1]), false), "[\n  1\n]\n");
        assert_eq!(result(&json!(9900), false), "9900\n");
    }

    #[test]
    fn the_flags_say_where_and_how() {
        let parse = |output: Option<&str>, json| Output::parse(output, json).map(|output| (output.file, output.form)).map_err(|e| e.text);
        assert_eq!(parse(None, false), Ok((None, Wanted::Any)));
        assert_eq!(parse(None, true), Ok((None, Wanted::Json)));
        assert_eq!(parse(Some("-"), true), Ok((None, Wanted::Json)));
        assert_eq!(parse(Some("arrow"), false), Ok((None, Wanted::Arrow)));
        assert_eq!(parse(Some("x.arrow"), false), Ok((Some("x.arrow".into()), Wanted::Arrow)));
        assert_eq!(parse(Some("x.json"), false), Ok((Some("x.json".into()), Wanted::Json)));
        assert_eq!(parse(Some("picture.png"), false), Ok((Some("picture.png".into()), Wanted::Any)));
        assert_eq!(parse(Some("result"), false), Ok((Some("result".into()), Wanted::Any)));
        assert_eq!(parse(Some("./arow"), false), Ok((Some("./arow".into()), Wanted::Any)));
        for (slip, form) in [("arow", "arrow"), ("JSON", "json"), ("txt", "text")] {
            let told = parse(Some(slip), false).unwrap_err();
            assert!(told.contains(&format!("did you mean `{form}`?")) && told.contains(&format!("`./{slip}`")), "{told}");
        }
        assert!(parse(Some("text"), true).unwrap_err().contains("one of them"));
        assert!(parse(Some("."), false).unwrap_err().contains("a directory"));
        assert!(parse(Some("no/such/x"), false).unwrap_err().contains("no such directory"));
    }
}
