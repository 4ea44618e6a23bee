"""A layer that is used twice, once free and once frozen (detached): gradients that come through the frozen use are
dropped, and the parameter learns on through the other.

    shared_test.py BUILD_DIR
"""

from semantics import Case, attach, detach, harness, leaf, types


class Shared(Case):
    GROUPS = {"default": "adamw(lr=0.01, weight_decay=0.1)", "heavy": "sgd(lr=0.1, momentum=0.9, weight_decay=0.1)"}

    def tree(self, **of_second):
        """A layer used as free.* and as still.*, and one that stands for the rest of the model."""
        self.declare(
            leaf("free.w", 5, 3),
            leaf("free.b", 3, dtype="DTYPE_F32", group="heavy"),
            leaf("still.w", 5, 3, alias_of="free.w", **of_second),
            leaf("still.b", 3, dtype="DTYPE_F32", alias_of="free.b", **of_second),
            leaf("head", 4),
            nodes=self.nodes,
        )

    nodes = ()

    def assert_detached(self, *paths):
        self.assertEqual({path for path, info in self.infos().items() if info.detached}, set(paths))

    def assert_once_free_once_frozen(self):
        """Both uses send gradients; those of the frozen one are not seen."""
        for _ in range(3):
            gradients = self.gradients()
            reply = self.push(gradients)
            self.assertEqual((reply.applied, reply.detached, reply.frozen, reply.absent), (3, 2, 0, 0))
            for path in ("free.w", "free.b", "head"):
                self.params[path].step(gradients[path])
            self.assert_as_expected("both uses sent")
        for path in ("w", "b"):  # one tensor, seen from both places
            self.assertEqual(self.c.value(f"free.{path}"), self.c.value(f"still.{path}"))
        infos = self.infos()
        self.assertEqual(infos["free.w"].parameter, infos["still.w"].parameter)
        self.assertEqual([info.steps for info in infos.values()], [3] * 5)

    def test_detached(self):
        self.tree()
        gradients = self.gradients()
        self.push(gradients)
        for path in ("w", "b"):  # while both are free their sum makes one step
            self.params[f"free.{path}"].step(gradients[f"free.{path}"], gradients[f"still.{path}"])
        self.params["head"].step(gradients["head"])
        self.assert_as_expected("both free")
        for param in set(self.params.values()):
            param.reset()
        self.c.apply(detach("still"), {"reset": {"selection": "**"}})
        self.assert_detached("still.w", "still.b")
        self.assert_once_free_once_frozen()

    def test_born_detached(self):
        self.tree(detached=True)
        self.assert_detached("still.w", "still.b")
        self.assert_once_free_once_frozen()

    def test_born_below_a_detached_node(self):
        self.nodes = [types.NodeSpec(path="still", detached=True)]
        self.tree()
        self.assert_detached("still.w", "still.b")
        self.assert_once_free_once_frozen()

    def test_the_primary_use_detached(self):
        """Which of the two uses was bound first does not matter."""
        self.tree()
        self.c.apply(detach("free"))
        gradients = self.gradients()
        self.push(gradients)
        for path in ("still.w", "still.b", "head"):
            self.params[path].step(gradients[path])
        self.assert_as_expected()

    def test_only_the_frozen_use_sent(self):
        """Nothing of the parameter is sent through a free use: it is not stepped, neither decayed nor counted."""
        self.tree()
        self.c.apply(detach("still"))
        reply = self.step(self.gradients("still.w", "still.b", "head"), but=("still.w", "still.b"))
        self.assertEqual((reply.applied, reply.detached, reply.absent), (1, 2, 2))
        self.assert_as_expected()

    def test_a_detached_gradient_is_not_read(self):
        self.tree()
        self.c.apply(detach("still"))
        gradients = self.gradients()
        gradients["still.w"][:] = float("nan")
        self.step(gradients, but=("still.w", "still.b"))
        self.assert_as_expected()

    def test_every_use_detached(self):
        """The parameter is not stepped: no decay, no step count, no momentum; then goes on as if nothing had been."""
        self.tree()
        gradients = self.gradients("free.w", "free.b", "head")
        self.step(gradients)
        self.c.apply(detach("free | still"))
        for _ in range(3):
            gradients = self.gradients()
            reply = self.push(gradients)
            self.assertEqual((reply.applied, reply.detached), (1, 4))
            self.params["head"].step(gradients["head"])
            self.assert_as_expected("all detached")
        self.assertEqual({path: info.steps for path, info in self.infos().items() if path != "head"},
                         dict.fromkeys(("free.b", "free.w", "still.b", "still.w"), 1))
        self.c.apply(attach("still"))
        self.step(self.gradients("still.w", "still.b"))
        self.assert_as_expected("attached again")

    def test_every_use_born_detached(self):
        self.nodes = [types.NodeSpec(path="", detached=True)]
        self.tree()
        reply = self.push(self.gradients())
        self.assertEqual((reply.applied, reply.detached), (0, 5))
        self.assert_as_expected()
        self.assertEqual({info.steps for info in self.infos().values()}, {0})

    def test_by_espctl(self):
        self.tree()
        changes = self.espctl("detach", "still")["changes"]
        self.assertEqual([(one["path"], one["field"], one["to"]) for one in changes],
                         [("still.b", "detached", "true"), ("still.w", "detached", "true")])
        self.assert_once_free_once_frozen()


harness.main()
