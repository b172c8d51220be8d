//! The three kinds of task, and values on their way between them.

use remuda_core::{
    engine::{Form, Shown},
    task::{Failure, TaskError},
    value::{Value, decode},
};
use std::sync::Arc;

use super::{Subject, Verdict, cases};
use crate::{
    bodies::{Arg, command, python, rust},
    run::Run,
};

cases! {
    closures_run_here [SharedMemory]
    runs_elsewhere [Processes]
    python_functions [Python]
    python_exceptions_come_back [Python]
    python_objects_stay_python_objects [Python]
    python_objects_have_no_plain_form [Python]
    results_are_shown [Python]
    tables_are_shown_as_arrow [Python, Tables]
    a_missing_python_module_is_named [Python]
    commands [Commands]
    commands_read_results [Commands]
    a_command_s_exit_code_comes_back [Commands]
    a_missing_program_is_named [Commands]
    all_kinds_in_one_graph [Python, Commands]
}

fn failure(error: TaskError) -> Arc<Failure> {
    match error {
        TaskError::Failed(failure) => failure,
        other => panic!("it failed by itself, and is {}: {other}", other.state_name()),
    }
}

async fn closures_run_here(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    assert!(run.session().shares_memory());
    let pid = run.submit(rust("pid", &[]));
    assert_eq!(run.value::<u32>(pid).await, std::process::id());
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn runs_elsewhere(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    assert!(!run.session().shares_memory());
    let pid = run.submit(rust("pid", &[]));
    assert_ne!(run.value::<u32>(pid).await, std::process::id());
    let closure = run.submit(crate::bodies::closure(|_| Value::plain(&1).map_err(TaskError::from)));
    let error = run.error(closure).await;
    assert_eq!(error.state_name(), "refused", "a closure cannot leave this process: {error:?}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn python_functions(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let sum = run.submit(python("operator:add", &[40.into(), 2.into()]));
    let joined = run.submit(python("operator:concat", &[Arg::List(vec![sum.into()]), Arg::List(vec!["x".into()])]));
    let method = run.submit(python("builtins:str.upper", &["loud".into()]));
    assert_eq!(run.value::<i64>(sum).await, 42);
    assert_eq!(run.value::<serde_json::Value>(joined).await, serde_json::json!([42, "x"]));
    assert_eq!(run.value::<String>(method).await, "LOUD");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn python_exceptions_come_back(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit(python("operator:truediv", &[1.into(), 0.into()]));
    let failure = failure(run.error(key).await);
    assert_eq!(failure.kind.as_deref(), Some("ZeroDivisionError"));
    assert!(failure.message.contains("division"), "{failure}");
    // Raised by the call itself: without a frame of the user's there is nothing to add to the message.
    assert_eq!(failure.traceback, None);
    let key = run.submit(python("json:loads", &["{".into()]));
    let failure = self::failure(run.error(key).await);
    let traceback = failure.traceback.as_deref().unwrap_or_default();
    assert!(traceback.contains("json") && traceback.contains("line"), "{traceback}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn python_objects_stay_python_objects(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let mut run = Run::open(&cluster).await?;
    let third = run.submit(python("fractions:Fraction", &[1.into(), 3.into()]));
    let sum = run.submit(python("operator:add", &[third.into(), third.into()]));
    let text = run.submit(python("builtins:str", &[sum.into()]));
    assert_eq!(run.value::<String>(text).await, "2/3");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn python_objects_have_no_plain_form(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let pattern = run.submit(python("re:compile", &["a+".into()]));
    let rusty = run.submit(rust("echo", &[pattern.into()]));
    let error = run.error(rusty).await.to_string();
    assert!(error.contains("Pattern"), "its type is named: {error}");
    let error = run.session().gather(&[pattern]).await.expect_err("it is no plain value").to_string();
    assert!(error.contains("Pattern"), "its type is named: {error}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn results_are_shown(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let (plain, pattern) = (run.submit(rust("add", &[1.into(), 2.into()])), run.submit(python("re:compile", &["a+".into()])));
    let any = [Form::Plain, Form::Arrow, Form::Text];
    match run.session().show(plain, &any).await? {
        Shown::Plain(bytes) => assert_eq!(decode::<i64>(&bytes)?, 3),
        other => panic!("it is plain, and shown as {other:?}"),
    }
    match run.session().show(pattern, &any).await? {
        Shown::Text { text, type_name } => assert_eq!((&*text, &*type_name), ("re.compile('a+')", "re.Pattern")),
        other => panic!("it is neither plain nor a table, and shown as {other:?}"),
    }
    let error = run.session().show(pattern, &[Form::Arrow]).await.expect_err("it is no table").to_string();
    assert!(error.contains("Pattern"), "its type is named: {error}");
    run.session().show(plain, &[Form::Arrow]).await.expect_err("it is no table");
    let failing = run.submit(python("operator:truediv", &[1.into(), 0.into()]));
    let error = run.session().show(failing, &any).await.expect_err("it has no result");
    assert!(matches!(error, TaskError::Failed(_)), "the task's own error is told: {error:?}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn tables_are_shown_as_arrow(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let frame = run.submit(python("pandas:DataFrame", &[serde_json::json!({"a": [1, 2], "b": ["x", "y"]}).into()]));
    match run.session().show(frame, &[Form::Plain, Form::Arrow, Form::Text]).await? {
        Shown::Arrow { bytes, type_name } => {
            assert!(type_name.starts_with("pandas.") && type_name.ends_with(".DataFrame"), "{type_name}");
            assert_eq!(bytes[..4], [0xFF; 4], "an Arrow IPC stream begins with its continuation marker");
        }
        other => panic!("it is a table, and shown as {other:?}"),
    }
    match run.session().show(frame, &[Form::Text]).await? {
        Shown::Text { text, .. } => assert!(text.contains('x') && text.contains('2'), "{text}"),
        other => panic!("text was asked for, not {other:?}"),
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn a_missing_python_module_is_named(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    for (target, name) in [("no_such_module:f", "no_such_module"), ("operator:no_such_function", "no_such_function")] {
        let key = run.submit(python(target, &[]));
        let error = run.error(key).await.to_string();
        assert!(error.contains(name), "{target}: {error}");
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn commands(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let text = run.submit(command(&["printf".into(), "%s-%s\\n\\n".into(), "a b".into(), 7.into()], None));
    assert_eq!(run.value::<String>(text).await, "a b-7", "as $(..) in a shell: line ends at the end are cut");
    let lines = run.submit(command(&["wc".into(), "-l".into()], Some("one\ntwo\n".into())));
    assert_eq!(run.value::<String>(lines).await.trim(), "2");
    let silent = run.submit(command(&["cat".into()], None));
    assert_eq!(run.value::<String>(silent).await, "", "nothing to read is end of file at once");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn commands_read_results(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let n = run.submit(rust("add", &[40.into(), 2.into()]));
    let argument = run.submit(command(&["echo".into(), n.into()], None));
    let list = run.submit(rust("echo", &[Arg::List(vec![1.into(), n.into()])]));
    let input = run.submit(command(&["cat".into()], Some(list.into())));
    assert_eq!(run.value::<String>(argument).await, "42");
    let text = run.value::<String>(input).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text)?, serde_json::json!([1, 42]));
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn a_command_s_exit_code_comes_back(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit(command(&["sh".into(), "-c".into(), "echo too bad >&2; exit 7".into()], None));
    let failure = failure(run.error(key).await);
    assert_eq!(failure.exit_code, Some(7));
    let told = format!("{failure} {}", failure.traceback.as_deref().unwrap_or_default());
    assert!(told.contains("too bad"), "the end of its standard error is shown: {told}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn a_missing_program_is_named(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit(command(&["no-such-program-anywhere".into()], None));
    let error = run.error(key).await.to_string();
    assert!(error.contains("no-such-program-anywhere"), "{error}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn all_kinds_in_one_graph(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let mut run = Run::open(&cluster).await?;
    let one = run.submit(rust("add", &[20.into(), 1.into()]));
    let two = run.submit(python("operator:mul", &[one.into(), 2.into()]));
    let three = run.submit(command(&["printf".into(), "%s".into(), two.into()], None));
    let four = run.submit(python("builtins:int", &[three.into()]));
    let five = run.submit(rust("add", &[four.into(), one.into()]));
    assert_eq!(run.value::<i64>(five).await, 63);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}
