//! Flows that run, and flows whose tasks fail.

use std::process::Stdio;

use crate::harness::Place;

const PYTHON: &str = r#"
import os, sys

class Opaque:
    def __init__(self, n):
        self.n = n

def inc(x):
    return x + 1

def total(xs, scale=1):
    return sum(xs) * scale

def words(text):
    return text.split()

def shout(text):
    print("shouting", text)
    print("to stderr", file=sys.stderr)
    return text.upper()

def make(n):
    return Opaque(n)

def take(o):
    return o.n

def numbers():
    return [0.5, float("nan"), float("-inf")]

def shown(x):
    return str(x)

def raw(n):
    return b"\xff\x00\n" * n

def boom(x):
    return 1 // x
"#;

fn place(flow: &str) -> Place {
    Place::new(&[("mod.py", PYTHON), ("flow.yaml", flow)])
}

const SUM: &str = r#"
runner: {cluster_kwargs: {n_workers: 2, threads_per_worker: 1}}
params: {n: 10}
tasks:
  incs:  {python: "mod:inc", map: {x: {range: "{{ n }}"}}}
  total: {python: "mod:total", args: [$incs], kwargs: {scale: 2}}
result: $total
"#;

#[test]
fn the_result_is_on_stdout_and_nothing_else() {
    let place = place(SUM);
    let ended = place.remuda(&["run", "flow.yaml"]);
    ended.code(0).says(&["11 tasks done in ", "; cluster closed\n"]);
    assert_eq!(ended.out, "110\n");
    assert!(!ended.err.contains('\u{1b}'), "escape codes without a terminal: {:?}", ended.err);
    let quiet = place.remuda(&["run", "flow.yaml", "--quiet", "--param", "n=4", "--kwarg", "n_workers=1"]);
    assert_eq!((quiet.code(0).out.as_str(), quiet.err.as_str()), ("20\n", ""));
}

#[test]
fn text_is_raw_and_json_is_asked_for() {
    let place =
        place("tasks:\n  a: {command: [printf, 'x\\ny']}\n  b: {command: [echo, '{{ 1 + 1 }}']}\nresult: {a: $a, all: [$b, null]}\n");
    assert_eq!(place.remuda(&["run", "flow.yaml", "--json"]).code(0).out, "{\"a\":\"x\\ny\",\"all\":[\"2\",null]}\n");
    assert!(place.remuda(&["run", "flow.yaml"]).code(0).out.starts_with("{\n  \"a\": \"x\\ny\",\n"));
    let text = self::place("tasks:\n  a: {command: [printf, 'x\\ny']}\nresult: $a\n");
    assert_eq!(text.remuda(&["run", "flow.yaml"]).code(0).out, "x\ny\n");
    let none = self::place("tasks:\n  a: {command: [touch, made]}\n");
    assert_eq!(none.remuda(&["run", "flow.yaml"]).code(0).out, "");
    assert!(none.path().join("made").exists(), "a task that nobody reads runs all the same");
}

#[test]
fn python_objects_pass_between_tasks_and_maps_follow_results() {
    let ended = place(
        r#"
runner: {cluster_kwargs: {n_workers: 2}}
tasks:
  text:   {command: [echo, one two three]}
  words:  {python: "mod:words", args: [$text]}
  shouts: {python: "mod:shout", map: {text: $words}}
  object: {python: "mod:make", args: [7]}
  number: {python: "mod:take", args: [$object]}
result: [$shouts, $number]
"#,
    )
    .remuda(&["run", "flow.yaml", "--json"]);
    ended.code(0).says(&["shouts | shouting two\n", "shouts | to stderr\n"]);
    assert_eq!(ended.out, "[[\"ONE\",\"TWO\",\"THREE\"],7]\n");
}

#[test]
fn a_result_that_has_no_plain_form_is_shown_by_type_and_repr() {
    let place = place("tasks:\n  a: {python: 'mod:make', args: [3]}\nresult: $a\n");
    let ended = place.remuda(&["run", "flow.yaml"]);
    assert!(ended.code(0).out.starts_with("<mod.Opaque object at"), "{}", ended.out);
    ended.says(&["note: the result is a Python object of type mod.Opaque: what is written is its text\n"]);
    place.remuda(&["run", "flow.yaml", "--json"]).code(1).says(&["flow.yaml:2:3: a", "`mod.Opaque` has no plain form", "`--output text`"]);
    place.remuda(&["run", "flow.yaml", "--output", "arrow"]).code(1).says(&["`mod.Opaque` is no table"]);
    let inside = self::place("tasks:\n  a: {python: 'mod:make', args: [3]}\nresult: [$a]\n");
    inside.remuda(&["run", "flow.yaml"]).code(1).says(&["flow.yaml:2:3: a", "`mod.Opaque` has no plain form", "hint: ", "`result: $task`"]);
}

/// Stand for the real ones: what is tested is who asks whom for what.
const PANDAS: &str = r#"
class DataFrame:
    def __repr__(self):
        return "   a\n0  1"

def read(rows):
    return DataFrame()
"#;

const PYARROW: &str = r#"
class Table:
    @classmethod
    def from_pandas(cls, frame):
        table = cls()
        table.schema = type(frame).__name__
        return table

class BufferOutputStream:
    data = b""
    def getvalue(self):
        return self.data

class ipc:
    class new_stream:
        def __init__(self, sink, schema):
            self.sink = sink
        def __enter__(self):
            return self
        def write_table(self, table):
            self.sink.data += b"\xff\xff\xff\xff" + table.schema.encode()
        def __exit__(self, *_):
            pass
"#;

#[test]
fn a_table_is_written_as_arrow_or_as_text() {
    let flow = "tasks:\n  a: {python: 'pandas:read', args: [3]}\nresult: $a\n";
    let place = Place::new(&[("pandas.py", PANDAS), ("pyarrow.py", PYARROW), ("flow.yaml", flow)]);
    let piped = place.remuda(&["run", "flow.yaml"]);
    assert_eq!(piped.code(0).raw, b"\xff\xff\xff\xffDataFrame");
    piped.says(&["note: the result is a pandas.DataFrame: what is written is an Arrow IPC stream\n"]);
    assert_eq!(place.remuda(&["run", "flow.yaml", "--output", "text"]).code(0).out, "   a\n0  1\n");
    assert_eq!(place.remuda(&["run", "flow.yaml", "--output", "table.arrow"]).code(0).out, "");
    assert_eq!(std::fs::read(place.path().join("table.arrow")).unwrap(), b"\xff\xff\xff\xffDataFrame");
    place.remuda(&["run", "flow.yaml", "--output", "json"]).code(1).says(&["`pandas.DataFrame` has no plain form"]);
    let alone = Place::new(&[("pandas.py", PANDAS), ("pyarrow.py", "raise ImportError('not today')"), ("flow.yaml", flow)]);
    alone.remuda(&["run", "flow.yaml", "--output", "t.arrow"]).code(1).says(&["pip install pyarrow"]);
    assert_eq!(alone.remuda(&["run", "flow.yaml"]).code(0).out, "   a\n0  1\n");
}

#[test]
fn the_result_goes_where_it_is_told_to() {
    let place = place(SUM);
    assert_eq!(place.remuda(&["run", "flow.yaml", "--output", "sum.json"]).code(0).out, "");
    assert_eq!(std::fs::read_to_string(place.path().join("sum.json")).unwrap(), "110\n");
    place.remuda(&["run", "flow.yaml", "--output", "no/such/sum"]).code(2).says(&["--output no/such/sum: there is no such directory"]);
    place.remuda(&["run", "flow.yaml", "--json", "--output", "text"]).code(2).says(&["one of them says how"]);
    place.remuda(&["run", "flow.yaml", "--output", "arrow"]).code(1).says(&["neither a table"]);
}

#[test]
fn bytes_are_written_as_they_are_and_are_base64_in_json() {
    let place = place("tasks:\n  a: {python: 'mod:raw', args: [3]}\nresult: $a\n");
    assert_eq!(place.remuda(&["run", "flow.yaml"]).code(0).raw, b"\xff\x00\n\xff\x00\n\xff\x00\n", "no line end is added");
    let json = place.remuda(&["run", "flow.yaml", "--json"]);
    assert_eq!(json.code(0).out, "\"/wAK/wAK/wAK\"\n");
    json.says(&["note: bytes at result: JSON has no such thing, so text in base64 is written\n"]);
    let tree = self::place("tasks:\n  a: {python: 'mod:raw', map: {n: [1, 0]}}\nresult: {all: $a}\n");
    let ended = tree.remuda(&["run", "flow.yaml", "--json"]);
    assert_eq!(ended.code(0).out, "{\"all\":[\"/wAK\",\"\"]}\n");
    ended.says(&["note: bytes at result.all[0], result.all[1]: "]);
    let quiet = tree.remuda(&["run", "flow.yaml", "--json", "--quiet"]);
    assert_eq!((quiet.code(0).out.as_str(), quiet.err.as_str()), ("{\"all\":[\"/wAK\",\"\"]}\n", ""));
}

#[test]
fn a_number_that_json_has_not_is_null_and_said() {
    let flow = "tasks:\n  a: {python: 'mod:numbers'}\n  b: {python: 'mod:shown', map: {x: $a}}\nresult: {a: $a, b: $b}\n";
    let ended = place(flow).remuda(&["run", "flow.yaml", "--json"]);
    assert_eq!(ended.code(0).out, "{\"a\":[0.5,null,null],\"b\":[\"0.5\",\"nan\",\"-inf\"]}\n");
    ended.says(&["note: NaN or an infinity at result.a[1], result.a[2]: JSON has no such thing, so null is written\n"]);
}

#[test]
fn a_command_that_writes_no_text_is_told_of_binary_which_helps() {
    let flow = |binary: &str| format!("tasks:\n  a: {{command: [printf, 'x\\377\\n']{binary}}}\nresult: $a\n");
    let ended = place(&flow("")).remuda(&["run", "flow.yaml"]);
    ended.code(1).says(&["error: flow.yaml:2:3: a: task `a` ", "not UTF-8", "`binary: true`"]);
    assert_eq!(place(&flow(", binary: true")).remuda(&["run", "flow.yaml"]).code(0).raw, b"x\xff\n");
}

#[test]
fn a_python_error_comes_with_its_traceback() {
    let ended = place("tasks:\n  a: {python: 'mod:boom', map: {x: [1, 0]}}\n  b: {python: 'mod:total', args: [$a]}\nresult: $b\n")
        .remuda(&["run", "flow.yaml"]);
    ended.code(1).says(&[
        "error: flow.yaml:2:3: a[1]: task `a` ",
        "ZeroDivisionError",
        "  | Traceback (most recent call last):\n",
        "return 1 // x",
        "1 task done, 1 failed, 1 not run because of that in ",
    ]);
    assert_eq!(ended.out, "");
    assert_eq!(ended.err.matches("Traceback").count(), 1, "told once:\n{}", ended.err);
}

#[test]
fn what_goes_wrong_before_the_function_runs_is_told_once_and_without_our_frames() {
    let wrong = place("tasks:\n  a: {python: 'mod:inc', kwargs: {y: 1}}\nresult: $a\n").remuda(&["run", "flow.yaml"]);
    wrong.code(1).says(&["TypeError: inc() got an unexpected keyword argument 'y'"]);
    assert_eq!(wrong.err.matches("TypeError").count(), 1, "told once:\n{}", wrong.err);
    let flow = "tasks:\n  a: {python: 'broken:f'}\nresult: $a\n";
    let broken = Place::new(&[("broken.py", "def f(x:\n    return 1\n"), ("flow.yaml", flow)]).remuda(&["run", "flow.yaml"]);
    broken.code(1).says(&["SyntaxError", "broken.py\", line 1\n", "  |     def f(x:\n"]);
    assert!(!broken.err.contains("importlib"), "not the user's frames:\n{}", broken.err);
}

#[test]
fn a_failed_command_shows_what_it_wrote() {
    let ended = place("tasks:\n  a: {command: [sh, -c, 'echo why >&2; exit 7']}\n").remuda(&["run", "flow.yaml"]);
    ended.code(1).says(&["a: task `a`", "7", "why"]);
    let missing = place("tasks:\n  a: {command: [no-such-program]}\n").remuda(&["run", "flow.yaml"]);
    missing.code(1).says(&["no-such-program"]);
}

#[test]
fn retries_are_counted() {
    let flow = "tasks:\n  a: {command: [sh, -c, 'test -e once || { touch once; exit 1; }'], annotations: {retries: 1}}\n";
    place(flow).remuda(&["run", "flow.yaml"]).code(0).says(&["1 task done, 1 retried in "]);
}

#[test]
fn a_directory_is_relative_to_the_flow_file() {
    let place = place("tasks:\n  here: {command: [pwd]}\n  there: {command: [pwd], cwd: sub}\nresult: [$here, $there]\n");
    std::fs::create_dir_all(place.path().join("sub/flows")).unwrap();
    std::fs::create_dir_all(place.path().join("sub/flows/sub")).unwrap();
    std::fs::rename(place.path().join("flow.yaml"), place.path().join("sub/flows/flow.yaml")).unwrap();
    let ended = place.remuda(&["run", "sub/flows/flow.yaml", "--json"]);
    let real = place.path().canonicalize().unwrap();
    assert_eq!(ended.code(0).out, format!("[\"{0}\",\"{0}/sub/flows/sub\"]\n", real.display()));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = place("tasks:\n  a: {command: [seq, '100000']}\nresult: $a\n");
    let mut child = place.command(&["run", "flow.yaml", "--quiet"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn without_python_only_python_tasks_suffer() {
    let place = place("tasks:\n  a: {command: [/bin/echo, fine]}\nresult: $a\n").env("PATH", "/nowhere");
    assert_eq!(place.remuda(&["run", "flow.yaml"]).code(0).out, "fine\n");
    let python = self::place("tasks:\n  a: {python: 'mod:inc', args: [1]}\n").env("PATH", "/nowhere");
    let ended = python.remuda(&["run", "flow.yaml"]);
    assert_ne!(ended.code, Some(0));
    ended.says(&["python3"]);
}

#[test]
fn a_task_that_no_worker_can_run_says_why_at_once_and_once() {
    let place = place(
        r#"
runner: {cluster_kwargs: {n_workers: 1, resources: {GPU: 1}}}
tasks:
  gpu: {command: [echo, $i], map: {i: {range: 5}}, annotations: {resources: {GPU: 2}}}
"#,
    );
    let ended = place.remuda(&["run", "flow.yaml"]);
    let told = "no worker offers GPU=2; the most any offers is GPU=1 (and 4 more for the same reason)\n";
    ended.code(1);
    assert_eq!(ended.err.matches(told).count(), 1, "{}", ended.err);
    assert!(!ended.err.contains("waiting"), "{}", ended.err);
}

#[test]
fn a_task_whose_worker_may_yet_come_says_once_for_whom_it_waits() {
    let place = place(
        r#"
runner: {cluster_kwargs: {n_workers: 1, no_workers_timeout: 1s}}
tasks:
  far: {command: [echo, $i], map: {i: {range: 5}}, annotations: {workers: 7}}
"#,
    );
    let ended = place.remuda(&["run", "flow.yaml"]);
    ended.code(1);
    assert_eq!(ended.err.matches("far: waiting: no worker is called `7`; there are 0-0\n").count(), 1, "{}", ended.err);
    assert!(!place.remuda(&["run", "flow.yaml", "--quiet"]).err.contains("waiting"));
}

#[test]
fn a_cluster_without_workers_is_told_once_for_all_tasks() {
    let place = place(
        r#"
runner: {cluster_kwargs: {n_workers: 0, no_workers_timeout: 2s}}
tasks:
  a: {command: ["true"]}
  b: {command: ["true"]}
  c: {command: ["true"]}
"#,
    );
    let ended = place.remuda(&["run", "flow.yaml"]);
    ended.code(1);
    let waits: Vec<_> = ended.err.lines().filter(|line| line.contains("waiting")).collect();
    assert_eq!(waits, ["waiting: the cluster has no workers, and none are wanted"]);
}

#[test]
fn a_lost_worker_is_told_once() {
    // The second attempt needs the next worker, so the loss of the first has been told by then.
    let flow = "runner: {cluster_kwargs: {n_workers: 1, threads_per_worker: 1}}\ntasks:\n  a: {command: [sh, -c, 'test -e once || { touch once; kill -9 $PPID; sleep 60; }']}\n";
    let ended = place(flow).remuda(&["run", "flow.yaml"]);
    ended.code(0).says(&["worker 0-0 was lost: signal 9 (SIGKILL)\n"]);
    assert!(!ended.err.contains("WARN"), "{}", ended.err);
    place(flow).env("REMUDA_LOG", "warn").remuda(&["run", "flow.yaml"]).code(0).says(&["WARN", "worker lost"]);
}

#[test]
fn other_failures_follow_the_first() {
    let place = place(
        r#"
tasks:
  a: {python: "mod:boom", args: [0]}
  b: {command: [sh, -c, 'printf "one\ntwo\n" >&2; exit 3']}
  c: {command: [sh, -c, "exit $0", $n], map: {n: {range: 13}}}
  d: {python: "mod:total", args: [$b]}
"#,
    );
    let ended = place.remuda(&["run", "flow.yaml"]);
    ended.code(1).says(&[", 14 failed, 1 not run because of that"]);
    let from = ended.err.find("\nalso:\n").unwrap();
    insta::assert_snapshot!(ended.err[from..].trim());
}
