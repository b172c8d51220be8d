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
    try:
        form, shown, name = in_form(value, forms)
    except NotThis as e:
        return ["error", "unserializable", str(e), name_of(type(value))]
    return [form, shown] if form == "plain" else [form, shown, name]
