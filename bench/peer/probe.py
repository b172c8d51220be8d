"""Preloaded into the scheduler: how long its event loop was blocked at most. `bench_probe` starts anew and answers what was seen since
the last call, in seconds: (the longest pause between two turns of the loop, the processor time of this process)."""

import asyncio
import time

STEP = 0.002


async def _watch(state):
    last = time.perf_counter()
    while state["watching"]:
        await asyncio.sleep(STEP)
        now = time.perf_counter()
        state["longest"] = max(state["longest"], now - last - STEP)
        last = now


def dask_setup(scheduler):
    state = {"watching": False, "longest": 0.0, "task": None}

    async def bench_probe(on):
        seen = state["longest"]
        if state["task"] is not None:
            state["watching"] = False
            await state["task"]
            seen = state["longest"]
            state["task"] = None
        state["longest"] = 0.0
        if on:
            state["watching"] = True
            state["task"] = asyncio.ensure_future(_watch(state))
        return [seen, time.process_time()]

    async def bench_tasks():
        return len(scheduler.tasks)

    scheduler.handlers["bench_probe"] = bench_probe
    scheduler.handlers["bench_tasks"] = bench_tasks
