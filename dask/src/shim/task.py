# ---- One attempt at a task, in a thread of a worker.

DEFINITIONS = {}


# What newer versions make tasks of. `dask` had it for some releases before `distributed` used it.
GraphNode = getattr(distributed.worker, "GraphNode", None)
NONE = frozenset()

if GraphNode is not None:

    class Run(GraphNode):
        """A task. Small and quick when pickled: workers know a definition by its bytes. Dask's own `Task` with a body like the one below is
        two objects with a dozen attributes, which cost the scheduler and the workers more than all else of it."""

        __slots__ = ("definition", "args", "deps", "needs")

        def __init__(self, key, definition, args, deps, needs):
            self.key, self.definition, self.args, self.deps, self.needs = key, definition, args, deps, needs
            self._dependencies = frozenset(needs) if needs else NONE

        def __reduce__(self):
            return Run, (self.key, self.definition, self.args, self.deps, self.needs)

        def __repr__(self):
            return "<%s>" % definition_of(self.definition)["name"]

        def __dask_tokenize__(self):
            return "Run", self.definition, self.args, self.deps

        def __call__(self, values=()):
            return Attempt(self).run([values[key] for key in self.needs])

    made = Run
else:
    from distributed.utils_comm import WrappedKey

    class Run:
        """A task's body, called with the values of its dependencies. Small when pickled: workers know a definition by its bytes."""

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

    def made(key, definition, args, deps, needs):
        """A task, as the scheduler takes it."""
        return (Run(definition, args, deps), *map(WrappedKey, needs))


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
        # For all calls of a batch.
        self.function = self.fill = None

    def run(self, values):
        info, key = self.info, self.key
        # Taken over by the tick.
        info.runs(key, self.number)
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
            return run_rust(self.info, self.key, number, self.definition, filled, self.host_lost)
        return run_command(self.info, self.key, number, self.definition, filled)

    def host_lost(self, cause):
        """The task is tried again here and now, as another attempt."""
        self.info.tell({"key": self.key, "attempt": self.number, "lost": cause})
        self.number += 1
        self.info.runs(self.key, self.number)

    def python(self, args, holes):
        if self.function is None:
            run = self.key.rsplit("-", 2)[-2]
            self.function = function_of(run, self.definition["path"], self.definition["target"])
        if self.fill is None:
            self.fill = filler(holes)
        positional, keywords = unpack(args, self.fill)
        limit = self.definition["timeout"]
        if limit is None:
            return evaluate(self.function, positional, keywords)
        return within(limit, evaluate, self.function, positional, keywords)

    def batch(self, holes):
        results, lost = [], []
        for index, args in enumerate(unpack(self.args, msgpack.ExtType)):
            if self.info.unwanted(self.key):
                raise Cancelled()
            result = self.element(args, holes)
            if type(result) is Lost:
                lost.append([index, result.failure])
            results.append(result)
        if lost:
            self.info.tell({"key": self.key, "attempt": self.number, "elements": lost})
        return results

    def element(self, args, holes):
        number = self.number
        while True:
            try:
                return self.call(args, holes, number)
            except Cancelled:
                raise
            except Crashed as e:
                # A batch allows none: whether this call goes on, alone, is for the driver to say.
                return Lost(dict(failure(e.cause), crashed=e.cause))
            except Upstream as e:
                return Lost(dict(failure(str(e)), upstream=True))
            except Refused as e:
                return Lost(dict(failure(e.message), refused=[e.kind, e.message, e.hint]))
            except BaseException as e:
                if number - self.number >= self.definition["retries"]:
                    return Lost(failure_of(e))
                number += 1


def filler(holes):
    def fill(kind, data):
        if kind == HOLE:
            return argument(*holes[int.from_bytes(data, "big")])
        return error_object(kind, data)

    return fill


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
