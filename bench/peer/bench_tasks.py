"""The tasks of both sides: plain functions, imported by the workers."""

import time


def noop(x):
    return x


def big(n):
    return b"\x5a" * n


def nap(x, seconds):
    time.sleep(seconds)
    return x
