# ---- Values: what has a form without Python. The rules are those of the Python host of local clusters.


def pack(v):
    return msgpack.packb(v, use_bin_type=True)


def unpack(data, hook):
    n = max(len(data), 1)
    return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=hook, max_bin_len=n, max_str_len=n, max_ext_len=n,
                           max_array_len=n, max_map_len=n)


def is_plain(v):
    t = type(v)
    if v is None or t is bool or t is float or t is bytes:
        return True
    if t is str:
        return v.isascii() or "\ud800" > max(v) or encodes(v)
    if t is int:
        return -(2**63) <= v < 2**64
    if t is list:
        return all(map(is_plain, v))
    if t is dict:
        return all(type(k) is str and is_plain(k) for k in v) and all(map(is_plain, v.values()))
    return False


def encodes(text):
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


def name_of(t):
    return t.__qualname__ if t.__module__ in ("builtins", "__main__") else t.__module__ + "." + t.__qualname__


class NotPlain(Exception):
    pass


def key_of(k):
    k = to_plain(k)
    if type(k) is str:
        return k
    if k is None or type(k) in (bool, int, float):
        return {None: "null", True: "true", False: "false"}.get(k, str(k)) if k is None or type(k) is bool else str(k)
    raise NotPlain("a dictionary's keys of type `%s` have no plain form" % name_of(type(k)))


def to_plain(v):
    import collections, dataclasses, datetime, decimal, enum, fractions, pathlib, uuid
    t = type(v)
    module = t.__module__.split(".")[0]
    if module == "numpy" and hasattr(v, "tolist"):
        return to_plain(v.tolist())
    if isinstance(v, enum.Enum):
        return to_plain(v.value)
    if v is None or isinstance(v, bool):
        return v
    if isinstance(v, int):
        v = int(v)
        if is_plain(v):
            return v
        raise NotPlain("an int of more than 64 bits has no plain form")
    if isinstance(v, float):
        return float(v)
    if isinstance(v, str):
        v = str.__str__(v)
        if encodes(v):
            return v
        raise NotPlain("a str with lone surrogates has no plain form")
    if isinstance(v, (bytes, bytearray, memoryview)):
        return bytes(v)
    if dataclasses.is_dataclass(v) and not isinstance(v, type):
        return {f.name: to_plain(getattr(v, f.name)) for f in dataclasses.fields(v)}
    if isinstance(v, tuple) and hasattr(v, "_asdict"):
        return {k: to_plain(item) for k, item in v._asdict().items()}
    if isinstance(v, dict):
        return {key_of(k): to_plain(item) for k, item in v.items()}
    if isinstance(v, (set, frozenset)):
        try:
            v = sorted(v)
        except Exception:
            pass
        return [to_plain(item) for item in v]
    if isinstance(v, (list, tuple, range, collections.deque)):
        return [to_plain(item) for item in v]
    if isinstance(v, (datetime.datetime, datetime.date, datetime.time)):
        return v.isoformat()
    if isinstance(v, datetime.timedelta):
        return v.total_seconds()
    if isinstance(v, (pathlib.PurePath, decimal.Decimal, uuid.UUID, fractions.Fraction)):
        return str(v)
    raise NotPlain("a Python object of type `%s` has no plain form" % name_of(t))


# ---- functions

class Lookup(Exception):
    pass


def missing(name, searched):
    return Lookup("there is no Python module `%s`; searched in %s" % (name, ", ".join(p or os.getcwd() for p in searched)))


def find(target, searched):
    module_name, _, attributes = target.partition(":")
    if not module_name or not attributes:
        raise Lookup("`%s` does not name a function; write `package.module:function`" % target)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name is None or not (module_name == e.name or module_name.startswith(e.name + ".")):
            raise
        raise missing(e.name, searched) from None
    thing, at = module, "module `%s`" % module_name
    for name in attributes.split("."):
        try:
            thing, at = getattr(thing, name), "%s.%s" % (at, name)
        except AttributeError:
            near = difflib.get_close_matches(name, [n for n in dir(thing) if not n.startswith("_")], 1)
            hint = "; did you mean `%s`?" % near[0] if near else ""
            raise Lookup("%s has no `%s`%s" % (at, name, hint) + (" (%s)" % module.__file__ if getattr(module, "__file__", None) else "")) from None
    if not callable(thing):
        raise Lookup("`%s` is not a function but of type `%s`" % (target, name_of(type(thing))))
    return thing


def safe_str(e):
    try:
        return str(e)
    except Exception:
        return "(its text cannot be had)"


def clean(text):
    return text if text is None else text.encode("utf-8", "replace").decode()


def is_ours(file):
    """This file, or what it imports the user's module with."""
    return file in (__file__, getattr(importlib, "__file__", None)) or file.startswith("<frozen importlib")


def failure_of(e):
    """An exception as the map that goes to the driver, without its first frames, which are not the user's."""
    if isinstance(e, Failed):
        return e.failure
    if isinstance(e, Lookup):
        return failure(clean(safe_str(e)))
    if isinstance(e, Upstream):
        return failure(clean(safe_str(e)), "Upstream")
    tb = e.__traceback__
    while tb is not None and is_ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    message = "exit code %r" % (e.code,) if isinstance(e, SystemExit) else safe_str(e)
    try:
        text = "".join(traceback.format_exception(type(e), e, tb)).rstrip()
        if len(text.splitlines()) <= max(1, len(message.splitlines())):
            text = None  # it has no frame and no cause: it would say the message again
    except Exception:
        text = None
    return failure(clean(message), type(e).__name__, clean(text))
