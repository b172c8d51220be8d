# ---- Workers: the plugin, and what is told to the scheduler.

TICK = 0.02
# Ticks without a task, after which a worker is left alone until the next one.
IDLE = 50
# Seconds between two reports of a worker that is far ahead. Dask's own: 2 ms, for each of which the scheduler pays as for a task.
GATHER = 0.01
# Tasks in a tick, from which on there is something to gather.
WORTH = 4
WORKERS = {}


class WorkerInfo:
    """What the shim knows of one worker."""

    def __init__(self, worker):
        self.worker = worker
        self.name, self.address, self.scheduler = str(worker.name), worker.address, worker.scheduler.address
        self.running, self.state = {}, {}
        self.ticking, self.idle = False, 0
        # How many tasks began since the last tick, roughly, and one of them.
        self.ran, self.latest = 0, None
        self.before = None
        WORKERS[worker.address] = self

    def tell(self, note):
        """To the scheduler, from any thread, before the task's own end."""
        note["op"] = OP + "note"
        self.worker.loop.add_callback(self.send, note)

    def send(self, note):
        try:
            self.worker.batched_stream.send(note)
        except Exception:
            # The connection is lost, and with it this task.
            log.debug("a note was not sent", exc_info=True)

    def stuck(self, key):
        """Results that went with it may be innocent: the scheduler finds out."""
        task = self.worker.state.tasks.get(key)
        if task is None:
            return
        text = (getattr(task, "exception_text", None) or "").split("\\n")[0]
        for dependent in task.dependents:
            self.send({"op": OP + "note", "key": dependent.key, "stuck": clean(text)})

    def start(self):
        if not self.ticking:
            self.ticking = True
            self.worker.loop.call_later(TICK, self.tick)

    def tick(self):
        if not self.ticking:
            return
        ran = self.ran
        try:
            self.pace()
            self.tell_started()
            self.guard()
        except Exception:
            complain("the tick of a worker failed")
        self.idle = 0 if ran or self.running or self.is_unguarded() else self.idle + 1
        if self.idle > IDLE:
            self.ticking = False
            # A task that came meanwhile has seen that it ticks.
            if not self.running:
                return
            self.ticking = True
        self.worker.loop.call_later(TICK, self.tick)

    def runs(self, key, attempt):
        """In a thread of the worker."""
        self.ran, self.latest = self.ran + 1, key
        self.running[key] = [attempt, time.monotonic(), False]
        if not self.ticking:
            self.worker.loop.add_callback(self.start)

    def unwanted(self, key):
        """Nobody waits for it any more, whatever has begun for it."""
        known = self.worker.state.tasks.get(key)
        return known is None or known.state in ("cancelled", "released", "forgotten")

    def tell_started(self):
        if not self.running:
            return
        due, begun = time.monotonic() - TICK / 2, []
        for key, entry in list(self.running.items()):
            if not entry[2] and entry[1] <= due:
                entry[2] = True
                begun.append([key, entry[0]])
        if begun:
            self.send({"op": OP + "note", "started": begun})

    # Many short tasks are told of together.

    def pace(self):
        """While it has enough to do nobody waits to hear that a task of a millisecond is done. As before, as soon as it has not, or what comes
        next is somebody else's."""
        stream = self.worker.batched_stream
        # Kept with the stream: shims of other versions do the same.
        usual = vars(stream).setdefault("_remuda_interval", stream.interval)
        ran, self.ran = self.ran, 0
        if self.is_far_ahead(ran):
            stream.interval = max(stream.interval, GATHER)
        elif stream.interval == GATHER:
            stream.interval = usual

    def is_far_ahead(self, ran):
        """What is ready takes more than two ticks, and the first of it belongs to the run that the last one was of."""
        ready = self.worker.state.ready
        return ran >= WORTH and len(ready) > 2 * ran and run_of(ready.peek().key) == run_of(self.latest)

    # A worker that is to end moves its results first.

    def is_unguarded(self):
        return self.before is None and os.environ.get("REMUDA_GRACEFUL") == "1"

    def guard(self):
        if self.is_unguarded() and threading.current_thread() is threading.main_thread():
            # Dask's own handler may come after ours.
            current = signal.getsignal(signal.SIGTERM)
            if current != self.terminated:
                self.before = current
                signal.signal(signal.SIGTERM, self.terminated)

    def terminated(self, number, frame):
        log.info("told to end: moving results to other workers first")
        self.worker.loop.add_callback(self.leave, number, frame)

    async def leave(self, number, frame):
        try:
            moving = self.worker.scheduler.retire_workers(workers=[self.worker.address], close_workers=False, remove=False)
            await asyncio.wait_for(moving, 30)
        except Exception:
            log.warning("results could not be moved to other workers", exc_info=True)
        signal.signal(number, self.before)
        if callable(self.before):
            self.before(number, None)
        else:
            await self.worker.close(reason="SIGTERM")

    def stop(self):
        self.ticking = False
        if WORKERS.get(self.worker.address) is self:
            del WORKERS[self.worker.address]


def run_of(key):
    """The middle of a key of ours."""
    return key.rsplit("-", 2)[-2:-1] if isinstance(key, str) else None


class WorkerShim(WorkerPlugin):
    name = NAME
    idempotent = True

    def setup(self, worker):
        self.info = WORKERS.get(worker.address)
        if self.info is None:
            self.info = WorkerInfo(worker)
        worker.handlers[OP + "fetch"] = self.fetch
        worker.handlers[OP + "prepare"] = self.prepare
        worker.handlers[OP + "hello"] = self.hello
        worker.handlers[OP + "leaves"] = self.leaves
        self.info.start()

    def teardown(self, worker):
        # Also called when the plugin is set up once more.
        if worker.status in (Status.closing, Status.closed, Status.failed):
            self.info.stop()
            close_hosts(self.info)

    def transition(self, key, start, finish, **kwargs):
        if start == "flight" and finish == "error":
            # Dask itself would have what needs it wait without end.
            self.info.stuck(key)
        if key in self.info.running and start in ("executing", "long-running", "cancelled", "resumed"):
            if finish in ("cancelled", "released", "forgotten"):
                kill(self.info, key)

    async def hello(self):
        return {"protocol": PROTOCOL, "hash": HASH}

    async def leaves(self, key):
        return await asyncio.get_running_loop().run_in_executor(None, why_not_sent, self.info.worker, key)

    async def prepare(self, modules=(), paths=(), host=None, tasks=True):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, prepare_worker, self.info, modules, paths, host)

    async def fetch(self, keys, inline=False):
        return await answer_fetch(self.info, keys, inline)


def why_not_sent(worker, key):
    """Why a result cannot leave; None when it can, or is not there."""
    from distributed.protocol import serialize

    try:
        value = worker.data[key]
    except KeyError:
        return None
    try:
        serialize(value, on_error="raise")
    except Exception as e:
        cause = e.__cause__ or e.__context__ or e
        text = "a Python object of type `%s` cannot be sent to another worker" % name_of(type(value))
        return "%s: %s: %s" % (text, type(cause).__name__, clean(safe_str(cause)).split("\n")[0])
    return None


def prepare_worker(info, modules, paths, host):
    answer = {"python": list(sys.version_info[:3]), "missing": [], "tasks": None, "error": None}
    if modules:
        answer["missing"] = missing_modules(modules, list(paths))
    if host is not None:
        try:
            answer["tasks"] = prepare_host(info, host)
        except Refused as e:
            answer["error"] = e.message + ("; " + e.hint if e.hint else "")
        except Exception as e:
            answer["error"] = "%s: %s" % (type(e).__name__, e)
    return answer


def missing_modules(names, paths):
    missing = []
    with MODULES:
        use_paths(paths)
        with Own(paths) as own:
            for name in names:
                try:
                    is_there = not own.lacks(name) and importlib.util.find_spec(name) is not None
                except Exception:
                    # A package above it is not there, or cannot be imported.
                    is_there = False
                if not is_there:
                    missing.append(name)
    return missing
