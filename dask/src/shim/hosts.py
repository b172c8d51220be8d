# ---- The task hosts of a worker, and what runs in them.

# Seconds that a host is kept without a task: nothing is to be left of a run on somebody else's cluster.
AT_REST = 30


class HostPool:
    def __init__(self):
        self.lock = threading.Lock()
        # The one used last at the end.
        self.idle = []
        # A thread waits for the first of them to have been idle for too long.
        self.waits = False
        self.busy = []
        self.closed = False
        # What drivers told in `prepare`, the newest at the end; two drivers may share a cluster.
        self.given = []
        # What runs now, by Dask key.
        self.calls = {}

    def remember(self, host):
        with self.lock:
            self.given = [known for known in self.given if known != host][-7:] + [host]

    def candidates(self):
        with self.lock:
            return self.given[::-1] or [None]

    def take(self, worker, given):
        command, build = host_command(worker, given)
        while True:
            with self.lock:
                fits = [host for host in self.idle if host.command == command and host.build == build]
                if not fits:
                    break
                host = fits[-1]
                self.idle.remove(host)
                self.busy.append(host)
            if host.process.poll() is None:
                return host
            # It died while it had nothing to do: that is no task's doing.
            self.drop(host)
        named = [given["exe"], *(given.get("args") or [])] if given is not None and given.get("named") else None
        host = TaskHost(command, build, host_access(worker), named)
        with self.lock:
            self.busy.append(host)
            closed = self.closed
        if closed:
            self.drop(host)
            raise Cancelled()
        return host

    def take_for(self, worker, definition):
        """A host that has the task by the driver's signature. The driver's own, where several drivers have told of theirs."""
        newest, told = None, definition.get("host")
        for given in [told] if told else self.candidates():
            try:
                host = self.take(worker, given)
                try:
                    host.check(definition, worker)
                    return host
                except Refused:
                    self.put_back(worker, host)
                    raise
            except Refused as e:
                newest = newest or e
        raise newest

    def put_back(self, worker, host):
        host.used, host.since = True, time.monotonic()
        with self.lock:
            self.busy.remove(host)
            self.idle.append(host)
            waits, self.waits = self.waits, True
            surplus = len(self.idle) if self.closed else max(0, len(self.idle) - max(worker.worker.state.nthreads, 1))
            surplus, self.idle = self.idle[:surplus], self.idle[surplus:]
        for host in surplus:
            host.end()
        if not waits:
            try:
                threading.Thread(target=self.tire, name="remuda idle hosts", daemon=True).start()
            except RuntimeError:
                # No thread is to be had: the next one may get it.
                with self.lock:
                    self.waits = False

    def tire(self):
        """Ends hosts that have had no task for long, until there is none without one."""
        while True:
            with self.lock:
                due = time.monotonic() - AT_REST
                tired = [host for host in self.idle if host.since <= due]
                self.idle = [host for host in self.idle if host.since > due]
                self.waits = goes_on = bool(self.idle)
                first = min((host.since for host in self.idle), default=due)
            for host in tired:
                host.end()
            if not goes_on:
                return
            time.sleep(first - due)

    def drop(self, host):
        with self.lock:
            if host in self.busy:
                self.busy.remove(host)
        return host.end()

    def close(self):
        with self.lock:
            self.closed = True
            idle, self.idle = self.idle, []
            busy, running = list(self.busy), list(self.calls.values())
        for host in idle + busy:
            host.kill()
        for call in running:
            call.cancel()


def host_pool(worker):
    # `setdefault` of a dict is atomic.
    return worker.state.get("hosts") or worker.state.setdefault("hosts", HostPool())


def prepare_host(worker, host):
    """For the check before submission: the tasks of the host that would be started, [[name, signature]..]. In a thread.
    `host` is a map exe, args, boot_id of the driver, or None. Also remembers it for run_rust. Raises Refused."""
    pool = host_pool(worker)
    if host is not None:
        pool.remember(host)
    started = pool.take(worker, host)
    try:
        started.check_version(worker)
        return sorted([name, signature] for name, signature in started.tasks.items())
    finally:
        pool.put_back(worker, started)


def close_hosts(worker):
    """The worker is closing: ends everything that this file has started for it. Returns at once."""
    host_pool(worker).close()


def kill(worker, key):
    """The task is not wanted any more: ends what runs for it, if anything. On the event loop of the worker: returns at once."""
    call = host_pool(worker).calls.get(key)
    if call is not None:
        call.cancel()


class OutsideCall:
    """A task that runs. `cancel` may come at any time, from any thread, and never waits."""

    def __init__(self, worker, key):
        self.worker, self.calls, self.key = worker, host_pool(worker).calls, key
        self.lock = threading.Lock()
        self.cancelled, self.interrupt = False, None

    def __enter__(self):
        self.calls[self.key] = self
        # It may have been cancelled before there was something to cancel: once it is known here, one of both sides notices.
        if self.worker.unwanted(self.key):
            self.cancelled = True
        return self

    def __exit__(self, *_):
        if self.calls.get(self.key) is self:
            del self.calls[self.key]

    def runs(self, interrupt):
        """From now on it is ended by `interrupt()`, on a thread of its own."""
        with self.lock:
            self.interrupt = interrupt
            late = self.cancelled
        if late:
            threading.Thread(target=interrupt, name="remuda cancel", daemon=True).start()

    def cancel(self):
        with self.lock:
            interrupt = None if self.cancelled else self.interrupt
            self.cancelled = True
        if interrupt is not None:
            threading.Thread(target=interrupt, name="remuda cancel", daemon=True).start()


# ---- Rust tasks

def run_rust(worker, key, attempt, definition, args, lost=None):
    """Runs a Rust function in a task host. `key` is Dask's, `args` MessagePack with every hole filled; returns the result as MessagePack.
    `lost(cause)` is called when a host has died and another one is tried. Raises Failed, Refused, Crashed, Cancelled."""
    pool, allowed, deaths = host_pool(worker), definition.get("allowed"), 0
    allowed = 3 if allowed is None else allowed
    with OutsideCall(worker, key) as call:
        while True:
            if call.cancelled:
                raise Cancelled()
            host = pool.take_for(worker, definition)
            host.task = key
            try:
                kind, content = converse(call, host, call_frame(worker, key, attempt + deaths, definition, args), definition.get("timeout"))
            except HostDied as e:
                cause = pool.drop(host)
                if host.used and not e.begun and not call.cancelled:
                    continue
            except Refused:
                # What was too long to be sent has not been sent.
                pool.put_back(worker, host)
                raise
            except BaseException:
                pool.drop(host)
                raise
            else:
                pool.put_back(worker, host)
                return rust_result(call, kind, content)
            if call.cancelled:
                raise Cancelled()
            deaths += 1
            host_log.warning("%s | the task host was lost: %s", key, cause)
            if deaths > allowed:
                raise Crashed(deaths, cause)
            if lost is not None:
                lost(cause)


def call_frame(worker, key, attempt, definition, args):
    pack, size = msgpack.packb, memoryview(args).nbytes
    head = b"".join((
        b"\x81", pack("Call"), b"\x85", pack("function"), pack(definition["function"]), pack("key"), pack(int(key.rsplit("-", 1)[-1], 16)),
        pack("attempt"), pack(attempt), pack("worker"), pack(worker.name), pack("args"), b"\xc6", struct.pack(">I", min(size, LONGEST_FRAME)),
    ))
    return [head, args]


def converse(call, host, frame, limit):
    deadline = None if limit is None else time.monotonic() + limit
    over = threading.Event()

    def interrupt():
        # A call in the middle of being sent has not begun.
        if host.sending.acquire(timeout=GRACE):
            try:
                with call.lock:
                    if call.interrupt is interrupt:
                        say_cancel(host)
            finally:
                host.sending.release()
        over.wait(GRACE)
        with call.lock:
            if call.interrupt is interrupt:
                host.kill()

    call.runs(interrupt)
    paused = False
    try:
        try:
            host.send(frame, deadline)
            while True:
                kind, content = host.reply(deadline)
                if kind == "Ask" and content == "Pause":
                    if not paused:
                        paused = True
                        give_slot_back()
                # The slot stays given away until the task ends: `resume` does not wait for a free one, and Dask's `rejoin` does.
                elif kind not in ("Ask", "Group"):
                    return kind, content
        except HostTimeout:
            with call.lock:
                call.interrupt = None
            end_late(host)
            raise timed_out(limit)
    finally:
        # Nothing of this call reaches the next one in this host.
        with call.lock:
            call.interrupt = None
        over.set()


def say_cancel(host):
    data = msgpack.packb("Cancel")
    try:
        host.socket.sendall(struct.pack("<4sI", HOST_MAGIC, len(data)) + data)
    except OSError:
        pass


def end_late(host):
    """It may still end by itself, which lets it clean up; it is not used again."""
    say_cancel(host)
    deadline = time.monotonic() + GRACE
    try:
        while host.reply(deadline)[0] in ("Ask", "Group"):
            pass
    except (HostDied, HostTimeout):
        pass
    host.end()


def give_slot_back():
    from distributed import secede
    try:
        secede()
    except (KeyError, ValueError, AttributeError):
        # It has been given back before (`slots: 0`).
        pass


def rust_result(call, kind, content):
    if kind == "Done":
        return content
    if call.cancelled:
        raise Cancelled()
    if kind == "Failed":
        raise Failed(content)
    if kind == "Refused":
        raise Refused("unserializable" if content["unserializable"] else "unexpected", content["message"], content["hint"])
    if kind == "Cancelled":
        raise Failed(failure("it ended as cancelled, and nobody has cancelled it"))
    raise Refused("unexpected", "the task host said `%s`, which is no answer" % kind)
