# Runs Python tasks for one slot, until its standard input, a socket, ends. Python 3.8 and later, standard library only.
import fcntl, os, pickle, queue, select, signal, socket, struct, sys, threading, traceback

PICKLE, ERROR = 1, 2
LONGEST = 2**32 - 1
MAGIC = b"RMDA"


# ---- MessagePack

def pack_into(out, v):
    t = type(v)
    if v is None:
        out.append(b"\xc0")
    elif t is bool:
        out.append(b"\xc3" if v else b"\xc2")
    elif t is int:
        if 0 <= v < 128:
            out.append(struct.pack("B", v))
        elif -32 <= v < 0:
            out.append(struct.pack("b", v))
        elif v >= 0:
            out.append(struct.pack(">BQ", 0xCF, v))
        else:
            out.append(struct.pack(">Bq", 0xD3, v))
    elif t is float:
        out.append(struct.pack(">Bd", 0xCB, v))
    elif t is str:
        data = v.encode()
        n = len(data)
        out.append(struct.pack("B", 0xA0 | n) if n < 32 else struct.pack(">BI", 0xDB, n))
        out.append(data)
    elif t is bytes:
        out.append(struct.pack(">BI", 0xC6, len(v)))
        out.append(v)
    elif t is list:
        n = len(v)
        out.append(struct.pack("B", 0x90 | n) if n < 16 else struct.pack(">BI", 0xDD, n))
        for item in v:
            pack_into(out, item)
    else:
        n = len(v)
        out.append(struct.pack("B", 0x80 | n) if n < 16 else struct.pack(">BI", 0xDF, n))
        for key, item in v.items():
            pack_into(out, key)
            pack_into(out, item)


def own_pack(v):
    out = []
    pack_into(out, v)
    return b"".join(out)


FIXED = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
SIZED = {0xC4: "B", 0xC5: "H", 0xC6: "I", 0xC7: "B", 0xC8: "H", 0xC9: "I", 0xD9: "B", 0xDA: "H", 0xDB: "I",
         0xDC: "H", 0xDD: "I", 0xDE: "H", 0xDF: "I"}


class Unpacker:
    def __init__(self, data, hook):
        self.data, self.at, self.hook = memoryview(data), 0, hook

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def items(self, n):
        return [self.value() for _ in range(n)]

    def pairs(self, n):
        return {self.value(): self.value() for _ in range(n)}

    def value(self):
        b = self.take(1)[0]
        if b < 0x80:
            return b
        if b < 0x90:
            return self.pairs(b & 15)
        if b < 0xA0:
            return self.items(b & 15)
        if b < 0xC0:
            return str(self.take(b & 31), "utf-8")
        if b >= 0xE0:
            return b - 256
        if b in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[b]
        if b in FIXED:
            return self.number(FIXED[b])
        if 0xD4 <= b <= 0xD8:
            return self.extension(1 << (b - 0xD4))
        n = self.number(">" + SIZED[b])
        if b <= 0xC6:
            return bytes(self.take(n))
        if b <= 0xC9:
            return self.extension(n)
        if b <= 0xDB:
            return str(self.take(n), "utf-8")
        return self.items(n) if b <= 0xDD else self.pairs(n)

    def extension(self, n):
        kind = self.number("b")
        return self.hook(kind, bytes(self.take(n)))


def own_unpack(data, hook):
    return Unpacker(data, hook).value()


try:
    import msgpack

    def pack(v):
        return msgpack.packb(v, use_bin_type=True)

    def unpack(data, hook):
        n = max(len(data), 1)
        return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=hook, max_bin_len=n, max_str_len=n, max_ext_len=n,
                               max_array_len=n, max_map_len=n)
except Exception:
    pack, unpack = own_pack, own_unpack


def fill(kind, data):
    if kind == PICKLE:
        value = pickle.loads(data)
        if type(value) is Shadow:
            raise Stays("a Python object of type `%s` cannot be given to another task: it cannot be pickled: %s" % (value.name, value.why))
        return value
    error = unpack(data, fill)
    return TaskFailed(error["state"], error["message"])


# ---- values

class Stays(Exception):
    pass


class Shadow:
    """What is left of an object that cannot be pickled, for those who want to see it."""

    def __init__(self, value, name, why):
        self.name, self.why, self.text = name, why, as_text(value, name)
        try:
            self.plain, self.refusal = as_plain(value, name), None
        except NotThis as e:
            self.plain, self.refusal = None, str(e)

    def in_form(self, forms):
        for form in forms:
            if form == "plain" and self.plain is not None:
                return form, self.plain, self.name
            if form == "text":
                return form, self.text, self.name
        raise NotThis(self.refusal if "plain" in forms else "a Python object of type `%s` cannot be pickled: %s" % (self.name, self.why))


def answer(value):
    try:
        plain = is_plain(value)
    except RecursionError:
        plain = False
    if plain:
        return {"Done": pack(value)}
    name = name_of(type(value))
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception as e:
        # All interpreters of ours have this class, by this name.
        data = pickle.dumps(Shadow(value, name, safe_str(e)), protocol=5)
    return {"Object": {"pickle": data, "type_name": name}}


def convert(request):
    add_paths(request["path"])
    try:
        value = pickle.loads(request["pickle"])
    except Exception as e:
        return {"Refused": {"message": "a pickled object cannot be read again: %s: %s" % (type(e).__name__, e)}}
    try:
        form, shown, name = value.in_form(request["forms"]) if type(value) is Shadow else in_form(value, request["forms"])
    except NotThis as e:
        return {"Refused": {"message": str(e)}}
    if form == "plain":
        return {"Done": shown}
    return {"Arrow": {"bytes": bytes(shown), "type_name": name}} if form == "arrow" else {"Text": {"text": shown, "type_name": name}}


# ---- functions

def add_paths(paths):
    for p in reversed(paths):
        if p not in sys.path:
            sys.path.insert(0, p)


FUNCTIONS = {}


def found(target):
    if target not in FUNCTIONS:
        FUNCTIONS[target] = find(target, sys.path)
    return FUNCTIONS[target]


def is_ours(file):
    # This script, or what it imports the user's module with.
    return file in (__file__, getattr(importlib, "__file__", None)) or file.startswith("<frozen importlib")


def failed(e):
    if isinstance(e, Stays):
        return {"Refused": {"message": str(e)}}
    # Without the first frames, which are not the user's.
    tb = e.__traceback__
    while tb is not None and is_ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    message = "exit code %r" % (e.code,) if isinstance(e, SystemExit) else safe_str(e)
    if isinstance(e, Lookup):
        return {"Failed": {"kind": None, "message": message, "traceback": None, "exit_code": None}}
    try:
        text = "".join(traceback.format_exception(type(e), e, tb)).rstrip()
        if len(text.splitlines()) <= max(1, len(message.splitlines())):
            text = None  # it has no frame and no cause: it would say the message again
    except Exception:
        text = None
    clean = lambda s: s if s is None else s.encode("utf-8", "replace").decode()
    return {"Failed": {"kind": type(e).__name__, "message": clean(message), "traceback": clean(text), "exit_code": None}}


def call(request):
    add_paths(request["path"])
    function = found(request["target"])
    result = evaluate(function, *unpack(request["args"], fill))
    return answer(result)


# ---- the process

class State:
    busy = False
    pid = os.getpid()


def interrupted(_signal, _frame):
    if State.busy:
        raise KeyboardInterrupt()


class Lifeline:
    """While a task runs the driver says nothing, so any sign of the socket is its end: the kernel then ends this process group,
    also when native code (a long regular expression) does not let the thread that listens run."""

    def __init__(self, sock):
        self.fd, self.flags = sock.fileno(), fcntl.fcntl(sock, fcntl.F_GETFL)
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(self.fd, fcntl.F_SETOWN, -os.getpgrp() if os.getpgrp() == os.getpid() else os.getpid())

    def hold(self):
        fcntl.fcntl(self.fd, fcntl.F_SETFL, self.flags | os.O_ASYNC)

    def drop(self):
        fcntl.fcntl(self.fd, fcntl.F_SETFL, self.flags)


def read(sock, n):
    data = bytearray(n)
    view, at = memoryview(data), 0
    while at < n:
        # Not blocked in recv: the kernel sends no SIGIO for a socket that somebody reads.
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.poll()
        got = sock.recv_into(view[at:])
        if got == 0:
            raise EOFError()
        at += got
    return data


def listen(sock, requests):
    try:
        while True:
            magic, n = struct.unpack("<4sI", read(sock, 8))
            if magic != MAGIC:
                break
            requests.put(read(sock, n))
    except BaseException:
        pass
    if State.busy:
        # In the middle of a task that nobody waits for: with everything it has started.
        os.killpg(os.getpgrp(), signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)
    requests.put(None)


def say(sock, reply):
    data = pack(reply)
    if len(data) > LONGEST:
        data = pack({"Refused": {"message": "%d bytes are more than the 4 GiB that one value between processes may have" % len(data)}})
    sock.sendall(struct.pack("<4sI", MAGIC, len(data)))
    sock.sendall(data)


def handle(data):
    # Interrupts count only in here.
    try:
        try:
            State.busy = True
            (kind, request), = unpack(bytes(data), fill).items()
            return call(request) if kind == "Call" else convert(request)
        finally:
            State.busy = False
    except BaseException as e:
        if os.getpid() != State.pid:
            forked(e)
        return failed(e)
    finally:
        if os.getpid() != State.pid:
            forked(None)


def forked(error):
    """A child that the task has forked came out of its body. The answer is the parent's to give; the child ends, as one of a program does."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    elif error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os._exit(code & 0xFF)


def keep_output():
    """Standard output and error as they are now, put back after each task: one that closes them harms no other."""
    kept = [(os.dup(fd), fd) for fd in (1, 2)]

    def put_back():
        for copy, fd in kept:
            os.dup2(copy, fd)

    return put_back


def main():
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if "" not in sys.path:
        sys.path.insert(0, "")
    signal.signal(signal.SIGINT, interrupted)
    say(sock, {"Hello": {"version": list(sys.version_info[:3])}})
    lifeline = Lifeline(sock)
    put_back = keep_output()
    # Whoever holds the socket is taken for this process.
    os.register_at_fork(after_in_child=sock.close)
    requests = queue.SimpleQueue()
    threading.Thread(target=listen, args=(sock, requests), daemon=True).start()
    while True:
        data = requests.get()
        if data is None:
            break
        lifeline.hold()
        reply = handle(data)
        lifeline.drop()
        put_back()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        say(sock, reply)


__file__ = (lambda: 0).__code__.co_filename
if __name__ == "__main__":
    main()
