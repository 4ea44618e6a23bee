"""What holds of a frozen parameter: it keeps its path, takes what is set, honours what was adjusted, and goes on as if the
pushes meanwhile had not named it.

    frozen_test.py BUILD_DIR
"""

import json
import math
import tempfile

import grpc
import numpy as np

from semantics import Case, adjust, define, freeze, harness, leaf, thaw

RULES = {
    "default": "sgd(lr=0.1)",
    "momentum": "sgd(lr=0.1, momentum=0.9, weight_decay=0.05)",
    "nesterov": "sgd(lr=0.1, momentum=0.9, nesterov=true)",
    "adam": "adam(lr=0.01)",
    "amsgrad": "adam(lr=0.01, amsgrad=true, weight_decay=0.1)",
    "adamw": "adamw(lr=0.01, weight_decay=0.5)",
}


class Frozen(Case):
    GROUPS = RULES

    def setUp(self):
        """Below each of still and free, a leaf for each group; all of them have been stepped."""
        super().setUp()
        self.still = [f"still.{group}" for group in RULES]
        self.moving = [f"free.{group}" for group in RULES]
        dtypes = {"still.nesterov": "DTYPE_F32", "free.nesterov": "DTYPE_F32"}
        self.declare(
            *(
                leaf(path, 6, 2, group=path.split(".")[1], dtype=dtypes.get(path, "DTYPE_F64"))
                for path in self.still + self.moving
            )
        )
        for _ in range(3):
            self.step(self.gradients())
        self.assert_as_expected("before")

    def window(self, pushes=4):
        """Pushes that name everything while still.* is frozen."""
        for _ in range(pushes):
            reply = self.step(self.gradients(), but=self.still)
            self.assertEqual((reply.applied, reply.frozen, reply.absent), (len(RULES), len(RULES), 0))

    def test_keeps_its_path(self):
        """Paths, ids, parameters, groups, sizes and digests of the whole branch are as before, in every listing."""

        def listed():
            infos = [info for info in self.infos().values() if info.path in self.still]
            for info in infos:
                info.frozen = False
            return infos

        before, all_before = listed(), list(self.infos())
        ids = [info.id for info in before]
        self.c.freeze("still")
        self.window()
        self.assertEqual(listed(), before)
        self.assertEqual(list(self.infos()), all_before)
        pulled = self.c.pull(leaf_ids=ids)  # weights, by the ids that workers know
        self.assertEqual([pulled.tensors[i] for i in ids], [self.params[info.path].value.tobytes() for info in before])
        tree = {one["path"]: one for one in self.espctl("tree")["leaves"]}
        self.assertEqual([tree[path]["id"] for path in sorted(self.still)], ids)
        self.assertEqual([tree[path]["state_bytes"] for path in sorted(self.still)], [i.state_bytes for i in before])
        digests = {one["path"]: one["digest"] for one in self.espctl("digest", "still")["leaves"]}
        self.assertEqual(digests, {info.path: info.digest.hex() for info in before})
        with tempfile.TemporaryDirectory() as folder:  # an export names it as ever, with the weights of now
            self.espctl("export", f"{folder}/all.safetensors")
            with open(f"{folder}/all.safetensors", "rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                data = file.read()
        self.assertEqual(sorted(set(header) - {"__metadata__"}), all_before)
        for path in self.still:
            begin, end = header[path]["data_offsets"]
            self.assertEqual(data[begin:end], self.params[path].value.tobytes(), path)
        self.c.thaw("still")
        self.assertEqual(listed(), before)

    def test_a_set_value_is_seen_by_every_worker(self):
        """At once, also by one that pulls only what changed; state and step count stay, and so does the freeze."""
        one, other = self.client(self.address), self.client(self.address)
        one.join("one")
        other.join("other")
        path, group = "still.adam", "free.adam"
        number = self.infos()[path].id
        first = other.pull(paths=[path, group])
        have = [
            {"leaf_id": i, "parameter": c.tensor.parameter, "version": c.tensor.version, "view": c.tensor.view}
            for i, c in first.chunks.items()
        ]
        self.c.freeze("still")
        before = self.infos()
        unchanged = other.pull(paths=[path, group], have_lineage=first.header.lineage, have=have)
        self.assertEqual((unchanged.tensors, unchanged.end.unchanged), ({}, 2))
        value = self.numbers(12)
        self.set(path, value)
        self.params[path].value = np.array(value)
        self.assertEqual(one.value(path), value.tobytes())
        delta = other.pull(paths=[path, group], have_lineage=first.header.lineage, have=have)
        self.assertEqual((delta.tensors, delta.end.unchanged), ({number: value.tobytes()}, 1))
        after = self.infos()
        self.assertTrue(after[path].frozen)
        self.assertEqual((after[path].steps, after[path].version), (before[path].steps, before[path].version + 1))
        self.assert_as_expected("set while frozen")
        self.window()
        self.assertEqual(other.value(path), value.tobytes())
        self.c.thaw("still")
        self.step(self.gradients())
        self.assert_as_expected("thawed: from the new value, with the old momentum")

    def test_a_set_value_by_espctl(self):
        path = "still.momentum"
        value = self.numbers(6, 2)
        self.c.freeze("still")
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            np.save(file, value)
            file.flush()
            self.espctl("set", path, file.name)
        self.params[path].value = value.ravel()
        self.window(2)
        self.assert_as_expected("set while frozen")

    def test_copy_and_reinit_while_frozen(self):
        self.c.freeze("still")
        init = {"constant": 0.25}
        self.c.apply({"copy": {"from": "free.adam", "to": "still.adam"}})
        self.params["still.adam"].value = np.array(self.params["free.adam"].value)
        self.c.apply({"reinit": {"selection": "still.momentum", "init": init}})
        self.params["still.momentum"].value = np.full(12, 0.25)
        self.window(2)
        self.assertTrue(all(self.infos()[path].frozen for path in self.still))
        self.assert_as_expected()

    def test_thaw_continues_momentum(self):
        """Velocity, moments, bias correction and step count as if the window's pushes had not named it."""
        self.c.freeze("still")
        self.window()
        self.assert_as_expected("frozen")
        self.c.thaw("still")
        for _ in range(3):
            reply = self.step(self.gradients())
            self.assertEqual(reply.applied, 2 * len(RULES))
            self.assert_as_expected("thawed")
        infos = self.infos()
        self.assertEqual({infos[path].steps for path in self.still}, {6})
        self.assertEqual({infos[path].steps for path in self.moving}, {10})

    def test_bias_correction_goes_by_its_own_count(self):
        """The formula by hand: the first step of adam is as long as lr says, whatever has been pushed to others."""
        self.declare(leaf("late", 3, group="adam", frozen=True))
        for _ in range(5):
            self.step(self.gradients(), but=("late",))
        start = self.value("late").tolist()
        self.c.thaw("late")
        gradient = [0.5, -2.0, 1e-3]
        self.step({"late": np.array(gradient)})
        expected = []
        for x, g in zip(start, gradient, strict=True):
            m, v = (0.9 * 0.0) + ((1 - 0.9) * g), (0.999 * 0.0) + (((1 - 0.999) * g) * g)
            expected.append(x - ((0.01 / (1 - 0.9)) * m) / ((math.sqrt(v) / math.sqrt(1 - 0.999)) + 1e-8))
        self.assertEqual(self.value("late").tolist(), expected)
        self.assert_as_expected()

    def test_thaw_with_a_fresh_state(self):
        self.c.freeze("still")
        self.window(2)
        self.c.apply(thaw("still", reset_state=True))
        for path in self.still:
            self.params[path].reset()
        self.assert_as_expected("fresh")
        self.step(self.gradients())
        self.assert_as_expected("stepped afresh")

    def test_adjust_is_honoured_after_the_thaw(self):
        """Other hyperparameters while frozen: nothing moves, and the next step is by them, on the state that was kept."""
        self.c.freeze("still")
        self.window(1)
        new = {"momentum": {"lr": 0.5, "momentum": 0.5}, "adam": {"lr": 0.25, "beta1": 0.5}, "adamw": {"weight_decay": 0}}
        for group, values in new.items():
            self.c.apply(adjust(group, **values))
            for path in (f"still.{group}", f"free.{group}"):
                param = self.params[path]
                texts = {name: str(value) for name, value in values.items()}
                param.set_optimizer(str(param.optimizer.adjusted(texts)))
        self.assert_as_expected("adjusted")
        self.window(2)
        self.assert_as_expected("still frozen")
        self.c.thaw("still")
        self.step(self.gradients())
        self.assert_as_expected("by the new hyperparameters")
        expressions = {group.name: group.expression for group in self.c.describe().groups}
        self.assertEqual(expressions["momentum"], "sgd(lr=0.5, momentum=0.5, weight_decay=0.05)")
        self.assertEqual(expressions["adamw"], "adamw(lr=0.01, weight_decay=0)")

    def test_another_optimizer_while_frozen(self):
        """A group that is defined anew keeps what state both have, and the step count with it, of frozen ones too."""
        self.c.freeze("still")
        self.window(1)
        expression = "adamw(lr=0.02, amsgrad=true)"
        self.c.apply(define("adam", expression))
        for path in ("still.adam", "free.adam"):
            self.params[path].set_optimizer(expression)
        self.window(1)
        self.assert_as_expected("still frozen")
        self.c.thaw("still")
        self.step(self.gradients())
        self.assert_as_expected("by the new optimizer")

    def test_decay_never_moves_it(self):
        """Zero gradients, which decay what is free."""
        zeros = {path: np.zeros_like(param.value) for path, param in self.params.items()}
        self.c.freeze("still")
        before = {path: self.value(path).tobytes() for path in self.params}
        for _ in range(3):
            self.step(zeros, but=self.still)
        self.assert_as_expected()
        for path in self.still:
            self.assertEqual(self.value(path).tobytes(), before[path], path)
        for group in ("adamw", "amsgrad", "momentum"):
            self.assertNotEqual(self.value(f"free.{group}").tobytes(), before[f"free.{group}"], group)

    def test_a_step_of_zero_is_no_freeze(self):
        """lr=0 lets moments and step counts go on; a frozen one beside it shows the difference."""
        self.c.apply(freeze("still"), *(adjust(group, lr=0) for group in RULES))
        for param in self.params.values():
            param.set_optimizer(str(param.optimizer.adjusted({"lr": "0"})))
        steps = {path: info.steps for path, info in self.infos().items()}
        self.window(2)
        self.assert_as_expected()
        now = {path: info.steps for path, info in self.infos().items()}
        self.assertEqual(now, {path: steps[path] + 2 * (path in self.moving) for path in steps})

    def test_absent_is_not_zero(self):
        """Four inputs: absent and frozen stand still, zeros step, and what there is not is an error."""
        self.c.freeze("still.momentum")
        gradients = self.gradients("still.momentum", "free.momentum")
        gradients["free.momentum"][:] = 0
        reply = self.step(gradients, but=("still.momentum",))
        self.assertEqual((reply.applied, reply.frozen, reply.absent), (1, 1, 2 * len(RULES) - 2))
        self.assert_as_expected()
        self.assert_fails(grpc.StatusCode.NOT_FOUND, "no leaf has the path free.nosuch", self.c.push,
                          {"free.nosuch": bytes(8), "free.adam": bytes(96)})
        self.assert_as_expected("after a leaf that is not there")


harness.main()
