"""The peer of adaptive scaling: Dask's own Adaptive with its defaults, on workers that take long to start.

They live in this process, so that but for the wait they start and end at once: what processes take is not made longer by the factor.
Or they are processes with nannies, like those of a LocalCluster. As those, and a cloud's, they are awaited.

One argument, a JSON object: workload, startup (seconds), factor (how much faster than the real thing all of it goes), maximum, known (whether
a task of the kind runs before), processes.
Says one line of JSON: the time of each job, worker-seconds, launches.
"""

import asyncio
import json
import logging
import os
import sys
import time

import dask.config

import bench_tasks

SLOW = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow.py")
WORKERS = []


async def main(workload, startup, factor, maximum, known, processes):
    from distributed import Client, Nanny, Scheduler, SpecCluster, Worker
    from distributed.deploy.spec import ProcessInterface

    class Slow(ProcessInterface):
        def __init__(self, scheduler, name=None):
            super().__init__()
            self.scheduler_address, self.name, self.counted = scheduler, name, None
            options = {"name": name, "nthreads": 1, "memory_limit": "1GiB", "dashboard": False}
            if processes:
                slow = {"preload": [SLOW], "env": {"BENCH_STARTUP": startup / factor}}
                self.worker = Nanny(scheduler, **options, **slow)
            else:
                self.worker = Worker(scheduler, **options)

        async def start(self):
            # Awaited again, it is called again.
            if self.counted is None:
                self.counted = [time.monotonic(), None]
                WORKERS.append(self.counted)
                if not processes:
                    await asyncio.sleep(startup / factor)
                await self.worker
                await super().start()

        async def close(self):
            await self.worker.close()
            if self.counted is not None and self.counted[1] is None:
                self.counted[1] = time.monotonic()
            await super().close()

    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": ":0", "port": 0, "host": "127.0.0.1"}}
    async with SpecCluster({}, scheduler, {"cls": Slow, "options": {}}, asynchronous=True, silence_logs=logging.CRITICAL) as cluster:
        async with Client(cluster, asynchronous=True) as client:
            cluster.adapt(minimum=0, maximum=maximum, interval="%fs" % (1 / factor), target_duration="%fs" % (5 / factor))
            jobs, times = [], []

            async def job(tasks, seconds):
                begun = time.monotonic()
                futures = client.map(bench_tasks.nap, range(tasks), [seconds / factor] * tasks, pure=False)
                assert await client.gather(futures) == list(range(tasks))
                times.append(time.monotonic() - begun)

            if known:
                # As after an earlier run: it is known how long these take.
                await job(1, workload[0][3])
                while any(ended is None for _, ended in WORKERS):
                    await asyncio.sleep(0.02)
            WORKERS.clear()
            times.clear()
            begin = time.monotonic()
            for at, pause, tasks, seconds in workload:
                if at is None:
                    await asyncio.gather(*jobs)
                    await asyncio.sleep(pause / factor)
                else:
                    await asyncio.sleep(max(0, begin + at / factor - time.monotonic()))
                jobs.append(asyncio.ensure_future(job(tasks, seconds)))
            await asyncio.gather(*jobs)
            end = time.monotonic()
            cost = sum((ended or end) - begun for begun, ended in WORKERS)
            print(json.dumps({"times": times, "cost": cost, "launches": len(WORKERS)}), flush=True)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    dask.config.set({"distributed.scheduler.unknown-task-duration": "%fs" % (0.5 / asked["factor"])})
    asyncio.run(main(**asked))
