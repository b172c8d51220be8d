# ---- What there is to do and who is there to do it, for whoever decides how many workers there should be.

# Seconds for which somebody counts as one who asks, after he has asked.
ATTENTIVE = 300
# Seconds until he is told that work has come: by then the rest of a graph that comes in parts is likely to be there, too.
ARRIVING = 0.05
OPEN = ("waiting", "queued", "no-worker", "processing")


# Names of tasks that are counted each for itself; what comes beyond is counted together. Their numbers are given away again when nothing of the
# name was there for so many seconds: by then nobody remembers what came of it.
KINDS, KEPT_KINDS = 256, 3600


class Measured(Session):
    """What a message brings goes into the scheduler part by part, and its driver holds it back no more: until then it is counted here, where
    somebody asks for the load."""

    def __init__(self, *args):
        super().__init__(*args)
        # By name: how many tasks of the message that is being taken in are still to come, of those that could run at once.
        self.entering = collections.Counter()

    async def submit(self, message):
        if self.core.meter.is_asked():
            names = {ident: cleaned(told.get("name")) for ident, told in message.get("defs", ())}
            for ident, count in collections.Counter(task[1] for task in message["tasks"] if not task[3]).items():
                if ident in names or ident in self.definitions:
                    self.entering[names.get(ident) or self.definitions[ident].name] += count
        try:
            await super().submit(message)
        finally:
            self.entering.clear()

    async def enter(self, tasks, refused):
        await super().enter(tasks, refused)
        # Dask has them since this step of the loop.
        if self.entering:
            for ident, count in collections.Counter(task[1] for task in tasks if not task[3]).items():
                if ident in self.definitions:
                    self.entering[self.definitions[ident].name] -= count


class Kind:
    """What a prefix of Dask's has said so far. Dask's own begins anew when a client restarts the cluster, this does not."""

    def __init__(self, index, passed=0, arrived=0):
        """`passed`: how many of it had come and gone before. `arrived`: how many of the kind that had its number before had come."""
        self.index, self.prefix = index, None
        # Of Dask's earlier objects of this name: completions, seconds, arrivals.
        self.before, self.last = (0, 0.0, 0), (0, 0.0, 0)
        self.longest, self.seen, self.arrived, self.base = 0.0, passed, 0, arrived - passed
        self.live = time.monotonic()

    def read(self, prefix, here, held):
        """`here`: how many tasks it has that are not forgotten; `held`: that a driver holds back."""
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
        self.arrived = max(self.arrived, self.last[2] + held)

    def told(self):
        return self.last[0], self.last[1], self.arrived + self.base


class Wave:
    """Tasks of a group that came together. Most groups have one; tasks of a plain function are all in one group, run after run."""

    __slots__ = ("ident", "tasks", "needs", "behind")

    def __init__(self, ident):
        # `behind`: the number of its second half, where what it needs needs its first.
        self.ident, self.tasks, self.needs, self.behind = ident, 0, (), None


class Counted:
    """A group of Dask's, cut into waves."""

    def __init__(self, group):
        self.group, self.waves = group, []
        # Tasks that Dask has had, and those with what is held back.
        self.came, self.total = 0, 0
        self.growing, self.unmatched, self.states = False, 0, (0, 0, 0)

    def read(self, held, awaited, fits, idents):
        """`held`: how many tasks a driver holds back. `awaited`: how many of those that lack a worker the next will do for. `fits`: whether
        there is a worker that takes tasks, so that those no worker will do for do not want another one like it. Whether tasks have come."""
        states = self.group.states
        waiting, queued, lacking, processing = map(states.get, OPEN)
        self.unmatched = lacking if fits else min(self.unmatched, lacking - awaited)
        ready = queued + lacking - self.unmatched + held
        self.states = processing, ready, waiting
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
        left = [max(sum(wave.tasks for wave in self.waves) - sum(self.states), 0), *self.states]
        told, open = [], []
        for wave in self.waves:
            parts, room = [], wave.tasks
            for amount in left:
                parts.append(min(amount, room))
                room -= parts[-1]
            left = [amount - part for amount, part in zip(left, parts)]
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
        # Names beyond, while there are tasks of theirs, and what all of them have said.
        self.others, self.rest = {}, None
        # How many prefixes Dask had, and the newest of them: those behind it are new.
        self.known, self.newest = 0, None
        # When no number could be given away.
        self.full = None
        self.asked, self.begun, self.arriving = None, {}, False

    def is_asked(self):
        return self.asked is not None and time.monotonic() - self.asked < ATTENTIVE

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
        fresh, held, here = self.fresh(first), self.held(), {}
        fits = any(ws.status == Status.running for ws in self.scheduler.workers.values())
        awaited, known, self.groups = self.awaited(), self.groups, {}
        for name, group in self.scheduler.task_groups.items():
            counted = known.get(name)
            if counted is None or counted.group is not group:
                counted = Counted(group)
            self.groups[name] = counted
            before, prefix = counted.came, group.prefix.name
            if counted.read(held.get(name, 0), awaited[name], fits, self.idents):
                counted.waves[-1].needs = None
            self.kind(prefix, prefix in fresh and not first, group).seen += counted.came - before
            here[prefix] = here.get(prefix, 0) + counted.came - group.states["forgotten"]
        # They came, ended and were forgotten since somebody last asked.
        for name in fresh:
            self.kind(name, not first)
        groups = self.told_groups() + self.passed(here, held)
        if first:
            # What was over before somebody asked is no news.
            groups = [group for group in groups if any(map(group.get, ("waiting", "ready", "processing")))]
        return {"prefixes": self.told_kinds(), "groups": groups, "workers": [load_of(ws, self.begun) for ws in self.scheduler.workers.values()]}

    def fresh(self, first):
        """Names that are new, without a look at all there ever were: Dask forgets none of them. The newest of them only, where nobody has
        asked before."""
        prefixes = self.scheduler.task_prefixes
        if len(prefixes) < self.known or (self.newest is not None and prefixes.get(self.newest.name) is not self.newest):
            # It has begun anew.
            self.known = 0
        count = len(prefixes) - self.known
        fresh = list(itertools.islice(reversed(prefixes), min(count, KINDS) if first else count))
        self.known = len(prefixes)
        if fresh:
            self.newest = prefixes[fresh[0]]
        return dict.fromkeys(fresh)

    def kind(self, name, is_fresh, group=None):
        kind = self.kinds.get(name) or self.others.get(name)
        if kind is not None:
            if group is not None:
                # It is there again: its number is not to be given away, whatever else has come.
                kind.live = self.asked
            return kind
        # What came and went before is not news.
        prefix, passed = self.scheduler.task_prefixes.get(name), 0
        if not is_fresh and prefix is not None:
            passed = prefix.state_counts.get("forgotten", 0) - (group.states["forgotten"] if group is not None else 0)
        kind = self.own(name, passed)
        if kind is None:
            self.rest = self.rest or Kind(KINDS)
            kind = self.others[name] = Kind(KINDS, passed)
            if not is_fresh and prefix is not None:
                # It may have been told already.
                kind.read(prefix, 0, 0)
        return kind

    def own(self, name, passed):
        """A number of its own, if there is one left."""
        if len(self.kinds) < KINDS:
            kind = self.kinds[name] = Kind(len(self.kinds), passed)
            return kind
        if self.full == self.asked:
            return None
        idle = min(self.kinds, key=lambda other: self.kinds[other].live)
        if self.asked - self.kinds[idle].live < KEPT_KINDS:
            self.full = self.asked
            return None
        gone = self.kinds.pop(idle)
        kind = self.kinds[name] = Kind(gone.index, passed, gone.told()[2])
        return kind

    def told_groups(self):
        # All that have come are counted by now, and so are those that others need.
        for counted in self.groups.values():
            if counted.waves and counted.waves[-1].needs is None:
                needed = (self.groups.get(group.name) for group in counted.group.dependencies if group is not counted.group)
                counted.waves[-1].needs = [other.waves[-1].ident for other in needed if other is not None and other.waves]
        groups, waves = [], {}
        for counted in self.groups.values():
            prefix = self.kind(counted.group.prefix.name, False, counted.group).index
            for wave, (done, processing, ready, waiting) in counted.told():
                waves[wave.ident] = wave, counted.growing
                groups.append({
                    "id": wave.ident, "prefix": prefix, "waiting": waiting, "ready": ready, "processing": processing, "done": done,
                    "dependencies": list(wave.needs),
                })
        return self.cut(groups, waves)

    def cut(self, groups, waves):
        """Where a function is called before and behind a barrier Dask has one group, which needs the barrier that needs it. Its tasks that
        wait are told as a group of their own, so that they do not pass for work beside the barrier. Only since they came: later that would
        be news."""
        circle, behind = circular({group["id"]: group["dependencies"] for group in groups}), {}
        for group in groups:
            wave, is_new = waves[group["id"]]
            if wave.behind is None and is_new and group["id"] in circle and 0 < group["waiting"] < wave.tasks:
                wave.behind = next(self.idents)
            if wave.behind is not None:
                behind[group["id"]] = wave.behind
        if not behind:
            straighten(groups, circle)
            return groups
        told = []
        for group in groups:
            needs, is_inside = group["dependencies"], group["id"] in circle
            if not is_inside:
                needs = group["dependencies"] = needs + [behind[other] for other in needs if other in behind]
            if group["id"] in behind:
                told.append(dict(group, id=behind[group["id"]], ready=0, processing=0, done=0))
                group.update(waiting=0, dependencies=[other for other in needs if other not in circle])
            told.append(group)
        straighten(told, circular({group["id"]: group["dependencies"] for group in told}))
        return told

    def passed(self, here, held):
        """Takes in what Dask has counted by name. Those that came, ended and were forgotten since somebody last asked, as groups."""
        groups, now = [], time.monotonic()
        for name, kind in (*self.kinds.items(), *self.others.items()):
            prefix = self.scheduler.task_prefixes.get(name)
            if prefix is None:
                continue
            before = *kind.last, kind.arrived
            kind.read(prefix, here.get(name, 0), held.get(name, 0))
            if here.get(name) or kind.last != before[:3]:
                kind.live = now
            passed, kind.seen = kind.last[2] - kind.seen, max(kind.last[2], kind.seen)
            if passed > 0:
                groups.append({"id": next(self.idents), "prefix": kind.index, "done": passed})
            if kind.index == KINDS:
                rest, more = self.rest, (*kind.last, kind.arrived)
                completions, seconds, _, arrived = (new - old for new, old in zip(more, before))
                rest.last = rest.last[0] + completions, rest.last[1] + seconds, 0
                rest.arrived, rest.longest = rest.arrived + arrived, max(rest.longest, kind.longest)
        self.others = {name: kind for name, kind in self.others.items() if here.get(name)}
        return groups

    def told_kinds(self):
        running, by_index = self.running(), {}
        for name, times in running.items():
            kind = self.kinds.get(name) or self.others.get(name)
            if kind is not None:
                by_index.setdefault(kind.index, []).extend(times)
        kinds = sorted(self.kinds.values(), key=lambda kind: kind.index) + ([self.rest] if self.rest is not None else [])
        told = []
        for kind in kinds:
            completions, seconds, arrived = kind.told()
            told.append({
                "completions": completions, "total": seconds, "longest": kind.longest, "arrived": arrived,
                "running": by_index.get(kind.index, []),
            })
        return told

    def held(self):
        """By group: how many tasks of Dask's drivers hold back, as far as can be said. Many calls go in one; it is the seconds that count."""
        held = {}
        for session in self.core.sessions.values():
            for name, (calls, seconds) in session.backlog.items():
                kind, tasks = self.kinds.get(name), calls
                if seconds is not None and kind is not None and kind.last[0] and kind.last[1]:
                    tasks = min(calls, int(calls * seconds * kind.last[0] / kind.last[1]) + 1)
                held[name] = held.get(name, 0) + tasks
            for name, tasks in session.entering.items():
                held[name] = held.get(name, 0) + tasks
        return held

    def awaited(self):
        """By group: tasks for the worker of the first place, which a keeper starts next where nobody is there. They were left out while
        another was: only then they are looked for. Not those that want resources, too: it may be those that it lacked."""
        awaited = collections.Counter()
        if not self.scheduler.workers and any(counted.unmatched for counted in self.groups.values()) and self.core.owner["ever"]:
            for task in self.scheduler.unrunnable:
                record = self.core.records.get(task.key)
                if record is not None and is_for_first(record.definition):
                    awaited[task.group.name] += 1
        return awaited

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


def load_of(ws, begun):
    # None of them may go, although it may look idle.
    pinned = ws.status != Status.running or bool(ws.long_running) or bool(ws.actors)
    tasks = len(ws.processing)
    if ws.status == Status.closing_gracefully:
        # What it has not begun it never will: others do that.
        tasks = sum(1 for task in ws.processing if task in ws.executing or task in ws.long_running or task.key in begun)
    return {
        "name": str(ws.name), "slots": ws.nthreads, "processing": tasks, "bytes": int(ws.nbytes),
        "memory_limit": int(ws.memory_limit or 0), "pinned": pinned,
    }
