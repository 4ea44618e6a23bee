#!/usr/bin/env python3
"""Expected values for the optimizer kernels, to the last bit.

    make_optim_vectors.py > optim_vectors.h

The formulas and the order of evaluation are those of docs/optimizers.md, in plain Python floats, which are IEEE doubles:
that is the whole of float64. For float32 every operation is done in double and rounded, which gives the bits of a
float32 operation, since a double has more than twice a float's digits and two to spare. The cases of torch_cases.json
(trajectories of PyTorch and its kin, compared within their tolerance) are copied into the same header.
"""
import json
import math
import os
import struct

STEPS = 50
KEPT = (1, 2, 3, 10, 50)  # the steps whose values are written down
X0 = [1.0, -2.0, 0.5, 3.0, 0.0, -0.0, 1e-3, -1e4, 7.25e-9]
HERE = os.path.dirname(os.path.abspath(__file__))

SGD = {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
ADAMW = {**ADAM, "weight_decay": 0.01}


def round_f64(value):
    return value


def round_f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


class Sgd:
    def __init__(self, knobs, n, r):
        self.k, self.r = {**SGD, **knobs}, r
        self.states = [[0.0] * n] if self.k["momentum"] != 0 else []

    def update(self, i, t, g, x):
        k, r = self.k, self.r
        lr, momentum, decay, keep = r(k["lr"]), r(k["momentum"]), r(k["weight_decay"]), r(1.0 - k["dampening"])
        d = g
        if decay != 0:
            d = r(d + r(decay * x))
        if momentum != 0:
            buf = self.states[0]
            buf[i] = d if t == 1 else r(r(momentum * buf[i]) + r(keep * d))
            d = r(d + r(momentum * buf[i])) if k["nesterov"] else buf[i]
        return r(lr * d)

    def scale(self):
        return 1.0


class Adam:
    def __init__(self, knobs, n, r, defaults=None):
        self.k, self.r = {**(defaults or ADAM), **knobs}, r
        self.states = [[0.0] * n for _ in range(3 if self.k["amsgrad"] else 2)]
        self.decay = self.k["weight_decay"]

    def update(self, i, t, g, x):
        k, r = self.k, self.r
        beta1, keep1 = r(k["beta1"]), r(1.0 - k["beta1"])
        beta2, keep2 = r(k["beta2"]), r(1.0 - k["beta2"])
        step_size = r(k["lr"] / (1.0 - math.pow(k["beta1"], t)))
        correction = r(math.sqrt(1.0 - math.pow(k["beta2"], t)))
        m, v = self.states[0], self.states[1]
        d = g
        if self.decay != 0:
            d = r(d + r(r(self.decay) * x))
        m[i] = r(r(beta1 * m[i]) + r(keep1 * d))
        v[i] = r(r(beta2 * v[i]) + r(r(keep2 * d) * d))
        top = v[i]
        if k["amsgrad"]:
            top = self.states[2][i] = max(self.states[2][i], v[i])
        denominator = r(r(r(math.sqrt(top)) / correction) + r(k["eps"]))
        return r(r(step_size * m[i]) / denominator)

    def scale(self):
        return 1.0


class Adamw(Adam):
    def __init__(self, knobs, n, r):
        super().__init__(knobs, n, r, ADAMW)
        self.decay = 0.0

    def scale(self):
        return 1.0 - self.k["lr"] * self.k["weight_decay"]


class ClipValue:
    """torch.nn.utils.clip_grad_value_"""
    states = []

    def __init__(self, knobs, n, r):
        self.max = r(knobs["max"])

    def update(self, i, t, g, x):
        return min(max(g, -self.max), self.max)

    def scale(self):
        return 1.0


class ClipNorm:
    """torch.nn.utils.clip_grad_norm_: max / (norm + eps), at most 1, with the norm in double"""
    states = []

    def __init__(self, knobs, n, r, scope):
        self.k, self.r, self.scope = {"eps": 1e-6, **knobs}, r, scope

    def begin(self, squares):
        norm = math.sqrt(squares + OTHERS[self.scope])
        self.factor = self.r(min(1.0, self.k["max"] / (norm + self.k["eps"])))

    def update(self, i, t, g, x):
        return self.r(g * self.factor)

    def scale(self):
        return 1.0


# What the squares of other parameters add up to: of the group, of all.
OTHERS = {"clip_norm": 0.0, "clip_group_norm": 1.5, "clip_global_norm": 1e4}
CLASSES = {"sgd": Sgd, "adam": Adam, "adamw": Adamw, "clip_value": ClipValue,
           **{name: lambda *args, name=name: ClipNorm(*args, name) for name in OTHERS}}


def sum_of_squares(values):
    """Of one block: element i goes to lane i % 8, the lanes are added as a tree."""
    lanes = [0.0] * 8
    for i, value in enumerate(values):
        lanes[i % 8] += value * value
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))


def expressions():
    """Chains as lists of (rule, knobs): all combinations of knobs, then a few chains."""
    for decay in ({}, {"weight_decay": 0.05}):
        for dampening in ({}, {"dampening": 0.3}):
            yield [("sgd", {"lr": 0.1, **dampening, **decay})]
            yield [("sgd", {"lr": 0.1, "momentum": 0.9, **dampening, **decay})]
        yield [("sgd", {"lr": 0.1, "momentum": 0.9, **decay, "nesterov": True})]
        for amsgrad in ({}, {"amsgrad": True}):
            yield [("adam", {"lr": 0.01, "beta2": 0.95, **decay, **amsgrad})]
            yield [("adamw", {"lr": 0.01, "beta2": 0.95, **decay, **amsgrad})]
    yield [("sgd", {})]
    yield [("adam", {})]
    yield [("adamw", {})]
    yield [("adamw", {"weight_decay": 0.0, "beta1": 0.0, "eps": 1e-3})]
    yield [("sgd", {"lr": 0.5, "momentum": 0.9}), ("sgd", {"lr": 0.1, "momentum": 0.5})]
    yield [("clip_value", {"max": 0.5})]
    yield [("clip_value", {"max": 0.3}), ("adam", {"lr": 0.01}), ("clip_value", {"max": 0.005})]
    for name in OTHERS:
        yield [(name, {"max": 0.5}), ("sgd", {"lr": 0.1, "momentum": 0.9})]
    yield [("clip_norm", {"max": 40.0, "eps": 0.0})]
    yield [("clip_norm", {"max": 1e9}), ("adamw", {"lr": 0.01})]
    yield [("clip_global_norm", {"max": 1.0, "eps": 0.0}), ("clip_value", {"max": 0.1}), ("adamw", {"lr": 0.01})]
    yield [("adam", {"lr": 1.0}), ("adamw", {"lr": 0.1, "weight_decay": 0.2}), ("sgd", {"weight_decay": 0.1, "lr": 1.0})]


def text(chain):
    def knob(name, value):
        return name + "=" + (str(value).lower() if isinstance(value, bool) else repr(value))
    return " | ".join(rule + "(" + ", ".join(knob(*item) for item in knobs.items()) + ")" for rule, knobs in chain)


def gradients():
    """Of every size: exact multiples of 2^-20 times a power of ten, zeros of both signs among them."""
    seed = 12345
    steps = []
    for t in range(STEPS):
        step = []
        for i in range(len(X0)):
            seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
            unit = (seed >> 40) / 2.0**23 - 1.0
            step.append(unit * (1.0, 1e-3, 30.0, 1e-12, 1.0, 1.0, 1e4, 1e2, 1e-6)[i])
        if t % 7 == 3:
            step[0], step[1] = 0.0, -0.0
        steps.append(step)
    steps[0][4], steps[0][5] = 0.0, -0.0
    return steps


def run(chain, r, grads):
    n = len(X0)
    members = [CLASSES[rule](knobs, n, r) for rule, knobs in chain]
    scale = 1.0
    for member in members:
        scale *= member.scale()
    scale = r(scale)
    x = [r(value) for value in X0]
    kept = []
    for t in range(1, STEPS + 1):
        arrived = [r(g) for g in grads[t - 1]]
        for member in members:
            if isinstance(member, ClipNorm):
                member.begin(sum_of_squares(arrived))
        for i in range(n):
            u = arrived[i]
            for member in members:
                u = member.update(i, t, u, x[i])
            x[i] = r(r(x[i] * scale) - u)
        if t in KEPT:
            kept.append(list(x))
    return kept, [state for member in members for state in member.states]


def row(values, suffix=""):
    return "{" + ", ".join(value.hex() + suffix for value in values) + "}"


def block(rows, indent="     "):
    return "{" + (",\n" + indent + " ").join(rows) + "}"


def print_vectors():
    grads = gradients()
    chains = list(expressions())
    states_max = max(len(run(chain, round_f64, grads)[1]) for chain in chains)
    print(f"#define VECTOR_STEPS {STEPS}\n#define VECTOR_KEPT {len(KEPT)}\n#define VECTOR_LEN {len(X0)}")
    print(f"#define VECTOR_STATES_MAX {states_max}\n")
    print(f"static const double vector_others_group = {OTHERS['clip_group_norm']};")
    print(f"static const double vector_others_global = {OTHERS['clip_global_norm']};")
    print(f"static const int vector_kept[VECTOR_KEPT] = {{{', '.join(map(str, KEPT))}}};")
    print(f"static const double vector_x0[VECTOR_LEN] = {row(X0)};")
    print(f"static const double vector_grads[VECTOR_STEPS][VECTOR_LEN] = {block([row(g) for g in grads])};\n")
    for name, c_type, suffix, r in (("f64", "double", "", round_f64), ("f32", "float", "f", round_f32)):
        print(f"static const struct vector_{name} {{\n  const char *expression;\n  size_t states_len;")
        print(f"  {c_type} x[VECTOR_KEPT][VECTOR_LEN]; /* after the steps of vector_kept */")
        print(f"  {c_type} states[VECTOR_STATES_MAX][VECTOR_LEN]; /* after the last */")
        print(f"}} vectors_{name}[] = {{")
        for chain in chains:
            kept, states = run(chain, r, grads)
            print(f'    {{"{text(chain)}", {len(states)},\n     {block([row(x, suffix) for x in kept])},')
            print(f"     {block([row(state, suffix) for state in states] or ['{0}'])}}},")
        print("};\n")


def print_torch():
    with open(os.path.join(HERE, "torch_cases.json"), encoding="utf-8") as file:
        cases = json.load(file)
    steps = max(len(case["xs"]) for case in cases)
    length = max(len(case["x0"]) for case in cases)
    print("/* Trajectories of PyTorch and, where a rule of ours says the same, of optax, Keras and Optimisers.jl. */")
    print(f"#define TORCH_STEPS_MAX {steps}\n#define TORCH_LEN_MAX {length}\n")
    print("static const struct torch_case {\n  const char *id;\n  const char *expression;\n  bool is_f32;\n  double tol;")
    print("  size_t n;\n  size_t steps_len;\n  double x0[TORCH_LEN_MAX];\n  double grads[TORCH_STEPS_MAX][TORCH_LEN_MAX];")
    print("  double xs[TORCH_STEPS_MAX][TORCH_LEN_MAX];\n  size_t states_len;\n  struct {")
    print("    const char *name;\n    double values[TORCH_LEN_MAX];\n  } states[3]; /* after the last step */")
    print("} torch_cases[] = {")
    for case in cases:
        r = round_f32 if case["dtype"] == "float32" else round_f64
        rows = {key: [row(map(r, values)) for values in case[key]] for key in ("grads", "xs")}
        states = [f'{{"{name}", {row(map(r, values))}}}' for name, values in case["states"].items()] or ["{0}"]
        print(f'    {{"{case["id"]}", "{case["expression"]}", {"true" if r is round_f32 else "false"}, {case["tol"]},')
        print(f'     {len(case["x0"])}, {len(case["xs"])}, {row(map(r, case["x0"]))},')
        print(f'     {block(rows["grads"])},\n     {block(rows["xs"])},\n     {len(case["states"])}, {block(states)}}},')
    print("};")


def mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def unit(seed, counter):
    golden = 0x9E3779B97F4A7C15
    return (mix((mix((seed + golden) % 2**64) + (counter + 1) * golden) % 2**64) >> 11) * 2.0**-53


def first_value(normal, a, b, seed, i):
    if not normal:
        return a + (b - a) * unit(seed, i)
    radius = math.sqrt(-2.0 * math.log(1.0 - unit(seed, 2 * i)))
    return a + b * (radius * math.cos(6.283185307179586 * unit(seed, 2 * i + 1)))


def print_init():
    length = 8
    print(f"/* First values. */\n#define VECTOR_INIT_LEN {length}\n")
    print("static const struct vector_init {\n  bool is_normal;\n  double a;\n  double b;\n  uint64_t seed;")
    print("  uint64_t first;\n  double values[VECTOR_INIT_LEN];\n} vectors_init[] = {")
    for normal, a, b, seed, first in ((False, -1.0, 3.0, 0, 0), (False, 0.0, 1.0, 2**64 - 1, 2**40),
                                      (True, 0.0, 1.0, 0, 0), (True, 5.0, 0.25, 123456789, 2**33)):
        values = [first_value(normal, a, b, seed, first + i) for i in range(length)]
        print(f"    {{{str(normal).lower()}, {a}, {b}, UINT64_C({seed}), UINT64_C({first}),\n     {row(values)}}},")
    print("};\n")


def main():
    print("/* Made by make_optim_vectors.py: do not edit. */\n#ifndef ESP_TESTS_OPTIM_VECTORS_H")
    print("#define ESP_TESTS_OPTIM_VECTORS_H\n\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n\n// clang-format off\n")
    print_vectors()
    print_init()
    print_torch()
    print("\n// clang-format on\n\n#endif")


main()
