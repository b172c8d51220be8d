//! What the driver holds of a large map: measured in a process of its own, whose heap nothing else has touched.

use std::{env, fs, process::Command};

use anyhow::{Context as _, bail, ensure};
use remuda::Annotate;

use super::{Calls, noop, runner, submit};

/// A field of `/proc/self/status`, in MB.
fn status(field: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kilobytes: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
    Ok(kilobytes / 1000)
}

/// Megabytes of a driver: with an open session; at most until `n` tasks are submitted; at most in all, where
/// they are batched with the results.
pub(super) fn measure(address: &str, batched: bool, n: i64) -> anyhow::Result<(u64, u64, u64)> {
    let output = Command::new(env::current_exe()?).args(["dask-memory", address, &batched.to_string(), &n.to_string()]).output()?;
    ensure!(output.status.success(), "the measured driver failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    match text.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?[..] {
        [idle, submitted, most] => Ok((idle, submitted, most)),
        _ => bail!("the measured driver said {text:?}"),
    }
}

/// The driver that is measured: ADDRESS BATCHED N.
pub(crate) async fn child(args: &[String]) -> anyhow::Result<()> {
    let [address, batched, n] = args else { bail!("expected ADDRESS BATCHED N") };
    let (batched, n): (bool, i64) = (batched.parse()?, n.parse()?);
    let calls = if batched { Calls::Batched } else { Calls::Single };
    let (idle, submitted) = runner(address, calls)?
        .run(move |flow| async move {
            ensure!(flow.gather(submit(&flow, calls, 2)?).await? == [0, 1], "wrong result");
            let idle = status("VmRSS:")?;
            let futures = submit(&flow, calls, n)?;
            // Sent after them, and done before them: the scheduler has all of them then.
            ensure!(flow.annotate(Annotate::new().priority(100)).submit(noop(0)).await? == 0, "wrong result");
            let submitted = status("VmHWM:")?;
            // One by one that would take minutes.
            if batched {
                ensure!(flow.gather(futures).await?.into_iter().eq(0..n), "wrong results");
            }
            Ok((idle, submitted))
        })
        .await?;
    println!("{idle} {submitted} {}", status("VmHWM:")?);
    Ok(())
}
