"""What Optimisers.jl, PyTorch, optax and Keras do, as written down in cases.json beside this: each case is a test of its
name (README.md says which cases there are, and which are not here and why). Their numbers are compared within the case's
tolerance; that the server's bits are those of numpy at the same time makes the state's numbers comparable too.

    cases_test.py BUILD_DIR
"""

import json
import math
import os
import re

import grpc
import numpy as np

from semantics import Case, Param, adjust, define, freeze, harness, leaf, rules, thaw, types

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.json"), encoding="utf-8") as file:
    CASES = {case["id"]: case for case in json.load(file)}

# A rule of theirs as an expression of ours. Optimisers.jl has the step size inside the velocity: a rule before momentum.
RULES = {
    "Descent": "sgd(lr={eta})",
    "Momentum": "sgd(lr={eta}) | sgd(lr=1, momentum={rho})",
    "Nesterov": "sgd(lr={eta}) | sgd(lr=1, momentum={rho}, nesterov=true)",
    "Adam": "adam(lr={eta})",
    "AdamW": "adamw(lr={eta}, weight_decay={lambda})",
    "ClipGrad": "clip_value({delta})",
    "ClipNorm": "clip_norm({omega}, eps=0)",
    "WeightDecay": "sgd(lr=1, weight_decay={lambda})",
    "torch.SGD": "sgd(lr={lr}, momentum={momentum})",
    "torch.Adam": "adam(lr={lr})",
    "keras.SGD": "sgd(lr={lr})",
}
DEFAULTS = {"eta": {"Momentum": 0.01, "Adam": 0.001}, "rho": {"Momentum": 0.9, "Nesterov": 0.9}}
# A field of their rule: the member of our chain, from the rule's first, and its hyperparameter.
FIELDS = {
    "Descent": {"eta": (0, "lr")},
    "Momentum": {"eta": (0, "lr"), "rho": (1, "momentum")},
    "Adam": {"eta": (0, "lr")},
    "ClipGrad": {"delta": (0, "max")},
}
STATES = {"vel": "momentum_buffer", "m": "exp_avg", "v": "exp_avg_sq"}


def members(rule):
    return rule["opts"] if rule["rule"] == "OptimiserChain" else [rule]


def one_expression(rule):
    """Of a rule that is no chain."""
    knobs = {knob: of[rule["rule"]] for knob, of in DEFAULTS.items() if rule["rule"] in of}
    knobs.update(rule)
    if rule.get("couple") is False:  # their decay is then not multiplied by the step size
        knobs["lambda"] = rule["lambda"] / rule["eta"]
    return RULES[rule["rule"]].format(**knobs)


def expression(rule):
    return " | ".join(map(one_expression, members(rule)))


def knobs_of(rule):
    """{field as the cases name it, or place.field: (place in our chain, hyperparameter)}."""
    found, place = {}, 0
    for i, one in enumerate(members(rule)):
        for field, (member, knob) in FIELDS[one["rule"]].items():
            found[f"opts.{i}.{field}"] = found[field] = (place + member, knob)
        place += one_expression(one).count("|") + 1
    return found


def is_within(path, node):
    return node == "" or path == node or path.startswith(node + ".")


class Cases(Case):
    GROUPS = {"default": "sgd(lr=1)"}

    def assert_near(self, got, expected, tol, what):
        for a, b in zip(np.ravel(got).tolist(), np.ravel(expected).tolist(), strict=True):
            self.assertLessEqual(abs(a - b), tol * (1 + abs(b)), f"{what}: {a}, not {b}")

    # ---- scripts ----

    def build(self, case):
        """A leaf for each of the tree, each in a group of its own, so that a part of the tree can be adjusted."""
        self.case, self.tol = case, case.get("tol", 1e-9)
        self.shapes = {path: case.get("shapes", {}).get(path, [len(value)]) for path, value in case["tree"].items()}
        self.groups = {path: f"g{i}" for i, path in enumerate(case["tree"])}
        self.rules = {
            path: case["rules"][max((node for node in case["rules"] if is_within(path, node)), key=len)]
            for path in case["tree"]
        }
        if case["id"] == "clip.global_frozen_all":
            self.texts = dict.fromkeys(case["tree"], "clip_global_norm(1, eps=0) | sgd(lr=1)")
        else:
            self.texts = {path: expression(rule) for path, rule in self.rules.items()}
        self.c.apply(*(define(self.groups[path], text) for path, text in self.texts.items()))
        primary = {one["path"]: tied[0]["path"] for tied in case.get("ties", ()) for one in tied[1:]}
        views = {one["path"] for tied in case.get("ties", ()) for one in tied if one.get("transpose")}
        specs, values = [], {}
        for path, value in case["tree"].items():
            if path in primary:
                view = types.VIEW_TRANSPOSE if path in views else types.VIEW_IDENTITY
                specs.append(leaf(path, *self.shapes[path], alias_of=primary[path], view=view))
                continue
            specs.append(leaf(path, *self.shapes[path], group=self.groups[path]))
            values[path] = np.array(value, "<f8")
        self.c.declare(*specs, values={path: value.tobytes() for path, value in values.items()})
        self.params = {path: Param(value, self.texts[path]) for path, value in values.items()}
        self.params.update({path: self.params[first] for path, first in primary.items()})
        self.primary = primary
        for path, value in case["tree"].items():
            self.assert_near(self.value(path), value, 0, path)

    def frame(self, path, array):
        """As the parameter has it."""
        transposed = self.infos()[path].view == types.VIEW_TRANSPOSE
        return array.reshape(self.shapes[path]).T.ravel() if transposed else array

    def update(self, step):
        sent = {path: np.array(g, "<f8") for path, g in step["grads"].items() if g is not None}
        infos = self.infos()
        self.push(sent)
        for param in {id(one): one for one in self.params.values()}.values():
            of_it = [path for path in sorted(sent) if self.params[path] is param and not infos[path].frozen]
            if of_it:
                param.step(*(self.frame(path, sent[path]) for path in of_it))
        self.assert_as_expected("update")

    def adjust(self, step):
        """By groups here, so each leaf has its own; a field that the rule has not is refused."""
        fields = {name: value for name, value in step.get("fields", {}).items()}
        fields.update({"eta": step["value"]} if "value" in step else {})
        below = [p for p in self.texts if is_within(p, step["path"]) and p not in self.primary]
        if any(field not in knobs_of(self.rules[path]) for path in below for field in fields):
            before = self.c.describe(digest=True)
            for path in below:
                self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, "known are|no hyperparameter", self.c.apply,
                                  adjust(self.groups[path], **fields))
            self.assertEqual(self.c.describe(digest=True), before)
            return
        for path in below:
            changes = {}
            for field, value in fields.items():
                place, knob = knobs_of(self.rules[path])[field]
                changes[f"{place}.{knob}"] = str(value)
            self.c.apply({"adjust": {"group": self.groups[path], "hyperparameters": changes}})
            param = self.params[path]
            param.set_optimizer(str(param.optimizer.adjusted(changes)))
        self.assert_as_expected("adjusted")

    def expect(self, step):
        tol = step.get("tol", self.tol)
        infos = self.infos()
        self.assert_as_expected("expect")
        for path, value in step.get("params", {}).items():
            self.assert_near(self.value(path), value, tol, path)
        for path, state in step.get("state", {}).items():
            self.assert_state(self.params[path], state, tol)
        for path, flag in step.get("frozen", {}).items():
            self.assertEqual(infos[path].frozen, flag, path)
        expressions = {group.name: group.expression for group in self.c.describe().groups}
        for path, fields in step.get("rule", {}).items():
            chain = rules.Optimizer(expressions[self.groups[path]]).rules
            for field, value in fields.items():
                place, knob = knobs_of(self.rules[path])[field]
                self.assertEqual(chain[place].knobs[knob], value, f"{path}: {field}")

    def assert_state(self, param, state, tol):
        """Theirs: arrays by name, and the running products of betas (the first of which are the betas)."""
        for name, value in state.items():
            name = re.sub(r"^\d+\.", "", name)
            if isinstance(value, dict):
                self.assert_state(param, value, tol)
            elif name == "bt":
                self.assert_near([beta ** (param.steps + 1) for beta in (0.9, 0.999)], value, tol, name)
            else:
                self.assert_near(param.states[STATES[name]], value, tol, name)

    def run_script(self, case):
        self.build(case)
        for step in case["steps"]:
            if step["op"] in ("freeze", "thaw"):
                self.c.apply((freeze if step["op"] == "freeze" else thaw)(step["path"] or "**"))
            else:
                getattr(self, step["op"])(step)

    # ---- one array ----

    def one_array(self, case):
        text = expression(case["rule"])
        self.c.apply(define("g", text))
        self.leaves = getattr(self, "leaves", 0) + 1
        path = f"x{self.leaves}"
        value = np.array(case["x0"], "<f8")
        self.c.declare(leaf(path, len(value), group="g"), values={path: value.tobytes()})
        self.params[path] = Param(value, text)
        return path

    def run_freeze_window(self, case):
        """Frozen at some steps, gradients sent; the same absent then; the same with zeros then, which is different."""
        for way, expected in (("frozen", case), ("absent", case), ("zero", case["zero_gradient_instead"])):
            path = self.one_array(case)
            for i, (gradient, after) in enumerate(zip(case["grads"], expected["xs"], strict=True)):
                inside = i in case["frozen_steps"]
                if way == "frozen":
                    self.c.apply((freeze if inside else thaw)(path))
                sent = np.zeros(len(gradient)) if way == "zero" and inside else np.array(gradient)
                self.push({} if way == "absent" and inside else {path: sent})
                if not inside or way == "zero":
                    self.params[path].step(sent)
                self.assert_as_expected(f"{way}, step {i}")
                self.assert_near(self.value(path), after, case["tol"], f"{way}, step {i}")
            state = expected["state_final"]
            if case["rule"]["rule"] == "Nesterov":  # its velocity has the other sign
                state = {"vel": [-v for v in state["vel"]]}
            self.assert_state(self.params[path], state, case["tol"])

    def run_none_vs_zero(self, case):
        for absent, expected in ((True, case["xs_none"]), (False, case["xs_zero"])):
            path = self.one_array(case)
            for i, after in enumerate(expected):
                gradient = np.array(case["first_grad"]) * (i == 0)
                self.push({} if absent and i else {path: gradient})
                self.assert_near(self.value(path), after, case["tol"], f"absent: {absent}, step {i}")

    def run_series(self, case):
        """A value is set in the middle."""
        path = self.one_array(case)
        expected = iter(case["x_after_each_update"])
        for gradient in case["grads"]:
            if isinstance(gradient, str):
                self.set(path, np.array([float(gradient.split("x=")[1].rstrip(">"))]))
            else:
                self.push({path: np.array(gradient, "<f8")})
                self.assert_near(self.value(path), next(expected), 1e-9, path)

    # ---- masks and labels ----

    def run_mask(self, case):
        """Updates are added there and subtracted here. True is frozen."""
        values = {"layer1.w": [[1.0, 2.0]], "layer1.b": [3.0], "layer2.w": [[4.0, 5.0]]}
        self.c.declare(*(leaf(path, *np.shape(value)) for path, value in values.items()),
                       values={path: harness.f64(*np.ravel(value)) for path, value in values.items()})
        mask, updates = case["mask"], case["expect_updates"]
        frozen = {path: mask if isinstance(mask, bool) else mask[path.split(".")[0]][path.split(".")[1]] for path in values}
        if any(frozen.values()):
            self.c.freeze(" | ".join(path for path in values if frozen[path]))
        self.push({path: np.ravel(value) * 0.1 for path, value in values.items()})
        for path, value in values.items():
            layer, name = path.split(".")
            update = {"all zero": np.zeros(np.shape(value)), "unchanged": np.array(value) * 0.1}.get(str(updates))
            update = updates[layer][name] if update is None else update
            got = harness.from_f64(self.c.value(path))
            self.assert_near(got, np.ravel(value) - np.ravel(update), 1e-9, path)

    def run_groups(self, case):
        """The first letter of a leaf's name is its group. What scale(-1) adds is what sgd(lr=1) subtracts; the others climb
        there, so their gradients are turned round here."""
        lr, turned = {"a": 1, "b": 1, "c": 2}, {"a": 1, "b": -1, "c": -1}
        values = {"a1": 1.0, "b1": 2.0, "z1.a2": 3.0, "z1.z2.c1": 4.0}
        updates = {"a1": -0.1, "b1": 0.2, "z1.a2": -0.3, "z1.z2.c1": 0.8}
        self.assertEqual(case["expect_updates"], {"a1": -0.1, "b1": 0.2, "z1": {"a2": -0.3, "z2": {"c1": 0.8}}})
        label = {path: path.split(".")[-1][0] for path in values}
        self.c.apply(*(define(name, f"sgd(lr={value})") for name, value in lr.items()))
        self.c.declare(*(leaf(path, group=label[path]) for path in values),
                       values={path: harness.f64(value) for path, value in values.items()})
        self.push({path: np.array(value / 10 * turned[label[path]]) for path, value in values.items()})
        for path, value in values.items():
            self.assert_near(harness.from_f64(self.c.value(path)), [value + updates[path]], 1e-9, path)

    def run_invariant(self, case):
        """optax.freeze.after_adam: a freeze behind adam lets the moments absorb what comes. A freeze of ours does not: the
        fourth step is the second of the gradients 1 and .5, not what optax has."""
        self.assertEqual(case["id"], "optax.freeze.after_adam")
        path = self.one_array({"rule": {"rule": "Adam", "eta": 0.1}, "x0": [1.0]})
        for i, gradient in enumerate((1.0, -3.0, 2.0, 0.5)):
            self.c.apply((freeze if i in (1, 2) else thaw)(path))
            self.push({path: np.array([gradient])})
            if i not in (1, 2):
                self.params[path].step(np.array([gradient]))
            self.assert_as_expected(f"step {i}")
            if i < 3:
                self.assert_near(self.value(path), [case["b_after_each"][i]], 1e-9, f"step {i}")
        m, v = 0.9 * 0.1 + 0.1 * 0.5, 0.999 * 0.001 + 0.001 * 0.25
        fourth = 0.900000001 - 0.1 * (m / (1 - 0.9**2)) / (math.sqrt(v / (1 - 0.999**2)) + 1e-8)
        self.assert_near(self.value(path), [fourth], 1e-9, "the second step of two")
        self.assertGreater(abs(fourth - case["b_after_each"][3]), 0.01)


def add_tests():
    """test_ID for each case, by its kind."""
    for name, case in CASES.items():
        if name == "clip.global_frozen_all":  # a choice: the norm of ours does not count what is frozen, as its note has it
            case["steps"][-1]["params"] = {"a": [-1.0, 0.0], "b": [0.0, 0.0]}
        setattr(Cases, "test_" + re.sub(r"\W+", "_", name),
                lambda self, case=case: getattr(self, f"run_{case['kind']}")(case))


add_tests()
harness.main()
