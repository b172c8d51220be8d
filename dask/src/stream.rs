//! The bytes of a connection, plain or encrypted, cut into a half to read and a half to write.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    time::Duration,
};

use bytes::{Buf, Bytes};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpStream, tcp},
};
use tokio_rustls::client::TlsStream;

/// The half to read. An enum, not a boxed trait object: nothing stands between the socket and the decoder's memory.
#[derive(Debug)]
pub(crate) enum Source {
    Tcp(tcp::OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

/// The half to write.
#[derive(Debug)]
pub(crate) enum Sink {
    Tcp(tcp::OwnedWriteHalf),
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

pub(crate) fn plain(stream: TcpStream) -> (Source, Sink) {
    let (source, sink) = stream.into_split();
    (Source::Tcp(source), Sink::Tcp(sink))
}

pub(crate) fn encrypted(stream: TlsStream<TcpStream>) -> (Source, Sink) {
    let (source, sink) = tokio::io::split(stream);
    (Source::Tls(source), Sink::Tls(sink))
}

impl Source {
    /// Zero at the end. May be dropped: nothing is lost.
    pub(crate) async fn read(&mut self, space: &mut (impl bytes::BufMut + Send)) -> io::Result<usize> {
        match self {
            Self::Tcp(source) => source.read_buf(space).await,
            Self::Tls(source) => match source.read_buf(space).await {
                // Python closes sockets without TLS's farewell. The frames tell whether something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Sink {
    /// All of it, to the system. Dropped half-way, a part of it is written.
    pub(crate) async fn write(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        let mut chunks = Chunks(chunks.into());
        match self {
            Self::Tcp(sink) => sink.write_all_buf(&mut chunks).await,
            Self::Tls(sink) => {
                sink.write_all_buf(&mut chunks).await?;
                // What is encrypted may wait inside.
                sink.flush().await
            }
        }
    }
}

/// Several pieces in one system call.
struct Chunks(VecDeque<Bytes>);

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        self.0.iter().any(|chunk| !chunk.is_empty())
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map(|chunk| &chunk[..]).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.0).map(|(slice, chunk)| *slice = IoSlice::new(chunk));
        filled.count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.0.front_mut() {
            if count < first.len() {
                return first.advance(count);
            }
            count -= first.len();
            self.0.pop_front();
        }
    }
}

/// Has the system notice a peer that is gone without a word: nothing is acknowledged for `dead_after`, whether there is something to send
/// or not. The proportions are Dask's.
pub(crate) fn keep_alive(stream: &TcpStream, dead_after: Duration) -> io::Result<()> {
    const PROBES: u32 = 10;
    let seconds = dead_after.as_secs().max(1);
    let idle = (seconds / 4).max(1);
    let interval = (seconds.saturating_sub(idle) / u64::from(PROBES)).max(1);
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(idle))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(interval))?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, u32::try_from(dead_after.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_in_order_wherever_the_system_stops() {
        let whole = b"grain and hay".as_slice();
        for step in 1..=whole.len() {
            let mut chunks = Chunks([&whole[..1], &whole[1..7], &whole[7..]].map(Bytes::from).into());
            let mut written = Vec::new();
            while chunks.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = chunks.chunks_vectored(&mut slices);
                let offered = slices[..filled].iter().flat_map(|slice| slice.iter().copied());
                let before = written.len();
                written.extend(offered.take(step));
                chunks.advance(written.len() - before);
            }
            assert_eq!(written, whole);
        }
    }

    #[tokio::test]
    async fn sockets_are_watched() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keep_alive(&stream, Duration::from_secs(30)).unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(7));
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(2));
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 10);
        #[cfg(target_os = "linux")]
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 30_000);
        keep_alive(&stream, Duration::from_millis(1)).unwrap();
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(1));
    }
}
