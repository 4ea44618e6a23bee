"""A list of labels (paths) that was kept is the same before and after any operation but rename, and what goes by it, pushes
and pulls, goes on. Every operation of the protocol is run: a new one needs a line here.

    labels_test.py BUILD_DIR
"""

import grpc
import numpy as np

from semantics import Case, admin, adjust, attach, define, detach, freeze, harness, leaf, thaw, tie, types

PATHS = ("dec.bias", "dec.weight", "enc.0.bias", "enc.0.weight", "enc.1.bias", "enc.1.weight", "head.weight")
KINDS = [field.name for field in admin.Operation.DESCRIPTOR.oneofs_by_name["operation"].fields]
# By kind: operations that are accepted one after the other, each with a change.
OPERATIONS = {
    "freeze": [freeze("enc"), freeze("name:bias"), freeze("**")],
    "thaw": [freeze("**"), thaw("name:bias"), thaw("**", reset_state=True)],
    "detach": [detach("enc.0")],
    "attach": [detach("**"), attach("**")],
    "tie": [
        tie("enc.1", "enc.0"),
        tie("head.weight", "dec.weight", transpose=True),
        tie("dec.bias", "enc.0.bias", mean=True),
    ],
    "untie": [tie("enc.1", "enc.0"), {"untie": {"selection": "enc"}}],
    "regroup": [{"regroup": {"selection": "enc", "group": "fast"}},
                {"regroup": {"selection": "head", "group": "nosuch"}}],
    "adjust": [adjust("default", lr=0.5)],
    "set": [],  # needs a stage: added by the test
    "copy": [{"copy": {"from": "enc.0", "to": "enc.1"}}],
    "rename": [],  # changes one, by its nature: a test of its own
    "add": [],  # adds one: likewise
    "remove": [],  # likewise
    "reinit": [{"reinit": {"selection": "enc", "init": {"normal": {"stddev": 1.0}}}}],
    "reset": [{"reset": {"selection": "enc"}}],
    "define_group": [define("fast", "adam"), define("slow", "sgd(lr=1e-6)")],
    "delete_group": [define("slow", "sgd"), {"delete_group": {"name": "slow"}}],
    "name_selection": [{"name_selection": {"name": "all", "selection": "**"}}],
    "cancel_timer": [{"freeze": {"selection": "enc", "until_commit": 1 << 40}}, {"cancel_timer": {"timer": 1}}],
    "undo": [freeze("enc"), {"undo": {}}, tie("enc.1", "enc.0"), {"undo": {}}],
}


class Labels(Case):
    GROUPS = {"default": "sgd(lr=0.1, momentum=0.9)", "fast": "sgd(lr=1)"}

    def setUp(self):
        super().setUp()
        shapes = {"bias": (3,), "weight": (4, 3)}
        specs = [leaf(path, *shapes[path.split(".")[-1]]) for path in PATHS if path != "head.weight"]
        self.declare(*specs, leaf("head.weight", 3, 4))
        self.ids = dict(self.c.ids)

    def labels(self):
        """{path: id}, in the order of the listing; no other listing says anything else."""
        described = {info.path: info.id for info in self.infos().values()}
        pulled = self.c.pull()
        self.assertEqual(list(pulled.tensors), list(described.values()))
        watched = next(iter(self.c.ps.Watch(harness.wire.WatchRequest(), timeout=harness.TIMEOUT)))
        self.assertEqual({one.path: one.id for one in watched.leaves if not one.removed}, described)
        return described

    def assert_kept(self, paths=PATHS):
        """The labels are these, with the ids that they have always had, and a push and a pull by them are taken."""
        labels = self.labels()
        self.assertEqual(list(labels), sorted(paths))
        self.assertEqual({path: number for path, number in self.ids.items() if path in labels}, labels)
        reply = self.push({path: np.zeros_like(self.params[path].value) for path in paths})
        self.assertEqual((reply.applied + reply.frozen + reply.detached, reply.absent), (len(paths), 0))
        sizes = {path: len(self.c.value(path)) for path in paths}
        self.assertEqual(sizes, {path: self.params[path].value.nbytes for path in paths})

    def test_every_operation_is_here(self):
        self.assertEqual(list(OPERATIONS), KINDS)

    def run_operations(self, operations):
        for operation in operations:
            reply = self.c.apply(operation)
            self.assertTrue(reply.changes, operation)
            self.assert_kept()

    def test_remove_and_add(self):
        """Of the others nothing changes, and neither does an id come back."""
        self.c.apply({"remove": {"selection": "enc.0"}})
        self.assert_kept([path for path in PATHS if not path.startswith("enc.0")])
        self.c.apply({"add": {"leaf": leaf("enc.0.bias", 3, init={"zeros": True})}})
        new = self.infos()["enc.0.bias"].id
        self.assertGreater(new, max(self.ids.values()))
        self.ids["enc.0.bias"] = new
        self.assert_kept([path for path in PATHS if path != "enc.0.weight"])

    def test_rename(self):
        """It changes what it names and nothing else, and no id."""
        self.c.apply({"rename": {"from": "enc", "to": "encoder"}})
        new = {path: path.replace("enc.", "encoder.") for path in PATHS}
        self.ids = {new[path]: number for path, number in self.ids.items()}
        self.params = {new[path]: param for path, param in self.params.items()}
        self.assert_kept(new.values())
        by_id = self.c.pull(leaf_ids=list(self.ids.values()))
        self.assertEqual(len(by_id.tensors), len(PATHS))

    def test_set(self):
        value = self.numbers(3)
        self.set("enc.0.bias", value)
        self.assert_kept()

    def test_pushes_and_declarations(self):
        self.step(self.gradients())
        self.assert_kept()
        self.assertEqual(self.c.declare(leaf("enc.0.bias", 3, init={"zeros": True})).added, 0)
        self.assert_kept()
        self.declare(leaf("a", 1))
        self.ids["a"] = self.c.ids["a"]
        self.assert_kept((*PATHS, "a"))

    def test_refusals_and_dry_runs(self):
        for operations in OPERATIONS.values():
            for operation in operations[:1]:
                self.c.apply(operation, dry_run=True)
                self.assert_fails(grpc.StatusCode.NOT_FOUND, "^operation 2 of 2: no leaf matches", self.c.apply,
                                  operation, freeze("nosuch"))
                self.assert_kept()

    def test_all_in_one_transaction(self):
        kinds = ("freeze", "detach", "tie", "regroup", "adjust", "copy", "reinit", "reset", "define_group",
                 "name_selection")
        self.c.apply(*(operation for kind in kinds for operation in OPERATIONS[kind]))
        self.assert_kept()


def add_tests():
    """test_KIND for each."""
    for kind, operations in OPERATIONS.items():
        if operations:
            setattr(Labels, f"test_{kind}", lambda self, operations=operations: self.run_operations(operations))


add_tests()
harness.main()
