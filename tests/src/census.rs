//! What exists on this machine because of this process.

use std::{collections::BTreeSet, fs, path::Path};

/// Every process below this one, as `pid command`.
#[must_use]
pub fn processes() -> BTreeSet<String> {
    below(std::process::id())
}

/// Every process below `root`, as `pid command`. Zombies count: somebody should have waited for them.
#[must_use]
pub fn below(root: u32) -> BTreeSet<String> {
    let all: Vec<(u32, u32, String)> =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| status(&entry.path())).collect();
    let (mut family, mut found) = (vec![root], BTreeSet::new());
    while let Some(parent) = family.pop() {
        for (pid, _, name) in all.iter().filter(|(_, ppid, _)| *ppid == parent) {
            family.push(*pid);
            found.insert(format!("{pid} {name}"));
        }
    }
    found
}

/// Threads of this process whose names begin with `prefix`.
#[must_use]
pub fn threads(prefix: &str) -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            name.starts_with(prefix).then(|| format!("thread {} {}", task.file_name().to_string_lossy(), name.trim()))
        })
        .collect()
}

/// Process id, parent and name from `/proc/PID/stat`; the name stands in brackets and may hold any character.
fn status(dir: &Path) -> Option<(u32, u32, String)> {
    let pid = dir.file_name()?.to_str()?.parse().ok()?;
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let parent = tail.split_whitespace().nth(1)?.parse().ok()?;
    Some((pid, parent, name))
}
