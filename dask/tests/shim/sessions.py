# A session of the shim without a scheduler: what connections that cross each other do to it. Run with the directory of the shim's source.
import ast, asyncio, builtins, collections, os, re, sys, time, types

with open(sys.argv[1] + ".rs") as file:
    # As the library joins them.
    PARTS = [os.path.join(sys.argv[1], name) for name in re.findall(r'"shim/(\w+\.py)"', file.read()) if name != "boot.py"]
    PARTS.insert(1, os.path.join(sys.argv[1], "../../../core/src/host/plain.py"))


def version(name):
    shim = types.ModuleType("_remuda_" + name)
    shim.HASH, shim.VERSION, shim.SOURCE, shim.BOOT = name, "0", "", ""
    sys.modules[shim.__name__] = shim
    shim.__file__ = "shim.py"
    for path in PARTS:
        with open(path) as file:
            exec(compile(file.read(), path, "exec"), shim.__dict__)
    return shim


shim, newer = version("00000000"), version("11111111")


class Comm:
    """A connection: what is put into `inbox` is read from it."""

    def __init__(self):
        self.inbox, self.wrote, self.cut = asyncio.Queue(), [], False

    async def read(self):
        message = await self.inbox.get()
        if message is None:
            raise OSError("cut")
        return message

    async def write(self, message):
        if self.cut:
            raise OSError("cut")
        self.wrote.append(message)

    def abort(self):
        self.cut = True
        self.inbox.put_nowait(None)

    async def close(self):
        self.abort()

    def told(self):
        return [event for message in self.wrote for event in message.get("events", ())]


class Scheduler:
    """Knows keys only. Takes in tasks as slowly as `go` says."""

    allowed_failures = 3

    def __init__(self):
        self.tasks, self.clients, self.go, self.times = {}, {}, asyncio.Event(), {}
        self.workers, self.running = {}, set()

    async def submit(self, client, groups, priorities, parent=None):
        await self.go.wait()
        state = self.clients.setdefault(client, types.SimpleNamespace(wants_what=set()))
        for key in priorities:
            self.times[key] = self.times.get(key, 0) + 1
            self.tasks[key] = types.SimpleNamespace(key=key, run_spec=1, suspicious=0)
            state.wants_what.add(self.tasks[key].key)

    def task(self, key, run, deps):
        return run

    def client_releases_keys(self, keys, client):
        for key in keys:
            self.tasks.pop(key, None)
            self.clients[client].wants_what.discard(key)


def core():
    scheduler = Scheduler()
    return types.SimpleNamespace(
        scheduler=scheduler, submitter=scheduler, loop=asyncio.get_running_loop(), portion=100, records={}, sessions={}, review_at=None,
        paced=lambda count, seconds: None, resolved=list,
    )


def submit(n, keys):
    return {"t": "submit", "n": n, "defs": [[1, {"name": "f"}]], "tasks": [[key, 1, b"", []] for key in keys]}


async def until(what):
    while not what():
        await asyncio.sleep(0)


async def a_message_that_comes_twice_is_taken_in_once():
    there = core()
    session = shim.Session(there, "s", "a test", 60)
    first, second = Comm(), Comm()
    first.inbox.put_nowait(submit(1, range(250)))
    one = asyncio.ensure_future(session.attach(first, False, 0))
    await until(lambda: there.records)
    # Cut in the middle of it; what was not acknowledged comes again, and more.
    two = asyncio.ensure_future(session.attach(second, True, 0))
    await until(lambda: second.wrote)
    assert second.wrote[0]["received"] == 0, second.wrote
    second.inbox.put_nowait(submit(1, range(250)))
    second.inbox.put_nowait({"t": "release", "n": 2, "keys": list(range(250))})
    for _ in range(100):
        await asyncio.sleep(0)
    there.scheduler.go.set()
    await until(lambda: session.received == 2)
    await one
    assert set(there.scheduler.times.values()) == {1}, "a task was submitted twice"
    assert not there.scheduler.tasks and not there.records and not session.keys, len(session.keys)
    second.abort()
    await two


async def no_event_is_lost_between_two_connections():
    there = core()
    session = shim.Session(there, "s", "a test", 60)
    first, second = Comm(), Comm()
    # The first connection is busy with a message when the second takes over: it does not notice that it is cut.
    first.inbox.put_nowait(submit(1, [1]))
    one = asyncio.ensure_future(session.attach(first, False, 0))
    await until(lambda: there.records)
    two = asyncio.ensure_future(session.attach(second, True, 0))
    session.tell(["done", 7])
    await until(lambda: second.told())
    assert second.told() == [["done", 7]], second.wrote
    there.scheduler.go.set()
    second.abort()
    await one
    await two


async def an_owner_of_one_version_is_the_owner_for_all():
    os.environ.update(REMUDA_LEASE="0.2", REMUDA_LEASE_GRACE="0.2")
    scheduler, closed = Scheduler(), asyncio.Event()

    async def close():
        closed.set()

    scheduler.close, scheduler.update_graph = close, lambda client, graph_header: None
    scheduler.workers, scheduler.handlers, scheduler.stream_handlers, scheduler.task_prefixes = {}, {}, {}, {}
    scheduler.running = set()
    owner, guest = Comm(), Comm()
    older = shim.Core(scheduler)
    owning = asyncio.ensure_future(older.watch(owner, owner=True, lease=60))
    # Another driver comes, with its own shim, and leaves.
    other = newer.Core(scheduler)
    visit = asyncio.ensure_future(other.watch(guest, owner=True, lease=60))
    await until(lambda: other.watches)
    guest.abort()
    await visit
    try:
        await asyncio.wait_for(closed.wait(), 1)
        raise AssertionError("closed under its owner")
    except asyncio.TimeoutError:
        pass
    owner.abort()
    await owning
    await closed.wait()


async def a_worker_without_tasks_is_left_alone():
    sent, loop, calls = [], asyncio.get_running_loop(), []

    def call_later(seconds, call):
        calls.append(call)

    dask = types.SimpleNamespace(
        name="w", address="tcp://w:1", scheduler=types.SimpleNamespace(address="tcp://s:1"),
        loop=types.SimpleNamespace(call_later=call_later, add_callback=loop.call_soon),
        batched_stream=types.SimpleNamespace(send=sent.append, interval=0.002), state=types.SimpleNamespace(ready=[]),
    )
    worker = shim.WorkerInfo(dask)
    worker.start()
    while calls:
        calls.pop()()
    assert not worker.ticking
    worker.runs("f-1", 0)
    await until(lambda: calls)
    worker.running["f-1"][1] -= 1
    calls.pop()()
    assert sent and sent[0]["started"] == [["f-1", 0]], sent
    assert worker.ticking and calls


class Ready(list):
    def peek(self):
        return types.SimpleNamespace(key=self[0])


async def a_worker_far_ahead_gathers_what_it_tells():
    calls, stream = [], types.SimpleNamespace(interval=0.002)
    dask = types.SimpleNamespace(
        name="p", address="tcp://p:1", scheduler=types.SimpleNamespace(address="tcp://s:1"), batched_stream=stream,
        loop=types.SimpleNamespace(call_later=lambda seconds, call: calls.append(call), add_callback=lambda call: None),
        state=types.SimpleNamespace(ready=Ready()),
    )
    one, other = shim.WorkerInfo(dask), newer.WorkerInfo(dask)

    def tick(info, ran, run, ready):
        for n in range(ran):
            info.runs("f-%s-%x" % (run, n), 0)
            info.running.clear()
        dask.state.ready = Ready(ready)
        info.pace()
        return stream.interval

    ours, theirs = ["f-a-%x" % n for n in range(9)], ["f-b-%x" % n for n in range(9)]
    assert tick(one, 4, "a", ours) == 0.01
    assert tick(one, 4, "a", ours[:8]) == 0.002, "what is ready is soon done"
    assert tick(one, 4, "a", ours) == 0.01
    assert tick(one, 3, "a", ours) == 0.002, "tasks that take long are told of at once"
    for next in theirs, [("f", 1)] * 9, ["noop-1"] * 9, ["sum"] * 9:
        assert tick(one, 4, "a", ours) == 0.01
        assert tick(one, 4, "a", next) == 0.002, "somebody else's is next"
    assert tick(one, 0, "a", ours) == 0.002
    assert tick(one, 0, "a", []) == 0.002
    # Neither takes what the other has set for the usual.
    assert tick(one, 4, "a", ours) == 0.01
    assert tick(other, 4, "b", theirs) == 0.01
    assert tick(one, 0, "a", []) == tick(other, 0, "b", []) == 0.002
    # Who has set it higher knows why.
    stream.interval = 0.05
    assert tick(one, 4, "a", ours) == tick(one, 0, "a", []) == 0.05


def worker(name, **resources):
    return types.SimpleNamespace(name=name, address="tcp://h:%s" % name, host="h", resources=resources)


async def what_no_worker_will_run_is_known():
    def said(there, kept=False, gone=(), **told):
        workers = {ws.address: ws for ws in there}
        names = {ws.address: str(ws.name) for ws in [*there, *map(worker, gone)]}
        core = types.SimpleNamespace(scheduler=types.SimpleNamespace(workers=workers), owner={"ever": kept}, renamed=names)
        answer = shim.hopeless(core, shim.Definition(told))
        return answer and answer[0]

    a, b = worker("a", GPU=1), worker(7, GPU=2, MEM=1)
    ours = worker("1-2")
    for told in ({}, {"workers": ["a"]}, {"workers": ["7"]}, {"workers": [7]}, {"workers": ["h"]}, {"workers": ["tcp://h:7"]},
                 {"workers": ["x", "a"]}, {"workers": ["x"], "loose": True}, {"resources": {"GPU": 2}}, {"resources": {"TPU": 0}}):
        assert said([a, b], **told) is None, told
    assert said([a, b], workers=["x"]) == "no worker is called `x`; there are 7, a"
    assert said([a, b], resources={"GPU": 3}) == "no worker offers GPU=3; the most any offers is GPU=2"
    assert said([a, b], resources={"TPUS": 1}) == "no worker offers TPUS=1; none offers any TPUS; there are GPU, MEM"
    assert said([a, b], resources={"GPU": 2}, workers=["a"]) == "no worker offers GPU=2; the most any offers is GPU=1"
    assert said([worker("c", GPU=3), b], resources={"GPU": 3, "MEM": 1}) == "no single worker offers all of GPU=3, MEM=1"
    # None is there yet, or one that was may be there again.
    assert said([], workers=["x"]) is None and said([], resources={"GPU": 3}) is None
    assert said([a], gone=["x"], workers=["x"]) is None and said([a], gone=["x"], workers=["tcp://h:x"]) is None
    # Where somebody keeps the workers, places are filled, and names never come twice.
    assert said([ours], kept=True, workers=["1"]) is None and said([ours], workers=["1-2"]) is None
    assert said([ours], kept=True, workers=["3"]) is None and said([ours], kept=True, workers=["3-0"]) is None
    assert said([ours], kept=True, gone=["1-1"], workers=["1-1"]) == "no worker is called `1-1`; there are 1-2; did you mean `1-2`?"
    assert said([ours], kept=True, workers=["nobody"]) == "no worker is called `nobody`; there are 1-2"
    assert shim.resolved(types.SimpleNamespace(workers={ours.address: ours}), ["1", "x", "h"]) == [ours.address, "x", "h"]


async def what_waits_in_vain_is_given_up():
    there = core()
    there.scheduler.go.set()
    there.scheduler.workers, there.owner, there.renamed = {}, {"ever": False}, {}
    session = shim.Session(there, "s", "a test", 60)
    await session.take({"t": "submit", "n": 1, "defs": [[1, {"name": "f", "resources": {"GPU": 1}}]], "tasks": [[1, 1, b"", []]]})
    assert not session.events, "it waits for the first worker"
    there.scheduler.workers = {"tcp://h:a": worker("a")}
    key, = session.keys.values()
    there.scheduler.unrunnable = [types.SimpleNamespace(key=key)]
    there.sessions["s"] = session
    there.joined = shim.time.monotonic()
    shim.Core.retell(there)
    assert [event[0] for event in session.events] == ["pending"], "others may be on their way"
    there.joined -= shim.LATE
    shim.Core.retell(there)
    await until(lambda: len(session.events) > 1)
    assert session.events[1][:3] == ["refused", 1, "unschedulable"], session.events
    await until(lambda: not session.keys)
    # A keeper's place may be filled, for a while; what its workers do not offer, none will.
    there.owner, there.joined = {"ever": True}, shim.time.monotonic()
    definitions = [[2, {"name": "f", "workers": ["9"]}], [3, {"name": "f", "resources": {"GPU": 1}}]]
    there.scheduler.workers, session.events = {}, []
    await session.take({"t": "submit", "n": 2, "defs": definitions, "tasks": [[2, 2, b"", []], [3, 3, b"", []]]})
    there.scheduler.workers = {"tcp://h:a": worker("0-0")}
    there.scheduler.unrunnable = [types.SimpleNamespace(key=key) for key in session.keys.values()]
    there.records[session.keys[2]].since = shim.time.monotonic()
    shim.Core.retell(there)
    await until(lambda: 3 not in session.keys)
    assert sorted(event[:2] for event in session.events) == [["pending", 2], ["refused", 3]], session.events
    there.joined -= shim.LATE
    shim.Core.retell(there)
    assert 2 in session.keys and there.review_at is not None, "it has not been waited for yet"
    there.records[session.keys[2]].since -= shim.LATE
    shim.Core.retell(there)
    await until(lambda: not session.keys)
    assert session.events[-1][:3] == ["refused", 2, "unschedulable"], session.events


async def workers_are_not_asked_all_at_once():
    asked, most, go = set(), [0], asyncio.Event()

    def rpc(address):
        async def prepare(**_):
            asked.add(address)
            most[0] = max(most[0], len(asked))
            await go.wait()
            asked.discard(address)
            return {"missing": []}

        return types.SimpleNamespace(**{shim.OP + "prepare": prepare})

    workers = {"tcp://h:%d" % n: worker(n) for n in range(1000)}
    there = types.SimpleNamespace(scheduler=types.SimpleNamespace(workers=workers, rpc=rpc))
    asking = asyncio.ensure_future(shim.Core.prepare(there))
    await until(lambda: len(asked) == shim.ASKED)
    go.set()
    answers = await asking
    assert len(answers) == 1000 and most[0] <= shim.ASKED, most


async def the_end_of_a_worker_is_that_of_the_task_it_had_stolen():
    workers = {"tcp://h:a": worker("a"), "tcp://h:b": worker("b")}
    there = types.SimpleNamespace(scheduler=types.SimpleNamespace(workers=workers), here=set(workers), busy=set())
    record = types.SimpleNamespace(worker="tcp://h:a")
    shim.Core.ended_on(there, record)
    assert record.worker == "tcp://h:a" and not there.busy
    del workers["tcp://h:b"]
    shim.Core.ended_on(there, record)
    assert record.worker == "tcp://h:b" and there.busy == {"tcp://h:b"}


async def a_large_message_does_not_outlast_the_lease():
    session = shim.Session(core(), "s", "a test", 30)
    await session.take({"t": "alive", "seen": 0})
    before = session.deadline
    await session.take({"t": "alive", "seen": 0, "bytes": 10**9})
    assert session.deadline > before + 900
    await session.take({"t": "alive", "seen": 0})
    assert session.deadline < before + 900, "it is there"


async def no_part_takes_another_parts_name():
    """They share one module."""
    names = collections.defaultdict(set)
    for path in PARTS:
        with open(path) as file:
            for node in ast.parse(file.read()).body:
                targets = node.targets if isinstance(node, ast.Assign) else ()
                bound = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
                for name in bound + ([node.name] if hasattr(node, "name") else []):
                    names[name].add(os.path.basename(path))
    twice = {name: sorted(files) for name, files in names.items() if len(files) > 1}
    assert len(names) > 100 and not twice, twice


class Leaving:
    """A worker in the eyes of the scheduler, and what it was given."""

    def __init__(self, status, tasks=()):
        self.status, self.processing, self.nthreads = status, dict.fromkeys(tasks), 1
        self.executing, self.long_running, self.last_seen = {}, set(), time.time()


class Stealing:
    """Asks, and is not answered."""

    def __init__(self):
        self.in_flight, self.in_flight_tasks = {}, collections.defaultdict(int)

    def move_task_request(self, task, victim, thief):
        assert task not in self.in_flight
        self.in_flight[task] = thief
        self.in_flight_tasks[thief] += 1


async def what_a_worker_that_leaves_has_not_begun_is_given_to_all_others():
    going = Leaving(shim.Status.closing_gracefully, ["t%d" % n for n in range(60)])
    others = {Leaving(shim.Status.running, ["own"] * n) for n in range(3)}
    looked, stealing = [0], Stealing()

    def valid_workers(task):
        looked[0] += 1

    scheduler = types.SimpleNamespace(running=others, valid_workers=valid_workers, extensions={"stealing": stealing})
    for _ in range(5):
        assert not shim.is_stuck(scheduler, going, going.last_seen - 10)
    assert looked[0] == len(stealing.in_flight) == 60, "what was asked for is not looked at again"
    assert all(18 <= count <= 22 for count in stealing.in_flight_tasks.values()), stealing.in_flight_tasks
    scheduler.running = set()
    going.processing["late"] = None
    assert shim.is_stuck(scheduler, going, going.last_seen - 10), "nobody is there for it"


class Counts:
    """A prefix or a group of Dask's."""

    def __init__(self, name, prefix=None):
        self.name, self.prefix, self.dependencies = name, prefix, ()
        self.states = self.state_counts = dict.fromkeys((*shim.OPEN, "memory", "forgotten"), 0)
        self.all_durations, self.duration_average, self.max_exec_time = {}, 0.0, 0.0


async def a_name_that_comes_again_is_counted_once_whatever_else_comes():
    scheduler = types.SimpleNamespace(task_groups={}, task_prefixes={}, workers={}, tasks={})
    meter = shim.Meter(types.SimpleNamespace(scheduler=scheduler, sessions={}, records={}))

    def come(name):
        prefix = scheduler.task_prefixes.setdefault(name, Counts(name))
        group = scheduler.task_groups[name] = Counts(name, prefix)
        prefix.state_counts["processing"] = group.states["processing"] = 1

    def go():
        for group in scheduler.task_groups.values():
            group.prefix.state_counts.update(processing=0, forgotten=group.prefix.state_counts["forgotten"] + 1)
        scheduler.task_groups.clear()

    usual, shim.KINDS = shim.KINDS, 2
    try:
        meter.read()
        for name in ("a", "b"):
            come(name)
        meter.read()
        go()
        meter.read()
        for kind, idle in ((meter.kinds["a"], 9), (meter.kinds["b"], 5)):
            kind.live -= idle * shim.KEPT_KINDS
        for name in ("a", "new"):
            come(name)
        groups = meter.read()["groups"]
        assert len(groups) == 2 and not any(group["done"] for group in groups), groups
        assert set(meter.kinds) == {"a", "new"}, "the number of one that is not there is given away"
    finally:
        shim.KINDS = usual


async def what_is_left_of_one_look_for_modules_has_no_say_in_the_next():
    usual, module = builtins.__import__, types.ModuleType("left_behind")
    module.__file__ = "/of/one/run/left_behind.py"
    sys.modules[module.__name__] = module
    shim.INSERTED.update(["/of/one/run", "/of/another"])
    try:
        with shim.Own([]) as first:
            # A module that is imported now wraps what imports.
            builtins.__import__ = lambda *args, of=first.guarded: of(*args)
            try:
                builtins.__import__("left_behind")
                raise AssertionError("it lies in another run's directory")
            except ModuleNotFoundError:
                pass
        second = shim.Own([])
        second.hidden = {"/of/another"}
        with second:
            assert builtins.__import__("left_behind") is module
    finally:
        builtins.__import__ = usual
        shim.INSERTED.clear()
        del sys.modules[module.__name__]


async def main():
    await what_is_left_of_one_look_for_modules_has_no_say_in_the_next()
    await no_part_takes_another_parts_name()
    await what_a_worker_that_leaves_has_not_begun_is_given_to_all_others()
    await a_name_that_comes_again_is_counted_once_whatever_else_comes()
    await a_large_message_does_not_outlast_the_lease()
    await workers_are_not_asked_all_at_once()
    await the_end_of_a_worker_is_that_of_the_task_it_had_stolen()
    await what_no_worker_will_run_is_known()
    await what_waits_in_vain_is_given_up()
    await a_worker_without_tasks_is_left_alone()
    await a_worker_far_ahead_gathers_what_it_tells()
    await an_owner_of_one_version_is_the_owner_for_all()
    await a_message_that_comes_twice_is_taken_in_once()
    await no_event_is_lost_between_two_connections()


asyncio.run(asyncio.wait_for(main(), 60))
