# Full collections and the tasks of a submission, in a process of its own.
import gc, sys, time, types

from bench import core, newer, run, shim, submit


class Circle:
    """Two that know each other: only a collection finds them."""

    alive = 0

    def __init__(self):
        self.other = types.SimpleNamespace(other=self)
        Circle.alive += 1

    def __del__(self):
        Circle.alive -= 1


def with_tasks(n, alone=True):
    if alone:
        sys.modules["distributed.cli"] = types.ModuleType("distributed.cli")
    else:
        sys.modules.pop("distributed.cli", None)
    there = core()
    there.scheduler.tasks.update((key, {}) for key in range(n))
    return there


def grow():
    """As a submission does: enough that is kept for some young collections."""
    return [[] for _ in range(100_000)]


async def what_came_is_set_aside_and_given_back():
    there = with_tasks(5000)
    heap, kept = there.heap, grow()
    circle = Circle()
    del circle
    assert heap.made_room()
    assert gc.get_freeze_count() > len(kept), "a full collection would go over it"
    assert Circle.alive == 0, "garbage was set aside"
    assert not heap.made_room(), "nothing came since"
    # What comes later is looked at as ever.
    Circle()
    gc.collect()
    assert Circle.alive == 0
    heap.look(time.monotonic())
    assert gc.get_freeze_count() == 0, "no task of ours is there"
    del kept


async def it_is_given_back_with_the_last_task():
    there = with_tasks(5000)
    session = shim.Session(there, "s", "a test", 60)
    there.scheduler.go.set()
    kept = grow()
    await session.take(submit(1, range(250)))
    assert gc.get_freeze_count() > 0 and len(there.records) == 250
    await session.take({"t": "release", "n": 2, "keys": list(range(249))})
    there.heap.look(time.monotonic())
    assert gc.get_freeze_count() > 0, "one is left"
    await session.take({"t": "release", "n": 3, "keys": [249]})
    there.heap.look(time.monotonic())
    assert gc.get_freeze_count() == 0
    kept = grow()
    await session.take(submit(4, range(250, 500)))
    assert gc.get_freeze_count() > 0 and kept
    await session.end()
    there.heap.look(time.monotonic())
    assert gc.get_freeze_count() == 0, "the session is over"


async def what_others_left_behind_waits_for_an_hour_and_a_pause():
    hour = shim.LONGEST_HELD
    for submitted, until in ((0, hour), (hour - 5, hour + 5), (2 * hour, 2 * hour)):
        there = with_tasks(5000)
        circle, kept = Circle(), grow()
        began = time.monotonic()
        assert there.heap.set_aside(began) and kept
        there.records["ours"] = None
        del circle
        gc.collect()
        assert Circle.alive == 1, "it was set aside"
        there.heap.held["last"] = began + submitted
        there.heap.look(began + until - 1)
        assert Circle.alive == 1 and gc.get_freeze_count() > 0, submitted
        there.heap.look(began + until)
        assert Circle.alive == 0 and gc.get_freeze_count() == 0, submitted


async def what_was_refused_keeps_nothing():
    there = with_tasks(5000)
    session = shim.Session(there, "s", "a test", 60)
    kept = grow()
    # Nobody has told what it is.
    await session.take(dict(submit(1, range(250)), defs=[]))
    assert gc.get_freeze_count() > 0 and kept and not there.records
    there.heap.look(time.monotonic())
    assert gc.get_freeze_count() == 0


async def it_is_given_back_when_all_versions_are_done():
    there, now = with_tasks(5000), time.monotonic()
    other = types.SimpleNamespace(scheduler=there.scheduler, records={"theirs": None})
    heaps, kept = (there.heap, newer.Heap(other)), grow()
    assert heaps[0].set_aside(now) and kept
    kept = grow()
    assert heaps[1].set_aside(now) and kept
    heaps[0].look(now)
    heaps[1].look(now)
    assert gc.get_freeze_count() > 0, "one has tasks"
    other.records.clear()
    heaps[1].look(now)
    assert gc.get_freeze_count() == 0


async def what_fails_refuses_no_task():
    there, kept = with_tasks(5000), grow()
    there.heap.held = None
    assert not there.heap.made_room() and not there.heap.may and kept


async def few_tasks_and_what_is_no_mere_scheduler_are_left_alone():
    for tasks, alone in ((400, True), (5000, False)):
        there, kept = with_tasks(tasks, alone), grow()
        assert not there.heap.made_room() and gc.get_freeze_count() == 0 and kept
        there.heap.look(time.monotonic())
    # Somebody collects when it suits him.
    there = with_tasks(5000)
    gc.disable()
    kept = grow()
    assert not there.heap.made_room() and kept
    gc.enable()


async def what_others_have_set_aside_stays_so():
    gc.freeze()
    there, kept = with_tasks(5000), grow()
    before = gc.get_freeze_count()
    assert not there.heap.made_room() and kept
    there.heap.look(time.monotonic())
    assert gc.get_freeze_count() == before
    gc.unfreeze()


run(
    what_came_is_set_aside_and_given_back,
    it_is_given_back_with_the_last_task,
    what_others_left_behind_waits_for_an_hour_and_a_pause,
    what_was_refused_keeps_nothing,
    it_is_given_back_when_all_versions_are_done,
    what_fails_refuses_no_task,
    few_tasks_and_what_is_no_mere_scheduler_are_left_alone,
    what_others_have_set_aside_stays_so,
)
