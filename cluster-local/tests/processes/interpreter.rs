//! Python functions.

use remuda_core::{
    engine::{Form, Shown},
    error::ErrorKind,
};

use super::*;

const MODULE: &str = r#"
import asyncio, dataclasses, enum, os, sys, time
from pathlib import Path
import datetime, decimal

@dataclasses.dataclass
class Point:
    x: int
    y: int

class Colour(enum.Enum):
    RED = "red"

def inc(x): return x + 1
def point(x, y=2): print("a line"); return Point(x, y)
def sum_of(p): return p.x + p.y
def many(): return {"t": (1, 2), "s": {3}, "p": Path("/a"), "c": Colour.RED, "d": datetime.date(2020, 1, 2), "n": decimal.Decimal("1.5")}
def opaque(): return sys.__class__
def unpicklable(): return lambda: 1
def local_point():
    Point = dataclasses.make_dataclass("Point", ["x"])
    return Point(1)
def boom(): return inner()
def inner(): return 1 / 0
def bye(): sys.exit(4)
def die(): os._exit(5)
def describe(e): return [type(e).__name__, e.state, e.message]
def sleep(): time.sleep(3600)
def stubborn():
    while True:
        try: time.sleep(3600)
        except KeyboardInterrupt: pass
async def later(x):
    await asyncio.sleep(0)
    return x
class Math:
    @staticmethod
    def twice(x): return 2 * x
number = 3
"#;

fn module() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tasks_of_test.py"), MODULE).unwrap();
    dir
}

#[tokio::test]
async fn python_functions_run_and_objects_pass_between_them() {
    let _alone = alone().await;
    let dir = module();
    let path = dir.path().to_str().unwrap();
    for threads in [false, true] {
        let mut stage = Stage::new(LocalConfig { processes: !threads, ..processes(1, 1) }).await;
        let one = stage.run(python("tasks_of_test:inc", &args(&[Template::value(&1).unwrap()]), path));
        let point = stage.submit(python("tasks_of_test:point", &args(&[Template::hole()]), path), &[one], Annotations::default());
        let sum = stage.submit(python("tasks_of_test:sum_of", &args(&[Template::hole()]), path), &[point], Annotations::default());
        assert_eq!(stage.json(sum).await, 4);
        assert!(matches!(stage.end(point).await, TaskState::Done(Value::Python(object)) if &*object.type_name == "tasks_of_test.Point"));
        let many = stage.run(python("tasks_of_test:many", &args(&[]), path));
        let values = stage.session.gather(&[point, many, sum]).await.unwrap();
        let plain: Vec<serde_json::Value> = values.iter().map(|value| decode(&value.to_plain().unwrap()).unwrap()).collect();
        let expected = json!({"t": [1, 2], "s": [3], "p": "/a", "c": "red", "d": "2020-01-02", "n": "1.5"});
        assert_eq!(plain, [json!({"x": 2, "y": 2}), expected, json!(4)]);
        for (target, expected) in [("tasks_of_test:later", json!(5)), ("tasks_of_test:Math.twice", json!(10))] {
            let key = stage.run(python(target, &args(&[Template::value(&5).unwrap()]), path));
            assert_eq!(stage.json(key).await, expected);
        }
        end(stage).await;
    }
}

#[tokio::test]
async fn plain_values_survive_the_way_through_python() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(1, 1)).await;
    let numbers = json!([0, 127, 128, 255, 256, 65536, 4294967296u64, u64::MAX, -1, -32, -33, -129, -32769, i64::MIN, 0.1, 1e300]);
    let texts = json!(["", "é".repeat(20), "x".repeat(300), "y".repeat(70_000), null, true, false]);
    let many: serde_json::Map<_, _> = (0..20).map(|n| (n.to_string(), json!([n]))).collect();
    let value = json!({"numbers": numbers, "texts": texts, "many": many, "empty": [[], {}], "long": vec![1; 70_000]});
    let key = stage.run(python("copy:copy", &args(&[Template::value(&value).unwrap()]), "/"));
    assert_eq!(stage.json(key).await, value);
    assert!(matches!(stage.end(key).await, TaskState::Done(Value::Plain(_))));
    let key = stage.run(python("operator:add", &args(&[Template::value(&u64::MAX).unwrap(), Template::value(&1).unwrap()]), "/"));
    let _ = stage.end(key).await;
    let error = stage.session.gather(&[key]).await.unwrap_err();
    assert!(error.to_string().contains("64 bits"), "{error}");
    end(stage).await;
}

#[tokio::test]
async fn an_object_is_converted_for_a_command() {
    let _alone = alone().await;
    let dir = module();
    let path = dir.path().to_str().unwrap();
    let mut stage = Stage::new(processes(1, 1)).await;
    let point = stage.run(python("tasks_of_test:point", &args(&[Template::value(&1).unwrap()]), path));
    let mut call = Template::new();
    call.map(2).text("argv").append(&Template::value(&["cat"]).unwrap()).text("stdin").append(&Template::hole());
    let work = remuda_core::task::Work::Command(remuda_core::task::CommandWork { call });
    let key = stage.submit(work, &[point], Annotations::default());
    assert_eq!(stage.json(key).await, r#"{"x":1,"y":2}"#);
    end(stage).await;
}

#[tokio::test]
async fn python_failures_name_type_message_and_the_users_frames() {
    let _alone = alone().await;
    let dir = module();
    let path = dir.path().to_str().unwrap();
    let mut stage = Stage::new(processes(1, 1)).await;
    let key = stage.run(python("tasks_of_test:boom", &args(&[]), path));
    match stage.error(key).await {
        TaskError::Failed(f) => {
            assert_eq!((f.kind.as_deref(), f.message.as_str()), (Some("ZeroDivisionError"), "division by zero"));
            let traceback = f.traceback.as_deref().unwrap();
            assert!(traceback.contains("in inner") && !traceback.contains("<string>"), "{traceback}");
        }
        other => panic!("{other:?}"),
    }
    let cases = [
        ("tasks_of_test:bye", "SystemExit: exit code 4"),
        ("tasks_of_test:ink", "has no `ink`; did you mean `inc`?"),
        ("tasks_of_test:number", "is not a function but of type `int`"),
        ("no_such_module:f", "there is no Python module `no_such_module`; searched in"),
        ("no_colon", "write `package.module:function`"),
    ];
    for (target, expected) in cases {
        let key = stage.run(python(target, &args(&[]), path));
        let error = stage.error(key).await;
        assert!(matches!(error, TaskError::Failed(_)) && error.to_string().contains(expected), "{target}: {error}");
    }
    let key = stage.run(python("tasks_of_test:opaque", &args(&[]), path));
    let _ = stage.end(key).await;
    let error = stage.session.gather(&[key]).await.unwrap_err();
    assert!(error.to_string().contains("`type`"), "{error}");
    let bad = stage.run(python("tasks_of_test:boom", &args(&[]), path));
    let work = python("tasks_of_test:describe", &args(&[Template::hole()]), path);
    let key = stage.submit_with(work, vec![Input { key: bad, allow_failure: true }], Annotations::default());
    assert_eq!(stage.json(key).await, json!(["TaskFailed", "failed", "ZeroDivisionError: division by zero"]));
    end(stage).await;
}

#[tokio::test]
async fn an_object_that_cannot_be_pickled_is_shown_and_goes_nowhere() {
    let _alone = alone().await;
    let dir = module();
    let path = dir.path().to_str().unwrap();
    let mut stage = Stage::new(processes(1, 1)).await;
    let key = stage.run(python("tasks_of_test:unpicklable", &args(&[]), path));
    let consumer = stage.submit(python("tasks_of_test:later", &args(&[Template::hole()]), path), &[key], Annotations::default());
    assert!(matches!(stage.end(key).await, TaskState::Done(_)), "the task has done its part");
    let refused = |error: &TaskError| matches!(error, TaskError::Refused(error) if error.kind() == ErrorKind::Unserializable);
    let error = stage.error(consumer).await;
    assert!(refused(&error) && error.to_string().contains("of type `function` cannot be given to another task"), "{error}");
    let error = stage.session.gather(&[key]).await.unwrap_err();
    assert!(refused(&error) && error.to_string().contains("`function` has no plain form"), "{error}");
    let error = stage.session.show(key, &[Form::Arrow]).await.unwrap_err();
    assert!(refused(&error), "{error}");
    let shown = stage.session.show(key, &[Form::Plain, Form::Arrow, Form::Text]).await.unwrap();
    assert!(matches!(&shown, Shown::Text { text, type_name } if text.starts_with("<function") && &**type_name == "function"), "{shown:?}");
    // Not picklable, and yet plain.
    let point = stage.run(python("tasks_of_test:local_point", &args(&[]), path));
    let values = stage.session.gather(&[point]).await.unwrap();
    assert_eq!(decode::<serde_json::Value>(&values[0].to_plain().unwrap()).unwrap(), json!({"x": 1}));
    end(stage).await;
}

#[tokio::test]
async fn an_interpreter_that_dies_or_hangs_is_replaced() {
    let _alone = alone().await;
    let dir = module();
    let path = dir.path().to_str().unwrap();
    let mut stage = Stage::new(processes(1, 1)).await;
    let key = stage.submit(
        python("tasks_of_test:die", &args(&[]), path),
        &[],
        Annotations { allowed_failures: Some(0), ..Annotations::default() },
    );
    assert!(matches!(stage.error(key).await, TaskError::Crashed(crash) if crash.cause == "exit code 5"));
    for function in ["tasks_of_test:sleep", "tasks_of_test:stubborn"] {
        let key = stage.run(python(function, &args(&[]), path));
        stage.running(key).await;
        stage.session.cancel(&[key]);
        let next = stage.run(python("tasks_of_test:inc", &args(&[Template::value(&1).unwrap()]), path));
        assert_eq!(stage.json(next).await, 2);
    }
    end(stage).await;
}

#[tokio::test]
async fn without_an_interpreter_only_python_tasks_are_refused() {
    let _alone = alone().await;
    let mut stage = Stage::new(LocalConfig { python: Some("no-such-python".into()), ..processes(1, 1) }).await;
    let key = stage.run(python("a:b", &args(&[]), "/"));
    match stage.error(key).await {
        TaskError::Refused(error) => {
            assert!(error.to_string().contains("no-such-python"), "{error}");
            assert!(error.hint().unwrap().contains("python3"));
        }
        other => panic!("{other:?}"),
    }
    let key = stage.run(rust("add", &(1, 1)));
    assert_eq!(stage.json(key).await, 2);
    end(stage).await;
}
