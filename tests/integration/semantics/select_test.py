"""What a freeze can name: an address, a field's name anywhere, a type, a predicate; by an RPC and by espctl. Everything is
pushed then, and exactly what was named stands still.

    select_test.py BUILD_DIR
"""

import grpc

from semantics import Case, attach, freeze, harness, leaf, thaw, types

# Path, shape, tag of the leaf: in the order of paths.
TREE = (
    ("bias", (3,), ""),
    ("enc.attn.bias", (4,), ""),
    ("enc.attn.weight", (4, 4), ""),
    ("enc.bias.scale", (), ""),
    ("enc.out.bias", (120,), ""),
    ("enc.out.weight", (10, 12), ""),
    ("encoder.bias", (2,), ""),
    ("head.biased", (5,), ""),
    ("head.big", (100,), "Dense"),
    ("head.deep.inner.weight", (2, 3, 2), ""),
    ("head.norm", (99,), "LayerNorm"),
)
TAGS = {"enc.out": "Dense", "head.deep": "Dense", "head.deep.inner": "Attention", "enc.attn": "attention"}


def has_tag(path, tag):
    """By its own tag, or that of a node above it."""
    nodes = [path[:i] for i in range(len(path)) if path[i] == "."]
    own = next(leaf_tag for leaf_path, _, leaf_tag in TREE if leaf_path == path)
    return tag in [own, *(TAGS.get(node) for node in nodes)]


class Select(Case):
    GROUPS = {"default": "adamw(lr=0.01, weight_decay=0.1)"}

    def setUp(self):
        super().setUp()
        nodes = [types.NodeSpec(path=path, tag=tag) for path, tag in TAGS.items()]
        self.declare(*(leaf(path, *shape, tag=tag) for path, shape, tag in TREE), nodes=nodes)
        self.step(self.gradients())

    def assert_freezes(self, selection, is_meant):
        """is_meant(path, shape) says which leaves the selection stands for."""
        meant = [path for path, shape, _ in TREE if is_meant(path, shape)]
        self.assertTrue(0 < len(meant) < len(TREE))
        for way in ("rpc", "espctl"):
            if way == "rpc":
                reply = self.c.freeze(selection)
                matched, changes = reply.matched, [(one.path, one.field, one.to) for one in reply.changes]
            else:
                reply = self.espctl("freeze", selection)
                matched, changes = reply["matched"], [(c["path"], c["field"], c["to"]) for c in reply["changes"]]
            self.assertEqual(changes, [(path, "frozen", "true") for path in meant], way)
            self.assertEqual(matched, len(meant))
            self.assertEqual([path for path, info in self.infos().items() if info.frozen], meant)
            reply = self.step(self.gradients(), but=meant)
            self.assertEqual((reply.frozen, reply.applied), (len(meant), len(TREE) - len(meant)))
            self.assert_as_expected(f"{way}: frozen {selection}")
            self.c.thaw("**")
            self.step(self.gradients())
            self.assert_as_expected(f"{way}: thawed {selection}")

    def test_by_address_of_a_leaf(self):
        self.assert_freezes("enc.attn.weight", lambda path, _: path == "enc.attn.weight")

    def test_by_address_of_a_node(self):
        """Everything below it, and nothing of a node whose name only begins so."""
        self.assert_freezes("enc", lambda path, _: path.startswith("enc."))

    def test_by_pattern(self):
        self.assert_freezes("*.*.weight", lambda path, _: path.count(".") == 2 and path.endswith(".weight"))

    def test_by_a_fields_name_anywhere(self):
        self.assert_freezes("name:bias", lambda path, _: "bias" in path.split("."))

    def test_by_type(self):
        """The tag of a leaf, or of any node above it; upper and lower case differ."""
        self.assert_freezes("tag:Dense", lambda path, _: has_tag(path, "Dense"))
        self.assert_freezes("tag:Attention", lambda path, _: has_tag(path, "Attention"))

    def test_by_a_child_of_a_type(self):
        self.assert_freezes("tag:Dense > bias", lambda path, _: path == "enc.out.bias")

    def test_by_predicate(self):
        self.assert_freezes("rank:1 & size<100", lambda _, shape: len(shape) == 1 and shape[0] < 100)

    def test_by_all_of_it(self):
        self.assert_freezes(
            "enc & !name:bias | tag:Dense & rank>=2",
            lambda path, shape: (path.startswith("enc.") and "bias" not in path.split("."))
            or (has_tag(path, "Dense") and len(shape) >= 2),
        )

    def test_by_a_named_selection(self):
        self.c.apply({"name_selection": {"name": "small", "selection": "rank:1 & size<100"}})
        self.assert_freezes("@small & enc", lambda path, shape: path.startswith("enc.") and shape in ((4,),))

    def test_one_that_matches_nothing(self):
        """Is an error, and freezes nothing; so is one of which only a part is mistyped and the rest leaves nothing."""
        epoch = self.c.info().epoch
        for selection in ("encodr", "name:bia", "tag:dense", "rank:1 & size>1000", "enc & head"):
            self.assert_fails(grpc.StatusCode.NOT_FOUND, "^no leaf matches ", self.c.freeze, selection)
            self.assertIn("no leaf matches", self.espctl("freeze", selection, code=3))
        self.assertEqual((self.c.info().epoch, self.c.info().frozen), (epoch, 0))

    def test_is_evaluated_when_it_is_used(self):
        """A leaf that is declared below a frozen node is free; one that a later rename puts there too."""
        self.c.freeze("enc")
        frozen = {path for path, info in self.infos().items() if info.frozen}
        self.declare(leaf("enc.later.bias", 2))
        self.c.apply({"rename": {"from": "head.biased", "to": "enc.biased"}})
        self.params["enc.biased"] = self.params.pop("head.biased")
        self.assertEqual({path for path, info in self.infos().items() if info.frozen}, frozen)
        self.step(self.gradients(), but=frozen)
        self.assert_as_expected()

    def test_twice_is_once(self):
        """Freezes are a flag and not a count: one thaw, of a part, undoes two freezes."""
        self.c.freeze("enc")
        epoch = self.c.info().epoch
        self.assertEqual(list(self.c.freeze("enc.out").changes), [])
        self.assertEqual(list(self.c.apply(attach("enc")).changes), [])
        self.assertEqual(self.c.info().epoch, epoch)
        self.c.thaw("enc.out")
        self.step(self.gradients(), but=("enc.attn.bias", "enc.attn.weight", "enc.bias.scale"))
        self.assert_as_expected()

    def test_several_in_one_transaction(self):
        """Each sees what those before it left."""
        reply = self.c.apply(freeze("enc"), thaw("frozen & name:bias"), freeze("head & !frozen"))
        meant = [path for path, _, _ in TREE
                 if path.startswith("head.") or path in ("enc.attn.weight", "enc.out.weight")]
        self.assertEqual([path for path, info in self.infos().items() if info.frozen], meant)
        self.assertEqual(reply.epoch, self.c.info().epoch)
        self.step(self.gradients(), but=meant)
        self.assert_as_expected()


harness.main()
