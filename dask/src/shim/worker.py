# ---- Workers: running tasks, telling the scheduler, giving results.

HOLE, ERROR = 0x51, 2
OBJECT, ALLOW = 1, 2
TICK = 0.02
REPLY = 64 << 20
SMALL = 64 << 10
WORKERS = {}
DEFINITIONS = {}


class Run:
    """A task's body. Small when pickled: workers know a definition by its bytes. Called with the values of its dependencies."""

    __slots__ = ("definition", "args", "deps")

    def __init__(self, definition, args, deps=()):
        self.definition, self.args, self.deps = definition, args, deps

    def __reduce__(self):
        return Run, (self.definition, self.args, self.deps)

    def __repr__(self):
        return "<%s>" % definition_of(self.definition)["name"]

    def __dask_tokenize__(self):
        return "Run", self.definition, self.args, self.deps

    def __call__(self, *values):
        return Attempt(self).run(values)


def definition_of(data):
    known = DEFINITIONS.get(data)
    if known is None:
        if len(DEFINITIONS) > 10000:
            DEFINITIONS.clear()
        known = DEFINITIONS[data] = unpack(data, msgpack.ExtType)
    return known


class Lost:
    """Stands in a batch's result for an element that failed."""

    def __init__(self, failure):
        self.failure = failure

    def __reduce__(self):
        return Lost, (self.failure,)


class Upstream(Exception):
    """An element that goes into this call has failed."""


class Attempt:
    """One attempt at a task, in a thread of the worker."""

    def __init__(self, run):
        state = distributed.worker.thread_state
        self.key = state.key
        worker = state.execution_state["worker"]
        self.info = WORKERS.get(worker.address) or WorkerInfo(worker)
        known = worker.state.tasks.get(self.key)
        self.number = (known.annotations or {}).get("remuda_attempt", 0) if known is not None else 0
        self.definition = definition_of(run.definition)
        self.args, self.deps = run.args, run.deps

    def run(self, values):
        info, key = self.info, self.key
        # Taken over by the tick.
        info.running[key] = [self.number, time.monotonic(), False]
        try:
            if self.definition["slots"] == 0:
                distributed.secede()
            holes = self.holes(values)
            if self.definition["batch"]:
                return self.batch(holes)
            return self.call(self.args, holes, self.number)
        except Refused as e:
            info.tell({"key": key, "attempt": self.number, "refused": [e.kind, e.message, e.hint]})
            raise RuntimeError(e.message) from None
        except Crashed as e:
            info.tell({"key": key, "attempt": self.number, "crashed": [e.attempts, e.cause]})
            raise RuntimeError(e.cause) from None
        except Cancelled:
            # Dask drops it; or wants it after all, where an input was lost and is there again while it was being ended: then once more.
            raise distributed.Reschedule() from None
        except Failed as e:
            info.tell({"key": key, "attempt": self.number, "failure": e.failure})
            raise RuntimeError(e.failure["message"]) from None
        except BaseException as e:
            info.tell({"key": key, "attempt": self.number, "failure": failure_of(e)})
            if isinstance(e, (SystemExit, KeyboardInterrupt)):
                # These would end the worker.
                raise RuntimeError("%s: %s" % (type(e).__name__, e)) from None
            if type(e).__module__ == __name__:
                # Other clients could not read it.
                raise RuntimeError(str(e)) from None
            raise
        finally:
            info.running.pop(key, None)

    def holes(self, values):
        """By number of the hole: the value, its mode."""
        holes, deps = {}, self.deps
        for i, value in enumerate(values):
            _, element, mode, hole = deps[4 * i:4 * i + 4]
            if hole >= 0:
                holes[hole] = (value if element < 0 else value[element], mode)
        return holes

    def call(self, args, holes, number):
        kind = self.definition["kind"]
        if kind == "python":
            return self.python(args, holes)
        filled = splice(args, holes)
        if kind == "rust":
            return run_rust(self.info, self.key, number, self.definition, filled)
        return run_command(self.info, self.key, number, self.definition, filled)

    def python(self, args, holes):
        add_paths(self.definition["path"])
        function = find(self.definition["target"])

        def fill(kind, data):
            if kind == HOLE:
                return argument(*holes[int.from_bytes(data, "big")])
            return error_object(kind, data)

        positional, keywords = unpack(args, fill)
        limit = self.definition["timeout"]
        if limit is None:
            return evaluate(function, positional, keywords)
        return within(limit, evaluate, function, positional, keywords)

    def batch(self, holes):
        results, lost = [], []
        for index, args in enumerate(unpack(self.args, msgpack.ExtType)):
            if self.unwanted():
                raise Cancelled()
            result = self.element(args, holes)
            if type(result) is Lost:
                lost.append([index, result.failure])
            results.append(result)
        if lost:
            self.info.tell({"key": self.key, "attempt": self.number, "elements": lost})
        return results

    def unwanted(self):
        known = self.info.worker.state.tasks.get(self.key)
        return known is None or known.state in ("cancelled", "released", "forgotten")

    def element(self, args, holes):
        number = self.number
        while True:
            try:
                return self.call(args, holes, number)
            except (Cancelled, Crashed):
                raise
            except Upstream as e:
                return Lost(dict(failure(str(e)), upstream=True))
            except Refused as e:
                return Lost(dict(failure(e.message), refused=[e.kind, e.message, e.hint]))
            except BaseException as e:
                if number - self.number >= self.definition["retries"]:
                    return Lost(failure_of(e))
                number += 1


def evaluate(function, positional, keywords):
    result = function(*positional, **keywords)
    if inspect.isawaitable(result):
        async def waits():
            return await result
        result = asyncio.run(waits())
    return result


def within(limit, function, *args):
    """Calls it in a thread of its own, which is left behind when its time is over: no Python thread can be ended. For Dask it stands in
    for the thread of the pool, so that a client can be had in it, and it can secede."""
    pool, state = distributed.threadpoolexecutor.thread_state, distributed.worker.thread_state
    ours, theirs, context = dict(pool.__dict__), dict(state.__dict__), contextvars.copy_context()
    this, outcome, ended = threading.current_thread(), [], threading.Event()

    def body():
        pool.__dict__.update(ours)
        state.__dict__.update(theirs)
        try:
            outcome.append((True, context.run(function, *args)))
        except BaseException as e:
            outcome.append((False, e))
        finally:
            ended.set()

    thread = threading.Thread(target=body, name=this.name + "-limited", daemon=True)
    swap_threads(ours, this, thread)
    thread.start()
    in_time = ended.wait(limit)
    if not swap_threads(ours, thread, this):
        # It has seceded, and the pool has another thread by now: this one ends after its task.
        pool.proceed = False
    if not in_time:
        raise Failed(failure(timeout_text(limit), "TimeoutError"))
    (fine, value), = outcome
    if fine:
        return value
    raise value


def swap_threads(pool, old, new):
    threads = getattr(pool.get("executor"), "_threads", None)
    if threads is None or old not in threads:
        return False
    threads.discard(old)
    threads.add(new)
    return True


def error_object(kind, data):
    if kind == ERROR:
        error = unpack(data, error_object)
        return TaskFailed(error["state"], error["message"])
    return msgpack.ExtType(kind, data)


def argument(value, mode):
    if type(value) is Lost:
        if mode & ALLOW:
            return TaskFailed("failed", value.failure["message"])
        raise Upstream(value.failure["message"])
    return value if mode & OBJECT else unpack(value, error_object)


def packed(value, mode):
    """A dependency's result as MessagePack."""
    if type(value) is Lost:
        if not mode & ALLOW:
            raise Upstream(value.failure["message"])
        told = value.failure
        text = "%s: %s" % (told["kind"], told["message"]) if told["kind"] else told["message"]
        error = {"state": "failed", "message": text, "root": "failed", "failure": {k: told[k] for k in ("kind", "message", "traceback", "exit_code")}}
        return pack({"Err": error})
    if mode & OBJECT:
        try:
            value = pack(to_plain(value))
        except NotPlain as e:
            raise Refused("unserializable", str(e), "return lists, dicts, text and numbers instead") from None
    return b"\x81\xa2Ok" + value if mode & ALLOW else value


MAYBE_EXTENSION = re.compile(rb"[\xd6][\x51]|[\xd4-\xd8]\x02|\xc7.\x02|\xc8..\x02|\xc9....\x02", re.DOTALL)


def splice(args, holes):
    """A template with every hole filled: the bytes of a value are copied into its place, nothing is parsed."""
    if MAYBE_EXTENSION.search(args) is None:
        return args
    out, done = [], 0
    for start, kind, body, end in extensions(args):
        if kind == HOLE:
            value = packed(*holes[int.from_bytes(args[body:end], "big")])
        elif kind == ERROR:
            value = args[body:end]
        else:
            continue
        out += (args[done:start], value)
        done = end
    return b"".join(out) + args[done:]


LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
EXTENDED = {0xC7: 1, 0xC8: 2, 0xC9: 4}
WIDTHS = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


def extensions(data):
    """Where MessagePack has extensions: start, type, start of the content, end."""
    at, size = 0, len(data)
    while at < size:
        b, start = data[at], at
        at += 1
        if 0xA0 <= b < 0xC0:
            at += b & 31
        elif b in LENGTHS:
            n = LENGTHS[b]
            at += n + int.from_bytes(data[at:at + n], "big")
        elif b in WIDTHS:
            at += WIDTHS[b]
        elif 0xD4 <= b <= 0xD8 or b in EXTENDED:
            n = EXTENDED.get(b, 0)
            length = int.from_bytes(data[at:at + n], "big") if n else 1 << (b - 0xD4)
            body = at + n + 1
            at = body + length
            yield start, data[body - 1], body, at


class WorkerInfo:
    """What the shim knows of one worker."""

    def __init__(self, worker):
        self.worker = worker
        self.name, self.address, self.scheduler = str(worker.name), worker.address, worker.scheduler.address
        self.running, self.state = {}, {}
        self.ticking = False
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

    def start(self):
        if not self.ticking:
            self.ticking = True
            self.worker.loop.call_later(TICK, self.tick)

    def tick(self):
        if not self.ticking:
            return
        try:
            self.tell_started()
            self.guard()
        except Exception:
            log.exception("the tick of a worker failed")
        self.worker.loop.call_later(TICK, self.tick)

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

    # A worker that is to end moves its results first.

    def guard(self):
        if os.environ.get("REMUDA_GRACEFUL") == "1" and threading.current_thread() is threading.main_thread():
            # Dask's own handler may come after ours.
            current = signal.getsignal(signal.SIGTERM)
            if current != self.terminated and self.before is None:
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
        self.info.start()

    def teardown(self, worker):
        # Also called when the plugin is set up once more.
        if worker.status in (Status.closing, Status.closed, Status.failed):
            self.info.stop()
            close_hosts(self.info)

    def transition(self, key, start, finish, **kwargs):
        if key in self.info.running and start in ("executing", "long-running", "cancelled", "resumed"):
            if finish in ("cancelled", "released", "forgotten"):
                kill(self.info, key)

    async def hello(self):
        return {"protocol": PROTOCOL, "hash": HASH}

    async def prepare(self, modules=(), paths=(), host=None, tasks=True):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, prepare_worker, self.info, modules, paths, host)

    async def fetch(self, keys, inline=False):
        return await answer_fetch(self.info, keys, inline)


def prepare_worker(info, modules, paths, host):
    answer = {"python": list(sys.version_info[:3]), "missing": [], "tasks": None, "error": None}
    add_paths(list(paths))
    for name in modules:
        try:
            if importlib.util.find_spec(name) is None:
                answer["missing"].append(name)
        except Exception:
            # A package above it is not there, or cannot be imported.
            answer["missing"].append(name)
    if host is not None:
        try:
            answer["tasks"] = prepare_host(info, host)
        except Refused as e:
            answer["error"] = e.message + ("; " + e.hint if e.hint else "")
        except Exception as e:
            answer["error"] = "%s: %s" % (type(e).__name__, e)
    return answer


async def answer_fetch(info, keys, inline):
    from distributed.protocol import Serialized

    results, total = [], 0
    loop = asyncio.get_running_loop()
    for key, element, forms in keys:
        if total >= REPLY:
            results.append(["later"])
            continue
        try:
            value = info.worker.data[key]
        except KeyError:
            results.append(["missing"])
            continue
        if element >= 0:
            try:
                value = value[element]
            except (IndexError, TypeError, KeyError):
                results.append(["missing"])
                continue
        if type(value) is Lost:
            results.append(["error", value.failure["kind"], value.failure["message"], "Lost"])
            continue
        if "raw" in forms and type(value) is bytes:
            result = ["plain", value]
        else:
            result = await loop.run_in_executor(None, formed, value, list(forms))
        if result[0] in ("plain", "arrow"):
            total += len(result[1])
            if not inline and len(result[1]) > SMALL:
                # In one piece: Dask would cut it into several, which the receiver has to put together again.
                result[1] = Serialized({"serializer": "dask", "type": "builtins.bytes"}, [result[1]])
        results.append(result)
    return {"results": results}


def formed(value, forms):
    """A Python object in the first form that it has."""
    name = name_of(type(value))
    error = ["error", "unserializable", "a Python object of type `%s` has no plain form" % name, name]
    for form in forms:
        try:
            if form == "plain":
                return ["plain", pack(to_plain(value))]
            if form == "arrow":
                table = arrow(value)
                if table is not None:
                    return ["arrow", table, name]
            if form == "text":
                return ["text", clean(repr(value)), name]
        except NotPlain as e:
            text = str(e) if "`%s`" % name in str(e) else "%s (inside a `%s`)" % (e, name)
            error = ["error", "unserializable", text + "; return lists, dicts, text and numbers instead", name]
        except RecursionError:
            error = ["error", "unserializable", "a Python object of type `%s` is nested too deeply, or contains itself" % name, name]
        except Exception as e:
            error = ["error", "unserializable", "a Python object of type `%s` cannot be converted: %s: %s" % (name, type(e).__name__, safe_str(e)), name]
    return error


def arrow(value):
    """A table as an Arrow IPC stream."""
    module = type(value).__module__.split(".")[0]
    if module not in ("pandas", "polars", "pyarrow"):
        return None
    import pyarrow

    if module == "pandas" and type(value).__name__ in ("DataFrame", "Series"):
        if type(value).__name__ == "Series":
            value = value.to_frame(value.name if value.name is not None else "0")
        value = pyarrow.Table.from_pandas(value)
    elif module == "polars":
        value = (value.to_frame() if type(value).__name__ == "Series" else value).to_arrow()
    elif type(value).__name__ == "RecordBatch":
        value = pyarrow.Table.from_batches([value])
    if not isinstance(value, pyarrow.Table):
        return None
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, value.schema) as writer:
        writer.write_table(value)
    return sink.getvalue().to_pybytes()
