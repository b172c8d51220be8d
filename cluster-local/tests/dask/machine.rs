//! Processes and directories as the machine has them.

use super::*;

/// Processes below `root`.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let (mut found, mut parents) = (Vec::new(), vec![root]);
    while let Some(parent) = parents.pop() {
        for task in std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                found.push(pid);
                parents.push(pid);
            }
        }
    }
    found
}

pub(crate) fn alive(pids: &[u32]) -> Vec<u32> {
    pids.iter().copied().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect()
}

pub(crate) fn left_behind(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![state.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() { dirs.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

/// The process of a worker or of the scheduler, by its command line.
pub(crate) fn find(words: &[&str]) -> u32 {
    let found = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        words.iter().all(|word| line.iter().any(|part| part.contains(word))).then_some(pid)
    });
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), 1, "{words:?}: {found:?}");
    found[0]
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// The directory of the cluster whose processes these are.
pub(crate) fn own_directory(pids: &[u32]) -> String {
    let lines = pids.iter().filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok());
    let mut words = lines.flat_map(|line| line.split('\0').map(str::to_owned).collect::<Vec<_>>());
    let guard = words.find_map(|word| word.strip_suffix("/remuda_guard.py").map(str::to_owned));
    guard.expect("a process with a guard")
}

/// The cluster's own, by its marker file.
pub(crate) fn left_directories() -> Vec<String> {
    let dirs = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    dirs.filter(|dir| dir.path().join("remuda_guard.py").exists()).map(|dir| dir.path().to_str().unwrap().to_owned()).collect()
}
