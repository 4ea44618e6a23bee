"""Known gradients pushed through the server give the values of docs/optimizers.md to the last bit in float64. What is
expected is computed here, in plain Python floats, which are IEEE doubles, from the formulas of that page.

    formula_test.py BUILD_DIR
"""

import math
import random

import harness
from harness import f64, from_f64, leaf, types

N = 1031  # elements: two blocks of the kernels and an odd rest
PUSHES = 7


class Sgd:
    def __init__(self, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        self.lr, self.momentum, self.dampening = lr, momentum, dampening
        self.weight_decay, self.nesterov = weight_decay, nesterov
        self.scale = 1.0

    def begin(self, t):
        self.t = t

    def update(self, x, g, state):
        d = g
        if self.weight_decay != 0:
            d = d + self.weight_decay * x
        if self.momentum != 0:
            b = d if self.t == 1 else (self.momentum * state.get("b", 0.0)) + ((1 - self.dampening) * d)
            state["b"] = b
            d = d + (self.momentum * b) if self.nesterov else b
        return self.lr * d


class Adam:
    def __init__(self, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, amsgrad=False, decoupled=False):
        self.lr, self.beta1, self.beta2, self.eps, self.amsgrad = lr, beta1, beta2, eps, amsgrad
        self.weight_decay = 0.0 if decoupled else weight_decay
        self.scale = 1 - lr * weight_decay if decoupled else 1.0

    def begin(self, t):
        self.step_size = self.lr / (1 - math.pow(self.beta1, t))
        self.correction = math.sqrt(1 - math.pow(self.beta2, t))

    def update(self, x, g, state):
        d = g
        if self.weight_decay != 0:
            d = d + self.weight_decay * x
        m = (self.beta1 * state.get("m", 0.0)) + ((1 - self.beta1) * d)
        v = (self.beta2 * state.get("v", 0.0)) + (((1 - self.beta2) * d) * d)
        w = max(state.get("w", 0.0), v) if self.amsgrad else v
        state.update(m=m, v=v, w=w)
        return (self.step_size * m) / ((math.sqrt(w) / self.correction) + self.eps)


class Parameter:
    """Values, the states of each of the chain's rules, and the step count."""

    def __init__(self, values, *chain):
        self.values, self.chain = values, chain
        self.states = [[{} for _ in values] for _ in chain]
        self.t = 0

    def step(self, gradient):
        self.t += 1
        scale = 1.0
        for rule in self.chain:
            rule.begin(self.t)
            scale = scale * rule.scale
        for i, (x, u) in enumerate(zip(self.values, gradient, strict=True)):
            for rule, states in zip(self.chain, self.states, strict=True):
                u = rule.update(x, u, states[i])
            self.values[i] = x * scale - u


# Name, expression, the same in Python.
GROUPS = (
    ("sgd", "sgd(lr=0.1)", lambda: [Sgd(0.1)]),
    ("decayed", "sgd(lr=0.1, weight_decay=0.05)", lambda: [Sgd(0.1, weight_decay=0.05)]),
    (
        "momentum",
        "sgd(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01)",
        lambda: [Sgd(0.1, momentum=0.9, dampening=0.3, weight_decay=0.01)],
    ),
    ("nesterov", "sgd(lr=0.1, momentum=0.9, nesterov=true)", lambda: [Sgd(0.1, momentum=0.9, nesterov=True)]),
    (
        "adam",
        "adam(lr=0.01, beta2=0.99, weight_decay=0.02)",
        lambda: [Adam(0.01, beta2=0.99, weight_decay=0.02)],
    ),
    ("amsgrad", "adam(amsgrad=true, eps=1e-4)", lambda: [Adam(1e-3, eps=1e-4, amsgrad=True)]),
    (
        "adamw",
        "adamw(lr=0.01, beta1=0.8, weight_decay=0.2)",
        lambda: [Adam(0.01, beta1=0.8, weight_decay=0.2, decoupled=True)],
    ),
    (
        "chain",
        "adamw(lr=1, weight_decay=0.1) | sgd(lr=0.5, momentum=0.5)",
        lambda: [Adam(1.0, weight_decay=0.1, decoupled=True), Sgd(0.5, momentum=0.5)],
    ),
)


def numbers(source, count):
    """Of every size that a sum of squares survives, zeros of both signs among them."""

    def one():
        usual, unusual = source.gauss(0, 1), source.gauss(0, 1) * 10 ** source.randint(-9, 9)
        return source.choice((0.0, -0.0, 1.0, usual, unusual))

    return [one() for _ in range(count)]


class Formula(harness.TestCase):
    def assert_bits(self, client, expected):
        """{path: Parameter} is what the server has."""
        for path, parameter in expected.items():
            got = client.value(path)
            if got == f64(*parameter.values):
                continue
            for i, (a, b) in enumerate(zip(from_f64(got), parameter.values, strict=True)):
                self.assertEqual(a.hex(), b.hex(), f"{path}, element {i}, step {parameter.t}")
            self.fail(f"{path}: a zero has another sign")

    def run_groups(self, *flags):
        """Several pushes to a leaf in each group; each push leaves one out, so that step counts go apart."""
        source = random.Random(3)
        groups = [f"--group={name}={expression}" for name, expression, _ in GROUPS]
        server = self.server("--group=default=sgd(lr=1)", *groups, *flags)
        client = self.client(server.address)
        expected = {name: Parameter(numbers(source, N), *rules()) for name, _, rules in GROUPS}
        specs = [leaf(name, N, group=name, init={"follows": True}) for name in expected]
        client.declare(*specs, values={name: f64(*one.values) for name, one in expected.items()}, chunk_bytes=1001)
        self.assert_bits(client, expected)
        for push in range(PUSHES):
            names = list(expected)
            del names[push % len(names)]
            gradients = {name: numbers(source, N) for name in names}
            reply = client.push({client.ids[n]: f64(*g) for n, g in gradients.items()}, chunk_bytes=4093)
            self.assertEqual((reply.applied, reply.absent), (len(names), 1))
            for name, gradient in gradients.items():
                expected[name].step(gradient)
            self.assert_bits(client, expected)
        steps = {info.path: info.steps for info in client.describe().leaves}
        self.assertEqual(steps, {name: one.t for name, one in expected.items()})

    def test_rules(self):
        self.run_groups()

    def test_rules_with_another_instruction_set(self):
        self.run_groups("--isa=sse2", "--threads=3")

    def test_one_push(self):
        """The line of the issue: one push of a known gradient, sgd, momentum, adam."""
        server = self.server(
            "--group=default=sgd(lr=0.1)", "--group=m=sgd(lr=0.1, momentum=0.9)", "--group=a=adam(lr=0.1)"
        )
        client = self.client(server.address)
        client.declare(leaf("s", 3, init={"constant": 1.0}), leaf("m", 3, group="m"), leaf("a", 3, group="a"))
        gradient = [0.1, -0.25, 3.0]
        client.push({name: f64(*gradient) for name in ("s", "m", "a")})
        self.assertEqual(from_f64(client.value("s")), [1.0 - 0.1 * g for g in gradient])
        self.assertEqual(from_f64(client.value("m")), [0.0 - 0.1 * g for g in gradient])
        adam = []
        for g in gradient:
            m, v = (0.9 * 0.0) + ((1 - 0.9) * g), (0.999 * 0.0) + (((1 - 0.999) * g) * g)
            u = ((0.1 / (1 - 0.9)) * m) / ((math.sqrt(v) / math.sqrt(1 - 0.999)) + 1e-8)
            adam.append(0.0 * 1 - u)
        self.assertEqual(from_f64(client.value("a")), adam)

    def test_nearest_assignment_wins(self):
        """By the server's options, by a node and by a leaf; a name without a definition falls back to default."""
        server = self.server(
            "--group=default=sgd(lr=1)",
            "--group=two=sgd(lr=2)",
            "--group=four=sgd(lr=4)",
            "--group=eight=sgd(lr=8)",
            "--assign=a=two",
            "--assign=a.b=four",
        )
        client = self.client(server.address)
        expected = {
            "w": ("default", 1),
            "a.w": ("two", 2),
            "a.b.w": ("four", 4),
            "a.b.own": ("eight", 8),
            "a.b.c.d.w": ("eight", 8),
            "ab.w": ("default", 1),
            "n.w": ("default", 1),
        }
        specs = [leaf(path, 1, group="eight" if path == "a.b.own" else "") for path in expected]
        nodes = [types.NodeSpec(path="a.b.c", group="eight"), types.NodeSpec(path="n", group="nosuch")]
        reply = client.declare(*specs, nodes=nodes)
        self.assertEqual(len(reply.notes), 1)
        self.assertIn("nosuch", reply.notes[0])
        client.push({path: f64(1.0) for path in expected})
        infos = {info.path: info for info in client.describe().leaves}
        for path, (group, lr) in expected.items():
            self.assertEqual((infos[path].group, from_f64(client.value(path))), (group, [-float(lr)]), path)
        self.assertEqual(infos["n.w"].group_assigned, "nosuch")
        client.declare(leaf("a.b.c.later", 1), leaf("a.b.x.later", 1))
        later = {info.path: info.group for info in client.describe("a.**.later").leaves}
        self.assertEqual(later, {"a.b.c.later": "eight", "a.b.x.later": "four"})


GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def mix(z):
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def unit(seed, k):
    return (mix((mix((seed + GOLDEN) & MASK) + (k + 1) * GOLDEN) & MASK) >> 11) * 2.0**-53


class FirstValues(harness.TestCase):
    def test_initialisers(self):
        client = self.client(self.server().address)
        seed = 0xFEDCBA9876543210
        client.declare(
            leaf("zeros", N),
            leaf("named", N, init={"zeros": True}),
            leaf("constant", N, init={"constant": -1.5}),
            leaf("uniform", N, init={"uniform": {"low": -0.25, "high": 0.75}, "seed": seed}),
            leaf("normal", N, init={"normal": {"mean": 0.5, "stddev": 2.0}, "seed": seed}),
        )
        self.assertEqual(client.value("zeros"), f64(*[0.0] * N))
        self.assertEqual(client.value("named"), f64(*[0.0] * N))
        self.assertEqual(client.value("constant"), f64(*[-1.5] * N))
        uniform = [-0.25 + (0.75 - -0.25) * unit(seed, i) for i in range(N)]
        self.assertEqual(from_f64(client.value("uniform")), uniform)
        normal = [
            0.5
            + 2.0
            * (
                math.sqrt(-2 * math.log(1 - unit(seed, 2 * i)))
                * math.cos(6.283185307179586 * unit(seed, 2 * i + 1))
            )
            for i in range(N)
        ]
        self.assertEqual(from_f64(client.value("normal")), normal)


harness.main()
