"""The tasks of both sides: plain functions, imported by the workers."""


def noop(x):
    return x


def big(n):
    return b"\x5a" * n
