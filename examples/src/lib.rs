//! What the example programs share: where they run, a slow web server, and a client for it.
//!
//! [`runner`] makes a program follow the configuration and flags like `remuda run`, so that each of them runs elsewhere unchanged:
//!
//! ```text
//! cargo run -p remuda-examples --bin inc_dec_add -- --cluster-class local::DaskCluster --kwarg n_workers=2
//! cargo run -p remuda-examples --bin inc_dec_add -- --address tcp://127.0.0.1:8786
//! ```
//!
//! The server stands for any far place that answers after a while. It takes 1.27 s for each image, so that twelve of them take 15.2 s one
//! after the other.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use remuda::{
    Error, ErrorKind, Kwargs, TaskRunner,
    config::{Flags, Loader, Mode},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub mod inc_dec_add;

/// Where `remuda.yaml`, the environment (`REMUDA_CLUSTER_CLASS`, `REMUDA_ADDRESS`, ..) and the flags (`--cluster-class`, `--kwarg`,
/// `--address`) say. `defaults` are what a cluster made for this program has where they leave it open.
///
/// # Errors
/// Every mistake in these, at once.
pub fn runner(defaults: Kwargs) -> anyhow::Result<TaskRunner> {
    let loader = Loader::from_process().flags(&flags(std::env::args().skip(1))?);
    let (runner, config) = TaskRunner::builder().load(loader)?;
    Ok(match &config.mode {
        Mode::Temporary { kwargs, .. } => {
            let mut all = defaults;
            all.merge(kwargs.clone());
            TaskRunner::builder().config(&config).cluster_kwargs(all).build()?
        }
        Mode::Existing { .. } => runner,
    })
}

/// For a program whose cluster is part of what it shows: it takes no flags.
///
/// # Errors
/// When it is given any.
pub fn no_arguments() -> remuda::Result<()> {
    std::env::args().nth(1).map_or(Ok(()), |argument| {
        Err(Error::new(ErrorKind::ConfigInvalid, format!("unknown argument {argument}: this example takes none")))
    })
}

fn flags(mut args: impl Iterator<Item = String>) -> remuda::Result<Flags> {
    // A kind that `#[remuda::main]` knows as the user's, so that the program exits with 2.
    let usage = |text: String| {
        Error::new(ErrorKind::ConfigInvalid, text).with_hint("usage: [--cluster-class CLASS] [--kwarg KEY=VALUE].. [--address ADDRESS]")
    };
    let mut flags = Flags::default();
    while let Some(name) = args.next() {
        if !["--cluster-class", "--kwarg", "--address"].contains(&name.as_str()) {
            return Err(usage(format!("unknown argument {name}")));
        }
        let Some(value) = args.next() else { return Err(usage(format!("{name} needs a value"))) };
        match name.as_str() {
            "--cluster-class" => flags.cluster_class = Some(value),
            "--kwarg" => flags.kwargs.push(value),
            _ => flags.address = Some(value),
        }
    }
    Ok(flags)
}

/// From a request to its answer.
pub const ANSWER_AFTER: Duration = Duration::from_millis(1270);

/// Bytes of one image.
pub const IMAGE_SIZE: usize = 64 * 1024;

/// Serves images on a free port of this machine until the program ends. Returns its address.
///
/// # Errors
/// When there is no free port.
pub fn image_server() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that hangs up early is its own affair.
            thread::spawn(move || drop(answer(client)));
        }
    });
    Ok(address)
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    let mut request = BufReader::new(client.try_clone()?).lines();
    let first = request.next().transpose()?.unwrap_or_default();
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    thread::sleep(ANSWER_AFTER);
    match first.strip_prefix("GET /image/").and_then(|rest| rest.split(' ').next()?.parse::<u8>().ok()) {
        Some(number) => {
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {IMAGE_SIZE}\r\nConnection: close\r\n\r\n")?;
            client.write_all(&vec![number; IMAGE_SIZE])
        }
        None => write!(client, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

/// The body of `http://{host}{path}`.
///
/// # Errors
/// When the server is not there, or says anything but 200.
pub async fn get(host: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = tokio::net::TcpStream::connect(host).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.lines().next().unwrap_or("nothing").to_owned();
    anyhow::ensure!(status.contains(" 200 "), "http://{host}{path} answered: {status}");
    Ok(answer.split_off(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_remuda_run() {
        let read = |args: &[&str]| flags(args.iter().map(|arg| (*arg).to_owned()));
        let all = read(&["--cluster-class", "a::B", "--kwarg", "n=1", "--kwarg", "m=2", "--address", "tcp://h:1"]).unwrap();
        assert_eq!((all.cluster_class.as_deref(), all.kwargs.len(), all.address.as_deref()), (Some("a::B"), 2, Some("tcp://h:1")));
        for (wrong, text) in
            [(&["--kwarg"][..], "--kwarg needs a value"), (&["--cluster", "x"], "unknown argument --cluster"), (&["x"], "argument x")]
        {
            let error = anyhow::Error::from(read(wrong).unwrap_err());
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(remuda::exit_code(&error), 2, "as docs/exit-codes.md has it");
        }
    }

    #[tokio::test]
    async fn the_server_knows_images_and_nothing_else() {
        let host = image_server().unwrap().to_string();
        let (image, other) = tokio::join!(get(&host, "/image/7"), get(&host, "/"));
        assert_eq!(image.unwrap(), vec![7; IMAGE_SIZE]);
        assert!(other.unwrap_err().to_string().contains("404"));
    }
}
