# ---- Task hosts and commands: what a worker runs outside of its own process.
#
# Called by `Run` in a thread of the worker. The definition is a map as in the submit message. Deadlines (`timeout`, seconds or None) are kept
# in here, since only killing ends these: `Failed` with the kind `TimeoutError` and the text of `timeout_text(seconds)`.
# `worker` is a `WorkerInfo`: .name, .address, .scheduler (address), .worker (Dask's object), .state (a dict for this file's own things).


def run_rust(worker, key, attempt, definition, args):
    """Runs a Rust function in a task host. `key` is Dask's, `args` MessagePack with every hole filled; returns the result as MessagePack.
    Raises Failed, Refused, Crashed, Cancelled."""
    raise Refused("unsupported", "this worker cannot run Rust tasks")


def run_command(worker, key, attempt, definition, call):
    """Runs a program. `call` is MessagePack of a map `argv`, `env`, `cwd`, `stdin`, `binary`; returns its output as MessagePack (str or bin).
    Raises Failed, Refused, Cancelled."""
    raise Refused("unsupported", "this worker cannot run commands")


def kill(worker, key):
    """The task is not wanted any more: ends what runs for it, if anything. On the event loop of the worker: returns at once."""


def prepare_host(worker, host):
    """For the check before submission: the tasks of the host that would be started, [[name, signature]..]. In a thread.
    `host` is a map exe, args, boot_id of the driver, or None. Also remembers it for run_rust. Raises Refused."""
    raise Refused("unsupported", "this worker cannot run Rust tasks")


def close_hosts(worker):
    """The worker is closing: ends everything that this file has started for it. Returns at once."""
