# ---- The scheduler: operations, events of tasks and workers, leases.

CORE = "_remuda_" + HASH
# Workers that are asked at the same time.
ASKED = 64


class Core:
    """One per scheduler, whatever number of times the plugin is registered."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.loop = asyncio.get_running_loop()
        self.submitter = Submitter(scheduler)
        self.meter = Meter(self)
        self.portion, self.heap = 4 * LEAST, Heap(self)
        self.records, self.sessions, self.watches = {}, {}, set()
        # What shows that a worker that leaves was busy: the stimulus that ended others' tasks (older versions do not tell it), its address
        # from ours.
        self.failed_with, self.busy = None, set()
        # Names, also of workers that are gone.
        self.renamed = {ws.address: str(ws.name) for ws in scheduler.workers.values()}
        # Addresses, also of a worker that is just being removed.
        self.here = set(scheduler.workers)
        # Of shims of all versions: an owner that one of them hears is the owner for all.
        self.owner = getattr(scheduler, "_remuda_owner", None)
        if self.owner is None:
            self.owner = scheduler._remuda_owner = {"heard": time.monotonic(), "ever": False}
        self.stuck, self.waits, self.pauses = {}, Waits(self), Pauses(self)
        # Workers that are to go: since when that is known.
        self.leaving = {}
        for name in ("hello", "stream", "watch", "fetch", "prepare", "load", "emptied", "resume"):
            scheduler.handlers[OP + name] = getattr(self, name)
        scheduler.stream_handlers[OP + "note"] = self.note
        shims = getattr(scheduler, "_remuda_shims", None)
        if shims is None:
            shims = scheduler._remuda_shims = []
            # Of the first version that comes; all have the same.
            scheduler.handlers["remuda_shims"] = shims_there(shims)
        shims.append({"hash": HASH, "protocol": PROTOCOL, "version": VERSION})
        self.keeping = asyncio.ensure_future(keep(self))

    def paced(self, count, seconds):
        """So many tasks took so long: the next part of a submission is as large as fits."""
        if count >= self.portion // 2 and seconds > 0:
            fitting = int(count * STALL / seconds)
            self.portion = max(LEAST, min(MOST, fitting, 2 * self.portion))

    # Operations.

    async def hello(self):
        scheduler = self.scheduler
        return {
            "protocol": PROTOCOL, "hash": HASH, "distributed": distributed.__version__, "python": list(sys.version_info[:3]),
            "id": scheduler.id, "address": scheduler.address, "workers": len(scheduler.workers), "dashboard": dashboard(scheduler),
            "environments": environments(scheduler),
        }

    async def stream(self, comm, session=None, name="", lease=30, resume=False, seen=0):
        try:
            known = self.sessions.get(session)
            if known is None and resume:
                await comm.write({"t": "unknown"})
                await comm.close()
                return Status.dont_reply
            resumed = known is not None
            if known is None:
                known = self.sessions[session] = Measured(self, session, name, lease)
            await known.attach(comm, resumed, seen)
        except OSError:
            pass
        except Exception:
            complain("a session's connection failed")
            comm.abort()
        return Status.dont_reply

    async def watch(self, comm, owner=False, lease=30):
        watch = Watch(self, comm, owner, lease)
        self.owner["ever"] = self.owner["ever"] or watch.owner
        self.watches.add(watch)
        try:
            await watch.serve()
        except OSError:
            pass
        except Exception:
            complain("a watch failed")
        finally:
            self.watches.discard(watch)
            self.waits.expect()
            if watch.owner:
                self.owner["heard"] = time.monotonic()
            comm.abort()
        return Status.dont_reply

    async def fetch(self, worker, keys, inline=False):
        """For workers that the driver does not reach. Everything is inline: nothing of it is kept here."""
        if worker not in self.scheduler.workers:
            # Dask would try to reach it for half a minute. Its results have moved, or are computed again.
            return {"results": [["missing"]] * len(keys)}
        answer = await getattr(self.scheduler.rpc(worker), OP + "fetch")(keys=keys, inline=True)
        if not isinstance(answer, dict):
            raise ValueError("worker %s has no shim" % worker)
        return answer

    async def prepare(self, modules=(), paths=(), host=None, workers=None):
        # Not all at once, nor for longer than the driver waits: who has not answered by then says himself what he lacks.
        turn, deadline = asyncio.Semaphore(ASKED), time.monotonic() + 75

        async def ask(state):
            lacking = {"python": [], "missing": [], "tasks": None}
            try:
                async with turn:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return None
                    asked = getattr(self.scheduler.rpc(state.address), OP + "prepare")(modules=modules, paths=paths, host=host)
                    answer = await asyncio.wait_for(asked, min(60, left))
            except Exception as e:
                late = isinstance(e, (asyncio.TimeoutError, TimeoutError))
                return dict(lacking, error="it does not answer" + (" in time" if late else ": %s: %s" % (type(e).__name__, e)))
            if not isinstance(answer, dict):
                return dict(lacking, error="the shim is not there: `register_worker_plugin` may be blocked; preload it")
            return answer

        states = [ws for ws in self.scheduler.workers.values() if workers is None or str(ws.name) in workers]
        answers = await asyncio.gather(*map(ask, states))
        return {str(ws.name): answer for ws, answer in zip(states, answers) if answer is not None}

    async def load(self):
        return self.meter.read()

    async def emptied(self, workers, wait):
        return await emptied(self, workers, wait)

    async def resume(self, workers):
        """Those that were to leave and cannot take work again."""
        for ws in map(self.scheduler.workers.get, workers):
            self.leaving.pop(getattr(ws, "address", None), None)
            if ws is not None and ws.status == Status.closing_gracefully:
                message = {"op": "worker-status-change", "status": "running", "stimulus_id": "remuda-resume-%s" % time.time()}
                self.scheduler.stream_comms[ws.address].send(message)
        return {}

    # Tasks. These hooks run for every task of everybody.

    def transition(self, key, start, finish, *args, **kwargs):
        record = self.records.get(key)
        if record is None:
            if start == "processing" and finish != "memory":
                self.failed_with = kwargs.get("stimulus_id")
            return
        try:
            # The usual ones first, without a call.
            if finish == "processing":
                record.worker = self.scheduler.tasks[key].processing_on.address
                if record.told is not None:
                    record.told = record.since = None
                    record.session.tell(["pending", record.number, None])
            elif finish != "waiting" or start != "released":
                self.changed(record, key, start, finish, kwargs)
        except Exception:
            complain("an event of %s was not told", key)

    def changed(self, record, key, start, finish, kwargs):
        if finish == "memory":
            self.done(record, key, start, kwargs)
        elif start == "processing" and finish in ("released", "waiting"):
            self.ended_on(record)
            self.again(record, key)
        elif finish == "erred":
            self.ended_on(record)
            self.erred(record, key, start, kwargs)
        elif finish == "no-worker" or (finish == "queued" and not self.scheduler.running):
            self.waits.begin(record, key, finish)
        elif start == "memory" and finish in ("released", "waiting"):
            record.attempt += 1
            self.annotate(key, record)
            record.session.reopened(record)
            record.session.tell(["lost", record.number])
        elif finish == "forgotten":
            if record.session.forget(record.number):
                record.session.tell(["gone", record.number])

    def ended_on(self, record):
        workers = self.scheduler.workers
        if record.worker in workers and len(self.here) > len(workers):
            # A worker is being removed, and not the one that the task was given to: it was stolen since, which nobody tells.
            record.worker = next((address for address in self.here if address not in workers), record.worker)
        if record.worker not in workers:
            # Its worker is being removed, and was busy.
            self.busy.add(record.worker)

    def worker_name(self, address):
        state = self.scheduler.workers.get(address)
        return str(state.name) if state is not None else self.renamed.get(address, address or "")

    def done(self, record, key, start, kwargs):
        task = self.scheduler.tasks[key]
        address = kwargs.get("worker")
        if address is None:
            address = next((ws.address for ws in task.who_has or ()), "")
        seconds = 0.0
        for span in kwargs.get("startstops") or ():
            if span["action"] == "compute":
                seconds += span["stop"] - span["start"]
        note, record.note = record.note, None
        elements = note.get("elements") if note and note.get("attempt") == record.attempt else None
        event = ["done", record.number, self.worker_name(address), address, task.nbytes, record.attempt, seconds, elements]
        record.session.ended(record, event)

    def again(self, record, key, cause=None):
        note, record.note = record.note, None
        told = note.get("failure") if note and note.get("attempt") == record.attempt else None
        record.session.tell(["again", record.number, self.worker_name(record.worker), record.attempt, told, cause])
        record.attempt += 1
        record.worker = None
        self.annotate(key, record)

    def annotate(self, key, record):
        task = self.scheduler.tasks.get(key)
        if task is not None:
            # Not the same map for all tasks of a definition.
            task.annotations = dict(task.annotations or {}, remuda_attempt=record.attempt)

    def erred(self, record, key, start, kwargs):
        task = self.scheduler.tasks[key]
        blame = task.exception_blame
        if blame is not None and blame.key != key:
            # The driver knows it from the other's.
            record.session.settled(record)
            return
        number, note = record.number, record.note or {}
        record.note = None
        address = kwargs.get("worker") or record.worker
        name = self.worker_name(address) if address else ""
        tell = functools.partial(record.session.ended, record)
        if note.get("attempt", record.attempt) != record.attempt:
            note = {}
        if "failure" in note:
            tell(["failed", number, name, record.attempt, note["failure"]])
        elif "refused" in note:
            tell(["refused", number, *note["refused"]])
        elif "crashed" in note:
            tell(["crashed", number, name, *note["crashed"], record.attempt])
        elif task.suspicious > self.scheduler.allowed_failures and isinstance(kwargs.get("exception"), bytes):
            last = getattr(pickled(kwargs.get("exception")), "last_worker", None)
            name = str(getattr(last, "name", None) or name)
            tell(["crashed", number, name, task.suspicious - record.base, "its connection to the scheduler ended",
                  record.attempt])
        elif start == "no-worker":
            tell(["refused", number, "unschedulable", record.told or "no worker could run it in time", None])
        else:
            text = kwargs.get("exception_text") or task.exception_text or "it failed without a text"
            tell(["failed", number, name, record.attempt, failure(text, traceback=kwargs.get("traceback_text") or None)])

    def note(self, worker=None, key=None, started=None, **kwargs):
        """From a worker. An exception in here would cut it off."""
        try:
            if started is not None:
                name = self.worker_name(worker)
                for each, attempt in started:
                    record = self.records.get(each)
                    if record is not None and record.attempt == attempt:
                        record.worker = worker
                        self.meter.started(each, attempt)
                        record.session.tell(["started", record.number, name, attempt])
                return
            record = self.records.get(key)
            if record is None:
                return
            if "stuck" in kwargs:
                self.unsticking(record, key, worker, kwargs["stuck"])
                return
            record.worker = worker
            if "lost" not in kwargs:
                record.note = kwargs
            elif kwargs.get("attempt") == record.attempt:
                self.again(record, key, kwargs["lost"])
                record.worker = worker
        except Exception:
            complain("a note of a worker was not understood")

    # Results that do not come through.

    def unsticking(self, record, key, worker, text):
        if key not in self.stuck:
            # Kept here: the loop holds tasks weakly.
            self.stuck[key] = finding = asyncio.ensure_future(self.unstick(record, key, worker, text))
            finding.add_done_callback(lambda _: self.stuck.pop(key, None))

    async def unstick(self, record, key, worker, text):
        """A worker could not take in what this task needs: refused where that can never be sent, else tried again."""
        try:
            task, why = self.scheduler.tasks.get(key), None
            for needed in list(task.dependencies) if task is not None else ():
                holders = [ws.address for ws in needed.who_has or ()]
                if holders and worker not in holders and why is None:
                    asked = getattr(self.scheduler.rpc(holders[0]), OP + "leaves")(key=needed.key)
                    why = await asyncio.wait_for(asked, 60)
            task = self.scheduler.tasks.get(key)
            if self.records.get(key) is not record or task is None or task.processing_on is None or task.processing_on.address != worker:
                return
            record.stuck += 1
            hint = "return something that can be pickled, or give both tasks the same `workers`"
            if why is None and record.stuck >= STUCK:
                why = "worker %s cannot read what the task needs: %s" % (self.worker_name(worker), text)
                hint = "have the same packages on all workers"
            if why is None:
                self.scheduler._reschedule(key, worker, stimulus_id="remuda-stuck-%s" % time.time())
            else:
                record.session.tell(["refused", record.number, "unserializable", why, hint])
                await record.session.release([record.number])
        except Exception:
            complain("what holds up %s was not found", key)

    # Workers.

    def add_worker(self, scheduler=None, worker=None, **kwargs):
        try:
            state = self.scheduler.workers.get(worker)
            if state is None:
                return
            self.renamed[worker] = str(state.name)
            self.here.add(worker)
            for watch in self.watches:
                watch.tell(joined(state))
            self.waits.joins(state)
        except Exception:
            complain("a new worker was not told")

    def remove_worker(self, scheduler=None, worker=None, stimulus_id=None, **kwargs):
        try:
            name = self.renamed.get(worker, worker)
            self.here.discard(worker)
            busy = worker in self.busy or (stimulus_id is not None and self.failed_with == stimulus_id)
            self.busy.clear()
            self.failed_with = None
            why = stimulus_id or ""
            if "ttl" in why:
                reason = "no sign of life for too long"
            elif "retire" in why:
                reason = "retired"
            else:
                reason = "it closed, or its connection was lost"
            for watch in self.watches:
                watch.tell(["left", name, reason, busy])
            if len(self.renamed) > 10000:
                self.renamed = {ws.address: str(ws.name) for ws in self.scheduler.workers.values()}
        except Exception:
            complain("a lost worker was not told")


def shims_there(shims):
    async def remuda_shims():
        return shims

    return remuda_shims


def environments(scheduler):
    """What the workers run, as they told when they came: [[python, distributed, the first few names, how many]..]."""
    seen = {}
    for ws in scheduler.workers.values():
        packages = (getattr(ws, "versions", None) or {}).get("packages") or {}
        of = tuple(str(packages.get(name) or "") for name in ("python", "distributed"))
        seen.setdefault(of, []).append(str(ws.name))
    return [[*of, sorted(names)[:5], len(names)] for of, names in sorted(seen.items())]


def pickled(exception):
    # Made by the scheduler itself, for a worker that was lost.
    try:
        return pickle.loads(exception) if isinstance(exception, bytes) else None
    except Exception:
        return None


def dashboard(scheduler):
    port = (getattr(scheduler, "services", None) or {}).get("dashboard")
    port = getattr(port, "port", port)
    if not port:
        return None
    host = scheduler.address.split("://", 1)[-1].rsplit(":", 1)[0]
    try:
        from distributed.utils import format_dashboard_link

        return format_dashboard_link(host, port)
    except Exception:
        return "http://%s:%s/status" % (host, port)
