//! What stands between us and a scheduler: a port that can be cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Passes bytes on until it is told to cut.
pub struct Proxy {
    pub address: SocketAddr,
    cut: Arc<watch::Sender<()>>,
    cuts: AtomicUsize,
    is_closed: Arc<AtomicBool>,
    /// Bytes that a connection may send.
    most: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(watch::Sender::new(()));
        let is_closed = Arc::new(AtomicBool::new(false));
        let most = Arc::new(AtomicUsize::new(usize::MAX));
        let (sender, closed, limit) = (cut.clone(), is_closed.clone(), most.clone());
        let task = tokio::spawn(async move {
            loop {
                let (mut here, _) = listener.accept().await.unwrap();
                if closed.load(Ordering::SeqCst) {
                    continue;
                }
                let mut end = sender.subscribe();
                let most = limit.load(Ordering::SeqCst) as u64;
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(to).await.unwrap();
                    let ((here, mut back), (mut from, mut to)) = (here.split(), there.split());
                    let mut here = here.take(most);
                    tokio::select! {
                        _ = copy(&mut here, &mut to) => {}
                        _ = copy(&mut from, &mut back) => {}
                        _ = end.changed() => {}
                    }
                });
            }
        });
        Self { address, cut, cuts: AtomicUsize::new(0), is_closed, most, task }
    }

    /// Ends all connections; new ones are taken.
    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.cut.send_replace(());
    }

    pub fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }

    /// Ends all connections; new ones are ended when they have sent so much.
    pub fn limit(&self, most: usize) {
        self.most.store(most, Ordering::SeqCst);
        self.cut();
    }

    /// New ones are taken again.
    pub fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    /// Ends all connections; new ones are dropped.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
