# ---- Results for those who ask a worker.

REPLY = 64 << 20
SMALL = 64 << 10


async def answer_fetch(info, keys, inline):
    from distributed.protocol import Serialized

    results, total = [], 0
    loop = asyncio.get_running_loop()
    for key, element, forms in keys:
        if total >= REPLY:
            results.append(["later"])
            continue
        try:
            value = info.worker.data[key]
        except KeyError:
            results.append(["missing"])
            continue
        if element >= 0:
            try:
                value = value[element]
            except (IndexError, TypeError, KeyError):
                results.append(["missing"])
                continue
        if type(value) is Lost:
            results.append(["error", value.failure["kind"], value.failure["message"], "Lost"])
            continue
        if "raw" in forms and type(value) is bytes:
            result = ["plain", value]
        elif type(value) is bytes and forms[0] == "plain":
            # As it is: the receiver makes MessagePack of it, here it would be copied twice.
            result = ["bytes", value]
        else:
            result = await loop.run_in_executor(None, formed, value, list(forms))
        if result[0] in ("plain", "bytes", "arrow"):
            total += len(result[1])
            if inline or len(result[1]) <= SMALL:
                result[1] = bytes(result[1])
            else:
                # In one piece: Dask would cut it into several, which the receiver has to put together again.
                result[1] = Serialized({"serializer": "dask", "type": "builtins.bytes"}, [result[1]])
        results.append(result)
    return {"results": results}


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
