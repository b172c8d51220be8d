# The shim without a scheduler. Each file here that uses this is run with the directory of the shim's source.
import asyncio, os, re, sys, types

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
        self.workers, self.running, self.unrunnable, self.queued = {}, set(), [], []

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
    there = types.SimpleNamespace(
        scheduler=scheduler, submitter=scheduler, loop=asyncio.get_running_loop(), portion=100, records={}, sessions={}, watches=set(),
        paced=lambda count, seconds: None, resolved=list, leaving={},
    )
    there.heap = shim.Heap(there)
    return there


def submit(n, keys):
    return {"t": "submit", "n": n, "defs": [[1, {"name": "f"}]], "tasks": [[key, 1, b"", []] for key in keys]}


async def until(what):
    while not what():
        await asyncio.sleep(0)


def worker(name, **resources):
    return types.SimpleNamespace(name=name, address="tcp://h:%s" % name, host="h", resources=resources)


def run(*tests):
    async def main():
        for test in tests:
            await test()

    asyncio.run(asyncio.wait_for(main(), 60))
