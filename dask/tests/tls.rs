//! `tls://` against small peers, and against real schedulers and workers.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a helper of a test may panic like a test")]

mod real;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
use remuda_core::{
    error::{Error, ErrorKind, Result},
    security::Security,
};
use remuda_dask::{
    Address, Comm, ConnectOptions, Rpc,
    protocol::{
        Message, Part, Value, answer,
        value::{get, map},
    },
    security::{Material, Role},
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use real::{PATIENCE, Running, can_run};

fn fixture(name: &str) -> Security {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    // Certificate and key in one text.
    Security { ca: text.clone(), cert: text.clone(), key: text }
}

fn temporary() -> Material {
    Material::temporary(1).unwrap()
}

/// One self-signed certificate for everything.
fn alone(change: impl FnOnce(&mut CertificateParams)) -> Security {
    let mut params = CertificateParams::new(["dask-internal".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap().pem();
    Security { ca: cert.clone(), cert, key: key.serialize_pem() }
}

fn options(security: &Security) -> ConnectOptions {
    ConnectOptions { timeout: Duration::from_secs(60), security: Some(Arc::new(security.clone())), ..ConnectOptions::default() }
}

/// Shows what it was told to, whatever that is.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn server(security: &Security) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    CertificateDer::pem_slice_iter(security.ca.as_bytes()).for_each(|ca| roots.add(ca.unwrap()).unwrap());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = CertificateDer::pem_slice_iter(security.cert.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(security.key.as_bytes()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let shown = Shown(Arc::new(CertifiedKey::new(chain, key)));
    TlsAcceptor::from(Arc::new(config.with_client_cert_verifier(clients).with_cert_resolver(Arc::new(shown))))
}

/// Accepts one connection and says what it hears: our handshake is one, and our messages are messages.
async fn echo(security: &Security) -> Address {
    let acceptor = server(security);
    peer("tls", async move |stream| {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let (mut from, mut to) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
}

async fn peer<F: Future<Output = ()> + Send + 'static>(scheme: &str, script: impl FnOnce(TcpStream) -> F + Send + 'static) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("{scheme}://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { script(listener.accept().await.unwrap().0).await });
    address
}

async fn refusal(address: &Address, options: &ConnectOptions) -> Error {
    let connected = timeout(PATIENCE, Comm::connect(address, options)).await.expect("connecting has a deadline of its own");
    let error = connected.expect_err("that cannot be connected to");
    assert!(error.to_string().starts_with("connect: ") && error.to_string().contains(&format!("address={address}")), "{error}");
    assert!(error.hint().or(error.mistakes().first().and_then(|mistake| mistake.hint.as_deref())).is_some(), "{error:?}");
    error
}

#[tokio::test]
async fn every_kind_of_certificate_opens_a_connection() {
    let material = temporary();
    let one_for_all = alone(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    for (name, here, there) in [
        ("an authority", &material.client, &material.scheduler),
        ("rsa", &fixture("rsa.pem"), &fixture("rsa.pem")),
        ("sec1", &fixture("sec1.pem"), &fixture("sec1.pem")),
        ("self-signed", &alone(|_| ()), &alone(|_| ())),
    ] {
        // Each of the self-signed ones knows the other.
        let both = format!("{}{}", here.ca, there.ca);
        let (here, there) = (Security { ca: both.clone(), ..here.clone() }, Security { ca: both, ..there.clone() });
        let mut comm = Comm::connect(&echo(&there).await, &options(&here)).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let mut sent = Message::default();
        let part = sent.attach(Part::bytes(vec![7; 300_000].into()));
        sent.set_body(part);
        comm.write(&sent).await.unwrap();
        assert_eq!(timeout(PATIENCE, comm.read()).await.unwrap().unwrap().unwrap(), sent, "{name}");
    }
    // webpki takes no authority for a server, nor for a client: this peer is less strict.
    let strict = Security { ca: format!("{}{}", one_for_all.ca, material.client.ca), ..one_for_all.clone() };
    let here = Security { ca: one_for_all.ca.clone(), ..material.client.clone() };
    Comm::connect(&echo(&strict).await, &options(&here)).await.unwrap();
}

#[tokio::test]
async fn later_connections_take_up_the_session_of_the_first() {
    let material = temporary();
    let acceptor = server(&material.scheduler);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("tls://{}", listener.local_addr().unwrap()).parse().unwrap();
    let kinds = tokio::spawn(async move {
        let mut kinds = Vec::new();
        for _ in 0..4 {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
            stream.write_all(&remuda_dask::protocol::Connection::hello().concat()).await.unwrap();
            stream.flush().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        kinds
    });
    let ours = options(&material.client);
    for _ in 0..3 {
        Comm::connect(&address, &ours).await.unwrap();
    }
    // The same text, but of somebody else: nothing is shared with them.
    Comm::connect(&address, &options(&material.client)).await.unwrap();
    use rustls::HandshakeKind::{Full, Resumed};
    assert_eq!(timeout(PATIENCE, kinds).await.unwrap().unwrap(), [Full, Resumed, Resumed, Full]);
}

#[tokio::test]
async fn both_directions_of_an_encrypted_connection_go_on_at_once() {
    let material = temporary();
    let comm = Comm::connect(&echo(&material.scheduler).await, &options(&material.client)).await.unwrap();
    let (mut reader, mut writer) = comm.split();
    let content = Bytes::from(vec![3; 5_000_000]);
    let mut sent = Message::default();
    let parts = (0..4).map(|_| sent.attach(Part::bytes(content.clone()))).collect();
    sent.set_body(Value::Array(parts));
    // More than both ends hold: who only wrote would never be through.
    let (written, read) = timeout(PATIENCE, async { tokio::join!(writer.write(&sent), reader.read()) }).await.unwrap();
    written.unwrap();
    assert_eq!(read.unwrap().unwrap(), sent);
    // The peer hangs up when we do; the last half closes the connection.
    drop((reader, writer));
}

#[tokio::test]
async fn certificates_of_the_peer_are_looked_at() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let day = Duration::from_secs(86_400);
    let period = |from: Duration, to: Duration| {
        move |params: &mut CertificateParams| {
            params.not_before = date_time_ymd(1970, 1, 1) + from;
            params.not_after = date_time_ymd(1970, 1, 1) + to;
        }
    };
    let client_only = |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let ours = temporary().client;
    let knows = |there: &Security| Security { ca: there.ca.clone(), ..ours.clone() };
    let expired = alone(period(now - day * 9, now - day * 5 / 2));
    let old_authority = Security { cert: expired.cert.clone(), ..expired.clone() };
    let early = alone(period(now + day * 3 / 2, now + day * 9));
    let purpose = {
        // Signed by somebody else: one that is known itself may be used for everything.
        let authority = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&authority).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, authority);
        let mut params = CertificateParams::new(["dask-internal".to_owned()]).unwrap();
        client_only(&mut params);
        let key = KeyPair::generate().unwrap();
        Security { ca, cert: params.signed_by(&key, &issuer).unwrap().pem(), key: key.serialize_pem() }
    };
    let version_one = fixture("v1.pem");
    for (there, here, message, hint) in [
        (&temporary().scheduler, &ours, "the peer's certificate is not signed by the authority given", "tls_ca_file"),
        (&fixture("rsa.pem"), &knows(&fixture("sec1.pem")), "the peer's certificate is not signed by the authority given", "tls_ca_file"),
        (&expired, &knows(&expired), "the peer's certificate expired 2 days ago", "issue it again"),
        (&old_authority, &knows(&old_authority), "the peer's certificate expired 2 days ago", "issue it again"),
        (&early, &knows(&early), "the peer's certificate is not valid yet: it will be in 1 day", "clocks"),
        (&purpose, &knows(&purpose), "the peer's certificate is not meant for servers", "serverAuth"),
        (&version_one, &knows(&version_one), "the peer's certificate is of X.509 version 1, which is not supported", "-extfile"),
    ] {
        let error = refusal(&echo(there).await, &options(here)).await;
        assert_eq!((error.kind(), error.message()), (ErrorKind::ConfigInvalid, message), "{error:?}");
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_accept_ours_is_heard() {
    let material = temporary();
    let stranger = Security { ca: material.client.ca.clone(), ..temporary().client };
    let error = refusal(&echo(&material.scheduler).await, &options(&stranger)).await;
    assert_eq!((error.kind(), error.message()), (ErrorKind::ConfigInvalid, "the peer does not accept our certificate"));
    assert!(error.hint().unwrap().contains("signed by the authority"), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_used_is_told_before_anybody_is_asked() {
    let nobody: Address = "tls://127.0.0.1:1".parse().unwrap();
    let without = refusal(&nobody, &ConnectOptions::default()).await;
    assert!(without.kind() == ErrorKind::ConfigInvalid && without.mistakes()[0].path == "security", "{without:?}");

    let (one, other) = (temporary().client, temporary().client);
    let version_one = Security { ca: one.ca.clone(), ..fixture("v1.pem") };
    for (security, message) in [
        (&Security { key: other.key.clone(), ..one.clone() }, "`key`: the key does not belong to the certificate in `cert`"),
        (&Security { ca: "/etc/ca.pem".into(), ..one.clone() }, "`ca`: no PEM certificate in it"),
        (&version_one, "`cert`: the certificate is of X.509 version 1, which is not supported"),
    ] {
        let error = refusal(&nobody, &options(security)).await;
        assert!(error.kind() == ErrorKind::ConfigInvalid && error.message().starts_with(message), "{error:?}");
    }
}

#[tokio::test]
async fn the_two_protocols_are_not_mixed_up() {
    // Said at once, as Dask does.
    let plain = peer("tls", async |mut stream| {
        let hello = remuda_dask::protocol::Connection::hello().concat();
        stream.write_all(&hello).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let material = temporary();
    let plain = plain.await;
    let error = refusal(&plain, &options(&material.client)).await;
    assert_eq!((error.kind(), error.message()), (ErrorKind::ConfigInvalid, "the peer does not speak TLS"));
    let right = plain.to_string().replace("tls", "tcp");
    assert_eq!(error.hint().unwrap(), format!("did you mean `{right}`?"));

    let encrypted = echo(&material.scheduler).await.with_scheme(remuda_dask::Scheme::Tcp);
    let error = refusal(&encrypted, &options(&material.client)).await;
    assert!(error.hint().unwrap().contains("tls://"), "{error:?}");

    let silent = peer("tls", async |mut stream| drop(stream.read_to_end(&mut Vec::new()).await)).await;
    let soon = ConnectOptions { timeout: Duration::from_millis(300), ..options(&material.client) };
    let error = refusal(&silent, &soon).await;
    assert_eq!((error.kind(), error.message()), (ErrorKind::Timeout, "connected, but no TLS handshake came within 300ms"));

    let gone = peer("tls", async |mut stream| drop(stream.read_exact(&mut [0; 8]).await)).await;
    let error = refusal(&gone, &options(&material.client)).await;
    let message = "the peer closed the connection within the TLS handshake";
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, message));
}

async fn rpc(address: &Address, security: &Security) -> Rpc {
    Rpc::connect(address, &options(security)).await.unwrap().with_patience(PATIENCE)
}

#[tokio::test]
async fn a_real_cluster_with_certificates_of_ours() {
    if !can_run("a_real_cluster_with_certificates_of_ours").await {
        return;
    }
    let directory = TempDir::new().unwrap();
    let material = temporary();
    let (scheduler, address) = Running::scheduler_with("tls", &material.environment(Role::Scheduler), directory.path()).await;
    assert!(address.to_string().starts_with("tls://"), "{address}");
    let worker = Running::worker(&address, "7", &material.environment(Role::Worker), directory.path()).await;
    let mut scheduler_rpc = rpc(&address, &material.client).await;
    let identity = scheduler_rpc.identity().await.unwrap();
    let (worker_address, known) = identity.workers.first_key_value().unwrap();
    assert!(known.name == "7" && worker_address.starts_with("tls://"), "{identity:?}");

    let content: Bytes = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut request = Message::default();
    let data = Value::Map(vec![("x-0".into(), request.attach(Part::bytes(content.clone())))]);
    let nobody = ["workers", "client"].map(|name| (name, Value::Nil));
    request.set_body(map([("op", "scatter".into()), ("reply", true.into()), ("data", data)].into_iter().chain(nobody)));
    let mut comm = Comm::connect(&address, &options(&material.client)).await.unwrap();
    ask(&mut comm, "scatter", &request).await.unwrap();
    let mut comm = Comm::connect(&worker_address.parse().unwrap(), &options(&material.client)).await.unwrap();
    let keys = Value::Array(vec!["x-0".into()]);
    let get_data = map([("op", "get_data".into()), ("reply", true.into()), ("who", Value::Nil), ("keys", keys)]);
    let got = ask(&mut comm, "get_data", &get_data.into()).await.unwrap();
    let value = get(get(got.body(), "data").unwrap(), "x-0").unwrap();
    assert!(got.part(value).unwrap().to_bytes().unwrap() == content);

    // Who is not of this cluster is told why.
    let wrong_authority = refusal(&address, &options(&temporary().client)).await;
    assert_eq!(wrong_authority.message(), "the peer's certificate is not signed by the authority given");
    let stranger = Security { ca: material.client.ca.clone(), ..temporary().client };
    let not_accepted = refusal(&address, &options(&stranger)).await;
    assert_eq!((not_accepted.kind(), not_accepted.message()), (ErrorKind::ConfigInvalid, "the peer does not accept our certificate"));
    let plain = address.clone().with_scheme(remuda_dask::Scheme::Tcp);
    let error = refusal(&plain, &options(&material.client)).await;
    assert!(error.hint().unwrap().contains("tls://"), "{error:?}");
    assert_eq!(scheduler_rpc.ncores().await.unwrap().len(), 1, "it is none the worse for it");

    worker.end().await;
    scheduler.end().await;
}

async fn ask(comm: &mut Comm, op: &str, request: &Message) -> Result<Message> {
    comm.write(request).await?;
    let message = timeout(PATIENCE, comm.read()).await.expect("an answer in time")?;
    answer(op, message.expect("an answer"))
}

/// What Dask's own `Security.temporary()` makes, where it can: it wants the package `cryptography`.
async fn of_python() -> Option<Security> {
    let code = "import json, sys
try:
    import cryptography
except ImportError:
    sys.exit('certificates: none')
from distributed import Security
made = Security.temporary()
sys.exit('certificates: ' + json.dumps([made.tls_ca_file, made.tls_client_cert, made.tls_client_key]))";
    let said = Running::python(code, &[], "certificates:").await.said;
    if said == "none" {
        println!("skipped the certificates of `Security.temporary()`: there is no package `cryptography`");
        return None;
    }
    let [ca, cert, key] = serde_json::from_str(&said).unwrap();
    Some(Security { ca, cert, key })
}

#[tokio::test]
async fn a_real_scheduler_with_certificates_of_others() {
    if !can_run("a_real_scheduler_with_certificates_of_others").await {
        return;
    }
    let directory = TempDir::new().unwrap();
    // As Python's `Security.temporary()` makes them, and as people do who let openssl sign itself.
    for security in [fixture("rsa.pem"), alone(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))] {
        let environment = Material::shared(security.clone()).environment(Role::Scheduler);
        let (scheduler, address) = Running::scheduler_with("tls", &environment, directory.path()).await;
        assert_eq!(rpc(&address, &security).await.identity().await.unwrap().kind, "Scheduler");
        scheduler.end().await;
    }

    if let Some(security) = of_python().await {
        let environment = Material::shared(security.clone()).environment(Role::Scheduler);
        let (scheduler, address) = Running::scheduler_with("tls", &environment, directory.path()).await;
        assert_eq!(rpc(&address, &security).await.identity().await.unwrap().kind, "Scheduler");
        scheduler.end().await;
    }

    let version_one = fixture("v1.pem");
    let environment = Material::shared(version_one.clone()).environment(Role::Scheduler);
    let (scheduler, address) = Running::scheduler_with("tls", &environment, directory.path()).await;
    let here = Security { ca: version_one.ca, ..temporary().client };
    let error = refusal(&address, &options(&here)).await;
    assert_eq!(error.message(), "the peer's certificate is of X.509 version 1, which is not supported");
    scheduler.end().await;

    let (scheduler, address) = Running::scheduler(directory.path()).await;
    let error = refusal(&address.with_scheme(remuda_dask::Scheme::Tls), &options(&here)).await;
    assert_eq!(error.message(), "the peer does not speak TLS");
    scheduler.end().await;
}
