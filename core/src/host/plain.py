# Python tasks, wherever they run: which values have a form without Python, how functions are found and called. Python 3.8 and later,
# standard library only. Part of a larger source, which says how MessagePack is made: `pack`.
import asyncio, difflib, importlib, inspect, os


class TaskFailed(Exception):
    """The failure of another task, where a task allows for it."""

    def __init__(self, state, message):
        super().__init__(message)
        self.state, self.message = state, message

    def __reduce__(self):
        return TaskFailed, (self.state, self.message)


# ---- values

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


class NotThis(Exception):
    pass


def as_plain(value, name):
    try:
        return pack(to_plain(value))
    except NotPlain as e:
        text = str(e) if "`%s`" % name in str(e) else "%s (inside a `%s`)" % (e, name)
        raise NotThis(text + "; return lists, dicts, text and numbers instead")
    except RecursionError:
        raise NotThis("a Python object of type `%s` is nested too deeply, or contains itself" % name)
    except Exception as e:
        raise NotThis("a Python object of type `%s` cannot be converted: %s: %s" % (name, type(e).__name__, safe_str(e)))


def as_arrow(value, name):
    made = {(t.__module__.split(".")[0], t.__name__) for t in type(value).__mro__}
    series = ("pandas", "Series") in made or ("polars", "Series") in made
    if not series and not made & {("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"), ("pyarrow", "RecordBatch")}:
        raise NotThis("a Python object of type `%s` is no table of pandas, polars or pyarrow" % name)
    try:
        import pyarrow
    except ImportError as e:
        raise NotThis("a `%s` becomes Arrow with pyarrow, which cannot be imported (%s): pip install pyarrow" % (name, e))
    try:
        if series:
            value = value.to_frame()
        if ("pyarrow", "RecordBatch") in made:
            value = pyarrow.Table.from_batches([value])
        elif any(package == "polars" for package, _ in made):
            value = value.to_arrow()
        elif not isinstance(value, pyarrow.Table):
            value = pyarrow.Table.from_pandas(value)
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, value.schema) as writer:
            writer.write_table(value)
        return memoryview(sink.getvalue()).cast("B")
    except Exception as e:
        raise NotThis("a `%s` cannot become Arrow: %s" % (name, safe_str(e)))


def as_text(value, name):
    try:
        text = repr(value)
    except Exception as e:
        text = "<%s whose repr fails: %s>" % (name, safe_str(e))
    return text.encode("utf-8", "replace").decode()


FORMS = {"plain": as_plain, "arrow": as_arrow, "text": as_text}


def in_form(value, forms):
    """The first of the forms that it has: its name, the object in it, its type's name."""
    name, refusals = name_of(type(value)), []
    for form in forms:
        try:
            return form, FORMS[form](value, name), name
        except NotThis as e:
            refusals.append(str(e))
    raise NotThis("; ".join(refusals))


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


def evaluate(function, positional, keywords):
    result = function(*positional, **keywords)
    if inspect.isawaitable(result):
        async def waits():
            return await result
        result = asyncio.run(waits())
    return result
