"""With a clip on, the bits of the free parameters do not depend on what is sent for the frozen part: a gradient, zeros,
NaN or nothing. The norms see neither frozen nor detached gradients.

    clip_test.py BUILD_DIR
"""

import numpy as np

from semantics import Case, detach, harness, leaf, squares_of

WIDE = 1031  # elements: two of the kernels' blocks and a rest
PUSHES = 4
FREE = ("a.w", "m.b", "z.w")  # around the frozen ones in the order of paths
FROZEN = ("b.w", "n.b")
GROUP = {"a.w": "one", "b.w": "one", "m.b": "one", "n.b": "two", "z.w": "two"}
SHAPES = {"a.w": (WIDE,), "b.w": (WIDE,), "m.b": (3,), "n.b": (5,), "z.w": (7, 3)}
CONTENTS = {
    "a gradient": lambda gradient: gradient * 100,
    "zeros": np.zeros_like,
    "NaN": lambda gradient: np.full_like(gradient, np.nan),
    "nothing": None,
}


class Clip(Case):
    def groups(self, clip):
        return {
            "default": "sgd",
            "one": f"{clip} | adamw(lr=0.01, weight_decay=0.1)",
            "two": f"{clip} | sgd(lr=0.1, momentum=0.9, weight_decay=0.01)",
        }

    def squares(self, scope, gradients, path):
        """That the norm of this leaf's rule goes by; of free leaves only."""
        of = {
            "clip_norm": [path],
            "clip_group_norm": [one for one in gradients if GROUP[one] == GROUP[path]],
            "clip_global_norm": list(gradients),
        }[scope]
        return squares_of(*(gradients[one] for one in sorted(of)))

    def run_clip(self, scope, dtype):
        """The same pushes to a server for each content; what becomes of the free leaves, by the formulas."""
        results = set()
        for content, make in CONTENTS.items():
            self.random = np.random.default_rng(7)
            self.params.clear()
            self.GROUPS = self.groups(f"{scope}(0.5)" if scope else "clip_value(0.5)")
            self.c = self.start(self.GROUPS)
            self.declare(*(leaf(path, *shape, group=GROUP[path], dtype=dtype) for path, shape in SHAPES.items()))
            self.c.freeze(" | ".join(FROZEN))
            for i in range(PUSHES):
                # The last are too short to be clipped.
                scale = self.params["a.w"].value.dtype.type(1 if i < PUSHES - 1 else 1e-3)
                drawn = {path: gradient * scale for path, gradient in self.gradients().items()}
                free = {path: drawn[path] for path in FREE}
                sent = dict(free) if make is None else {p: make(g) if p in FROZEN else g for p, g in drawn.items()}
                reply = self.push(sent)
                self.assertEqual((reply.applied, reply.frozen, reply.absent),
                                 (3, 0, 2) if make is None else (3, 2, 0), content)
                for path in FREE:
                    self.params[path].step(free[path], squares=self.squares(scope, free, path) if scope else None)
                self.assert_as_expected(f"{scope}, {content}")
            results.add(self.c.digest())
        self.assertEqual(len(results), 1)

    def test_clip_norm(self):
        self.run_clip("clip_norm", "DTYPE_F64")

    def test_clip_group_norm(self):
        self.run_clip("clip_group_norm", "DTYPE_F64")

    def test_clip_global_norm(self):
        self.run_clip("clip_global_norm", "DTYPE_F64")

    def test_clip_global_norm_f32(self):
        self.run_clip("clip_global_norm", "DTYPE_F32")

    def test_clip_value(self):
        """No norm: for completeness."""
        self.run_clip("", "DTYPE_F64")

    def test_a_norm_does_not_see_what_is_detached(self):
        """A tied leaf that is detached: neither its gradient nor its part of the sum counts."""
        self.GROUPS = {"default": "clip_global_norm(1) | sgd(lr=1)"}
        self.c = self.start(self.GROUPS)
        self.declare(leaf("a", 4), leaf("b", 4, alias_of="a"), leaf("c", 2))
        self.c.apply(detach("b"))
        gradients = {"a": np.array([3.0, 0, 0, 0]), "b": np.array([0, 1e6, np.inf, 0]), "c": np.array([0, 4.0])}
        reply = self.push(gradients)
        self.assertEqual((reply.applied, reply.detached), (2, 1))
        for path in ("a", "c"):
            self.params[path].step(gradients[path], squares=25.0)
        self.assert_as_expected()

    def test_a_norm_sees_ties_summed(self):
        """3 and 4 in one element are 7, not 5; of leaves that oppose each other nothing is left."""
        self.GROUPS = {"default": "clip_norm(1) | sgd(lr=1)"}
        self.c = self.start(self.GROUPS)
        self.declare(leaf("a", 2), leaf("b", 2, alias_of="a"))
        for one, other, squares in (([3.0, 0], [4.0, 0], 49.0), ([3.0, 1e-3], [-3.0, 0.0], 1e-3 * 1e-3)):
            self.push({"a": np.array(one), "b": np.array(other)})
            self.params["a"].step(np.array(one), np.array(other), squares=squares)
            self.assert_as_expected()


harness.main()
