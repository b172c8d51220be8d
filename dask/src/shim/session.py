# ---- Sessions: one per run. Its keys are wanted by a client that exists only in the scheduler, so a cut connection loses nothing.

# Seconds until events are told: at once when they are the last there will be, longer the more of them there are, longest when they are a
# crowd, of which nobody waits for the single one.
BATCH, BUSY, CROWDED, CROWD = 0.002, 0.05, 0.1, 200
# While so many tasks are open somebody may wait for each.
FEW = 16
# Bytes in a second, of the slowest network on which a large message does not outlast the lease.
SLOWEST = 1e6
# Seconds until a message is acknowledged that nothing else is told after.
ACKNOWLEDGE = 0.02
# Processor seconds that one part of a submission may hold up everybody else's, about; and how many tasks it has.
STALL, LEAST, MOST = 0.01, 50, 1000
TURN = 500
# So often a task's dependencies may fail to be read.
STUCK = 3
NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.]")


def cleaned(name):
    return NOT_IN_NAME.sub("_", name or "task").lstrip("_.") or "task"


class Record:
    """A task of a session."""

    __slots__ = ("session", "number", "definition", "attempt", "note", "base", "worker", "told", "since", "stuck", "open")

    def __init__(self, session, number, definition, base):
        self.session, self.number, self.definition, self.attempt = session, number, definition, 0
        self.note, self.base, self.worker, self.told, self.since, self.stuck = None, base, None, None, None, 0
        # Its end has not been told.
        self.open = True


class Definition:
    """What many tasks have in common."""

    __slots__ = ("name", "data", "annotations", "allowed", "workers", "loose", "unfit")

    def __init__(self, told):
        self.name = cleaned(told.get("name"))
        sent = {name: told.get(name) for name in ("kind", "function", "signature", "host", "target", "timeout", "allowed")}
        sent["name"] = self.name
        sent["path"] = list(told.get("path") or ())
        sent["slots"] = 1 if told.get("slots") is None else told["slots"]
        sent["batch"] = bool(told.get("batch"))
        # A batch tries its elements again by itself.
        sent["retries"] = (told.get("retries") or 0) if sent["batch"] else 0
        self.data = pack(sent)
        self.allowed = told.get("allowed")
        self.workers, self.loose = [str(w) for w in told.get("workers") or ()], bool(told.get("loose"))
        # What the workers that were there last lacked, and what to do about it.
        self.unfit = None
        self.annotations = {}
        if told.get("priority"):
            self.annotations["priority"] = told["priority"]
        if told.get("retries") and not sent["batch"]:
            self.annotations["retries"] = told["retries"]
        resources = {name: need for name, need in (told.get("resources") or {}).items() if need > 0}
        if resources:
            self.annotations["resources"] = resources


class Group:
    """Tasks of a definition that are put in together; or why they are not."""

    __slots__ = ("definition", "prefix", "base", "annotations", "tasks", "refusal")

    def __init__(self, core, session, ident):
        self.definition = definition = session.definitions.get(ident)
        self.tasks, self.refusal = {}, None
        if definition is None:
            self.refusal = "unexpected", "its definition is not there", None
            return
        vain = hopeless(core, definition)
        if vain is not None:
            self.refusal = ("unschedulable", *vain)
            return
        self.prefix = "%s-%s-" % (definition.name, session.ident)
        self.base = 0 if definition.allowed is None else core.scheduler.allowed_failures - definition.allowed
        self.annotations = dict(definition.annotations)
        if definition.workers:
            self.annotations["workers"] = resolved(core.scheduler, definition.workers)
            self.annotations["allow_other_workers"] = definition.loose


class Stepped:
    """Awaits something, and keeps how long it held up the loop at most, in seconds of the processor: a wait for others is no delay of ours."""

    def __init__(self, coroutine):
        self.coroutine, self.longest = coroutine, 0.0

    def __await__(self):
        step, value = self.coroutine.send, None
        while True:
            begun = time.thread_time()
            try:
                waits = step(value)
            except StopIteration as e:
                return e.value
            finally:
                self.longest = max(self.longest, time.thread_time() - begun)
            try:
                value = yield waits
                step = self.coroutine.send
            except GeneratorExit:
                self.coroutine.close()
                raise
            except BaseException as e:
                step, value = self.coroutine.throw, e


class Session:
    def __init__(self, core, ident, name, lease):
        self.core, self.ident, self.name = core, ident, name
        self.client = "remuda-" + ident
        self.lease = max(float(lease or 30), 0.1)
        self.deadline = time.monotonic() + self.lease
        self.definitions, self.keys = {}, {}
        self.received, self.sequence, self.order = 0, 0, 0
        self.events, self.unseen = [], []
        self.timer, self.acknowledge, self.pause = None, False, BATCH
        # How many tasks' end has not been told.
        self.open = 0
        # Calls that its driver holds back, to batch them: by name, how many, and how many seconds one takes.
        self.backlog = {}
        self.comm, self.wake, self.closed = None, asyncio.Event(), False
        # What a connection that was cut has sent may still be taken in when the next one is there: one message after the other.
        self.taking = asyncio.Lock()

    # Events.

    def tell(self, event):
        self.events.append(event)
        if self.timer is None or len(self.events) == 1:
            self.flush_in(BATCH if self.open <= FEW else self.pause)

    def ended(self, record, event):
        """It is told what became of a task."""
        self.settled(record)
        self.events.append(event)
        if self.open == 0:
            self.flush_in(0)
        elif self.timer is None or len(self.events) == 1:
            self.flush_in(BATCH if self.open <= FEW else self.pause)

    def settled(self, record):
        if record.open:
            record.open = False
            self.open -= 1

    def reopened(self, record):
        if not record.open:
            record.open = True
            self.open += 1

    def flush_in(self, pause):
        due = self.core.loop.time() + pause
        if self.timer is not None:
            if self.timer.when() <= due:
                return
            self.timer.cancel()
        self.timer = self.core.loop.call_at(due, self.flush)

    def flush(self):
        self.timer = None
        # One alone was not worth waiting for.
        most = BUSY if len(self.events) < CROWD else CROWDED
        self.pause = max(BATCH, self.pause / 2) if len(self.events) < 3 else min(most, self.pause * 2)
        while self.events:
            # A message of bounded size.
            part, self.events = self.events[:5000], self.events[5000:]
            self.sequence += 1
            self.unseen.append((self.sequence, part))
        self.wake.set()

    def seen(self, sequence):
        self.unseen = [batch for batch in self.unseen if batch[0] > sequence]

    def renew(self):
        self.deadline = time.monotonic() + self.lease

    # The connection.

    async def attach(self, comm, resumed, seen):
        old, self.comm = self.comm, comm
        if old is not None:
            old.abort()
        self.renew()
        self.seen(seen)
        await comm.write({"t": "attached", "resumed": resumed, "received": self.received})
        writing = asyncio.ensure_future(self.write(comm, seen))
        try:
            while True:
                message = await comm.read()
                if self.comm is not comm:
                    break
                async with self.taking:
                    await self.take(message)
                if self.closed:
                    await comm.write({"t": "closed"})
                    break
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writing.cancel()
            if self.comm is comm:
                self.comm = None
                self.renew()
            comm.abort() if not self.closed else await comm.close()

    async def write(self, comm, sent):
        """What comes after `sent`. Another connection begins anew: what this one could not write is not sent."""
        try:
            while self.comm is comm:
                due = [batch for batch in self.unseen if batch[0] > sent]
                if not due and not self.acknowledge:
                    self.wake.clear()
                    await self.wake.wait()
                    continue
                self.acknowledge = False
                for sequence, events in due or [(self.sequence, [])]:
                    await comm.write({"e": sequence, "r": self.received, "events": events})
                    sent = max(sent, sequence)
        except OSError:
            # The reader notices, too.
            pass
        except asyncio.CancelledError:
            raise
        except Exception:
            complain("events of a session could not be written")
            comm.abort()

    async def take(self, message):
        self.renew()
        kind, number = message.get("t"), message.get("n")
        if "seen" in message:
            self.seen(message["seen"])
        # A message of so many bytes follows, and nothing is heard until all of it is there.
        self.deadline += message.get("bytes", 0) / SLOWEST
        if "kinds" in message:
            # What waits in the driver, as it is when this was sent.
            self.backlog = {cleaned(name): (calls, seconds) for name, calls, seconds in message["kinds"]}
        if kind == "alive" or number is None or number <= self.received:
            return
        if kind == "submit":
            await self.submit(message)
        elif kind == "release":
            await self.release(message["keys"])
            for ident in message.get("defs", ()):
                self.definitions.pop(ident, None)
        elif kind == "close":
            self.received = number
            await self.end()
            return
        self.received = number
        self.acknowledge = True
        self.flush_in(ACKNOWLEDGE)

    # Tasks.

    async def submit(self, message):
        for ident, told in message.get("defs", ()):
            self.definitions[ident] = Definition(told)
        refused_already = set()
        tasks, at = message["tasks"], 0
        try:
            while at < len(tasks) and not self.closed:
                if self.core.heap.made_room():
                    await asyncio.sleep(0)
                part = tasks[at:at + self.core.portion]
                entering = Stepped(self.enter(part, refused_already))
                await entering
                at += len(part)
                self.core.paced(len(part), entering.longest)
                await asyncio.sleep(0)
        except Exception as e:
            if isinstance(e, Refused):
                refused = (e.kind, e.message, e.hint)
            else:
                refused = ("unexpected", "the scheduler did not take it: %s: %s" % (type(e).__name__, e), None)
                complain("a submission failed")
            await self.release([task[0] for task in tasks[at:]])
            for task in tasks[at:]:
                if task[0] not in refused_already:
                    self.tell(["refused", task[0], *refused])

    async def enter(self, tasks, refused):
        core, scheduler = self.core, self.core.scheduler
        keys, records, groups, priorities, order = self.keys, core.records, {}, {}, self.order
        for number, ident, args, deps in tasks:
            group = groups.get(ident)
            if group is None:
                group = groups[ident] = Group(core, self, ident)
            wanted = [keys.get(dep) for dep in deps[::4]] if deps else ()
            if group.refusal is not None or None in wanted:
                refused.add(number)
                self.tell(["refused", number, *(group.refusal or ("unexpected", "it needs a task that is not there any more", None))])
                continue
            keys[number] = key = group.prefix + "%x" % number
            records[key] = Record(self, number, group.definition, group.base)
            self.open += 1
            group.tasks[key] = made(key, group.definition.data, args, deps or (), wanted)
            priorities[key] = order
            order += 1
        self.order = order
        if not priorities:
            return
        await core.submitter.submit(self.client, [(group.annotations, group.tasks) for group in groups.values() if group.tasks], priorities)
        if self.closed:
            # Its lease ended meanwhile.
            await self.let_all_go()
            return
        known = scheduler.tasks
        for key in priorities:
            state = known.get(key)
            record = core.records.get(key)
            if record is None:
                continue
            if state is not None and state.run_spec is not None:
                # Dask's limit is for the whole scheduler: counted from another beginning it is one for each task.
                state.suspicious += record.base
            elif self.forget(record.number):
                self.tell(["refused", record.number, "unexpected", "the scheduler did not take it; its log says why", None])

    def forget(self, number):
        return self.dropped(number) is not None

    def dropped(self, number):
        """Nothing is told of it any more. Its key, if it was there."""
        key = self.keys.pop(number, None)
        record = self.core.records.pop(key, None)
        if record is not None:
            self.settled(record)
        return key

    async def refuse(self, events):
        """Tasks that are given up."""
        for event in events:
            self.tell(event)
        await self.release([event[1] for event in events])

    async def release(self, numbers):
        # The last first: what goes before all that needs it goes with the last of them, a whole chain in one step.
        numbers = sorted(numbers, reverse=True)
        for at in range(0, len(numbers), TURN):
            keys = []
            for number in numbers[at:at + TURN]:
                key = self.dropped(number)
                if key is not None:
                    keys.append(key)
            self.let_go(keys)
            await asyncio.sleep(0)

    def let_go(self, keys):
        scheduler = self.core.scheduler
        keys = [key for key in keys if key in scheduler.tasks]
        if keys and self.client in scheduler.clients:
            try:
                scheduler.client_releases_keys(keys=keys, client=self.client)
            except Exception:
                complain("keys of a session could not be released")

    async def end(self):
        """Everything is released, nothing remains."""
        if self.closed:
            return
        self.closed = True
        self.core.sessions.pop(self.ident, None)
        await self.let_all_go()
        if self.comm is None:
            log.info("session %s of %s ended", self.ident, self.name)

    async def let_all_go(self):
        await self.release(self.keys)
        scheduler = self.core.scheduler
        state = scheduler.clients.get(self.client)
        if state is not None:
            self.let_go([task.key for task in list(state.wants_what)])
            scheduler.clients.pop(self.client, None)
