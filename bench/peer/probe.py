"""Preloaded into the scheduler: how long its event loop was blocked at most. `bench_probe` starts anew and answers what was seen since
the last call, in seconds of the longest call that the loop made: (of the clock, of the processor), of all calls and of those that took in
what a client sent. Where others use the processor, too, the clock counts their time; the processor's does not."""

import asyncio
import time

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

    async def bench_tasks():
        return len(scheduler.tasks)

    scheduler.handlers["bench_probe"] = bench_probe
    scheduler.handlers["bench_tasks"] = bench_tasks
