# Workers: who is asked, who leaves, what there is for them to do.
import asyncio, collections, time, types

from bench import core, newer, run, shim, until, worker


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
    # Tasks that are over before a tick keep it ticking, so that the usual comes back.
    for _ in range(60):
        one.ticking, one.ran, one.latest = True, 4, ours[0]
        one.tick()
        assert one.ticking and not one.idle
    # Who has set it higher knows why.
    stream.interval = 0.05
    assert tick(one, 4, "a", ours) == tick(one, 0, "a", []) == 0.05


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


async def what_is_being_taken_in_counts_until_the_scheduler_has_it():
    here = core()
    here.portion, here.meter = 2, shim.Meter(here)
    session = here.sessions["s"] = shim.Measured(here, "s", "a test", 60)
    # Two that wait for others are no work yet.
    tasks = [[n, 1, b"", []] for n in range(5)] + [[n, 1, b"", [0, -1, 1, 0]] for n in (5, 6)]
    message = {"t": "submit", "n": 1, "defs": [[1, {"name": "f"}]], "tasks": tasks, "kinds": [["f", 3, None]]}
    here.meter.asked = time.monotonic()
    taking = asyncio.ensure_future(session.take(message))
    await until(lambda: here.records)
    assert here.meter.held() == {"f": 8}, "nothing is there yet"
    seen = []

    def portion_sizes(count, seconds):
        known = sum(1 for key in here.scheduler.tasks if int(key.rsplit("-", 1)[1], 16) < 5)
        seen.append((known, here.meter.held()["f"]))

    here.paced = portion_sizes
    here.scheduler.go.set()
    await taking
    assert seen == [(2, 6), (4, 4), (5, 3), (5, 3)], seen
    assert here.meter.held() == {"f": 3} and not session.entering


async def that_a_worker_leaves_is_known_from_one_question_to_the_next():
    here, going, address = core(), Leaving(shim.Status.running, ["only its own"]), "tcp://h:a"
    going.address, here.scheduler.workers, here.scheduler.valid_workers = address, {address: going}, lambda task: set()

    async def tasks():
        return (await shim.emptied(here, [address], 0))[address]

    for _ in range(2):
        going.status = shim.Status.running
        assert await tasks() == 1
        going.status, going.last_seen = shim.Status.closing_gracefully, time.time() + shim.TOLD / 2
        assert await tasks() == 1, "it may have told before it heard of it"
        # Later than that, and not so much later than the next question.
        going.last_seen = time.time() + shim.TOLD
        assert await tasks() == -1
        # It takes work again: when it goes next, that is another time.
        here.leaving[address] = going, 0
    going.status = shim.Status.running
    shim.forget_staying(here)
    assert not here.leaving
    going.status = shim.Status.closing_gracefully
    await tasks()
    here.scheduler.workers = {}
    shim.forget_staying(here)
    assert not here.leaving


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


async def two_functions_by_turns_do_not_need_each_other():
    scheduler = types.SimpleNamespace(task_groups={}, task_prefixes={}, workers={}, tasks={})
    meter = shim.Meter(types.SimpleNamespace(scheduler=scheduler, sessions={}, records={}))
    meter.read()
    counts = {"back": ("waiting", 5), "end": ("waiting", 1), "there": ("waiting", 5), "load": ("queued", 3), "far": ("waiting", 2),
              "away": ("waiting", 2)}
    for name, (state, tasks) in counts.items():
        prefix = scheduler.task_prefixes[name] = Counts(name)
        scheduler.task_groups[name] = Counts(name, prefix)
        prefix.state_counts[state] = scheduler.task_groups[name].states[state] = tasks
    of = scheduler.task_groups
    # Each of the two circles begins behind what can begin now; none of their tasks can. Dask has them in any order.
    of["there"].dependencies, of["back"].dependencies, of["end"].dependencies = [of["load"], of["back"]], [of["there"]], [of["back"]]
    of["far"].dependencies, of["away"].dependencies = [of["away"], of["back"]], [of["far"]]
    known = None
    for step in range(3):
        told = meter.read()["groups"]
        names = {group["id"]: list(counts)[group["prefix"]] for group in told}
        needs = {names[group["id"]]: sorted(names[other] for other in group["dependencies"]) for group in told}
        assert not shim.circular(needs), needs
        assert needs["there"] == ["load"] and needs["back"] == ["there"] and needs["end"] == ["back"], needs
        assert needs["away"] == ["far"], needs
        assert known in (None, needs), "nothing has come"
        known = needs
        if step == 0:
            of["load"].states.update(queued=0, processing=3)
        else:
            of["load"].states.update(processing=1, memory=2)
            of["there"].states.update(waiting=4, processing=1)


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


run(
    a_worker_without_tasks_is_left_alone,
    a_worker_far_ahead_gathers_what_it_tells,
    what_a_worker_that_leaves_has_not_begun_is_given_to_all_others,
    what_is_being_taken_in_counts_until_the_scheduler_has_it,
    that_a_worker_leaves_is_known_from_one_question_to_the_next,
    a_name_that_comes_again_is_counted_once_whatever_else_comes,
    two_functions_by_turns_do_not_need_each_other,
    workers_are_not_asked_all_at_once,
    the_end_of_a_worker_is_that_of_the_task_it_had_stolen,
)
