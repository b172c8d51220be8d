//! Standard output: data and nothing else.

use std::{
    io::{self, Write},
    process::ExitCode,
};

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
pub(crate) fn result(value: &Value, compact: bool) -> String {
    match value {
        Value::String(text) if !compact => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{end}")
        }
        value if compact => format!("{value}\n"),
        value => format!("{value:#}\n"),
    }
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
}
