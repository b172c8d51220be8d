# Sessions and the parts of the source: what connections that cross each other do to them.
import ast, asyncio, builtins, collections, os, sys, types

from bench import PARTS, Comm, Scheduler, core, newer, run, shim, submit, until


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


async def a_large_message_does_not_outlast_the_lease():
    session = shim.Session(core(), "s", "a test", 30)
    await session.take({"t": "alive", "seen": 0})
    before = session.deadline
    await session.take({"t": "alive", "seen": 0, "bytes": 10**9})
    assert session.deadline > before + 900
    await session.take({"t": "alive", "seen": 0})
    assert session.deadline < before + 900, "it is there"


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


async def what_came_last_is_let_go_first():
    """What others need would stay, and go with the last of them: a whole chain in one step."""
    there, order = core(), []
    there.scheduler.go.set()
    session = shim.Session(there, "s", "a test", 60)
    await session.take(submit(1, range(1200)))
    numbers = {key: number for number, key in session.keys.items()}
    releases = there.scheduler.client_releases_keys

    def noted(keys, client):
        order.extend(numbers[key] for key in keys)
        releases(keys, client)

    there.scheduler.client_releases_keys = noted
    await session.take({"t": "release", "n": 2, "keys": list(range(700))})
    await session.end()
    assert order == [*range(699, -1, -1), *range(1199, 699, -1)], order[:20]


run(
    what_is_left_of_one_look_for_modules_has_no_say_in_the_next,
    no_part_takes_another_parts_name,
    a_large_message_does_not_outlast_the_lease,
    an_owner_of_one_version_is_the_owner_for_all,
    a_message_that_comes_twice_is_taken_in_once,
    no_event_is_lost_between_two_connections,
    what_came_last_is_let_go_first,
)
