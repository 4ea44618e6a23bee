"""Optimizers by docs/optimizers.md: expressions and their steps, in numpy.

Every operation of a formula is one IEEE operation on whole arrays of the parameter's type, in the order that the page
writes; scalars are Python floats (doubles), rounded once.
"""

import math
import re

import numpy as np

SGD = {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
ADAMW = {**ADAM, "weight_decay": 0.01}
CLIP_VALUE = {"max": None}
CLIP_NORM = {"max": None, "eps": 1e-6}
NORMS = {"clip_norm": "param", "clip_group_norm": "group", "clip_global_norm": "global"}
RULES = {"sgd": SGD, "adam": ADAM, "adamw": ADAMW, "clip_value": CLIP_VALUE, **dict.fromkeys(NORMS, CLIP_NORM)}
DOMAINS = {
    "max": lambda v: v > 0,
    "lr": lambda v: v >= 0,
    "momentum": lambda v: v >= 0,
    "weight_decay": lambda v: v >= 0,
    "eps": lambda v: v >= 0,
    "beta1": lambda v: 0 <= v < 1,
    "beta2": lambda v: 0 <= v < 1,
}


class BadExpression(Exception):
    pass


def print_number(value):
    """In the fewest characters; where a decimal and a power of ten are as short, the decimal."""
    digits, at = _shortest(value)
    if not digits:
        return "0"
    sign = "-" if value < 0 else ""
    if at <= 0:
        decimal = "0." + "0" * -at + digits
    elif at >= len(digits):
        decimal = digits + "0" * (at - len(digits))
    else:
        decimal = digits[:at] + "." + digits[at:]
    power = digits[0] + ("." + digits[1:] if digits[1:] else "") + f"e{at - 1}"
    return sign + min(decimal, power, key=len)


def _shortest(value):
    """The digits that read back to the value, and where the point stands in them."""
    text = f"{abs(value)!r}"
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    at = len(whole) + int(exponent or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    at -= len(digits) - len(stripped)
    return stripped.rstrip("0"), at


class Rule:
    """A member of a chain."""

    def __init__(self, name, knobs):
        if name not in RULES:
            raise BadExpression(f"no rule {name}")
        self.name = name
        self.knobs = dict(RULES[name])
        for knob, text in knobs.items():
            self.set(knob, text)
        self.check()

    def set(self, knob, text):
        if knob not in self.knobs:
            raise BadExpression(f"{self.name} has no {knob}")
        if isinstance(self.knobs[knob], bool):
            if text not in ("true", "false", "1", "0"):
                raise BadExpression(f"{knob}={text}")
            self.knobs[knob] = text in ("true", "1")
            return
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
            raise BadExpression(f"{knob}={text}")
        value = float(text)
        if not DOMAINS.get(knob, lambda v: True)(value):
            raise BadExpression(f"{knob}={text}")
        self.knobs[knob] = value

    def check(self):
        k = self.knobs
        if None in k.values():
            raise BadExpression(f"{self.name} needs max")
        if self.name == "sgd" and k["nesterov"] and (k["momentum"] <= 0 or k["dampening"] != 0):
            raise BadExpression("nesterov")

    def __str__(self):
        def one(knob, value):
            return f"{knob}={str(value).lower() if isinstance(value, bool) else print_number(value)}"

        others = [one(knob, value) for knob, value in self.knobs.items() if value != RULES[self.name][knob]]
        return self.name + (f"({', '.join(others)})" if others else "")

    def states(self):
        if self.name in NORMS or self.name == "clip_value":
            return []
        if self.name == "sgd":
            return ["momentum_buffer"] if self.knobs["momentum"] != 0 else []
        return ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if self.knobs["amsgrad"] else [])

    def scale(self):
        return 1.0 - self.knobs["lr"] * self.knobs["weight_decay"] if self.name == "adamw" else 1.0

    def update(self, u, x, states, t, norms):
        """The next u. `states` are this rule's, written in place."""
        if self.name == "sgd":
            return self._sgd(u, x, states, t)
        if self.name == "clip_value":
            limit = x.dtype.type(self.knobs["max"])
            return np.where(u < -limit, -limit, np.where(u > limit, limit, u))
        if self.name in NORMS:
            return self._clip_norm(u, x, norms[NORMS[self.name]])
        return self._adam(u, x, states, t)

    def _clip_norm(self, u, x, squares):
        norm = math.sqrt(squares) if math.isfinite(squares) else math.inf
        below = norm + self.knobs["eps"]
        return u * x.dtype.type(min(1.0, self.knobs["max"] / below) if below else 1.0)

    def _sgd(self, d, x, states, t):
        k, r = self.knobs, x.dtype.type
        if k["weight_decay"] != 0:
            d = d + r(k["weight_decay"]) * x
        if k["momentum"] != 0:
            (b,) = states
            if t == 1:
                b[:] = d
            else:
                b[:] = (r(k["momentum"]) * b) + (r(1.0 - k["dampening"]) * d)
            d = d + (r(k["momentum"]) * b) if k["nesterov"] else b
        return r(k["lr"]) * d

    def _adam(self, d, x, states, t):
        k, r = self.knobs, x.dtype.type
        step_size = r(k["lr"] / (1.0 - math.pow(k["beta1"], t)))
        correction = r(math.sqrt(1.0 - math.pow(k["beta2"], t)))
        if self.name == "adam" and k["weight_decay"] != 0:
            d = d + r(k["weight_decay"]) * x
        m, v = states[0], states[1]
        m[:] = (r(k["beta1"]) * m) + (r(1.0 - k["beta1"]) * d)
        v[:] = (r(k["beta2"]) * v) + ((r(1.0 - k["beta2"]) * d) * d)
        w = v
        if k["amsgrad"]:
            w = states[2]
            w[:] = np.maximum(w, v)
        return (step_size * m) / ((np.sqrt(w) / correction) + r(k["eps"]))


class Optimizer:
    """A chain."""

    def __init__(self, text):
        self.rules = [self._parse(part.strip()) for part in text.split("|")]
        if not 1 <= len(self.rules) <= 8:
            raise BadExpression("rules")
        self._check_places()
        self._name_states()

    def _check_places(self):
        if any(rule.name in NORMS for rule in self.rules[1:]):
            raise BadExpression("a norm is clipped first")

    @staticmethod
    def _parse(part):
        match = re.fullmatch(r"([a-z_.]+)\s*(?:\((.*)\))?", part, re.S)
        if not match:
            raise BadExpression(part)
        knobs = {}
        for item in (match[2] or "").split(","):
            if item.strip():
                knob, _, text = (word.strip() for word in item.partition("="))
                if not text and "max" in RULES.get(match[1], {}) and not knobs:
                    knob, text = "max", knob
                if knob in knobs:
                    raise BadExpression(f"{knob} twice")
                knobs[knob] = text
        return Rule(match[1], knobs)

    def _name_states(self):
        own = [rule.states() for rule in self.rules]
        every = [name for names in own for name in names]
        self.state_names = [
            f"{place}.{name}" if every.count(name) > 1 else name
            for place, names in enumerate(own)
            for name in names
        ]

    def __str__(self):
        return " | ".join(map(str, self.rules))

    def norms(self):
        """The norm that the chain wants: "param", "group", "global" or None."""
        return NORMS.get(self.rules[0].name)

    def adjusted(self, changes):
        """A chain with other hyperparameters: {name, rule.name or place.name: text}."""
        new = Optimizer(str(self))
        reached = set()
        for name, text in changes.items():
            member, _, knob = name.rpartition(".")
            having = [
                rule
                for place, rule in enumerate(new.rules)
                if knob in rule.knobs and member in ("", rule.name, str(place))
            ]
            if len(having) != 1 or (id(having[0]), knob) in reached:
                raise BadExpression(name)
            reached.add((id(having[0]), knob))
            having[0].set(knob, text)
        for rule in new.rules:
            rule.check()
        new._name_states()
        return new

    def step(self, x, states, u, t, norms):
        """One step of a parameter on the summed gradient: x and states are flat arrays, written in place. norms: sums of
        squares by the scopes of NORMS."""
        place = 0
        scale = 1.0
        for rule in self.rules:
            count = len(rule.states())
            u = rule.update(u, x, states[place : place + count], t, norms)
            place += count
            scale *= rule.scale()
        x[:] = x * x.dtype.type(scale) - u


def summed(grads):
    """In their order: ((g1 + g2) + g3) ..."""
    total = grads[0]
    for more in grads[1:]:
        total = total + more
    return total


def squares(gradient):
    """The sums of the squares of each 65,536 elements, in the order of docs/optimizers.md."""
    return [_squares_of_range(gradient[i : i + 65536]) for i in range(0, gradient.size, 65536)]


def _squares_of_range(gradient):
    with np.errstate(over="ignore", under="ignore"):
        doubles = gradient.astype(np.float64)
        doubles = doubles * doubles
        blocks = -(-doubles.size // 512)
        rows = np.zeros((blocks, 64, 8))
        rows.reshape(-1)[: doubles.size] = doubles
        lanes = np.zeros((blocks, 8))
        for i in range(64 if blocks > 1 else -(-doubles.size // 8)):
            lanes = lanes + rows[:, i]
        of_block = ((lanes[:, 0] + lanes[:, 4]) + (lanes[:, 2] + lanes[:, 6])) + (
            (lanes[:, 1] + lanes[:, 5]) + (lanes[:, 3] + lanes[:, 7])
        )
        total = 0.0
        for one in of_block.tolist():
            total += one
    return total
