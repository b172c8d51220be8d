//! Versions of Dask and Python: a scheduler that tells any.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use std::time::Duration;

use remuda_core::{
    engine::Connect,
    error::{Error, ErrorKind},
    manager::Endpoint,
};
use remuda_dask::{
    DaskConnect, DaskOptions,
    protocol::{
        Connection, Event, Limits, Message, Value, encode,
        value::{get, map, text},
    },
    shim,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Says what `answer` makes of each question, until the other side hangs up; nil where it has no answer, as Dask does.
async fn serve(mut stream: TcpStream, answer: impl Fn(&str) -> Option<Value>) {
    stream.write_all(&Connection::hello().concat()).await.unwrap();
    let mut connection = Connection::new(Limits::default());
    loop {
        while let Some(event) = connection.next().unwrap() {
            let Event::Message(message) = event else { continue };
            let said = answer(get(message.body(), "op").and_then(text).unwrap()).unwrap_or(Value::Nil);
            stream.write_all(&encode(Message::from(said).to_frames().unwrap()).concat()).await.unwrap();
        }
        if stream.read_buf(&mut connection.space()).await.unwrap_or_default() == 0 {
            return;
        }
    }
}

/// A scheduler of these versions, with these workers: Python, distributed, name. The shim is there already.
async fn refused(distributed: &'static str, python: &'static str, workers: &[[&'static str; 3]]) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let environments: Vec<Value> = workers
        .iter()
        .map(|[python, distributed, name]| {
            Value::Array(vec![(*python).into(), (*distributed).into(), Value::Array(vec![(*name).into()]), 1.into()])
        })
        .collect();
    let scheduler = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let packages = map([("python", python.into()), ("dask", distributed.into()), ("distributed", distributed.into())]);
        let release = python.split('.').take(3).map(|part| part.parse::<u64>().unwrap().into()).collect();
        let hello = map([
            ("protocol", shim::PROTOCOL.into()),
            ("distributed", distributed.into()),
            ("python", Value::Array(release)),
            ("environments", Value::Array(environments)),
        ]);
        serve(stream, |op| match op {
            "versions" => Some(map([("packages", packages.clone())])),
            op if op == shim::op("hello") => Some(hello.clone()),
            other => panic!("asked for `{other}`: nothing more should be, once the versions are known"),
        })
        .await;
    });
    let connect = DaskConnect::new(DaskOptions { timeout: Duration::from_secs(60), ..DaskOptions::default() });
    let endpoint = Endpoint::Dask { address: address.clone(), security: None, dashboard: None };
    let error = timeout(Duration::from_secs(120), connect.connect(&endpoint)).await.unwrap().expect_err("they are not supported");
    scheduler.await.unwrap();
    assert!(error.kind() == ErrorKind::Unsupported && error.is_user_error(), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    error
}

#[tokio::test]
async fn a_scheduler_that_is_too_old_is_refused_before_anything_is_put_there() {
    let error = refused("2023.4.1", "3.11.7.final.0", &[]).await;
    assert!(
        error.message().contains("distributed 2023.4.1, which is too old") && error.hint().unwrap().contains("pip install"),
        "{error:?}"
    );
    let error = refused("2023.5.0", "3.7.17.final.0", &[]).await;
    assert!(error.message().contains("Python 3.7.17, which is too old"), "{error:?}");
}

#[tokio::test]
async fn workers_of_another_release_are_refused_by_name() {
    let workers = [["3.11.7.final.0", "2026.8.0", "a"], ["3.11.7.final.0", "2025.3.0", "b"]];
    let error = refused("2026.8.0", "3.11.7.final.0", &workers).await;
    assert!(error.message().contains("distributed 2026.8.0, but worker `b` 2025.3.0"), "{error:?}");
    assert!(error.hint().unwrap().contains("'dask[distributed]==2026.8.0'"), "{error:?}");
    let error = refused("2026.8.0", "3.11.7.final.0", &[["3.12.1.final.0", "2026.8.0", "b"]]).await;
    assert!(error.message().contains("Python 3.11.7, but worker `b` 3.12.1"), "{error:?}");
}
