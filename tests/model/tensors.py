"""The tensors that operations mean by a kind and a seed."""

import numpy as np

from model import DTYPES

POOL_LEN = 1 << 17
SCALES = (1.0, 0.125, 3.0, 1e-3)


def make_pool():
    """Numbers of many sizes, zeros of both signs among them, for tensors of all kinds."""
    random = np.random.default_rng(20261121)
    pool = random.standard_normal(POOL_LEN)
    places = random.permutation(POOL_LEN)
    for i, value in enumerate((0.0, -0.0, 1e-20, -1e-20, 1e-42, 1e-160, 1e-310, 1e3, -1e3, 1.0)):
        pool[places[i * 500 : (i + 1) * 500]] = value
    return {"f64": pool, "f32": pool.astype(np.float32)}


POOL = make_pool()


def tensor(kind, seed, dtype, count):
    """The array that an operation means by a kind and a seed."""
    if kind == "zero":
        return np.zeros(count, DTYPES[dtype])
    start = seed * 7919 % POOL_LEN
    array = np.take(POOL[dtype], np.arange(start, start + count), mode="wrap")
    array = array * DTYPES[dtype].type(SCALES[seed % len(SCALES)])
    if kind in ("nan", "inf"):
        array[seed % count] = float(kind)
    return array
