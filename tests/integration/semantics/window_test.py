"""For every rule that there is, a freeze window equals those pushes without the leaf, bit for bit: value, every state
tensor and the step count. The rules, and what can be said of each, are taken from docs/optimizers.md and compared with
what the server says that it knows, so a new rule is tested without a line here.

    window_test.py BUILD_DIR
"""

import re

import grpc
import numpy as np

from semantics import Case, Param, harness, leaf, rules

PUSHES = 9
WINDOW = range(3, 7)  # the pushes while it is frozen
# A value that makes a hyperparameter with a numeric default do something, where twice its default does not.
OTHER = {"momentum": 0.9, "weight_decay": 0.1, "dampening": 0.0, "max": 0.5}


def documented():
    """{rule: {hyperparameter: default as text, or None where there is none}}, of the page's section Rules."""
    with open(f"{harness.ROOT}/docs/optimizers.md", encoding="utf-8") as page:
        section = page.read().split("\n## Rules\n")[1].split("\n## ")[0]
    found = {}
    knobs = {}
    for heading, text in re.findall(r"^### (.+)\n((?:(?!### ).*\n?)*)", section, re.M):
        table = text.partition("| hyperparameter |")[2]
        knobs = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.M)) or dict(knobs)
        if heading == "adamw":  # adam's, but for this
            knobs["weight_decay"] = re.search(r"`weight_decay` has the default ([\d.]+)", text)[1]
        for name in heading.split(", "):
            found[name] = {knob: None if text.startswith("none") else text for knob, text in knobs.items()}
    return found


def variants(name, knobs):
    """The rule as it is, and with each hyperparameter at another value, flags on."""
    needed = {knob: str(OTHER.get(knob, 1)) for knob, default in knobs.items() if default is None}
    yield needed
    for knob, default in knobs.items():
        if default in ("true", "false"):
            more = {knob: "true" if default == "false" else "false"}
            if knob == "nesterov":
                more["momentum"] = "0.9"
        elif knob in needed:
            continue
        else:
            value = float(default)
            more = {knob: repr(OTHER.get(knob, value / 2))}
        yield {**needed, **more}


def expressions():
    """Each alone where it can be, and before and after others."""
    for name, knobs in documented().items():
        for settings in variants(name, knobs):
            text = f"{name}({', '.join(f'{knob}={value}' for knob, value in settings.items())})"
            yield text
        plain = f"{name}({', '.join(f'{k}={OTHER.get(k, 1)}' for k, d in knobs.items() if d is None)})"
        yield f"{plain} | sgd(lr=0.5, momentum=0.5)"
        if not name.startswith("clip_") or name == "clip_value":  # norms stand first
            yield f"clip_norm(1) | {plain} | clip_value(0.01)"


class Window(Case):
    def test_the_page_lists_every_rule(self):
        details = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, "known are: ", self.c.apply,
                                    {"define_group": {"name": "g", "expression": "nosuchrule"}})
        known = details.split("known are: ")[1].split(", ")
        self.assertEqual(sorted(documented()), sorted(known))

    def test_every_hyperparameter_is_known(self):
        for name, knobs in documented().items():
            details = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, "known are: ", self.c.apply,
                                        {"define_group": {"name": "g", "expression": f"{name}(nosuch=1)"}})
            self.assertEqual(details.split("known are: ")[1].split(", "), list(knobs), name)

    def test_windows_of_every_rule(self):
        """Each rule's leaf `w` is frozen in the window; `n` is not named in it; what both must be is known besides for
        the rules that numpy has here. A leaf of a group that has no other, so that no norm sees a second gradient."""
        every = list(dict.fromkeys(expressions()))
        self.assertGreater(len(every), 3 * len(documented()))
        for dtype in ("DTYPE_F64", "DTYPE_F32"):
            self.run_windows([text for text in every if "clip_global_norm" not in text], dtype)
        for text in every:
            if "clip_global_norm" in text:
                self.run_windows([text], "DTYPE_F32")

    def run_windows(self, every, dtype):
        """Two servers: on one the leaves are frozen meanwhile and their gradients sent, on the other they are not sent."""
        frozen, absent = self.start({"default": "sgd"}), self.start({"default": "sgd"})
        params = {}
        shape = (3, 5)
        for client in (frozen, absent):
            client.apply(*({"define_group": {"name": f"g{i}", "expression": text}} for i, text in enumerate(every)))
        values = {f"w{i}": self.numbers(*shape, dtype=self.dtype(dtype)) for i in range(len(every))}
        specs = [leaf(path, *shape, dtype=dtype, group=f"g{path[1:]}") for path in values]
        for client in (frozen, absent):
            client.declare(*specs, values={path: value.tobytes() for path, value in values.items()})
        for i, text in enumerate(every):
            if all(part.split("(")[0].strip() in rules.RULES for part in text.split("|")):
                params[f"w{i}"] = Param(values[f"w{i}"].ravel(), text)
        for push in range(PUSHES):
            if push == WINDOW.start:
                frozen.freeze("**")
            if push == WINDOW.stop:
                frozen.thaw("**")
            gradients = {path: self.numbers(*shape, dtype=self.dtype(dtype)) for path in values}
            if push == PUSHES - 1:
                gradients = {path: np.zeros_like(gradient) for path, gradient in gradients.items()}
            sent = {path: gradient.tobytes() for path, gradient in gradients.items()}
            reply = frozen.push(sent)
            absent.push({} if push in WINDOW else sent)
            self.assertEqual(reply.frozen, len(values) if push in WINDOW else 0)
            if push not in WINDOW:
                for path, param in params.items():
                    param.step(gradients[path])
            one, other = self.infos(client=frozen), self.infos(client=absent)
            for i, text in enumerate(every):
                path = f"w{i}"
                self.assertEqual(one[path].steps, push + 1 - len([p for p in WINDOW if p <= push]), text)
                self.assertEqual(one[path].digest, other[path].digest, f"{text}, push {push}")
                if path in params:
                    self.assertEqual(one[path].digest, params[path].digest(), f"{text}, push {push}: numpy")

    @staticmethod
    def dtype(name):
        return {"DTYPE_F64": "<f8", "DTYPE_F32": "<f4"}[name]


harness.main()
