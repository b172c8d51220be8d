#!/usr/bin/env python3
"""Captures what real Dask schedulers send, byte for byte, into VERSION/NAME.bin. See README.md.

    python3 capture.py --venvs DIR VERSION...

DIR/VERSION are virtual environments; one that is missing is made with pip.
"""

import argparse
import json
import os
import pathlib
import platform
import socket
import struct
import subprocess
import sys
import tempfile
import venv

HERE = pathlib.Path(__file__).resolve().parent


def environment(venvs, version):
    """The python of an environment with that version of distributed."""
    python = venvs / version / "bin" / "python"
    if not python.exists():
        venv.create(venvs / version, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"distributed=={version}", f"dask=={version}"], check=True)
    return python


def inside(version, masked):
    """Runs in the environment: an in-process cluster, a plain socket to its scheduler, and Dask's own client to make work."""
    import dask
    import msgpack

    # Shards of 1 kB instead of 64 MB, so that a sharded payload is a small file.
    dask.config.set({"distributed.comm.shard": "1 kB", "distributed.admin.log-length": 10})
    from distributed import Client, LocalCluster

    out = HERE / version
    out.mkdir(exist_ok=True)

    def take(sock, size):
        data = b""
        while len(data) < size:
            piece = sock.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def read(sock):
        """One message as it stands on the wire, and its frames."""
        raw = take(sock, 16)
        count = struct.unpack("<QQ", raw)[1]
        raw += take(sock, 8 * count)
        lengths = struct.unpack(f"<{count}Q", raw[16:])
        frames = [take(sock, length) for length in lengths]
        return raw + b"".join(frames), frames

    def write(sock, message):
        body = msgpack.packb(message)
        sock.sendall(struct.pack("<QQQ", 16 + len(body), 1, len(body)) + body)

    def keep(name, raw):
        for secret in masked:  # same length: every length on the wire stays true
            raw = raw.replace(secret.encode(), (b"/" + b"x" * len(secret))[: len(secret)])
        (out / f"{name}.bin").write_bytes(raw)

    def dial(address, hello=None):
        host, port = address.removeprefix("tcp://").split(":")
        sock = socket.create_connection((host, int(port)), timeout=30)
        write(sock, {"compression": None, "python": [3, 11, 0], "pickle-protocol": 4})
        raw, _ = read(sock)
        if hello:
            keep(hello, raw)
        return sock

    def rpc(sock, name, message):
        write(sock, message)
        raw, frames = read(sock)
        if name:
            keep(name, raw)
        return frames

    def wait_for(sock, name, op):
        """The first message of a stream that carries this op."""
        while True:
            raw, frames = read(sock)
            if any(part.get("op") == op for part in msgpack.unpackb(frames[0], strict_map_key=False)):
                keep(name, raw)
                return

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, host="127.0.0.1", dashboard_address=":0", protocol="tcp") as cluster:
        sock = dial(cluster.scheduler_address, "handshake")
        rpc(sock, "unknown-op", {"op": "no-such-operation", "reply": True})
        rpc(sock, "wrong-argument", {"op": "ncores", "reply": True, "no_such_argument": 1})
        rpc(sock, "versions", {"op": "versions", "reply": True})

        stream = dial(cluster.scheduler_address)
        write(stream, {"op": "register-client", "client": "golden", "reply": False, "versions": {}})
        wait_for(stream, "stream-start", "stream-start")

        with Client(cluster) as client:
            work = {
                "bytes-0": client.submit(bytes, b"golden", key="bytes-0"),
                "sharded-0": client.submit(bytes, 2500, key="sharded-0"),
                "int-0": client.submit(int, "42", key="int-0"),
            }
            for n in range(3):
                work[f"array-{n}"] = client.submit(bytearray, 900, key=f"array-{n}")
            failed = client.submit(int, "no number", key="failed-0")
            client.gather(list(work.values()))
            assert failed.exception() is not None

            keys = list(work) + ["failed-0"]
            rpc(sock, "task-status", {"op": "get_task_status", "reply": True, "keys": keys})
            for name in ("bytes", "sharded", "int"):
                rpc(sock, f"gather-{name}", {"op": "gather", "reply": True, "keys": [f"{name}-0"]})
            worker = dial(next(iter(client.scheduler_info()["workers"])))
            names = ["array-0", "array-1", "array-2"]
            rpc(worker, "get-data-trailing", {"op": "get_data", "keys": names, "who": None, "reply": True})
            write(worker, "OK")  # the worker waits for this word before it lets go of the data
            worker.close()

            write(stream, [{"op": "client-desires-keys", "client": "golden", "keys": ["bytes-0", "failed-0"]}])
            wait_for(stream, "key-in-memory", "key-in-memory")
            write(stream, [{"op": "report-key", "key": "failed-0"}])
            wait_for(stream, "task-erred", "task-erred")
            client.cancel([work["int-0"]], force=True)
            wait_for(stream, "cancelled-keys", "cancelled-keys")
            # Metrics arrive with the worker's heartbeat: ask until the map has a key that is not a string.
            while True:
                frames = rpc(sock, "identity", {"op": "identity", "reply": True})
                info = msgpack.unpackb(frames[0], strict_map_key=False, use_list=False)
                metrics = next(iter(info["workers"].values()))["metrics"]
                if any(isinstance(key, tuple) for part in metrics.values() if isinstance(part, dict) for key in part):
                    break
        stream.close()
        sock.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--venvs", type=pathlib.Path, required=True)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("versions", nargs="*")
    args = parser.parse_args()
    if args.inside:
        inside(args.inside, json.loads(os.environ["MASKED"]))
        return
    venvs = args.venvs.resolve()
    for version in args.versions:
        python = environment(venvs, version)
        with tempfile.TemporaryDirectory(prefix="golden-") as scratch:
            masked = json.dumps([str(venvs), os.path.realpath(sys.base_prefix), socket.gethostname(), platform.release(), scratch])
            command = [python, __file__, "--venvs", venvs, "--inside", version]
            subprocess.run(command, check=True, cwd=scratch, env={**os.environ, "MASKED": masked, "TMPDIR": scratch}, timeout=300)
        print(version, sum(f.stat().st_size for f in (HERE / version).iterdir()), "bytes")


if __name__ == "__main__":
    main()
