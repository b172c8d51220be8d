"""Preloaded by our workers: they reach the scheduler so many seconds after their process began."""

import asyncio
import os
import time

import psutil


async def dask_setup(worker):
    due = psutil.Process().create_time() + float(os.environ["BENCH_STARTUP"])
    await asyncio.sleep(max(0, due - time.time()))
