# ---- Task hosts and commands: what a worker runs outside of its own process.
#
# Called by `Run` in a thread of the worker. The definition is a map as in the submit message. Deadlines (`timeout`, seconds or None) are kept
# in here, since only killing ends these: `Failed` with the kind `TimeoutError` and the text of `timeout_text(seconds)`.
# `worker` is a `WorkerInfo`: .name, .address, .scheduler (address), .worker (Dask's object), .state (a dict for this file's own things).
#
# A host serves one task at a time and is kept for the next one, at most as many as the worker has threads. They are not bound to threads:
# Dask replaces those that secede. A host is a process beside the worker: Dask's memory limits do not see what it uses. It is the leader of
# a process group and ends itself, with the group, at the end of its socket: also when the worker is killed in the middle of a task.
import fcntl
import selectors
import shutil
import weakref

HOST_VERSION = 4
HOST_MAGIC = b"RMDA"
HOST_READY = b"\x1eremuda task host ready"
HOST_ENV = "REMUDA_TASK_HOST"
HOST_BINARY = "REMUDA_TASK_HOST_BINARY"
HOST_ARGS = "REMUDA_TASK_HOST_ARGS"
LONGEST_FRAME = 2**32 - 1
# Seconds. What a task has to end by itself once it is cancelled; what a host has to say hello, on a busy machine.
GRACE = 1.0
HELLO = 60.0
STDERR_TAIL = 4096

# A child of "distributed.worker": what Dask answers when it is asked for a worker's log has it too.
host_log = logging.getLogger("distributed.worker.remuda")


def timed_out(seconds):
    return Failed(failure(timeout_text(seconds), "TimeoutError"))


def signal_text(number):
    try:
        return "signal %d (%s)" % (number, signal.Signals(number).name)
    except ValueError:
        return "signal %d" % number


# ---- which program

def machine_boot_id():
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return None


HOST_REMEDY = ("set %s in the environment of the workers to your program, built for them, "
               "and %s to its arguments, as a JSON list, if it needs any" % (HOST_BINARY, HOST_ARGS))
BUILD_REMEDY = "build the workers' program from the driver's sources, and restart the workers"


def host_command(worker, given):
    """The command line of the task hosts, and what tells two builds at the same place apart."""
    where = "worker `%s`" % worker.name
    named = os.environ.get(HOST_BINARY)
    if named:
        args = os.environ.get(HOST_ARGS) or "[]"
        try:
            command = json.loads(args)
            if not (isinstance(command, list) and all(isinstance(arg, str) for arg in command)):
                raise ValueError("not a list of texts")
        except ValueError as e:
            raise Refused("invalid", "%s=`%s` on %s is no JSON list: %s" % (HOST_ARGS, args, where, e), HOST_REMEDY)
        exe = shutil.which(named)
        if exe is None:
            raise Refused("invalid", "%s=`%s` on %s is not a program there" % (HOST_BINARY, named, where), HOST_REMEDY)
    elif given is None:
        raise Refused("invalid", "%s has no program to run Rust tasks with" % where, HOST_REMEDY)
    elif given.get("boot_id") is None or given["boot_id"] != machine_boot_id():
        raise Refused("invalid", "%s is on another machine than the driver and has no program to run Rust tasks with" % where, HOST_REMEDY)
    else:
        exe, command = given["exe"], list(given.get("args") or [])
        if not os.access(exe, os.X_OK):
            raise Refused("invalid", "%s cannot run the driver's program `%s`" % (where, exe), HOST_REMEDY)
    try:
        stat = os.stat(exe)
        build = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError:
        build = None
    return (exe, *command), build


def host_access(worker):
    """How a task in a host reaches the scheduler for tasks of its own."""
    security = worker.worker.security

    def text(value):
        if value is None or "\n" in value:
            return value
        with open(value) as file:
            return file.read()

    address = worker.scheduler
    access = {"address": address, "security": None}
    if address.split(":", 1)[0] in ("tls", "wss"):
        cert = text(security.tls_worker_cert)
        key = text(security.tls_worker_key) if security.tls_worker_key else cert
        access["security"] = {"ca": text(security.tls_ca_file), "cert": cert, "key": key}
    return access


# ---- one task host

class HostDied(Exception):
    """`begun`: it may have begun with what it was told last."""

    def __init__(self, message, begun=True):
        super().__init__(message)
        self.begun = begun


class HostTimeout(Exception):
    pass


open_hosts = weakref.WeakSet()


class TaskHost:
    def __init__(self, command, build, access):
        self.command, self.build, self.task, self.garbled = command, build, "", False
        self.ended, self.used = None, False
        self.sending = threading.Lock()
        ours, theirs = socket.socketpair()
        output, write = os.pipe()
        env = dict(os.environ)
        # The host compares it with its parent's, so that a child of the host does not take itself for one.
        env[HOST_ENV] = str(os.getpid())
        try:
            self.process = subprocess.Popen(command, stdin=theirs, stdout=write, stderr=write, env=env, start_new_session=True)
        except (OSError, ValueError) as e:
            ours.close()
            os.close(output)
            raise Refused("invalid", "the task host `%s` could not be started: %s" % (command[0], e))
        finally:
            theirs.close()
            os.close(write)
        self.socket = ours
        open_hosts.add(self)
        threading.Thread(target=pass_on_lines, args=(output, self.label, HOST_READY), name="remuda host output", daemon=True).start()
        try:
            deadline = time.monotonic() + HELLO
            kind, hello = self.reply(deadline)
            if kind != "Hello":
                raise HostDied("it did not say hello")
            self.version, self.tasks = hello["version"], {name: signature for name, signature in hello["tasks"]}
            if self.version == HOST_VERSION:
                self.send([msgpack.packb({"Access": access}, use_bin_type=True)], deadline)
        except (HostDied, HostTimeout, KeyError, TypeError, ValueError) as e:
            slow = isinstance(e, HostTimeout)
            cause = "said nothing for %d s" % HELLO if slow else "ended before it said hello: %s" % self.end()
            self.end()
            hint = ("its `main` has to call `remuda::init()` first thing, or to have `#[remuda::main]`; "
                    "run it on that machine by hand to see whether it starts")
            raise Refused("invalid", "`%s`, started as a task host, %s" % (" ".join(command), cause), hint)

    def label(self):
        return self.task

    def check(self, definition, worker):
        """A program that is older or newer than the driver is told of before it does something else than what was meant."""
        function, ours = definition["function"], definition.get("signature")
        where = "the task host of worker `%s` (`%s`)" % (worker.name, self.command[0])
        self.check_version(worker)
        if function not in self.tasks:
            hint = "a task that a host runs needs `#[remuda::task]` in that very program; " + BUILD_REMEDY
            raise Refused("invalid", "%s has no task `%s`" % (where, function), hint)
        theirs = self.tasks[function]
        if ours is not None and theirs != ours:
            raise Refused("invalid", "task `%s` is `%s` in %s, and `%s` in the driver" % (function, theirs, where, ours), BUILD_REMEDY)

    def check_version(self, worker):
        if self.version != HOST_VERSION:
            text = "the task host of worker `%s` (`%s`) speaks version %s of its protocol, not %d"
            raise Refused("invalid", text % (worker.name, self.command[0], self.version, HOST_VERSION), BUILD_REMEDY)

    def send(self, parts, deadline=None):
        length = sum(len(memoryview(part).cast("B")) for part in parts)
        if length > LONGEST_FRAME:
            text = "%d bytes are more than the 4 GiB that one value between processes may have" % length
            raise Refused("unserializable", text, "pass a file name instead")
        views = [memoryview(part).cast("B") for part in (struct.pack("<4sI", HOST_MAGIC, length), *parts) if len(part)]
        with self.sending:
            try:
                while views:
                    self.wait_for(deadline)
                    sent = self.socket.sendmsg(views[:64])
                    while views and sent >= len(views[0]):
                        sent -= len(views[0])
                        del views[0]
                    if sent:
                        views[0] = views[0][sent:]
            except socket.timeout:
                raise HostTimeout()
            except OSError as e:
                raise HostDied(str(e), begun=False)

    def wait_for(self, deadline):
        if deadline is None:
            self.socket.settimeout(None)
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise HostTimeout()
        self.socket.settimeout(left)

    def read(self, deadline=None):
        magic, length = struct.unpack("<4sI", self.read_exact(8, deadline))
        if magic != HOST_MAGIC:
            self.garbled = True
            raise HostDied("not a frame")
        return self.read_exact(length, deadline)

    def read_exact(self, length, deadline):
        # Not allocated on the word of the other side alone.
        data, at = bytearray(min(length, 1 << 26)), 0
        try:
            while at < length:
                if at == len(data):
                    data.extend(bytes(min(length - at, len(data))))
                self.wait_for(deadline)
                with memoryview(data) as view:
                    got = self.socket.recv_into(view[at:])
                if got == 0:
                    raise HostDied("it has hung up")
                at += got
        except socket.timeout:
            raise HostTimeout()
        except ConnectionResetError as e:
            # It ended with something in its socket that it had not read.
            raise HostDied(str(e), begun=False)
        except OSError as e:
            raise HostDied(str(e))
        return data

    def reply(self, deadline=None):
        data = self.read(deadline)
        try:
            return parse_reply(data)
        except (ValueError, TypeError, AttributeError) as e:
            self.garbled = True
            raise HostDied("not a reply: %s" % e)

    def kill(self):
        # Not reaped yet, so the number is still its own.
        if self.process.returncode is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except OSError:
                pass

    def end(self):
        """Ends it, with everything in its group, and says how it ended. One that is about to exit keeps its own status."""
        if self.ended is None:
            self.kill()
            code = self.process.wait()
            self.socket.close()
            if self.garbled:
                self.ended = "its task wrote into Remuda's control socket, a file descriptor that is not its own"
            else:
                self.ended = "exit code %d" % code if code >= 0 else signal_text(-code)
        return self.ended


def forget_hosts():
    # A child that the worker's process has forked holds the sockets too, and would keep the hosts of a dead worker alive.
    for host in list(open_hosts):
        try:
            host.socket.close()
        except OSError:
            pass


os.register_at_fork(after_in_child=forget_hosts)


def pass_on_lines(fd, label, ready=None):
    """What is printed goes to the worker's log, line by line; what comes before the line `ready` is nobody's."""
    with open(fd, "rb", buffering=1 << 16) as output:
        while True:
            line = output.readline(16 * 1024)
            if not line:
                break
            line = line.rstrip()
            if ready is not None:
                ready = None if line == ready else ready
                continue
            host_log.info("%s | %s", label(), line.decode("utf-8", "replace"))


def parse_reply(data):
    if data[:7] == b"\x81\xa4Done\xc4":
        return "Done", bytes(memoryview(data)[8:])
    if data[:7] == b"\x81\xa4Done\xc5":
        return "Done", bytes(memoryview(data)[9:])
    if data[:7] == b"\x81\xa4Done\xc6":
        return "Done", bytes(memoryview(data)[11:])
    size = max(len(data), 1)
    reply = msgpack.unpackb(data, raw=False, strict_map_key=False, max_bin_len=size, max_str_len=size, max_array_len=size, max_map_len=size)
    if isinstance(reply, str):
        return reply, None
    (kind, content), = reply.items()
    return kind, content


# ---- the hosts and calls of a worker

class HostPool:
    def __init__(self):
        self.lock = threading.Lock()
        # The one used last at the end.
        self.idle = []
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
        host = TaskHost(command, build, host_access(worker))
        with self.lock:
            self.busy.append(host)
            closed = self.closed
        if closed:
            self.drop(host)
            raise Cancelled()
        return host

    def take_for(self, worker, definition):
        """A host that has the task by the driver's signature. The driver's own, where several drivers have told of theirs."""
        newest = None
        for given in self.candidates():
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
        host.used = True
        with self.lock:
            self.busy.remove(host)
            self.idle.append(host)
            surplus = len(self.idle) if self.closed else max(0, len(self.idle) - max(worker.worker.state.nthreads, 1))
            surplus, self.idle = self.idle[:surplus], self.idle[surplus:]
        for host in surplus:
            host.end()

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
        self.calls, self.key = host_pool(worker).calls, key
        self.lock = threading.Lock()
        self.cancelled, self.interrupt = False, None

    def __enter__(self):
        self.calls[self.key] = self
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

def run_rust(worker, key, attempt, definition, args):
    """Runs a Rust function in a task host. `key` is Dask's, `args` MessagePack with every hole filled; returns the result as MessagePack.
    Raises Failed, Refused, Crashed, Cancelled."""
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
    if kind == "Failed":
        raise Failed(content)
    if kind == "Refused":
        raise Refused("unserializable" if content["unserializable"] else "unexpected", content["message"], content["hint"])
    if kind == "Cancelled":
        raise Cancelled() if call.cancelled else Failed(failure("it ended as cancelled, and nobody has cancelled it"))
    raise Refused("unexpected", "the task host said `%s`, which is no answer" % kind)


# ---- commands

def run_command(worker, key, attempt, definition, call):
    """Runs a program. `call` is MessagePack of a map `argv`, `env`, `cwd`, `stdin`, `binary`; returns its output as MessagePack (str or bin).
    Raises Failed, Refused, Cancelled."""
    size = max(len(call), 1)
    try:
        call = msgpack.unpackb(call, raw=False, strict_map_key=True, max_bin_len=size, max_str_len=size, max_array_len=size, max_map_len=size)
        argv = [argument_text(value) for value in call["argv"]]
        env = {name: argument_text(value) for name, value in (call.get("env") or {}).items()}
        given, cwd, binary = stdin_bytes(call.get("stdin")), call.get("cwd"), call.get("binary", False)
        if not (cwd is None or isinstance(cwd, str)) or not isinstance(binary, bool):
            raise ValueError("`cwd` is a text, `binary` is true or false")
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise command_failed("this is not a command: %s" % e)
    if not argv:
        raise command_failed("a command needs at least a program")
    if cwd is not None and not os.path.isdir(cwd):
        raise command_failed("`%s` cannot be run in `%s`: there is no such directory" % (argv[0], cwd))
    with OutsideCall(worker, key) as running:
        if running.cancelled:
            raise Cancelled()
        return attend(running, start_program(argv, env, cwd), argv, given, binary, definition.get("timeout"))


def command_failed(message, **more):
    return Failed(failure(message, **more))


def start_program(argv, env, cwd):
    environment = dict(os.environ)
    environment.pop(HOST_ENV, None)
    environment.update(env)
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(argv, env=environment, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True)
    except FileNotFoundError:
        where = "" if "/" in argv[0] else " on PATH"
        raise command_failed("there is no program `%s`%s" % (argv[0], where))
    except (OSError, ValueError) as e:
        raise command_failed("`%s` could not be started: %s" % (argv[0], e))


def attend(running, program, argv, given, binary, limit):
    """Until its output ends and then itself; all three pipes at once, so that no full one stops another."""
    deadline = None if limit is None else time.monotonic() + limit
    kept = ProgramOutput(running.key)
    ended = threading.Event()
    # What it has started may have left its group, and hold its output open for ever.
    heard, give_up = os.pipe()

    def signal_group(number):
        # Not reaped before `ended`, so that the number is still the program's.
        with running.lock:
            if not ended.is_set():
                try:
                    os.killpg(program.pid, number)
                except OSError:
                    pass

    def interrupt():
        signal_group(signal.SIGTERM)
        if not ended.wait(GRACE):
            signal_group(signal.SIGKILL)
            with running.lock:
                if not ended.is_set():
                    os.write(give_up, b"!")

    running.runs(interrupt)
    try:
        late = not exchange(program, given, kept, deadline, heard)
        if late:
            signal_group(signal.SIGTERM)
            exchange(program, b"", kept, time.monotonic() + GRACE, heard)
        else:
            late = not wait_without_reaping(program.pid, deadline)
        # What it has left behind ends with it.
        signal_group(signal.SIGKILL)
        with running.lock:
            running.interrupt = None
            ended.set()
            code = program.wait()
    except BaseException:
        signal_group(signal.SIGKILL)
        with running.lock:
            ended.set()
            program.wait()
        raise
    finally:
        for pipe in (program.stdin, program.stdout, program.stderr):
            try:
                pipe.close()
            except OSError:
                pass
        os.close(heard)
        os.close(give_up)
    if running.cancelled:
        raise Cancelled()
    if late:
        raise timed_out(limit)
    if code != 0:
        ending = "exited with code %d" % code if code > 0 else "was ended by %s" % signal_text(-code)
        tail = kept.tail_text()
        raise command_failed("`%s` %s" % (shown_argv(argv), ending), traceback=tail or None, exit_code=code if code > 0 else None)
    return command_result(kept.stdout(), binary)


def exchange(program, given, kept, deadline, heard):
    """Feeds it and reads from it until both of its outputs end; False when that is not so at the deadline, or when told to give up."""
    given = memoryview(given)
    with selectors.DefaultSelector() as selector:
        selector.register(heard, selectors.EVENT_READ)
        for pipe, events in ((program.stdin, selectors.EVENT_WRITE), (program.stdout, selectors.EVENT_READ), (program.stderr, selectors.EVENT_READ)):
            if not pipe.closed:
                fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_NONBLOCK)
                selector.register(pipe, events)
        while not (program.stdout.closed and program.stderr.closed):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            for key, _ in selector.select(left):
                pipe, over = key.fileobj, False
                if pipe == heard:
                    return False
                try:
                    if pipe is program.stdin:
                        given = given[os.write(pipe.fileno(), given[:1 << 16]):] if len(given) else given
                        over = len(given) == 0
                    else:
                        data = os.read(pipe.fileno(), 1 << 16)
                        over = not data
                        kept.add(pipe is program.stdout, data)
                except BlockingIOError:
                    continue
                except OSError:
                    # A program that does not read its input is not an error.
                    over = True
                if over:
                    selector.unregister(pipe)
                    pipe.close()
    return True


def wait_without_reaping(pid, deadline):
    """Waits for its end and leaves it to be reaped. False: it goes on at the deadline."""
    if deadline is None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return True
    pause = 0.001
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return True


class ProgramOutput:
    """Standard output as a whole; of standard error the end. What it writes there goes to the worker's log, too."""

    def __init__(self, label):
        self.label, self.chunks, self.tail, self.cut, self.line = label, [], bytearray(), False, b""

    def add(self, is_stdout, data):
        if is_stdout:
            self.chunks.append(data)
            return
        self.tail += data
        if len(self.tail) > 2 * STDERR_TAIL:
            del self.tail[:-STDERR_TAIL]
            self.cut = True
        *lines, self.line = (self.line + data).split(b"\n")
        if not data or len(self.line) > 16 * 1024:
            lines, self.line = [*lines, self.line] if self.line else lines, b""
        for line in lines:
            host_log.info("%s | %s", self.label, line.rstrip().decode("utf-8", "replace"))

    def stdout(self):
        return b"".join(self.chunks)

    def tail_text(self):
        if len(self.tail) > STDERR_TAIL:
            del self.tail[:-STDERR_TAIL]
            self.cut = True
        text = self.tail.decode("utf-8", "replace").rstrip()
        return "..." + text if self.cut else text


def command_result(stdout, binary):
    if binary:
        return msgpack.packb(stdout, use_bin_type=True)
    try:
        return msgpack.packb(stdout.rstrip(b"\r\n").decode("utf-8"), use_bin_type=True)
    except UnicodeDecodeError:
        raise command_failed("its output is not UTF-8 text; use `binary: true`")


def argument_text(value):
    return value if isinstance(value, str) else json_text(value)


def stdin_bytes(value):
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    return argument_text(value).encode("utf-8")


def shown_argv(argv):
    line = " ".join(argv)
    return line if len(line) <= 120 else line[:120] + "..."


def json_text(value):
    """JSON as Rust's serde_json writes it: without spaces, numbers in its own form."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return json_float(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError("a key of type `%s` has no place in JSON" % type(key).__name__)
        return "{" + ",".join("%s:%s" % (json.dumps(key, ensure_ascii=False), json_text(item)) for key, item in value.items()) + "}"
    raise ValueError("bytes have no place in JSON" if isinstance(value, bytes) else "`%s` has no place in JSON" % type(value).__name__)


def json_float(value):
    if value != value or value in (float("inf"), float("-inf")):
        return "null"
    text = repr(value)
    if "e" not in text:
        return text
    digits, exponent = text.split("e")
    exponent = int(exponent)
    if exponent == -5:
        sign, digits = ("-", digits[1:]) if digits[0] == "-" else ("", digits)
        return sign + "0.0000" + digits.replace(".", "")
    return "%se%d" % (digits, exponent)
