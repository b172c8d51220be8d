//! What a driver leaves behind that is killed.

use super::{
    killed_driver::{Driver, is_driver},
    *,
};

/// Not a test: the driver that is going to be killed.
#[tokio::test]
async fn driver_entry() {
    if !is_driver() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("child.py");
    let [registered, busy] = ["registered", "busy"].map(|name| directory.path().join(name));
    // A child in a session of its own, and a thread that lets no other one run, once the worker has told of itself.
    let text = format!(
        "import os, re, subprocess, threading, time\n\ndef spin():\n    while not os.path.exists({registered:?}):\n        \
         time.sleep(0.01)\n    open({busy:?}, 'w').close()\n    re.match('(a+)+$', 'a' * 60 + 'b')\n\n\
         def dask_setup(worker):\n    if worker.name == '0-0':\n        subprocess.Popen(['sleep', '3600'], start_new_session=True)\n    \
         else:\n        threading.Thread(target=spin, daemon=True).start()\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = config("driver_entry").unwrap();
    let stage = Stage::start(DaskConfig { preload: vec![file.to_str().unwrap().into()], ..config }).await;
    stage.workers(2).await;
    std::fs::write(&registered, "").unwrap();
    // A scheduler, two workers and the child.
    let pids = loop {
        let pids = descendants(std::process::id());
        if pids.len() == 4 {
            break pids;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while !busy.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cleaned = left_directories();
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    eprintln!("children {}\ndirectories {}", pids.join(" "), cleaned.join(" "));
    std::future::pending().await
}

#[test]
fn nothing_outlives_a_killed_driver() {
    let _alone = ALONE.blocking_lock();
    if config("nothing_outlives_a_killed_driver").is_none() {
        return;
    }
    [Signal::KILL, Signal::TERM].into_iter().for_each(nothing_outlives);
}

fn nothing_outlives(by: Signal) {
    let temporary = TempDir::new().unwrap();
    let mut driver = Driver::start("killed::driver_entry", |command| _ = command.env("TMPDIR", temporary.path()));
    let (pids, directories) = (driver.children(), driver.told("directories "));
    assert_eq!((pids.len(), directories.len()), (4, 1));
    let handles: Vec<_> = pids.iter().map(|pid| handle(*pid)).collect();
    driver.end(|pid| signal(pid, by));
    pids.iter().zip(&handles).for_each(|(pid, handle)| ended(*pid, handle));
    assert!(!Path::new(&directories[0]).exists(), "the scheduler removes the directory before it ends");
}
