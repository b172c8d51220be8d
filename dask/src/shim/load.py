# ---- What there is to do and who is there to do it, for whoever decides how many workers there should be.

# Seconds for which somebody counts as one who asks, after he has asked.
ASKED = 300
# Seconds until he is told that work has come: by then the rest of a graph that comes in parts is likely to be there, too.
ARRIVING = 0.05
OPEN = ("waiting", "queued", "no-worker", "processing")


class Kind:
    """What a prefix of Dask's has said so far. Dask's own begins anew when a client restarts the cluster, this does not."""

    def __init__(self, index):
        self.index, self.prefix = index, None
        # Of Dask's earlier objects of this name: completions, seconds, arrivals.
        self.before, self.last = (0, 0.0, 0), (0, 0.0, 0)
        self.longest, self.seen, self.arrived = 0.0, 0, 0

    def read(self, prefix, here):
        """`here`: how many tasks it has that are not forgotten."""
        if prefix is not self.prefix:
            self.prefix, self.before = prefix, self.last
        counts, seconds = prefix.state_counts, prefix.all_durations.get("compute", 0.0)
        now = (counts.get("memory", 0), seconds, counts.get("forgotten", 0) + here)
        # Never less than before.
        self.last = tuple(max(told, base + more) for told, base, more in zip(self.last, self.before, now))
        completions, seconds, _ = self.last
        if completions:
            # Dask keeps no longest: this is the longest of what was seen.
            self.longest = max(self.longest, prefix.duration_average, prefix.max_exec_time, seconds / completions)


class Wave:
    """Tasks of a group that came together. Most groups have one; tasks of a plain function are all in one group, run after run."""

    __slots__ = ("ident", "tasks", "needs")

    def __init__(self, ident):
        self.ident, self.tasks, self.needs = ident, 0, ()


class Counted:
    """A group of Dask's, cut into waves."""

    def __init__(self, group):
        self.group, self.waves = group, []
        # Tasks that Dask has had, and those with what is held back.
        self.came, self.total = 0, 0
        self.growing, self.unmatched, self.states = False, 0, (0, 0, 0)

    def read(self, held, fits, idents):
        """`held`: how many tasks a driver holds back. `fits`: whether there is a worker that takes tasks, so that those no worker will do
        for do not want another one like it. Whether tasks have come."""
        states = self.group.states
        waiting, queued, lacking, processing = map(states.get, OPEN)
        self.unmatched = lacking if fits else min(self.unmatched, lacking)
        ready = queued + lacking - self.unmatched + held
        self.states = waiting, ready, processing
        self.came, left = sum(states.values()), waiting + ready + processing
        total = max(self.came + held, self.total)
        fresh, self.total = total - self.total, total
        # What was done and has to be done again counts as come again.
        missing = max(fresh, left - sum(wave.tasks for wave in self.waves))
        if missing > 0:
            if not self.waves or not self.growing:
                self.waves.append(Wave(next(idents)))
            self.waves[-1].tasks += missing
        self.growing = missing > 0
        return missing > 0

    def told(self):
        """Its waves, those first that came first: so are they worked off. What is over is told once."""
        waiting, ready, processing = self.states
        done = max(sum(wave.tasks for wave in self.waves) - waiting - ready - processing, 0)
        told, open = [], []
        for wave in self.waves:
            parts, room = [], wave.tasks
            for amount in (done, processing, ready, waiting):
                parts.append(min(amount, room))
                room -= parts[-1]
            done, processing, ready, waiting = done - parts[0], processing - parts[1], ready - parts[2], waiting - parts[3]
            told.append((wave, parts))
            if parts[0] < wave.tasks:
                open.append(wave)
        self.waves = open
        return told


class Meter:
    """Reads Dask's counts: as many steps as there are groups, workers and threads, however many tasks there are."""

    def __init__(self, core):
        self.core, self.scheduler = core, core.scheduler
        self.kinds, self.groups, self.idents = {}, {}, itertools.count(1)
        self.asked, self.begun, self.arriving = None, {}, False

    def is_asked(self):
        return self.asked is not None and time.monotonic() - self.asked < ASKED

    def update_graph(self, *args, **kwargs):
        """Somebody has submitted something."""
        if not self.arriving and self.is_asked():
            self.arriving = True
            self.core.loop.call_later(ARRIVING, self.tell)

    def tell(self):
        self.arriving = False
        for watch in self.core.watches:
            watch.tell(["arrived"])

    def started(self, key, attempt):
        """Told by the worker a tick after it began."""
        if self.is_asked():
            self.begun[key] = (attempt, time.monotonic() - TICK)
        elif self.begun:
            self.begun = {}

    def read(self):
        first, self.asked = self.asked is None, time.monotonic()
        running, held, here = self.running(), self.held(), {}
        fits = any(ws.status == Status.running for ws in self.scheduler.workers.values())
        known, self.groups = self.groups, {}
        for name, group in self.scheduler.task_groups.items():
            counted = known.get(name)
            if counted is None or counted.group is not group:
                counted = Counted(group)
            self.groups[name] = counted
            before = counted.came
            if counted.read(held.get(name, 0), fits, self.idents):
                counted.waves[-1].needs = None
            kind = group.prefix.name
            self.kind(kind).seen += counted.came - before
            here[kind] = here.get(kind, 0) + counted.came - group.states["forgotten"]
        groups = self.told_groups(here)
        if first:
            # What was over before somebody asked is no news.
            groups = [group for group in groups if any(map(group.get, ("waiting", "ready", "processing")))]
        prefixes = []
        for name, kind in self.kinds.items():
            kind.arrived = max(kind.arrived, kind.last[2] + held.get(name, 0))
            prefixes.append({
                "name": name, "completions": kind.last[0], "total": kind.last[1], "longest": kind.longest, "arrived": kind.arrived,
                "running": running.get(name, []),
            })
        return {"prefixes": prefixes, "groups": groups, "workers": list(map(load_of, self.scheduler.workers.values()))}

    def kind(self, name):
        kind = self.kinds.get(name)
        if kind is None:
            kind = self.kinds[name] = Kind(len(self.kinds))
        return kind

    def told_groups(self, here):
        # All that have come are counted by now, and so are those that others need.
        for counted in self.groups.values():
            if counted.waves and counted.waves[-1].needs is None:
                needed = (self.groups.get(group.name) for group in counted.group.dependencies if group is not counted.group)
                counted.waves[-1].needs = [other.waves[-1].ident for other in needed if other is not None and other.waves]
        groups = []
        for counted in self.groups.values():
            prefix = self.kind(counted.group.prefix.name).index
            for wave, (done, processing, ready, waiting) in counted.told():
                groups.append({
                    "id": wave.ident, "prefix": prefix, "waiting": waiting, "ready": ready, "processing": processing, "done": done,
                    "dependencies": list(wave.needs),
                })
        for name, prefix in self.scheduler.task_prefixes.items():
            kind = self.kind(name)
            kind.read(prefix, here.get(name, 0))
            # They came, ended and were forgotten since somebody last asked.
            passed, kind.seen = kind.last[2] - kind.seen, max(kind.last[2], kind.seen)
            if passed > 0:
                groups.append({"id": next(self.idents), "prefix": kind.index, "done": passed})
        return groups

    def held(self):
        """By group: how many tasks of Dask's drivers hold back, as far as can be said. Many calls go in one; it is the seconds that count."""
        held = {}
        for session in self.core.sessions.values():
            for name, (calls, seconds) in session.backlog.items():
                kind, tasks = self.kinds.get(name), calls
                if seconds is not None and kind is not None and kind.last[0] and kind.last[1]:
                    tasks = min(calls, int(calls * seconds * kind.last[0] / kind.last[1]) + 1)
                held[name] = held.get(name, 0) + tasks
        return held

    def running(self):
        """By prefix: how many seconds each task has run. Ours say when they begin, of others' the heartbeats of their workers tell."""
        tasks, records, now, running = self.scheduler.tasks, self.core.records, time.monotonic(), {}
        for key, (attempt, begun) in list(self.begun.items()):
            task, record = tasks.get(key), records.get(key)
            if task is None or record is None or task.state != "processing" or record.attempt != attempt:
                del self.begun[key]
            else:
                running.setdefault(task.prefix.name, []).append(now - begun)
        for ws in self.scheduler.workers.values():
            age = max(time.time() - ws.last_seen, 0.0)
            for task, elapsed in ws.executing.items():
                if task.processing_on is ws and task.key not in self.begun:
                    running.setdefault(task.prefix.name, []).append(max(elapsed + age, 0.0))
        return running


def load_of(ws):
    # None of them may go, although it may look idle.
    pinned = ws.status != Status.running or bool(ws.long_running) or bool(ws.actors)
    return {
        "name": str(ws.name), "slots": ws.nthreads, "processing": len(ws.processing), "bytes": int(ws.nbytes),
        "memory_limit": int(ws.memory_limit or 0), "pinned": pinned,
    }
