# ---- Arguments: templates, and the values that go into their holes.

HOLE, ERROR = 0x51, 2
OBJECT, ALLOW = 1, 2


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
