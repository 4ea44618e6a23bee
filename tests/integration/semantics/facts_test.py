"""The cases of the frameworks that are sentences and not numbers: each a test of its name. README.md has those that
other tests of this folder are about.

    facts_test.py BUILD_DIR
"""

import grpc
import numpy as np

from semantics import Case, Param, adjust, define, freeze, harness, leaf, thaw, types

BAD = grpc.StatusCode.INVALID_ARGUMENT


class Facts(Case):
    GROUPS = {"default": "sgd(lr=1)", "adam": "adam(lr=0.1)"}

    def test_keras_none_grads(self):
        """What has no gradient is not touched; a push that names nothing is a commit, and no error as there."""
        values = {"a": harness.f64(3, 4, 5, 6), "b": harness.f64(3, 4, 5, 6)}
        self.c.declare(leaf("a", 2, 2), leaf("b", 2, 2), values=values)
        reply = self.c.push({"b": harness.f64(1, 1, 1, 1)})
        self.assertEqual((reply.applied, reply.absent), (1, 1))
        after = {"a": values["a"], "b": harness.f64(2, 3, 4, 5)}
        for path, value in after.items():
            self.assertEqual(self.c.value(path), value)
        empty = self.c.push({})
        self.assertEqual((empty.commit, empty.applied, empty.absent), (reply.commit + 1, 0, 2))
        for path, value in after.items():
            self.assertEqual(self.c.value(path), value)

    def test_keras_freeze_unknown_variable(self):
        self.declare(leaf("a", 1))
        self.assert_fails(grpc.StatusCode.NOT_FOUND, "no leaf has the path b", self.c.push, {"b": harness.f64(1)})
        self.assert_as_expected()

    def test_torch_freeze_accepted(self):
        """A leaf may be there and be frozen from its birth, and has its optimizer's state."""
        self.declare(leaf("a", 2, group="adam", frozen=True))
        info = self.infos()["a"]
        self.assertEqual((info.frozen, info.group, info.state_bytes > 0), (True, "adam", True))
        self.step(self.gradients(), but=("a",))
        self.assert_as_expected()

    def test_freeze_req_4(self):
        """A leaf that was frozen before its first step, thawed, is as one that never was."""
        self.declare(leaf("a", 2, group="adam", frozen=True))
        self.step(self.gradients(), but=("a",))
        self.c.thaw("a")
        self.step(self.gradients())
        self.assertEqual(self.params["a"].steps, 1)
        self.assert_as_expected()

    def test_freeze_req_5(self):
        """A frozen leaf's gradient is dropped unread, but its size is looked at: a wrong one refuses the push."""
        self.declare(leaf("a", 2), leaf("b", 3), leaf("c", 4))
        self.c.freeze("b")
        gradients = {"a": harness.f64(1, 1), "b": harness.f64(1, 1, 1, 1)}
        self.assert_fails(BAD, "leaf b: 24 bytes expected", self.c.push, gradients)
        self.assert_as_expected("nothing was applied")

    def test_freeze_req_7(self):
        """A node of any kind can be frozen: by its place in a list, by a key, the root."""
        self.declare(leaf("layers.0.w", 2), leaf("layers.1.w", 2), leaf("by.any-key", 2))
        for selection, meant in (
            ("layers.0", ["layers.0.w"]),
            ("layers", ["layers.0.w", "layers.1.w"]),
            ("by", ["by.any-key"]),
            ("**", list(self.params)),
        ):
            self.c.freeze(selection)
            self.step(self.gradients(), but=meant)
            self.assert_as_expected(selection)
            self.c.thaw(selection)

    def test_torch_tie_names(self):
        """Both names are listed; the gradients of both uses are added, 1 + 2 = 3."""
        self.c.declare(leaf("a.weight", 1), leaf("b.weight", 1, alias_of="a.weight"), values={"a.weight": harness.f64(0)})
        infos = {info.path: info for info in self.c.describe().leaves}
        self.assertEqual(list(infos), ["a.weight", "b.weight"])
        self.assertEqual((infos["a.weight"].tied_to, infos["b.weight"].tied_to), ("", "a.weight"))
        self.assertEqual(self.c.info().parameters, 1)
        self.c.push({"a.weight": harness.f64(1), "b.weight": harness.f64(2)})
        self.assertEqual(self.c.value("a.weight"), harness.f64(-3))

    def test_torch_tie_assign_breaks(self):
        """A set of both leaves of a tie does not break it; the later of two transactions is what both have."""
        self.declare(leaf("a", 2), leaf("b", 2, alias_of="a"))
        for path in ("a", "b"):
            value = self.numbers(2)
            self.set(path, value)
            self.params["a"].value = np.array(value)
            self.assert_as_expected()
        self.assertEqual(self.infos()["b"].tied_to, "a")
        self.step(self.gradients("a"))
        self.assert_as_expected("still one")

    def test_optax_tie_none(self):
        """What has equal values is not tied: two leaves go their ways, .9 and 1.1."""
        one = harness.f64(1)
        self.c.declare(leaf("a", 1, group="adam"), leaf("b", 1, group="adam"), values={"a": one, "b": one})
        self.c.push({"a": harness.f64(1), "b": harness.f64(-2)})
        for path, expected in (("a", 0.9), ("b", 1.1)):
            self.assertAlmostEqual(harness.from_f64(self.c.value(path))[0], expected, delta=1e-7)

    def test_untie_policies(self):
        """With the state copied, the same gradient on both sides goes on as the tied one with its sum split."""
        for path in ("tied", "untied"):
            self.declare(leaf(f"{path}.a", 3, group="adam"), leaf(f"{path}.b", 3, alias_of=f"{path}.a"))
        self.set("untied.a", self.params["tied.a"].value)
        gradient = self.numbers(3)
        self.push({"tied.a": gradient, "untied.a": gradient})
        self.c.apply({"untie": {"selection": "untied.b"}})
        for _ in range(3):
            gradient = self.numbers(3)
            half = gradient * 0.5
            self.push({"tied.a": half, "tied.b": half, "untied.a": gradient, "untied.b": gradient})
            self.assertEqual(len({info.digest for info in self.infos().values()}), 1)
        self.c.freeze("untied.b")
        self.push({"untied.a": gradient, "untied.b": gradient})
        self.assertEqual(self.c.value("untied.b"), self.c.value("tied.b"))
        self.assertNotEqual(self.c.value("untied.a"), self.c.value("tied.a"))

    def test_torch_groups_errors(self):
        """err8 (Nesterov without momentum, or with dampening), err9 and optjl.adjust.negative_eta (a negative step size)."""
        epoch = self.c.info().epoch
        for expression in ("sgd(nesterov=true)", "sgd(momentum=0.9, dampening=0.1, nesterov=true)"):
            self.assert_fails(BAD, "Nesterov momentum requires a momentum and zero dampening", self.c.apply,
                              define("g", expression))
        self.assert_fails(BAD, "lr must be a finite number, at least 0, got '-1'", self.c.apply, define("g", "sgd(lr=-1)"))
        self.assert_fails(BAD, "lr must be a finite number, at least 0, got '-0.1'", self.c.apply, adjust("adam", lr=-0.1))
        self.assertEqual(self.c.info().epoch, epoch)

    def test_torch_groups_one_parameter_in_two(self):
        """err3 and err4 can't be said here: of two assignments the nearest wins, and a leaf is stepped once."""
        nodes = [types.NodeSpec(path="n", group="adam")]
        self.declare(leaf("n.a", 1, group="default"), leaf("n.b", 1), nodes=nodes)
        counts = {group.name: group.parameters for group in self.c.describe().groups}
        self.assertEqual(counts, {"default": 1, "adam": 1})
        gradient = harness.f64(1)
        chunks = [types.Chunk(path="n.a", data=gradient)] * 2
        header = harness.wire.PushHeader(leaf_count=2, total_bytes=16)
        self.assert_fails(BAD, "leaf n.a was sent twice", self.c.ps.Push,
                          iter([harness.wire.PushRequest(push=header, chunks=chunks)]), timeout=harness.TIMEOUT)
        self.assertEqual(self.infos()["n.a"].steps, 0)

    def test_optax_partition_unknown_label(self):
        """A name that no group defines is no error here: default steps it, and the reply says so."""
        reply = self.declare(leaf("a", 1, group="nosuch"))
        self.assertEqual(len(reply.notes), 1)
        self.assertIn("nosuch", reply.notes[0])
        info = self.infos()["a"]
        self.assertEqual((info.group, info.group_assigned), ("default", "nosuch"))
        reply = self.c.apply(define("nosuch", "sgd(lr=3)"))
        self.assertEqual(self.infos()["a"].group, "nosuch")
        param = self.params["a"]
        param.set_optimizer("sgd(lr=3)")
        self.step(self.gradients())
        self.assert_as_expected()

    def test_optax_freeze_relabel(self):
        """A live thaw needs no new state: it is there, as Param has it without knowing of the freeze."""
        self.declare(leaf("a", 2, group="adam"), leaf("b", 2, group="adam", frozen=True))
        for i in range(4):
            if i == 2:
                self.c.apply(thaw("b"), freeze("a"))
            self.step(self.gradients(), but=("a",) if i >= 2 else ("b",))
        self.assert_as_expected()

    def test_seed_gpflow_one_line(self):
        """A live tree goes from free to fixed in one call, and back in one."""
        self.declare(leaf("a", 2), leaf("b.c", 2))
        for is_frozen in (True, False):
            self.c.apply(freeze("**") if is_frozen else thaw("**"))
            self.step(self.gradients(), but=self.params if is_frozen else ())
            self.assert_as_expected()

    def test_seed_flax_replace_fixed(self):
        """The big caveat: a fixed parameter that is replaced has the new value for everybody, at once."""
        self.declare(leaf("a", 1, frozen=True))
        with harness.Client(self.address) as other:
            self.set("a", np.array([3.14]))
            self.assertEqual(harness.from_f64(other.value("a")), [3.14])
        self.params["a"] = Param(np.array([3.14]), "sgd")
        self.step(self.gradients(), but=("a",))
        self.assertEqual(harness.from_f64(self.c.value("a")), [3.14])


harness.main()
