# ---- Commands, with the meaning they have in a task host (core/src/host/command.rs), which they do not need here.
#
# Called as `run_rust` is.
import fcntl
import selectors

STDERR_TAIL = 4096


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
