//! Tasks that submit tasks, for the tests of every engine.
#![allow(dead_code, reason = "not every test program needs all of them")]

use remuda::{TaskContext, command, python};

/// Waits on its thread.
#[remuda::task]
pub(crate) fn fibonacci(cx: &TaskContext, n: u64) -> anyhow::Result<u64> {
    if n < 2 {
        return Ok(n);
    }
    let flow = cx.flow()?;
    let (a, b) = (flow.submit(fibonacci(n - 1)), flow.submit(fibonacci(n - 2)));
    Ok(*a.wait()? + *b.wait()?)
}

/// Python's result goes to a command as it is.
#[remuda::task]
pub(crate) async fn all_kinds(cx: &TaskContext) -> anyhow::Result<String> {
    let flow = cx.flow()?;
    let split = flow.submit(python("os.path:split").arg("/a/b").call::<(String, String)>());
    let text = flow.submit(command(["echo", "-n"]).arg(&split).call());
    Ok(format!("{:?} {}", split.await?, text.await?))
}
