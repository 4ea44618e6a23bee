"""What the tests of semantics share: parameters as docs/optimizers.md defines them, beside those of a real server. Import
this first: it brings the harness.

What is expected comes from numpy (tests/model/rules.py, which is written from that page and shares no code with the
server) and from Debian's XXH128, so a digest that agrees means that value, optimizer state and step count are what the
formulas say, bit by bit.
"""

import json
import math
import os
import random
import struct
import subprocess
import sys

import numpy as np

TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(TESTS, "integration"), os.path.join(TESTS, "model")]
import harness
import rules
import xxh
from harness import admin, types, wire

ESPCTL = os.path.join(harness.BUILD_DIR, "client", "espctl")
DTYPES = {types.DTYPE_F64: np.dtype("<f8"), types.DTYPE_F32: np.dtype("<f4")}
SEED = random.SystemRandom().getrandbits(32)
print(f"seed {SEED}", file=sys.stderr)


def leaf(path, *shape, **rest):
    """A LeafSpec of f64 whose value follows, unless it says otherwise."""
    if not rest.get("alias_of"):
        rest.setdefault("init", {"follows": True})
    return harness.leaf(path, *shape, **rest)


def freeze(selection):
    return {"freeze": {"selection": selection}}


def thaw(selection, **rest):
    return {"thaw": {"selection": selection, **rest}}


def detach(selection):
    return {"detach": {"selection": selection}}


def attach(selection):
    return {"attach": {"selection": selection}}


def tie(one, to, transpose=False, mean=False):
    view = types.VIEW_TRANSPOSE if transpose else types.VIEW_IDENTITY
    return {"tie": {"leaf": one, "to": to, "view": view, "value": int(mean)}}


def adjust(group, **hyperparameters):
    return {"adjust": {"group": group, "hyperparameters": {k: str(v) for k, v in hyperparameters.items()}}}


def define(name, expression):
    return {"define_group": {"name": name, "expression": expression}}


class Param:
    """A parameter as the page has it. Arrays are flat, in the parameter's own frame."""

    def __init__(self, value, expression):
        self.value = np.array(value)
        self.steps = 0
        self.states = {}
        self.set_optimizer(expression)

    def set_optimizer(self, expression):
        """Another one, or other hyperparameters: states of the same name are kept."""
        self.optimizer = rules.Optimizer(expression)
        names = self.optimizer.state_names
        if names and not set(names) & self.states.keys():
            self.steps = 0
        self.states = {name: self.states.get(name, np.zeros_like(self.value)) for name in names}

    def reset(self):
        self.steps = 0
        self.states = {name: np.zeros_like(self.value) for name in self.states}

    def step(self, *gradients, squares=None):
        """One step on the sum of these, in their order. squares: of a norm that is not the parameter's own."""
        gradient = rules.summed([np.asarray(one).ravel() for one in gradients])
        if squares is None:
            squares = squares_of(gradient)
        norms = {"param": squares, "group": squares, "global": squares}
        self.steps += 1
        self.optimizer.step(self.value, list(self.states.values()), gradient, self.steps, norms)

    def digest(self):
        tensors = [self.value, *self.states.values()]
        return xxh.digest(b"".join(one.tobytes() for one in tensors) + struct.pack("<Q", self.steps))


def squares_of(*gradients):
    """Of a norm of all of them, in the order of paths."""
    total = 0.0
    for one in gradients:
        for part in rules.squares(np.asarray(one).ravel()):
            total += part
    return total


class Case(harness.TestCase):
    """A server with GROUPS, a client, and the Param of each leaf that was declared."""

    GROUPS = {"default": "sgd(lr=0.1)"}
    FLAGS = ()

    def setUp(self):
        self.random = np.random.default_rng(SEED)
        self.c = self.start(self.GROUPS)
        self.params = {}  # by path; tied leaves share one

    @classmethod
    def setUpClass(cls):
        cls.ending = []  # servers that were told to end: they take a while, so no test waits for its own

    @classmethod
    def tearDownClass(cls):
        codes = [server.wait() for server in cls.ending]
        logs = [server.stderr() for server in cls.ending]
        for server in cls.ending:
            server.close()
        if any(codes):
            raise AssertionError(f"servers ended with {codes}:\n{''.join(logs)}")

    def server(self, *flags, **rest):
        server = harness.Server(*flags, **rest)
        self.ending.append(server)
        self.addCleanup(server.process.terminate)
        return server

    def start(self, groups):
        """A server with these groups, and a client of it."""
        self.address = self.server(*(f"--group={k}={v}" for k, v in groups.items()), *self.FLAGS).address
        return self.client(self.address)

    def numbers(self, *shape, dtype="<f8"):
        """Of usual sizes, some of them zeros of both signs."""
        out = self.random.standard_normal(shape).astype(dtype)
        out[self.random.random(shape) < 0.1] = 0.0
        out[self.random.random(shape) < 0.1] = -0.0
        return out

    def declare(self, *specs, nodes=(), client=None):
        values = {}
        for spec in specs:
            if spec.alias_of:
                self.params[spec.path] = self.params[spec.alias_of]
                continue
            value = self.numbers(math.prod(spec.shape), dtype=DTYPES[spec.dtype])
            if spec.init.WhichOneof("value") == "follows":
                values[spec.path] = value.tobytes()
            expression = self.GROUPS.get(spec.group, self.GROUPS["default"])
            self.params[spec.path] = Param(value, expression if spec.kind != types.KIND_BUFFER else "sgd")
        return (client or self.c).declare(*specs, nodes=nodes, values=values)

    def gradients(self, *paths):
        """A new gradient for each, as {path: array}; of all leaves where none is named."""
        named = paths or self.params
        return {path: self.numbers(self.params[path].value.size, dtype=self.params[path].value.dtype) for path in named}

    def push(self, gradients, client=None):
        return (client or self.c).push({path: np.asarray(one).tobytes() for path, one in gradients.items()})

    def step(self, gradients, but=()):
        """Pushes them, and steps all of theirs but some that stand still."""
        reply = self.push(gradients)
        for path, gradient in gradients.items():
            if path not in but:
                self.params[path].step(gradient)
        return reply

    def infos(self, selection="", client=None):
        return {info.path: info for info in (client or self.c).describe(selection, digest=True).leaves}

    def value(self, path, client=None):
        return np.frombuffer((client or self.c).value(path), self.params[path].value.dtype)

    def assert_as_expected(self, what=""):
        """Value, state and step count of each leaf are those of its Param."""
        for path, info in self.infos().items():
            param = self.params[path]
            if info.digest == param.digest():
                continue
            if info.view == types.VIEW_IDENTITY:
                np.testing.assert_array_equal(self.value(path), param.value, f"{what} {path}: value", strict=True)
            self.assertEqual(info.steps, param.steps, f"{what} {path}: step count")
            self.fail(f"{what} {path}: value (a zero's sign) or optimizer state differs, after {param.steps} steps")

    def stage(self, tensors):
        """Of {path: array}, for a set."""
        return self.c.stage({path: np.asarray(one).tobytes() for path, one in tensors.items()}).stage

    def set(self, path, value, **rest):
        return self.c.apply({"set": {"selection": path, "stage": self.stage({path: value}), **rest}})

    def history(self):
        pages = self.c.admin.History(admin.HistoryRequest(), timeout=harness.TIMEOUT)
        return [one for page in pages for one in page.transactions]

    def espctl(self, *words, code=0, text=None):
        """Its --json, after it has ended with that code."""
        ended = subprocess.run(
            [ESPCTL, *words, "--json", "--server", self.address],
            env=harness.environment(),
            input=text,
            capture_output=True,
            timeout=harness.TIMEOUT,
            text=True,
        )
        self.assertEqual(ended.returncode, code, ended.stderr)
        return json.loads(ended.stdout) if code == 0 else ended.stderr
