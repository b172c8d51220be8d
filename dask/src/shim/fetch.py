# ---- Results for those who ask a worker.

REPLY = 64 << 20
SMALL = 64 << 10


# What is converted at once: another thread costs more than that.
SCALARS, SHORT = (int, float, bool, type(None)), 1024


async def answer_fetch(info, keys, inline):
    reply = Answer(inline)
    for key, element, forms in keys:
        if reply.expected >= REPLY:
            reply.results.append(["later"])
            continue
        try:
            value = info.worker.data[key]
            known = info.worker.state.tasks.get(key)
            size = (known.nbytes if known is not None else 0) or 0
            if element >= 0:
                size /= max(len(value), 1)
                value = value[element]
        except (IndexError, TypeError, KeyError):
            reply.results.append(["missing"])
            continue
        reply.add(value, forms, size)
    if reply.slow:
        # All of them in one go.
        await asyncio.get_running_loop().run_in_executor(None, reply.convert)
    return {"results": reply.results}


class Answer:
    def __init__(self, inline):
        self.inline, self.results = inline, []
        # Its bytes, about: those of what is not converted yet are Dask's estimate.
        self.expected = 0
        # What takes another thread: place, value, forms.
        self.slow = []

    def add(self, value, forms, size):
        t = type(value)
        if t is Lost:
            self.results.append(["error", value.failure["kind"], value.failure["message"], "Lost"])
        elif t is bytes and "raw" in forms:
            self.put(["plain", value])
        elif forms[0] == "plain" and t is bytes:
            # As it is: the receiver makes MessagePack of it, here it would be copied twice.
            self.put(["bytes", value])
        elif forms[0] == "plain" and (t in SCALARS or t is str and len(value) <= SHORT) and is_plain(value):
            self.put(["plain", pack(value)])
        else:
            self.slow.append((len(self.results), value, list(forms)))
            self.results.append(None)
            self.expected += size

    def put(self, result):
        self.expected += len(result[1])
        self.results.append(self.sent(result))

    def sent(self, result):
        if result[0] not in ("plain", "bytes", "arrow"):
            return result
        if self.inline or len(result[1]) <= SMALL:
            result[1] = bytes(result[1])
        else:
            from distributed.protocol import Serialized

            # In one piece: Dask would cut it into several, which the receiver has to put together again.
            result[1] = Serialized({"serializer": "dask", "type": "builtins.bytes"}, [result[1]])
        return result

    def convert(self):
        total = 0
        for place, value, forms in self.slow:
            if total >= REPLY:
                self.results[place] = ["later"]
                continue
            result = formed(value, forms)
            total += len(result[1]) if result[0] in ("plain", "arrow") else 0
            self.results[place] = self.sent(result)


def formed(value, forms):
    """A Python object in the first form that it has."""
    name = name_of(type(value))
    lack = "has no plain form" if "plain" in forms else "is no table of pandas, polars or pyarrow"
    error = ["error", "unserializable", "a Python object of type `%s` %s" % (name, lack), name]
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
    return memoryview(sink.getvalue()).cast("B")
