# ---- The scheduler's workers, for those who keep them.


# Seconds between two looks at workers that are to go, and until each is looked at in any case.
EMPTYING = 0.1


def joined(state):
    return ["joined", str(state.name), state.host, state.address, state.nthreads, dict(state.resources)]


class Watch:
    """A connection of somebody who keeps the workers."""

    def __init__(self, core, comm, owner, lease):
        self.core, self.comm, self.owner = core, comm, bool(owner)
        self.lease = max(float(lease or 30), 0.1)
        self.deadline = time.monotonic() + self.lease
        self.events, self.wake = [joined(ws) for ws in core.scheduler.workers.values()], asyncio.Event()
        self.wake.set()

    def tell(self, event):
        self.events.append(event)
        self.wake.set()

    async def serve(self):
        writing = asyncio.ensure_future(self.write())
        try:
            while True:
                await self.comm.read()
                self.deadline = time.monotonic() + self.lease
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
    """How many tasks each of the workers has, those that are gone left out: told as soon as one has none or is gone, or after `wait` seconds."""
    deadline = time.monotonic() + min(wait, 60)
    while True:
        here = {a: core.scheduler.workers[a] for a in workers if a in core.scheduler.workers}
        tasks, left = {a: len(ws.processing) for a, ws in here.items()}, deadline - time.monotonic()
        if len(tasks) < len(workers) or not all(tasks.values()) or left <= 0:
            return tasks
        await asyncio.sleep(min(EMPTYING, left))
