"""Ties: one tensor in several places, some of them transposed; one step on the sum of the gradients, in the order of paths,
each through its view.

    tie_test.py BUILD_DIR
"""

import grpc
import numpy as np

from semantics import Case, Param, detach, freeze, harness, leaf, thaw, tie, types, wire


def untie(selection, reset_state=False):
    return {"untie": {"selection": selection, "reset_state": reset_state}}


def transposed(flat, *shape):
    """What a leaf of this shape sees of, or gives to, a parameter of the other."""
    return np.ascontiguousarray(flat.reshape(shape[::-1]).T).ravel()


class Transposed(Case):
    GROUPS = {"default": "adam(lr=0.01, weight_decay=0.1)"}

    def assert_both_views(self, one, other, rows, columns):
        """Values, pulls of both views, gradients through either and through both."""
        shapes = {info.path: list(info.shape) for info in self.infos().values()}
        self.assertEqual((shapes[one], shapes[other]), ([rows, columns], [columns, rows]))
        param = self.params[one]
        for names in ((one, other), (one,), (other,)):
            gradients = self.gradients(*names)
            reply = self.push(gradients)
            self.assertEqual((reply.applied, reply.absent), (len(names), 2 - len(names)))
            seen = {one: gradients.get(one), other: gradients.get(other)}
            if seen[other] is not None:
                seen[other] = transposed(seen[other], rows, columns)
            param.step(*(seen[name] for name in sorted(names)))
            self.assert_as_expected(f"gradients of {names}")
            np.testing.assert_array_equal(self.value(one), param.value, strict=True)
            np.testing.assert_array_equal(self.value(other), transposed(param.value, columns, rows), strict=True)
        self.assertEqual(param.steps, 3)
        pulled = self.c.pull(paths=[one, other], consistent=True)
        views = {chunk.tensor.parameter: set() for chunk in pulled.chunks.values()}
        for chunk in pulled.chunks.values():
            views[chunk.tensor.parameter].add((tuple(chunk.tensor.shape), chunk.tensor.view))
        self.assertEqual(list(views.values()),
                         [{((rows, columns), types.VIEW_IDENTITY), ((columns, rows), types.VIEW_TRANSPOSE)}])

    def test_born_tied(self):
        self.declare(leaf("m", 5, 3), leaf("t", 3, 5, alias_of="m", view=types.VIEW_TRANSPOSE))
        self.assert_both_views("m", "t", 5, 3)

    def test_born_tied_f32(self):
        """Wider than a tile of the kernels' that read transposed gradients."""
        self.declare(leaf("z", 130, 67, dtype="DTYPE_F32"),
                     leaf("a", 67, 130, dtype="DTYPE_F32", alias_of="z", view=types.VIEW_TRANSPOSE))
        self.assert_both_views("z", "a", 130, 67)

    def test_tied_while_it_trains(self):
        self.declare(leaf("m", 4, 2), leaf("t", 2, 4))
        self.step(self.gradients())
        reply = self.c.apply(tie("t", "m", transpose=True))
        self.assertEqual([one.field for one in reply.changes], ["parameter"])
        self.params["t"] = self.params["m"]
        self.assert_as_expected("tied")
        self.params["m"].reset()
        self.c.apply({"reset": {"selection": "m"}})
        self.assert_both_views("m", "t", 4, 2)

    def test_the_mean_of_both(self):
        self.declare(leaf("m", 4, 2), leaf("t", 2, 4))
        self.c.apply(tie("t", "m", transpose=True, mean=True))
        mine, theirs = transposed(self.params["t"].value, 4, 2), self.params["m"].value
        self.params["t"] = self.params["m"]
        self.params["m"].value = mine * 0.5 + theirs * 0.5
        self.assert_as_expected("the mean")
        self.assert_both_views("m", "t", 4, 2)

    def test_set_through_the_transpose(self):
        self.declare(leaf("m", 4, 2), leaf("t", 2, 4, alias_of="m", view=types.VIEW_TRANSPOSE))
        value = self.numbers(8)
        self.set("t", value)
        self.params["m"].value = transposed(value, 4, 2)
        self.assert_as_expected("set through t")
        self.assertEqual(self.c.value("t"), value.tobytes())
        self.assert_both_views("m", "t", 4, 2)

    def test_an_embedding_and_a_transposed_head(self):
        """1000 x 64, tied while it trains: one step of adam is the step on g1 + g2 transposed, and counts as one."""
        self.declare(leaf("emb.w", 1000, 64, dtype="DTYPE_F32"), leaf("head.w", 64, 1000, dtype="DTYPE_F32"))
        self.step(self.gradients())
        self.assertEqual({info.steps for info in self.infos().values()}, {1})
        self.c.apply(tie("head.w", "emb.w", transpose=True))
        self.params["head.w"] = self.params["emb.w"]
        gradients = self.gradients()
        self.assertEqual(self.push(gradients).applied, 2)
        total = gradients["emb.w"] + transposed(gradients["head.w"], 1000, 64)
        self.params["emb.w"].step(total)
        self.assert_as_expected("one step on the sum")
        infos = self.infos()
        self.assertEqual({info.steps for info in infos.values()}, {2})
        self.assertEqual(infos["emb.w"].digest, infos["head.w"].digest)
        self.assertEqual(self.value("head.w").tobytes(), transposed(self.params["emb.w"].value, 64, 1000).tobytes())

    def test_untie_of_the_transpose(self):
        """It gets the value and the state as it saw them, and a step count of its own."""
        self.declare(leaf("m", 4, 2), leaf("t", 2, 4, alias_of="m", view=types.VIEW_TRANSPOSE))
        self.step(self.gradients("m"))
        for reset_state in (False, True):
            self.c.apply(untie("t", reset_state))
            old = self.params["m"]
            new = self.params["t"] = Param(transposed(old.value, 2, 4), self.GROUPS["default"])
            if not reset_state:
                new.steps = old.steps
                new.states = {name: transposed(state, 2, 4) for name, state in old.states.items()}
            self.assert_as_expected("untied")
            self.step(self.gradients())
            self.assert_as_expected("on its own")
            self.c.apply(tie("t", "m", transpose=True))
            self.params["t"] = old
        self.assert_as_expected("tied again")


class Tied(Case):
    GROUPS = {"default": "adam(lr=0.01)", "other": "sgd(lr=1, momentum=0.5)"}

    def test_sums_are_in_the_order_of_paths(self):
        """Whatever order they were bound or sent in: 1e16 + 1 + -1e16 is 0 in one order and 1 in another."""
        self.GROUPS = {"default": "sgd(lr=1)"}
        self.c = self.start(self.GROUPS)
        self.declare(leaf("m", init={"zeros": True}), leaf("z", alias_of="m"), leaf("b", alias_of="m"))
        for values, total in (((1e16, 1.0, -1e16), (1e16 + 1.0) - 1e16), ((1e16, -1e16, 1.0), (1e16 - 1e16) + 1.0)):
            gradients = dict(zip(("b", "m", "z"), values, strict=True))
            for names in ("bmz", "zmb", "mbz"):
                before = harness.from_f64(self.c.value("m"))[0]
                self.push({name: np.array([gradients[name]]) for name in names})
                self.assertEqual(harness.from_f64(self.c.value("m"))[0], before - total, names)

    def test_a_freeze_reaches_every_leaf_of_it(self):
        """And says which, and because of which; a thaw through another one too."""
        self.declare(leaf("a.w", 3), leaf("b.w", 3, alias_of="a.w"), leaf("c.w", 3, alias_of="a.w"), leaf("d", 1))
        dry = self.c.freeze("b", dry_run=True)
        reply = self.c.freeze("b")
        self.assertEqual(reply.changes, dry.changes)
        self.assertEqual([(one.path, one.because) for one in reply.changes],
                         [("a.w", "b.w"), ("b.w", ""), ("c.w", "b.w")])
        reply = self.step(self.gradients(), but=("a.w", "b.w", "c.w"))
        self.assertEqual((reply.frozen, reply.applied), (3, 1))
        self.assert_as_expected("frozen")
        self.c.thaw("c")
        self.step(self.gradients("a.w", "d"))
        self.assert_as_expected("thawed")

    def test_group_state_and_flag_are_those_of_the_other(self):
        """Where they differed the diff says so."""
        self.declare(leaf("a", 3, group="other"), leaf("b", 3), leaf("c", 3, frozen=True))
        self.step(self.gradients("a", "b"))
        reply = self.c.apply(tie("a", "b"))
        self.assertEqual([(one.path, one.field) for one in reply.changes], [("a", "parameter"), ("a", "stepped_by")])
        self.params["a"] = self.params["b"]
        self.assert_as_expected("b's value, state and step count")
        self.assertEqual(self.infos()["a"].group, "default")
        reply = self.c.apply(tie("a", "c"))
        self.assertEqual([(one.path, one.field) for one in reply.changes], [("a", "parameter"), ("a", "frozen")])
        self.params["a"] = self.params["c"]
        self.assertTrue(self.infos()["a"].frozen)
        self.step(self.gradients("a", "b"), but=("a",))
        self.assert_as_expected("re-tied in one step: b is stepped alone again")

    def test_untied_leaves_are_independent(self):
        """With a copy of the state, the same flag; a freeze of one is not one of the other."""
        self.declare(leaf("a", 3), leaf("b", 3, alias_of="a"))
        self.step(self.gradients("a"))
        self.c.apply(freeze("a"), untie("b"))
        old = self.params["a"]
        new = self.params["b"] = Param(old.value, self.GROUPS["default"])
        new.steps, new.states = old.steps, {name: np.array(state) for name, state in old.states.items()}
        self.assertEqual({info.frozen for info in self.infos().values()}, {True})
        self.c.apply(thaw("b"))
        self.step(self.gradients(), but=("a",))
        self.assert_as_expected("only b learns")
        gradient = self.numbers(3)
        self.c.apply(thaw("a"), freeze("b"))
        self.step({"a": gradient, "b": gradient}, but=("b",))
        self.assert_as_expected("only a learns")

    def test_a_push_that_was_under_way_lands_by_name(self):
        """It was begun before the re-tie and is whole after it: the leaf's binding of now is stepped."""
        self.declare(leaf("a", 3), leaf("b", 3), leaf("c", 3, alias_of="a"))
        gradient = self.gradients("c")["c"]
        for required in (False, True):
            require_epoch = self.c.info().epoch * required
            feed = harness.Feed(wire.PushRequest(push=harness.push_header({"c": gradient.tobytes()}, require_epoch=require_epoch)))
            answer = self.c.ps.Push.future(feed, timeout=harness.TIMEOUT)
            harness.eventually(lambda: self.c.info().memory.staged > 0, "the push has not begun")
            self.c.apply(tie("c", "b"))
            self.params["c"] = self.params["b"]
            feed.put(*(wire.PushRequest(chunks=[one]) for one in harness.chunks_of({"c": gradient.tobytes()})))
            if required:
                self.assert_fails(grpc.StatusCode.ABORTED, "epoch", answer.result)
            else:
                self.assertEqual((answer.result().applied, answer.result().epoch), (1, self.c.info().epoch))
                self.params["c"].step(gradient)
            feed.end()
            self.assert_as_expected(f"with require_epoch: {required}")
            self.c.apply(tie("c", "a"))
            self.params["c"] = self.params["a"]
            self.assert_as_expected("back")

    def test_a_detached_tie_and_a_free_one(self):
        self.declare(leaf("a", 3), leaf("b", 3, alias_of="a"), leaf("c", 3, alias_of="a"))
        self.c.apply(detach("b"))
        gradients = self.gradients()
        self.push(gradients)
        self.params["a"].step(gradients["a"], gradients["c"])
        self.assert_as_expected()


harness.main()
