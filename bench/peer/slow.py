"""Preloaded by workers that are processes: they reach the scheduler so many seconds after their process began."""

import asyncio
import os
import time


def age():
    """Seconds since this process began. By the clock that the kernel counts it in: the time of day at boot is known to the second only."""
    with open("/proc/self/stat") as stat:
        begun = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - begun


async def dask_setup(worker):
    await asyncio.sleep(max(0, float(os.environ["BENCH_STARTUP"]) - age()))
