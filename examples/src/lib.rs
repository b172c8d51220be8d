//! What the example programs share: a slow web server, and a client for it.
//!
//! The server stands for any far place that answers after a while. It takes 1.27 s for each image, so that twelve of them take 15.2 s one
//! after the other.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    #[tokio::test]
    async fn the_server_knows_images_and_nothing_else() {
        let host = image_server().unwrap().to_string();
        let (image, other) = tokio::join!(get(&host, "/image/7"), get(&host, "/"));
        assert_eq!(image.unwrap(), vec![7; IMAGE_SIZE]);
        assert!(other.unwrap_err().to_string().contains("404"));
    }
}
