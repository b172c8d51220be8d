"""Preloaded into the scheduler: how long its event loop was blocked at most. `bench_probe` starts anew and answers what was seen since
the last call, in seconds of the longest call that the loop made: (of the clock, of the processor), of all calls and of those that took in
what a client sent. Where others use the processor, too, the clock counts their time; the processor's does not."""

import asyncio
import sys
import time
import uuid

import bench_tasks

try:
    from dask._task_spec import Task
except ImportError:
    Task = None

# What takes in a client's messages: Dask's for its own client, the shim's for ours.
CLIENTS = ("Scheduler.add_client", "Core.stream")


def is_of_client(handle):
    task = getattr(handle._callback, "__self__", None)
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    while coroutine is not None:
        if getattr(coroutine, "__qualname__", "").endswith(CLIENTS):
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    return False


def dask_setup(scheduler):
    seen = [0.0] * 4
    original = asyncio.events.Handle._run

    def measured(handle):
        clock, processor = time.perf_counter(), time.thread_time()
        try:
            original(handle)
        finally:
            processor, clock = time.thread_time() - processor, time.perf_counter() - clock
            seen[:2] = max(seen[0], clock), max(seen[1], processor)
            if (clock > seen[2] or processor > seen[3]) and is_of_client(handle):
                seen[2:] = max(seen[2], clock), max(seen[3], processor)

    async def bench_probe(on):
        answer = list(seen)
        seen[:] = [0.0] * 4
        asyncio.events.Handle._run = measured if on else original
        return answer

    async def bench_tasks_known():
        return len(scheduler.tasks)

    async def bench_floor(n):
        """What is left to a client that costs nothing: the tasks are here already, nobody is told of them. Put in as we do, in parts that
        do not hold up the loop for long, with what our shim has for it (there must have been a session)."""
        shim = next(module for name, module in sys.modules.items() if name.startswith("_remuda_"))
        submitter, run, client = shim.Submitter(scheduler), uuid.uuid4().hex, "bench-floor"
        begin = time.perf_counter()
        for at in range(0, n, 500):
            keys = {"noop-%s-%d" % (run, i): i for i in range(at, min(n, at + 500))}
            tasks = {key: Task(key, bench_tasks.noop, i) for key, i in keys.items()}
            await submitter.submit(client, [({}, tasks)], keys)
            await asyncio.sleep(0)
        wanted = scheduler.clients[client].wants_what
        while any(task.state != "memory" for task in wanted):
            await asyncio.sleep(0.05)
        elapsed, keys = time.perf_counter() - begin, [task.key for task in wanted]
        for at in range(0, n, 200):
            scheduler.client_releases_keys(keys=keys[at:at + 200], client=client)
            await asyncio.sleep(0)
        return elapsed

    scheduler.handlers["bench_probe"] = bench_probe
    scheduler.handlers["bench_tasks"] = bench_tasks_known
    scheduler.handlers["bench_floor"] = bench_floor
