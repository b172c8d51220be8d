# Stands for a Dask worker: does what lines of JSON on standard input say, each in a thread, as Dask's threads do.
import base64, json, logging, os, sys, threading, types

import distributed

shim = types.ModuleType("shim")
shim.HASH = "00000000"
for part in ("errors.py", "host.py", "hosts.py", "command.py"):
    path = os.path.join(sys.argv[1], part)
    with open(path) as file:
        exec(compile(file.read(), path, "exec"), shim.__dict__)

lock = threading.Lock()


def tell(**what):
    with lock:
        print(json.dumps(what), flush=True)


class Handler(logging.Handler):
    def emit(self, record):
        tell(log=record.getMessage())


distributed.secede = lambda: tell(log="seceded")
shim.host_log.handlers, shim.host_log.propagate = [Handler()], False
shim.host_log.setLevel("INFO")
dask = types.SimpleNamespace(state=types.SimpleNamespace(nthreads=2), security=None)
released = set()
info = types.SimpleNamespace(name="w0", address="tcp://127.0.0.1:1", scheduler="tcp://127.0.0.1:2", worker=dask, state={},
                             unwanted=released.__contains__)


def perform(what):
    op, definition = what["op"], what.get("definition")
    if op == "prepare":
        return {"tasks": shim.prepare_host(info, what["host"])}
    if op == "kill":
        return {"done": shim.kill(info, what["key"])}
    if op == "release":
        return {"done": released.add(what["key"])}
    if op == "close":
        return {"done": shim.close_hosts(info)}
    if op == "tls":
        # As Dask has it: each is the name of a file, or its text.
        info.scheduler = "tls://127.0.0.1:3"
        dask.security = types.SimpleNamespace(**what["security"])
        return {"done": None}
    if op == "keep":
        shim.AT_REST = what["seconds"]
        return {"done": None}
    if op == "idle":
        return {"pids": [host.process.pid for host in shim.host_pool(info).idle]}
    call = shim.run_rust if op == "rust" else shim.run_command
    result = call(info, what["key"], what.get("attempt", 0), definition, base64.b64decode(what["args"]))
    assert type(result) is bytes, type(result)
    return {"done": base64.b64encode(result).decode()}


def answer(what):
    try:
        reply = perform(what)
    except shim.Failed as e:
        reply = {"failed": e.failure}
    except shim.Refused as e:
        reply = {"refused": [e.kind, e.message, e.hint]}
    except shim.Crashed as e:
        reply = {"crashed": [e.attempts, e.cause]}
    except shim.Cancelled:
        reply = {"cancelled": True}
    tell(id=what["id"], **reply)


for line in sys.stdin:
    threading.Thread(target=answer, args=(json.loads(line),), daemon=True).start()
