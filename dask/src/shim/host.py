# ---- Task hosts and commands: what a worker runs outside of its own process.
#
# Called by `Run` in a thread of the worker. The definition is a map as in the submit message. Deadlines (`timeout`, seconds or None) are kept
# in here, since only killing ends these: `Failed` with the kind `TimeoutError` and the text of `timeout_text(seconds)`.
# `worker` is a `WorkerInfo`: .name, .address, .scheduler (address), .worker (Dask's object), .state (a dict for this file's own things),
# .unwanted(key).
#
# A host serves one task at a time and is kept for the next one, at most as many as the worker has threads. They are not bound to threads:
# Dask replaces those that secede. A host is a process beside the worker: Dask's memory limits do not see what it uses. It is the leader of
# a process group and ends itself, with the group, at the end of its socket: also when the worker is killed in the middle of a task.
import shutil
import weakref

HOST_VERSION = 4
HOST_MAGIC = b"RMDA"
HOST_READY = b"\x1eremuda task host ready"
HOST_ENV = "REMUDA_TASK_HOST"
HOST_BINARY = "REMUDA_TASK_HOST_BINARY"
HOST_ARGS = "REMUDA_TASK_HOST_ARGS"
HOST_NAMED = "REMUDA_TASK_HOST_NAMED"
LONGEST_FRAME = 2**32 - 1
# Seconds. What a task has to end by itself once it is cancelled; what a host has to say hello, on a busy machine.
GRACE = 1.0
HELLO = 45.0

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
               "and %s to its arguments, as a JSON list, if it needs any; or name it in the run's `client_kwargs: {task_host: PATH}`"
               % (HOST_BINARY, HOST_ARGS))
BUILD_REMEDY = "build the workers' program from the driver's sources, and restart the workers"


def host_command(worker, given):
    """The command line of the task hosts, and what tells two builds at the same place apart."""
    where = "worker `%s`" % worker.name
    named = os.environ.get(HOST_BINARY)
    if given is not None and given.get("named"):
        # By the user, for this run: on whatever machine.
        exe, command = shutil.which(given["exe"]), list(given.get("args") or [])
        if exe is None:
            text = "`task_host: %s` is not a program on %s" % (given["exe"], where)
            raise Refused("invalid", text, "put your program, built for the workers, at that path in their image or on a file system they share")
    elif named:
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
    def __init__(self, command, build, access, named=None):
        self.command, self.build, self.task, self.garbled = command, build, "", False
        self.ended, self.used = None, False
        self.sending = threading.Lock()
        ours, theirs = socket.socketpair()
        output, write = os.pipe()
        env = dict(os.environ)
        # The host compares it with its parent's, so that a child of the host does not take itself for one.
        env[HOST_ENV] = str(os.getpid())
        # So that what its tasks submit elsewhere runs in the same program.
        env.pop(HOST_NAMED, None)
        if named is not None:
            env[HOST_NAMED] = json.dumps(named)
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
