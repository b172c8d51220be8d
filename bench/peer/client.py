"""The peer: Dask's own client, told by lines on stdin what to do, and answering each with a line of numbers.

map N      N no-op tasks by Client.map, all results gathered: seconds, seconds until they were submitted
one        one no-op task: seconds
fetch N    N bytes made by a worker and fetched: seconds
probe 0|1  stops or starts the watch of the scheduler's loop: how long it was blocked at most since then, in seconds of the clock
           and of its processor time
floor N    N no-op tasks that no client has submitted: seconds
tasks      how many tasks the scheduler knows
"""

import sys
import time

import bench_tasks
from distributed import Client, wait


def do_map(client, n):
    begin = time.perf_counter()
    futures = client.map(bench_tasks.noop, range(n), pure=False)
    submitted = time.perf_counter()
    results = client.gather(futures)
    end = time.perf_counter()
    assert results == list(range(n))
    return end - begin, submitted - begin


def do_one(client):
    begin = time.perf_counter()
    result = client.submit(bench_tasks.noop, 7, pure=False).result()
    end = time.perf_counter()
    assert result == 7
    return (end - begin,)


def do_fetch(client, n):
    future = client.submit(bench_tasks.big, n, pure=False)
    wait([future])
    begin = time.perf_counter()
    result = future.result()
    end = time.perf_counter()
    assert len(result) == n
    return (end - begin,)


def do_probe(client, on):
    return client.sync(client.scheduler.bench_probe, on=on)


def do_floor(client, n):
    return (client.sync(client.scheduler.bench_floor, n=n),)


def do_tasks(client):
    return (client.sync(client.scheduler.bench_tasks),)


def main():
    client = Client(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        name, *args = line.split()
        print(*globals()["do_" + name](client, *map(int, args)), flush=True)
    client.close()


main()
