"""Preloaded into the scheduler: how long its event loop was blocked at most. `bench_probe` starts anew and answers what was seen since
the last call, in seconds of the longest call that the loop made: (of the clock, of the processor). Where others use the processor, too, the
clock counts their time; the processor's does not."""

import asyncio
import time


def dask_setup(scheduler):
    state = {"clock": 0.0, "processor": 0.0}
    original = asyncio.events.Handle._run

    def measured(handle):
        clock, processor = time.perf_counter(), time.thread_time()
        try:
            original(handle)
        finally:
            state["processor"] = max(state["processor"], time.thread_time() - processor)
            state["clock"] = max(state["clock"], time.perf_counter() - clock)

    async def bench_probe(on):
        seen = [state["clock"], state["processor"]]
        state.update(clock=0.0, processor=0.0)
        asyncio.events.Handle._run = measured if on else original
        return seen

    async def bench_tasks():
        return len(scheduler.tasks)

    scheduler.handlers["bench_probe"] = bench_probe
    scheduler.handlers["bench_tasks"] = bench_tasks
