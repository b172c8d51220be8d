# ---- The scheduler's workers, for those who keep them.


# Seconds between two looks at workers that are to go.
EMPTYING = 0.1
# Seconds after which a worker is sure to have heard that it is to go.
TOLD = 0.5


def joined(state):
    return ["joined", str(state.name), state.host, state.address, state.nthreads, dict(state.resources)]


class Watch:
    """A connection of somebody who keeps the workers."""

    def __init__(self, core, comm, owner, lease):
        self.core, self.comm, self.owner = core, comm, bool(owner)
        self.lease = max(float(lease or 30), 0.1)
        self.deadline = time.monotonic() + self.lease
        # What it says of workers that are to come: why there is none, and what ends the waits for one.
        self.outlook = None
        self.events, self.wake = [joined(ws) for ws in core.scheduler.workers.values()], asyncio.Event()
        self.wake.set()

    def tell(self, event):
        self.events.append(event)
        self.wake.set()

    async def serve(self):
        writing = asyncio.ensure_future(self.write())
        try:
            while True:
                message = await self.comm.read()
                self.deadline = time.monotonic() + self.lease
                if message.get("t") == "expect":
                    self.outlook = message
                    self.core.waits.expect()
                # That this loop goes on.
                self.tell(["alive"])
        finally:
            writing.cancel()

    async def write(self):
        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                events, self.events = self.events, []
                # Those that are there first, also where there are none.
                await self.comm.write({"events": events})
        except OSError:
            pass
        except asyncio.CancelledError:
            raise
        except Exception:
            complain("a watch failed")
            self.comm.abort()


async def emptied(core, workers, wait):
    """How many tasks each of the workers has, those that are gone left out: told as soon as one has none, is gone or will not get rid of them
    (-1), or after `wait` seconds."""
    deadline = time.monotonic() + min(wait, 60)
    while True:
        here = {a: core.scheduler.workers[a] for a in workers if a in core.scheduler.workers}
        tasks = {a: -1 if is_stuck(core.scheduler, ws, leaves_since(core, ws)) else len(ws.processing) for a, ws in here.items()}
        left = deadline - time.monotonic()
        if len(tasks) < len(workers) or min(tasks.values(), default=0) <= 0 or left <= 0:
            return tasks
        await asyncio.sleep(min(EMPTYING, left))


def leaves_since(core, ws):
    """Kept from one question to the next: where there are many workers each tells more seldom than it is asked for."""
    if ws.status != Status.closing_gracefully:
        core.leaving.pop(ws.address, None)
        return time.time()
    known = core.leaving.get(ws.address)
    if known is None or known[0] is not ws:
        known = core.leaving[ws.address] = ws, time.time()
    return known[1]


def forget_staying(core):
    """Of those that are gone or take work again: when they leave next, that is another time."""
    for address, (ws, _) in list(core.leaving.items()):
        if ws.status != Status.closing_gracefully or core.scheduler.workers.get(address) is not ws:
            del core.leaving[address]


def is_stuck(scheduler, ws, since):
    """A worker that is to go begins nothing any more. What it has not begun is given to others; whether there are tasks that no other may
    take. Known when it has told, a while `since` it was to go, what it runs."""
    if ws.status != Status.closing_gracefully or ws.last_seen < since + TOLD:
        return False
    stealing = getattr(scheduler, "extensions", {}).get("stealing")
    # The worker is asked first, and keeps what it has begun after all. What is under way counts, else one would be given all of it.
    asked, given = getattr(stealing, "in_flight", ()), getattr(stealing, "in_flight_tasks", {})
    for task in list(ws.processing):
        if task in ws.executing or task in ws.long_running or task in asked:
            continue
        valid = scheduler.valid_workers(task)
        others = [other for other in (scheduler.running if valid is None else valid) if other.status == Status.running]
        if stealing is None or not others:
            return True
        stealing.move_task_request(
            task, ws, min(others, key=lambda other: (len(other.processing) + given.get(other, 0)) / max(other.nthreads, 1)))
    return False
