//! What this machine lets us use: processors and memory, as containers limit them, and Dask's rule to split them.

use std::{fs, path::PathBuf};

/// Processors for us: affinity and cgroup quota (rounded up), the smaller.
pub(crate) fn cpu_count() -> u32 {
    let affinity = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let affinity = rustix::thread::sched_getaffinity(None).map_or(affinity, |set| set.count());
    affinity.min(cgroup_dirs().iter().filter_map(|dir| quota(dir)).min().unwrap_or(u32::MAX)).max(1)
}

/// Bytes of memory for us: physical, cgroup and resource limits, the smallest.
pub(crate) fn memory() -> u64 {
    let physical = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
    });
    let group = cgroup_dirs()
        .iter()
        .filter_map(|dir| {
            ["memory.max", "memory.limit_in_bytes"].iter().find_map(|file| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok())
        })
        .min();
    let process = rustix::process::getrlimit(rustix::process::Resource::As).current;
    [physical, group, process].into_iter().flatten().min().unwrap_or(u64::MAX)
}

/// The cgroups we are in, of both versions, with all their parents: a limit higher up holds as well.
fn cgroup_dirs() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut dirs = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let roots: Vec<PathBuf> = match controllers {
            "" => vec!["/sys/fs/cgroup".into(), "/sys/fs/cgroup/unified".into()],
            names => names
                .split(',')
                .filter(|name| ["cpu", "memory"].contains(name))
                .map(|_| PathBuf::from("/sys/fs/cgroup").join(names))
                .chain(
                    names.split(',').filter(|name| ["cpu", "memory"].contains(name)).map(|name| PathBuf::from("/sys/fs/cgroup").join(name)),
                )
                .collect(),
        };
        for root in roots {
            let inner = root.join(path.trim_start_matches('/'));
            dirs.extend(inner.ancestors().take_while(|dir| dir.starts_with(&root)).map(PathBuf::from));
        }
    }
    dirs
}

fn quota(dir: &std::path::Path) -> Option<u32> {
    let read = |file: &str| fs::read_to_string(dir.join(file)).ok();
    let version2 = read("cpu.max").and_then(|text| parse_cpu_max(&text));
    version2.or_else(|| {
        let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
        parse_cpu_max(&format!("{} {}", quota.trim(), period.trim()))
    })
}

/// `quota period`, rounded up to whole processors; `None` without a limit (`max`, or -1 in version 1).
fn parse_cpu_max(text: &str) -> Option<u32> {
    let mut parts = text.split_whitespace();
    let (quota, period) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    (quota > 0 && period > 0).then(|| u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX))
}

/// Dask's `nprocesses_nthreads`: up to four processors one process each; beyond, the smallest factor that is not below the root.
pub(crate) fn processes_and_threads(cpus: u32) -> (u32, u32) {
    if cpus <= 4 {
        return (cpus, 1);
    }
    let processes = (1..=cpus).find(|n| cpus.is_multiple_of(*n) && u64::from(*n) * u64::from(*n) >= u64::from(cpus)).unwrap_or(cpus);
    (processes, cpus / processes)
}

/// Workers, and threads of each, where one or both were not given.
pub(crate) fn split(workers: Option<u32>, threads: Option<u32>, processes: bool, cpus: u32) -> (u32, u32) {
    match (workers, threads) {
        (Some(workers), Some(threads)) => (workers, threads),
        (Some(workers), None) => (workers, cpus.div_ceil(workers.max(1)).max(1)),
        (None, Some(threads)) if processes => ((cpus / threads.max(1)).max(1), threads),
        (None, Some(threads)) => (1, threads),
        (None, None) if processes => processes_and_threads(cpus),
        (None, None) => (1, cpus),
    }
}

/// So many workers with so many threads each have all processors, and are not fewer than were asked for.
pub(crate) fn enough(threads: u32, asked: Option<u32>) -> u32 {
    cpu_count().div_ceil(threads.max(1)).max(asked.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_enough_when_they_have_all_processors() {
        let cpus = cpu_count();
        assert_eq!(enough(cpus, None), 1);
        assert_eq!(enough(1, None), cpus);
        assert_eq!(enough(cpus + 1, None), 1);
        assert_eq!(enough(0, None), cpus);
        assert_eq!(enough(1, Some(cpus + 3)), cpus + 3);
    }

    #[test]
    fn processors_are_split_as_dask_splits_them() {
        let table = [
            (1, 1, 1),
            (2, 2, 1),
            (3, 3, 1),
            (4, 4, 1),
            (5, 5, 1),
            (6, 3, 2),
            (7, 7, 1),
            (8, 4, 2),
            (9, 3, 3),
            (10, 5, 2),
            (12, 4, 3),
            (13, 13, 1),
            (14, 7, 2),
            (15, 5, 3),
            (16, 4, 4),
            (18, 6, 3),
            (20, 5, 4),
            (22, 11, 2),
            (24, 6, 4),
            (28, 7, 4),
            (31, 31, 1),
            (32, 8, 4),
            (36, 6, 6),
            (40, 8, 5),
            (44, 11, 4),
            (48, 8, 6),
            (56, 8, 7),
            (61, 61, 1),
            (64, 8, 8),
            (72, 9, 8),
            (80, 10, 8),
            (96, 12, 8),
            (97, 97, 1),
            (112, 14, 8),
            (128, 16, 8),
            (192, 16, 12),
            (256, 16, 16),
        ];
        for (cpus, processes, threads) in table {
            assert_eq!(processes_and_threads(cpus), (processes, threads), "{cpus} processors");
        }
    }

    #[test]
    fn what_is_given_decides_what_is_not() {
        assert_eq!(split(None, None, true, 12), (4, 3));
        assert_eq!(split(None, None, false, 12), (1, 12));
        assert_eq!(split(None, Some(5), true, 12), (2, 5));
        assert_eq!(split(None, Some(50), true, 12), (1, 50));
        assert_eq!(split(None, Some(5), false, 12), (1, 5));
        assert_eq!(split(Some(5), None, true, 12), (5, 3));
        assert_eq!(split(Some(50), None, false, 12), (50, 1));
        assert_eq!(split(Some(0), None, true, 12), (0, 12));
        assert_eq!(split(Some(3), Some(2), true, 12), (3, 2));
    }

    #[test]
    fn a_quota_is_rounded_up() {
        assert_eq!(parse_cpu_max("150000 100000"), Some(2));
        assert_eq!(parse_cpu_max("50000 100000\n"), Some(1));
        assert_eq!(parse_cpu_max("max 100000"), None);
        assert_eq!(parse_cpu_max("-1 100000"), None);
    }
}
