//! Certificates, and the program that the user names for Rust tasks: the runner on real Dask.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

mod dask_tasks;

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path};

use remuda::{ErrorKind, Kwargs, TaskContext, TaskRunner, command, python};
use remuda_core::{host, security::Security};
use remuda_dask::security::{Material, Role};
use remuda_tests::dask::{Dask, Site, available};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::dask_tasks::{MODULE, inc, many};

fn environment(material: &Material, role: Role) -> Vec<(String, String)> {
    material.environment(role).into_iter().collect()
}

/// Each party has its own certificate, and results are had from the workers alone.
fn site(material: &Material) -> Site {
    let mut site = Site { env: environment(material, Role::Client), ..Site::default() }.module("of_a_user.py", MODULE);
    site.scheduler_env = environment(material, Role::Scheduler);
    let relay = format!("[{:?}]", remuda_dask::shim::op("fetch"));
    site.scheduler_env.push(("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS".to_owned(), relay));
    site.worker_env = environment(material, Role::Worker);
    site.scheduler = ["--protocol", "tls"].map(str::to_owned).to_vec();
    site
}

#[remuda::task]
fn blob(size: usize) -> Vec<u8> {
    vec![7; size]
}

#[remuda::task]
async fn nested_twice(cx: &TaskContext) -> anyhow::Result<i64> {
    Ok(cx.flow()?.submit(many(3)).await?)
}

/// Tasks of each kind, tasks of tasks, small results and large ones.
async fn everything(runner: &TaskRunner) {
    let run = runner.run(async |flow| {
        let two = flow.submit(inc(1));
        let sum = flow.submit(python("operator:add").arg(&two).arg(40).call::<i64>());
        let said = flow.submit(command(["echo", "-n"]).arg(&sum).call());
        assert_eq!(said.await?.to_string(), "42");
        assert_eq!(flow.gather(flow.map(inc, 0..200)?).await?.into_iter().sum::<i64>(), 20_100);
        assert_eq!(flow.submit(blob(3_000_000)).await?.len(), 3_000_000);
        assert_eq!(flow.submit(many(10)).await?, 55);
        Ok(())
    });
    run.await.unwrap();
}

fn given(security: Value) -> Kwargs {
    Kwargs::try_from(json!({"security": security, "timeout": "60s"})).unwrap()
}

/// The material as files: what a person has.
fn files(security: &Security, directory: &Path) -> Value {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    json!({
        "tls_ca_file": write("ca.pem", &security.ca), "tls_cert": write("cert.pem", &security.cert), "tls_key": write("key.pem", &security.key),
    })
}

#[remuda::test]
async fn a_flow_runs_where_everybody_has_a_certificate() {
    if !available("a_flow_runs_where_everybody_has_a_certificate").await {
        return;
    }
    let material = Material::temporary(1).unwrap();
    let dask = Dask::start(site(&material), 1).await.unwrap();
    assert!(dask.address.starts_with("tls://"), "{}", dask.address);
    let directory = TempDir::new().unwrap();
    let text = json!({"ca": material.client.ca, "cert": material.client.cert, "key": material.client.key});
    for security in [files(&material.client, directory.path()), text] {
        let runner = TaskRunner::builder().address(&dask.address).client_kwargs(given(security)).build().unwrap();
        everything(&runner).await;
    }
    let runner =
        TaskRunner::builder().address(&dask.address).client_kwargs(given(files(&material.client, directory.path()))).build().unwrap();
    let run = runner.run(async |flow| Ok(flow.submit(python("of_a_user:by_client").arg(10).call::<i64>()).await?));
    assert_eq!(run.await.unwrap(), 55, "Dask's own client in a task has the worker's certificate");
    dask.forgets().await.unwrap();
}

fn interpreter() -> Option<Value> {
    let python = Path::new(&std::env::var_os("REMUDA_DASK")?).with_file_name("python");
    python.exists().then(|| python.to_str().unwrap().into())
}

fn of_this_machine(more: Value) -> TaskRunner {
    let mut kwargs = json!({"n_workers": 1, "threads_per_worker": 1, "memory_limit": null});
    let members = kwargs.as_object_mut().unwrap();
    members.extend(interpreter().map(|python| ("python".to_owned(), python)));
    members.extend(more.as_object().unwrap().clone());
    TaskRunner::builder().cluster("local::DaskCluster").cluster_kwargs(Kwargs::try_from(kwargs).unwrap()).build().unwrap()
}

#[remuda::test]
async fn a_cluster_of_this_machine_has_certificates_of_its_own_or_of_its_user() {
    if !available("a_cluster_of_this_machine_has_certificates_of_its_own_or_of_its_user").await {
        return;
    }
    everything(&of_this_machine(json!({"tls": true}))).await;
    let directory = TempDir::new().unwrap();
    let material = Material::temporary(1).unwrap();
    // One text with both, as many have it.
    let both = format!("{}{}", material.worker.cert, material.worker.key);
    for security in [files(&material.worker, directory.path()), json!({"ca": material.worker.ca, "cert": both})] {
        everything(&of_this_machine(json!({ "security": security }))).await;
    }
}

/// A program that says in `file` that it was started, and goes on as this one.
fn wrapper(directory: &Path) -> (String, std::path::PathBuf) {
    let (program, file) = (directory.join("host"), directory.join("started"));
    let exe = std::env::current_exe().unwrap();
    std::fs::write(&program, format!("#!/bin/sh\necho here >> {}\nexec {} \"$@\"\n", file.display(), exe.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program.to_str().unwrap().to_owned(), file)
}

#[remuda::test]
async fn rust_tasks_run_in_the_program_that_was_named() {
    if !available("rust_tasks_run_in_the_program_that_was_named").await {
        return;
    }
    // What the environment of the workers says comes after it.
    let site = Site::default().env("REMUDA_TASK_HOST_BINARY", "/no/such/program");
    let dask = Dask::start(site, 1).await.unwrap();
    let directory = TempDir::new().unwrap();
    let (program, started) = wrapper(directory.path());
    let at = |task_host: Value| {
        let client = Kwargs::try_from(json!({ "task_host": task_host })).unwrap();
        TaskRunner::builder().address(&dask.address).client_kwargs(client).build().unwrap()
    };
    let runner = at(json!({"path": program, "args": host::args().unwrap()}));
    // Those of a task, too, which know nothing of `client_kwargs`.
    let run = runner.run(async |flow| Ok((flow.submit(inc(1)).await?, flow.submit(nested_twice()).await?)));
    assert_eq!(run.await.unwrap(), (2, 6));
    assert!(std::fs::read_to_string(&started).unwrap().starts_with("here"));

    let error = at("/no/such/host".into()).run(async |flow| Ok(flow.submit(inc(1)).await?)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`task_host: /no/such/host` is not a program on worker `0`"), "{text}");
    assert!(text.contains("file system they share"), "{text}");
}

#[remuda::test]
async fn certificates_that_cannot_be_used_are_told_before_anything_starts() {
    let wrong = BTreeMap::from([("tls_ca_file", "/no/such/ca.pem"), ("tls_cert", "/no/such/cert.pem")]);
    let kwargs = Kwargs::try_from(json!({ "security": wrong })).unwrap();
    let built = TaskRunner::builder().cluster("local::DaskCluster").cluster_kwargs(kwargs).build();
    let error = built.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    for name in ["`security.tls_ca_file`", "`security.tls_cert`"] {
        assert!(error.report().to_string().contains(name), "{error:?}");
    }
}
