# Remuda's part in a Dask cluster: one source for schedulers and workers. Python 3.8 and later; distributed 2023.5 to 2026.8.
import asyncio
import collections
import contextvars
import difflib
import functools
import gc
import importlib.machinery
import importlib.util
import inspect
import itertools
import json
import logging
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

import distributed
import msgpack
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

try:
    from distributed.core import Status
except ImportError:
    from distributed.utils import Status

PROTOCOL = 1
NAME = "remuda-" + HASH
OP = "remuda_" + HASH + "_"
log = logging.getLogger("distributed.remuda")


COMPLAINTS = set()


def complain(text, *args):
    """An exception that is ours. What goes wrong for one task goes wrong for all of them: with its traceback once."""
    level = logging.DEBUG if text in COMPLAINTS else logging.ERROR
    COMPLAINTS.add(text)
    log.log(level, text, *args, exc_info=True)


def failure(message, kind=None, traceback=None, exit_code=None):
    return {"kind": kind, "message": message, "traceback": traceback, "exit_code": exit_code}


class Failed(Exception):
    """The task's own failure, as the map that goes to the driver."""

    def __init__(self, failure):
        super().__init__(failure["message"])
        self.failure = failure


class Refused(Exception):
    """It could not be run at all. `kind` is one of the driver's kinds of error."""

    def __init__(self, kind, message, hint=None):
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


class Crashed(Exception):
    """Its task host died, more often than the task allows."""

    def __init__(self, attempts, cause):
        super().__init__(cause)
        self.attempts, self.cause = attempts, cause


class Cancelled(Exception):
    """It was ended because nobody wants it any more."""


def timeout_text(seconds):
    return "it did not end within its timeout of " + duration_text(seconds)


def duration_text(seconds):
    """As Rust prints a duration: `300ms`, `1.5s`."""
    nanos = int(round(seconds * 1e9))
    for unit, name in ((10**9, "s"), (10**6, "ms"), (10**3, "\u00b5s"), (1, "ns")):
        if nanos >= unit or unit == 1:
            whole, rest = divmod(nanos, unit)
            fraction = str(rest).zfill(len(str(unit)) - 1).rstrip("0") if rest else ""
            return str(whole) + ("." + fraction if fraction else "") + name
