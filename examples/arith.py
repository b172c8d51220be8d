"""The tasks of inc_dec_add.yaml: plain functions, nothing of Remuda in them.

Each sleeps a little, at random, so that results come in another order than the calls were made in.
"""

import random
import time


def inc(x):
    time.sleep(random.uniform(0, 0.1))
    return x + 1


def dec(x):
    time.sleep(random.uniform(0, 0.1))
    return x - 1


def add(x, y):
    time.sleep(random.uniform(0, 0.1))
    return x + y


def total(values):
    return sum(values)
