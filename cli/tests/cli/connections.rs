//! Schedulers by address that cannot be spoken to: each is one clear message with its remedy, and an exit code.
//!
//! What needs a real scheduler is skipped by name where there is no `dask`; with `dask` in `REMUDA_REQUIRE` that is a failure.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use remuda_core::security::Security;
use remuda_dask::{
    protocol::Connection,
    security::{Material, Role},
};
use rustix::process::Signal;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};

use crate::{
    clusters::Running,
    dask::can_run,
    harness::{self, Ended, Place},
};

const FLOW: &str = "tasks:\n  a: {command: [echo, -n, here]}\nresult: $a\n";
/// Longer than anything takes that is not waited for on purpose.
const LONG: &str = "60s";

fn place() -> Place {
    Place::new(&[("flow.yaml", FLOW)])
}

fn run(place: Place, address: &str, client: &Value) -> Ended {
    place.env("REMUDA_CLIENT_KWARGS", &client.to_string()).remuda(&["run", "flow.yaml", "--address", address])
}

/// One error, with these words; nothing on standard output.
#[track_caller]
fn refused(code: i32, address: &str, client: &Value, words: &[&str]) {
    let ended = run(place(), address, client);
    ended.code(code).says(words);
    assert_eq!(ended.out, "");
    let errors = ended.err.lines().filter(|line| line.to_lowercase().starts_with("error")).count();
    assert_eq!(errors, 1, "told once:\n{}", ended.err);
}

fn certificates(security: &Security) -> Value {
    json!({"security": {"ca": security.ca, "cert": security.cert, "key": security.key}, "timeout": LONG})
}

/// Serves every connection by `script`, for as long as the test program runs.
fn peer(scheme: &str, script: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("{scheme}://{}", listener.local_addr().unwrap());
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let script = script.clone();
            std::thread::spawn(move || script(stream));
        }
    });
    address
}

fn until_it_hangs_up(stream: &mut impl Read) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Speaks TLS with this certificate, and says hello as Dask does.
fn encrypted(security: &Security) -> String {
    let chain = CertificateDer::pem_slice_iter(security.cert.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(security.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    peer("tls", move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        if stream.write_all(&Connection::hello().concat()).is_ok() {
            until_it_hangs_up(&mut stream);
        }
    })
}

#[test]
fn ports_where_nobody_speaks_dask() {
    let address = format!("tcp://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()); // closed again
    refused(3, &address, &json!({"timeout": LONG}), &["nothing listens there", &address, "is the scheduler running"]);

    // Nobody accepts: the operating system does, and that is all.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    for (scheme, what) in [("tcp", "no Dask handshake came within 300ms"), ("tls", "no TLS handshake came within 300ms")] {
        let address = format!("{scheme}://{}", mute.local_addr().unwrap());
        let mut client = certificates(&Material::temporary(1).unwrap().client);
        client["timeout"] = "300ms".into();
        refused(3, &address, &client, &[what, &address]);
    }

    let web = peer("tcp", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    refused(2, &web, &json!({"timeout": LONG}), &[&web, "8786"]);
    let mail = peer("tcp", |mut stream| {
        let _ = stream.write_all(b"220 barn.example ESMTP\r\n");
        until_it_hangs_up(&mut stream);
    });
    refused(2, &mail, &json!({"timeout": LONG}), &[&mail, "does not speak Dask's protocol", "8786"]);
    for (address, words) in [
        ("http://barn:8787/status", "write `tcp://barn:8786`"),
        ("http://127.0.0.1:19001", "(mostly at port 8787), not the scheduler's; write `tcp://127.0.0.1:8786`, or the port"),
        ("tcp:/127.0.0.1:19001", "`://` must follow `tcp`; write `tcp://127.0.0.1:19001`"),
    ] {
        refused(2, address, &json!({}), &[words]);
        place().remuda(&["cluster", "status", address]).code(2).says(&[words]);
    }
}

#[test]
fn certificates_that_do_not_fit() {
    let material = Material::temporary(1).unwrap();
    let stranger = Material::temporary(1).unwrap();
    let address = encrypted(&material.scheduler);
    refused(2, &address, &json!({}), &["client_kwargs.security: ", "needs certificates", "tls_ca_file"]);
    refused(2, &address, &certificates(&stranger.client), &["is not signed by the authority given", "tls_ca_file", &address]);

    let mut params = CertificateParams::new(["dask-internal".to_owned()]).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let day = Duration::from_secs(86_400);
    params.not_before = date_time_ymd(1970, 1, 1) + (now - day * 9);
    params.not_after = date_time_ymd(1970, 1, 1) + (now - day * 5 / 2);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap().pem();
    let expired = Security { ca: cert.clone(), cert, key: key.serialize_pem() };
    let here = Security { ca: expired.ca.clone(), ..material.client.clone() };
    refused(2, &encrypted(&expired), &certificates(&here), &["certificate expired 2 days ago", "issue it again"]);
    // Ours: told before anybody is asked.
    refused(2, "tls://10.0.0.1:8786", &certificates(&expired), &["client_kwargs.security.tls_cert", "expired 2 days ago"]);

    let plain = peer("tls", |mut stream| {
        if stream.write_all(&Connection::hello().concat()).is_ok() {
            until_it_hangs_up(&mut stream);
        }
    });
    refused(2, &plain, &certificates(&material.client), &["does not speak TLS", &plain.replace("tls://", "tcp://")]);
}

fn scheduler(place: &Place, protocol: &str, environment: &BTreeMap<String, String>, more: &[&str]) -> Running {
    let args = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--protocol", protocol];
    Running::start_with(&[&args[..], more].concat(), environment, place.path(), "Scheduler at:")
}

fn worker(address: &str, environment: &BTreeMap<String, String>, directory: &Path) -> Running {
    let args = ["worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--dashboard-address", "127.0.0.1:0"];
    Running::start_with(&args, environment, directory, "Registered to:")
}

#[test]
fn real_schedulers_with_certificates_and_without() {
    if !can_run("real_schedulers_with_certificates_and_without") {
        return;
    }
    let place = place();
    let material = Material::temporary(1).unwrap();
    let secured = scheduler(&place, "tls", &material.environment(Role::Scheduler), &[]);
    let address = secured.1.as_str();
    let _worker = worker(address, &material.environment(Role::Worker), place.path());
    refused(3, &address.replace("tls://", "tcp://"), &json!({"timeout": LONG}), &["one that wants TLS", address]);
    let stranger = Security { ca: material.client.ca.clone(), ..Material::temporary(1).unwrap().client };
    refused(2, address, &certificates(&stranger), &["does not accept our certificate", "signed by the authority"]);
    let ended = run(self::place(), address, &certificates(&material.client));
    assert!(ended.code(0).out.contains("here"), "{}", ended.out);

    let open = scheduler(&place, "tcp", &BTreeMap::new(), &[]);
    let wrong = open.1.replace("tcp://", "tls://");
    refused(2, &wrong, &certificates(&material.client), &["does not speak TLS", &open.1]);
}

/// A run one of whose four tasks runs, and what they wait for. Held open by the test alone, so that they end with it, whoever was killed
/// meanwhile.
fn busy(place: &Place, address: &str) -> (harness::Running, File) {
    let [begun, hold] = ["begun", "hold"].map(|name| place.fifo(name).to_str().unwrap().to_owned());
    let held = File::options().read(true).write(true).open(&hold).unwrap();
    let command = format!("echo x > {begun}; exec cat {hold}");
    let flow = json!({"tasks": {"t": {"command": ["sh", "-c", command, "$i"], "map": {"i": {"range": 4}}}}});
    std::fs::write(place.path().join("flow.yaml"), flow.to_string()).unwrap();
    let run = place.start(&["run", "flow.yaml", "--address", address]);
    File::open(&begun).unwrap().read_exact(&mut [0]).unwrap();
    (run, held)
}

#[test]
fn a_signal_leaves_the_cluster_of_others_as_it_is_and_says_so() {
    if !can_run("a_signal_leaves_the_cluster_of_others_as_it_is_and_says_so") {
        return;
    }
    let place = place();
    let scheduler = scheduler(&place, "tcp", &BTreeMap::new(), &[]);
    let _worker = worker(&scheduler.1, &BTreeMap::new(), place.path());
    let (run, _held) = busy(&place, &scheduler.1);
    run.signal(Signal::INT);
    let ended = run.end();
    ended.code(130).says(&[
        "interrupted: cancelling the tasks and leaving the cluster as it is; once more to leave at once\n",
        "0 tasks done, 4 cancelled in ",
        "; the cluster is left as it was\n",
    ]);
    assert!(!ended.err.contains("clos"), "{}", ended.err);
}

#[test]
fn a_scheduler_that_is_killed_is_told_of_once() {
    if !can_run("a_scheduler_that_is_killed_is_told_of_once") {
        return;
    }
    let place = place();
    let scheduler = scheduler(&place, "tcp", &BTreeMap::new(), &[]);
    let _worker = worker(&scheduler.1, &BTreeMap::new(), place.path());
    let (run, _hold) = busy(&place, &scheduler.1);
    drop(scheduler);
    let ended = run.end();
    ended.code(3).says(&[
        "t[0]: task `t` (#0) could not be run: the scheduler is gone",
        " (and 3 more for the same reason)\n  hint: ",
        "; the scheduler was lost\n",
    ]);
    assert_eq!(ended.err.matches("the scheduler is gone").count(), 1, "{}", ended.err);
    assert!(!ended.err.contains("also:") && !ended.err.contains("left as it was"), "{}", ended.err);
}

#[test]
fn a_site_that_blocks_the_shim_may_preload_what_remuda_shim_prints() {
    if !can_run("a_site_that_blocks_the_shim_may_preload_what_remuda_shim_prints") {
        return;
    }
    let place = place();
    let name = "DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS".to_owned();
    let blocked = BTreeMap::from([(name, r#"["register_scheduler_plugin", "register_worker_plugin"]"#.to_owned())]);
    let closed = scheduler(&place, "tcp", &blocked, &[]);
    let client = json!({"timeout": LONG});
    refused(3, &closed.1, &client, &["lets nobody install our shim", "`remuda shim` prints", "--preload"]);
    drop(closed);

    let text = place.remuda(&["shim"]).code(0).out.trim().to_owned();
    for preload in [text.clone(), place.path().join("shim.py").to_str().unwrap().to_owned()] {
        std::fs::write(place.path().join("shim.py"), &text).unwrap();
        let prepared = scheduler(&place, "tcp", &blocked, &["--preload", &preload]);
        let _worker = worker(&prepared.1, &BTreeMap::new(), place.path());
        let ended = run(self::place(), &prepared.1, &client);
        assert!(ended.code(0).out.contains("here"), "{}", ended.out);
    }
}
