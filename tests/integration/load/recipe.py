"""The gradients of tree.c, computed in Python: the same bits for the same (seed, number, leaf)."""

import numpy

LEAVES_MAX = 64
GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def mix(value):
    """splitmix64's, of a Python integer."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def mix_all(values):
    """The same of each element."""
    values = (values ^ (values >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return values ^ (values >> numpy.uint64(31))


def begin(seed, number, leaf):
    return mix((mix(mix(seed + 1) ^ number) + leaf) & MASK)


class Leaf:
    """One of the pusher's --leaf arguments, as "encoder.weight:f64:100x10"."""

    def __init__(self, text):
        self.path, dtype, shape = text.split(":")
        self.shape = [int(dim) for dim in shape.split("x")]
        self.dtype = {"f32": "DTYPE_F32", "f64": "DTYPE_F64"}[dtype]
        self.numpy = {"f32": "<f4", "f64": "<f8"}[dtype]
        self.elements = int(numpy.prod(self.shape))


def named(leaves, seed, number):
    """The set of leaves that a push of the pusher's --subset names, as its bits."""
    return mix((begin(seed, number, LEAVES_MAX) + GAMMA) & MASK) & ((1 << len(leaves)) - 1)


def gradient(leaves, index, seed, number):
    """The bytes of a gradient of the pusher's --random."""
    leaf = leaves[index]
    steps = numpy.arange(1, leaf.elements + 1, dtype="u8") * numpy.uint64(GAMMA)
    values = mix_all(steps + numpy.uint64(begin(seed, number, index)))
    return ((values >> numpy.uint64(11)).astype("<f8") * 2.0**-52 - 1).astype(leaf.numpy).tobytes()
