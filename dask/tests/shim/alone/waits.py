# Tasks that no worker takes.
import asyncio, types

from bench import core, run, shim, submit, until, worker


def session_of(core):
    """One whose events stay where they can be looked at, however long a test takes."""
    session = shim.Session(core, "s", "a test", 60)
    session.flush_in = lambda pause: None
    return session


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
    there.waits = waits = shim.Waits(there)
    session = session_of(there)
    await session.take({"t": "submit", "n": 1, "defs": [[1, {"name": "f", "resources": {"GPU": 1}}]], "tasks": [[1, 1, b"", []]]})
    assert not session.events, "it waits for the first worker"
    there.scheduler.workers = {"tcp://h:a": worker("a")}
    key, = session.keys.values()
    there.scheduler.unrunnable = [types.SimpleNamespace(key=key)]
    there.sessions["s"] = session
    waits.joined = shim.time.monotonic()
    waits.retell()
    assert [event[0] for event in session.events] == ["pending"], "others may be on their way"
    waits.joined -= shim.LATE
    waits.retell()
    await until(lambda: len(session.events) > 1)
    assert session.events[1][:3] == ["refused", 1, "unschedulable"], session.events
    await until(lambda: not session.keys)
    # A keeper's place may be filled, for a while; what its workers do not offer, none will.
    there.owner, waits.joined = {"ever": True}, shim.time.monotonic()
    definitions = [[2, {"name": "f", "workers": ["9"]}], [3, {"name": "f", "resources": {"GPU": 1}}]]
    there.scheduler.workers, session.events = {}, []
    await session.take({"t": "submit", "n": 2, "defs": definitions, "tasks": [[2, 2, b"", []], [3, 3, b"", []]]})
    there.scheduler.workers = {"tcp://h:a": worker("0-0")}
    there.scheduler.unrunnable = [types.SimpleNamespace(key=key) for key in session.keys.values()]
    there.records[session.keys[2]].since = shim.time.monotonic()
    waits.retell()
    await until(lambda: 3 not in session.keys)
    assert sorted(event[:2] for event in session.events) == [["pending", 2], ["refused", 3]], session.events
    waits.joined -= shim.LATE
    waits.retell()
    assert 2 in session.keys and waits.due is not None, "it has not been waited for yet"
    there.records[session.keys[2]].since -= shim.LATE
    waits.retell()
    await until(lambda: not session.keys)
    assert session.events[-1][:3] == ["refused", 2, "unschedulable"], session.events


class Waiting:
    """A session with a task that no worker has, as Dask says: `no-worker` or `queued`."""

    def __init__(self, state):
        self.core = core()
        self.core.scheduler.go.set()
        self.core.owner, self.core.renamed, self.core.waits = {"ever": True}, {}, shim.Waits(self.core)
        self.waits, self.state = self.core.waits, state
        self.session = session_of(self.core)

    async def submit(self, told):
        message = told if isinstance(told, dict) else submit(told, [told])
        await self.session.take(message)
        for number in (task[0] for task in message["tasks"]):
            task = types.SimpleNamespace(key=self.session.keys[number], worker_restrictions=None)
            (self.core.scheduler.unrunnable if self.state == "no-worker" else self.core.scheduler.queued).append(task)
            self.waits.begin(self.core.records[task.key], task.key, self.state)

    def expect(self, **outlook):
        # One that was cut, and is not heard of any more, says something else.
        stale = types.SimpleNamespace(outlook={"reason": "stale", "limit": 0.0}, deadline=1)
        self.core.watches = [stale, types.SimpleNamespace(outlook=outlook, deadline=2)]
        self.waits.expect()

    async def told(self, kind):
        await until(lambda: any(event[0] == kind for event in self.session.events))
        told, self.session.events = self.session.events, []
        return told


async def the_keeper_says_why_there_is_no_worker_and_whether_one_will_come():
    for state in ("no-worker", "queued"):
        there = Waiting(state)
        await there.submit(1)
        assert await there.told("pending") == [["pending", 1, "the cluster has no workers"]]
        there.expect(reason="no workers now", hint=None, limit=None)
        assert await there.told("pending") == [["pending", 1, "no workers now"]]
        await there.submit(2)
        assert await there.told("pending") == [["pending", 2, "no workers now"]]
        there.waits.since -= 3600
        there.waits.retell()
        assert there.waits.due is None and not there.session.events, "somebody may come"
        # From now on nobody will: all of the time that is given for it is still to come.
        there.expect(reason="the budget is spent", hint="raise it", limit=60.0)
        assert await there.told("pending") == [["pending", n, "the budget is spent"] for n in (1, 2)]
        assert 0 < there.waits.due - shim.time.monotonic() <= 60
        there.waits.look(there.waits.due - 1)
        assert not there.session.events, "not yet"
        # The second task came when it was half over.
        there.waits.since -= 60
        there.core.records[there.session.keys[1]].since -= 60
        there.core.records[there.session.keys[2]].since -= 30
        there.waits.look(there.waits.due)
        refused, = await there.told("refused")
        text = "no worker could run it for 60s: the budget is spent"
        assert refused == ["refused", 1, "unschedulable", text, "raise it"], refused
        await until(lambda: list(there.session.keys) == [2])
        assert there.waits.due > shim.time.monotonic(), "the other one has waited for less"


async def what_waited_for_the_first_worker_waits_for_its_turn_when_it_is_there():
    there = Waiting("queued")
    there.expect(reason="no workers now", hint=None, limit=None)
    await there.submit(1)
    await there.told("pending")
    there.core.scheduler.workers = {"tcp://h:a": worker("a")}
    there.core.scheduler.running = {"a"}
    there.waits.look(shim.time.monotonic())
    assert await there.told("pending") == [["pending", 1, None]]
    there.waits.look(shim.time.monotonic())
    assert not there.waits.telling and not there.waits.queued
    # It goes, and the reason is told although nothing happens to the task.
    there.core.scheduler.workers, there.core.scheduler.running = {}, set()
    there.waits.look(shim.time.monotonic())
    assert await there.told("pending") == [["pending", 1, "no workers now"]]
    there.core.watches = []
    there.waits.expect()
    assert await there.told("pending") == [["pending", 1, "the cluster has no workers"]], "who said it is not there any more"


async def what_no_worker_fitted_has_an_end_although_all_are_gone_again():
    there = Waiting("no-worker")
    there.expect(reason="adaptive scaling starts them", hint=None, limit=None, adaptive=True)
    definitions = [[1, {"name": "f", "workers": ["7"]}], [2, {"name": "f", "workers": ["0"]}], [3, {"name": "f"}]]
    message = {"t": "submit", "n": 1, "defs": definitions, "tasks": [[n, n, b"", []] for n in (1, 2, 3)]}
    await there.submit(message)
    assert [event[2] for event in await there.told("pending")] == ["adaptive scaling starts them"] * 3
    assert there.waits.due is None, "the first may have any name, and takes its time"
    # It has another one, stops again, and nobody starts one for a task that none like it would do for.
    first = worker("0-0")
    there.core.scheduler.workers = {first.address: first}
    there.waits.joins(first)
    there.core.scheduler.workers = {}
    there.waits.look(shim.time.monotonic())
    told = await there.told("pending")
    assert told == [["pending", 1, "no worker is called `7`; there are 0-0"]], told
    assert 0 < there.waits.due - shim.time.monotonic() <= shim.LATE
    # Whoever comes later has not been seen with it.
    await there.submit({"t": "submit", "n": 2, "defs": [], "tasks": [[4, 1, b"", []]]})
    assert await there.told("pending") == [["pending", 4, "adaptive scaling starts them"]]
    there.waits.joined -= shim.LATE
    for record in there.core.records.values():
        record.since -= shim.LATE if record.number != 4 else 0
    there.waits.left -= shim.LATE / 2
    there.waits.look(there.waits.due)
    refused, = await there.told("refused")
    assert refused[:3] == ["refused", 1, "unschedulable"] and "no worker is called `7`" in refused[3], refused
    assert "allow_other_workers" in refused[4], refused
    await until(lambda: sorted(there.session.keys) == [2, 3, 4])


async def a_worker_that_others_start_or_that_is_started_again_is_waited_for():
    for kept in (False, True):
        there = Waiting("no-worker")
        there.core.owner["ever"] = kept
        if kept:
            there.expect(reason="0 of 2 joined", hint=None, limit=None, adaptive=False)
        await there.submit({"t": "submit", "n": 1, "defs": [[1, {"name": "f", "workers": ["1"]}]], "tasks": [[1, 1, b"", []]]})
        await there.told("pending")
        first = worker("0-0")
        there.core.scheduler.workers = {first.address: first}
        there.waits.joins(first)
        there.core.scheduler.workers = {}
        there.waits.joined -= shim.LATE
        for record in there.core.records.values():
            record.since -= 2 * shim.LATE
        there.session.events = []
        there.waits.retell()
        for _ in range(10):
            await asyncio.sleep(0)
        assert list(there.session.keys) == [1] and there.waits.due is None, there.session.events


run(
    what_no_worker_fitted_has_an_end_although_all_are_gone_again,
    a_worker_that_others_start_or_that_is_started_again_is_waited_for,
    what_no_worker_will_run_is_known,
    what_waits_in_vain_is_given_up,
    the_keeper_says_why_there_is_no_worker_and_whether_one_will_come,
    what_waited_for_the_first_worker_waits_for_its_turn_when_it_is_there,
)
