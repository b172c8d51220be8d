# ---- Values on the wire, and failures as they are told. What has a form without Python is said by the part that hosts of all kinds share.


def pack(v):
    return msgpack.packb(v, use_bin_type=True)


def unpack(data, hook):
    n = max(len(data), 1)
    return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=hook, max_bin_len=n, max_str_len=n, max_ext_len=n,
                           max_array_len=n, max_map_len=n)


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
