# A session of the shim without a scheduler: what connections that cross each other do to it. Run with the directory of the shim's source.
import asyncio, os, re, sys, types

with open(sys.argv[1] + ".rs") as file:
    # As the library joins them.
    PARTS = [os.path.join(sys.argv[1], name) for name in re.findall(r'"shim/(\w+\.py)"', file.read()) if name != "boot.py"]


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
        scheduler=scheduler, submitter=scheduler, loop=asyncio.get_running_loop(), portion=100, records={}, sessions={},
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
        batched_stream=types.SimpleNamespace(send=sent.append),
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


async def main():
    await a_worker_without_tasks_is_left_alone()
    await an_owner_of_one_version_is_the_owner_for_all()
    await a_message_that_comes_twice_is_taken_in_once()
    await no_event_is_lost_between_two_connections()


asyncio.run(asyncio.wait_for(main(), 60))
