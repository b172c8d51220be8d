//! `remuda cluster` and `remuda shim`.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    dask::{can_run, dask},
    harness::Place,
};

/// A process of Dask's, killed when the test is over.
pub(crate) struct Running(Child, pub(crate) String);

impl Running {
    fn start(args: &[&str], directory: &Path, sign: &str) -> Self {
        Self::start_with(args, &BTreeMap::new(), directory, sign)
    }

    pub(crate) fn start_with(args: &[&str], environment: &BTreeMap<String, String>, directory: &Path, sign: &str) -> Self {
        let mut child =
            dask().args(args).envs(environment).current_dir(directory).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.find_map(|line| Some(line.unwrap().split_once(sign)?.1.trim().to_owned())).expect("it starts");
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_class_without_an_address_is_refused() {
    let place = Place::new(&[]);
    for args in [&["--cluster-class", "local::LocalCluster", "--kwarg", "n_workers=1"][..], &[]] {
        let ended = place.remuda(&[&["cluster", "start"][..], args].concat());
        ended.code(2).says(&["`local::LocalCluster` has no address", "local::DaskCluster"]);
        assert_eq!(ended.out, "");
        assert!(!ended.err.contains("joined"), "nothing was started: {}", ended.err);
    }
}

#[test]
fn what_is_there_already_is_not_started() {
    let place = Place::new(&[("barn.yaml", "address: tcp://10.0.0.1:8786\n")]);
    place.remuda(&["cluster", "start", "-f", "barn.yaml"]).code(2).says(&["tcp://10.0.0.1:8786", "--cluster-class"]);
    place.remuda(&["cluster", "start", "--kwarg", "n_worker=1"]).code(2).says(&["did you mean `n_workers`?"]);
}

#[test]
fn addresses_that_are_none_and_schedulers_that_are_not_there() {
    let place = Place::new(&[]);
    place.remuda(&["cluster", "status", "http://barn:8787"]).code(2).says(&["tcp://barn:8786"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(); // closed again
    for command in [&["status"][..], &["workers"], &["logs"], &["scale", "-n", "2"]] {
        let address = format!("tcp://127.0.0.1:{port}");
        let args: Vec<_> = ["cluster"].iter().chain(command).copied().chain([address.as_str()]).collect();
        let ended = place.remuda(&args);
        ended.code(3).says(&[&address]);
        assert_eq!(ended.out, "");
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_is_created() {
    let place = Place::new(&[("full/file", "")]);
    let state = place.path().join("state");
    let place = place.env("REMUDA_STATE_DIR", state.to_str().unwrap());
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--scheduler-file", "no/such/s.json"], &["--scheduler-file", "no/such/s.json", "directory that exists"]),
        (&["--scheduler-file", "full"], &["--scheduler-file", "path=full"]),
        (&["--scheduler-file", "full/file/s.json"], &["--scheduler-file", "full/file/s.json"]),
        (&["--kwarg", "n_workers=-1"], &["n_workers", "at least 0", "-1"]),
        (&["--kwarg", "n_wrokers=1", "--kwarg", "tls=perhaps"], &["2 mistakes", "did you mean `n_workers`?", "perhaps"]),
        (&["--kwarg", "n_workers"], &["key=value"]),
        (&["-f", "missing.yaml"], &["missing.yaml: no such file"]),
        (&["--cluster-class", "local::DaskCluste"], &["did you mean `local::DaskCluster`?"]),
    ];
    for (args, words) in cases {
        let class = if args.contains(&"--cluster-class") { &[][..] } else { &["--cluster-class", "local::DaskCluster"] };
        let ended = place.remuda(&[&["cluster", "start"][..], class, args].concat());
        ended.code(2).says(words);
        assert_eq!(ended.out, "");
        assert!(!state.exists(), "{args:?}");
    }
    let here: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(here, ["full"]);
    let tls = "tls://127.0.0.1:1";
    place.remuda(&["cluster", "status", tls]).code(2).says(&["certificates", "--tls-ca-file", "--tls-key"]);
    place.remuda(&["cluster", "status", tls, "--tls-ca-file", "none.pem"]).code(2).says(&["`--tls-ca-file`", "`--tls-cert`: is required"]);
    place.remuda(&["cluster", "scale", "tcp://127.0.0.1:1", "-n", "-1"]).code(2).says(&["invalid value '-1'", "--workers"]);
    let many = ["cluster", "scale", "tcp://127.0.0.1:1", "-n", "10001"];
    place.remuda(&many).code(2).says(&["--workers 10001", "--force"]);
    place.remuda(&[&many[..], &["--force"]].concat()).code(3).says(&["nothing listens there"]);
}

#[test]
fn the_shim_is_python() {
    let place = Place::new(&[]);
    let (line, plain) = (place.remuda(&["shim"]), place.remuda(&["shim", "--plain"]));
    assert_eq!(line.code(0).out.lines().count(), 1);
    assert!(plain.code(0).out.lines().count() > 100);
    for text in [&line.out, &plain.out] {
        std::fs::write(place.path().join("shim.py"), text).unwrap();
        let parse = "import ast; ast.parse(open('shim.py').read())";
        assert!(Command::new("python3").args(["-c", parse]).current_dir(place.path()).status().unwrap().success());
    }
}

#[test]
fn a_foreign_scheduler_tells_of_itself_and_is_not_scaled() {
    if !can_run("a_foreign_scheduler_tells_of_itself_and_is_not_scaled") {
        return;
    }
    let place = Place::new(&[("flow.yaml", "tasks:\n  a: {python: 'operator:neg', args: [1]}\nresult: $a\n")]);
    let args = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"];
    let scheduler = Running::start(&args, place.path(), "Scheduler at:");
    let address = scheduler.1.as_str();
    let nobody = place.remuda(&["cluster", "status", address]);
    assert!(nobody.code(0).out.contains("workers    0, 0 threads") && nobody.out.contains("tasks      none"), "{}", nobody.out);

    let args = ["worker", address, "--host", "127.0.0.1", "--nthreads", "2", "--name", "7", "--no-nanny", "--resources", "GPU=2"];
    let _worker = Running::start(&args, place.path(), "Registered to:");
    let status = place.remuda(&["cluster", "status", address, "--json"]);
    let tree: serde_json::Value = serde_json::from_str(&status.code(0).out).unwrap();
    assert_eq!((&tree["workers"], &tree["threads"], &tree["address"]), (&1.into(), &2.into(), &address.into()), "{tree}");
    assert!(tree["versions"]["distributed"].as_str().unwrap().starts_with("20"), "{tree}");
    assert!(tree["memory"]["limit"].as_u64().unwrap() > 0, "{tree}");

    let table = place.remuda(&["cluster", "workers", address]);
    let lines: Vec<_> = table.code(0).out.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("NAME") && lines[1].starts_with("7 ") && lines[1].ends_with("GPU=2"), "{lines:?}");
    let tree: serde_json::Value = serde_json::from_str(&place.remuda(&["cluster", "workers", address, "--json"]).code(0).out).unwrap();
    assert_eq!((&tree[0]["name"], &tree[0]["threads"], &tree[0]["status"]), (&"7".into(), &2.into(), &"running".into()), "{tree}");

    let all = place.remuda(&["cluster", "logs", address]);
    assert!(all.code(0).out.contains("scheduler | ") && all.out.contains("worker 7 | "), "{}", all.out);
    let one = place.remuda(&["cluster", "logs", address, "--worker", "7", "-n", "1"]);
    assert!(one.code(0).out.lines().count() == 1 && one.out.starts_with("worker 7 | "), "{}", one.out);
    place.remuda(&["cluster", "logs", address, "--worker", "8"]).code(2).says(&["no worker `8`"]);
    place.remuda(&["cluster", "scale", address, "-n", "3"]).code(2).says(&["nobody to scale it"]);
    let worker = tree[0]["address"].as_str().unwrap();
    for command in [&["status"][..], &["workers"], &["logs"], &["scale", "-n", "2"]] {
        let args: Vec<_> = ["cluster"].iter().chain(command).copied().chain([worker]).collect();
        place.remuda(&args).code(2).says(&["a worker answers there, not a scheduler"]);
    }
    // Also once it has our shim, and could answer.
    for _ in 0..2 {
        place.remuda(&["run", "flow.yaml", "--address", worker]).code(2).says(&["a worker answers there, not a scheduler"]);
        assert_eq!(place.remuda(&["run", "flow.yaml", "--address", address]).code(0).out, "-1\n");
    }
}
