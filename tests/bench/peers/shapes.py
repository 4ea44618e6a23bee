#!/usr/bin/env python3
"""The workload "resnet50-flat": the 161 trainable tensors of ResNet-50 (v1, 1000 classes), 25,557,032 float32.

Run as a program it writes ../resnet50.shapes (a line `name dim dim ...` each), which every driver reads, in any
language. As a module it also defines the values that every driver uses, so that each can be checked:

  tensor k, element j:   weight 0.01 * (k % 50 + 1)    gradient 0.001 * (j % 5 - 2)

and what two steps on that gradient must change (`expected_change`), with lr = 0.01.
"""
import os
import sys

LR, MOMENTUM, BETA1, BETA2, EPS = 0.01, 0.9, 0.9, 0.999, 1e-8
FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "resnet50.shapes")


def generate():
    out = []

    def conv(name, o, i, k):
        out.append((name + ".weight", (o, i, k, k)))

    def bn(name, c):
        out.append((name + ".weight", (c,)))
        out.append((name + ".bias", (c,)))

    conv("conv1", 64, 3, 7)
    bn("bn1", 64)
    inp = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 1):
        for b in range(blocks):
            p = "layer%d.%d." % (stage, b)
            conv(p + "conv1", width, inp, 1)
            bn(p + "bn1", width)
            conv(p + "conv2", width, width, 3)
            bn(p + "bn2", width)
            conv(p + "conv3", width * 4, width, 1)
            bn(p + "bn3", width * 4)
            if b == 0:
                conv(p + "downsample.0", width * 4, inp, 1)
                bn(p + "downsample.1", width * 4)
            inp = width * 4
    out.append(("fc.weight", (1000, 2048)))
    out.append(("fc.bias", (1000,)))
    return out


def load(path=FILE):
    """[(name, shape), ...] from the text file."""
    out = []
    with open(path) as f:
        for line in f:
            w = line.split()
            out.append((w[0], tuple(int(d) for d in w[1:])))
    return out


def size(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def weight(k, shape):
    import numpy as np
    return np.full(shape, np.float32(0.01 * (k % 50 + 1)), np.float32)


def repeated(five, n):
    """The five values over and over, n in all."""
    import numpy as np
    return np.tile(np.asarray(five), n // 5 + 1)[:n]


def gradient(k, shape):
    import numpy as np
    five = (np.arange(5) - 2).astype(np.float32) * np.float32(0.001)
    return repeated(five, size(shape)).reshape(shape)


def expected_change(opt, steps):
    """What `steps` steps on the five gradients change the weights by, in float64."""
    import numpy as np
    g = gradient(0, (5,)).astype("f8")
    w, m, v = np.zeros(5), np.zeros(5), np.zeros(5)
    for t in range(1, steps + 1):
        if opt == "sgd":
            w -= LR * g
        elif opt == "momentum":
            m = MOMENTUM * m + g
            w -= LR * m
        elif opt == "adam":
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * g * g
            w -= LR * (m / (1 - BETA1 ** t)) / (np.sqrt(v / (1 - BETA2 ** t)) + EPS)
        else:
            raise ValueError(opt)
    return w


def check(opt, weights, shapes, steps=2):
    """The largest |difference| from what is expected over all elements, relative to the largest change of a weight."""
    import numpy as np
    change, worst = expected_change(opt, steps), 0.0
    for k, ((_, shape), w) in enumerate(zip(shapes, weights)):
        e = repeated(float(weight(k, (1,))[0]) + change, size(shape))
        worst = max(worst, float(np.max(np.abs(np.asarray(w).reshape(-1) - e))))
    return worst / float(np.max(np.abs(change)))


if __name__ == "__main__":
    shapes = generate()
    assert len(shapes) == 161 and sum(size(s) for _, s in shapes) == 25557032
    with open(sys.argv[1] if len(sys.argv) > 1 else FILE, "w") as f:
        for name, s in shapes:
            f.write(name + " " + " ".join(map(str, s)) + "\n")
