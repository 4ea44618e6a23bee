"""Every refusal leaves everything as it was: epoch, commit, history, layout and bytes. Each row of refusals.py is sent as
one transaction, as a dry run, and as the last operation of a transaction whose others are fine.

    refuse_test.py BUILD_DIR
"""

import grpc

import refusals
from refusals import BEFORE, ROWS, STAGE
from semantics import Case, admin, freeze, harness, leaf, types


class Refuse(Case):
    GROUPS = {
        "default": "sgd(lr=0.1, momentum=0.9)",
        "head": "adam(lr=0.01)",
        "chain": "sgd(lr=1) | sgd(lr=0.5)",
        "spare": "sgd(lr=1)",
        "unused": "sgd",
    }

    def setUp(self):
        super().setUp()
        self.declare(
            leaf("enc.0.w", 2, 3),
            leaf("enc.0.b", 3),
            leaf("enc.1.w", 2, 3, tag="Dense"),
            leaf("enc.1.b", 3),
            leaf("enc.tied", 2, 3, alias_of="enc.0.w"),
            leaf("chain.a", 2, group="chain"),
            leaf("chain.b.next", 2),
            leaf("dec.w", 3, 2),
            leaf("half.w", 2, 3),
            leaf("head.w", 4, group="head", detached=True),
            leaf("mean", 3, kind="KIND_BUFFER"),
            leaf("narrow.w", 2, 3, dtype="DTYPE_F32", frozen=True),
            leaf("odd.b", 3),
            leaf("odd.w", 3, 3),
            *(leaf(f"pre.{letter}", 5) for letter in "abcdef"),
            nodes=[types.NodeSpec(path="dec", tag="Dense", group="head")],
        )
        trained = [path for path in self.params if path != "mean"]
        self.push(self.gradients(*trained))
        self.c.apply(refusals.name("old", "gone.*"), refusals.name("loop", "enc | @pool"), refusals.name("pool", "@old"))
        self.c.freeze("pre.f", reason="so that there is a history")

    def everything(self):
        """All that a transaction could change."""
        described = self.c.describe(digest=True)
        info = self.c.info()
        counts = (info.epoch, info.commit, info.lineage, info.leaves, info.parameters, info.elements, info.frozen)
        memory = (info.memory.parameters, info.memory.state, info.memory.staged)
        history = [one.SerializeToString() for one in self.history()]
        return counts, memory, history, described.SerializeToString()

    def refused(self, what, code, message, *operations, **fields):
        text = self.assert_fails(getattr(grpc.StatusCode, code), message, self.c.apply, *operations, **fields)
        self.assertLessEqual(len(text), 2048)
        self.assertEqual(self.everything(), self.before, what)

    def staged(self, operation, number):
        """With the number of the stage in STAGE's place."""
        ((kind, fields),) = operation.items() if operation else (("", {}),)
        if kind == "set" and fields["stage"] is STAGE:
            return {kind: {**fields, "stage": number}}
        return operation

    def test_each(self):
        self.assertGreaterEqual(len(ROWS), 60)
        self.assertEqual(len({what for what, *_ in ROWS}), len(ROWS))
        number = self.stage({"enc.0.w": self.numbers(6), "head.w": self.numbers(4)})
        self.before = self.everything()
        for what, operation, code, message in ROWS:
            with self.subTest(what):
                operation = self.staged(operation, number)
                self.refused(what, code, message, operation)
                self.refused(f"{what}, dry", code, message, operation, dry_run=True)
                place = len(BEFORE) + 1
                message = f"^operation {place} of {place}: (?s:.*)({message})"
                self.refused(f"{what}, the last of many", code, message, *BEFORE, operation)
                self.refused(f"{what}, not the last", code, message.replace(f"of {place}", f"of {place + 1}"),
                             *BEFORE, operation, freeze("**"))
        # What came before is fine by itself, and so is the stage: refusals have neither used nor dropped it.
        self.assertTrue(self.c.apply(*BEFORE).changes)
        self.assertTrue(self.c.apply({"set": {"selection": "enc.0.w | head.w", "stage": number}}).changes)

    def test_every_kind_is_refused_once(self):
        kinds = {field.name for field in admin.Operation.DESCRIPTOR.oneofs_by_name["operation"].fields}
        rows = {kind for _, operation, *_ in ROWS for kind in operation}
        self.assertEqual(kinds - rows, set())

    def test_whole_requests(self):
        """What is wrong with a request and not with an operation of it."""
        self.before = self.everything()
        good = freeze("enc")
        epoch = self.c.info().epoch
        self.refused("an epoch that was", "ABORTED", f"epoch {epoch}", good, if_epoch=epoch - 1)
        self.refused("an epoch to come", "ABORTED", f"epoch {epoch}", good, if_epoch=epoch + 1)
        self.refused("too many leaves", refusals.STATE, "touches 5 leaves, more than the 4", good, max_leaves=4)
        self.refused("too many in all", refusals.STATE, "touches 6 leaves, more than the 5", good, freeze("mean"),
                     max_leaves=5)
        self.refused("another tree", refusals.NONE, "tree", good, tree="second")
        self.refused("no operations", refusals.BAD, "operation")
        self.refused("too many operations", refusals.BAD, "10001|10000|10,000", *[good] * 10001)
        self.refused("a long key", refusals.BAD, "255", good, idempotency_key="k" * 256)

    def test_a_refused_key_is_free(self):
        """What was refused under a key was not done under it."""
        self.before = self.everything()
        self.refused("no match", refusals.NONE, "nosuch", freeze("nosuch"), idempotency_key="k")
        self.assertEqual(len(self.c.apply(freeze("enc"), idempotency_key="k").changes), 5)

    def test_undo_of_what_was_touched_since(self):
        first = self.c.apply(freeze("enc")).epoch
        second = self.c.apply({"thaw": {"selection": "enc.0"}}).epoch
        self.before = self.everything()
        self.refused("undo", refusals.STATE, f"epoch {second} has changed frozen of enc\\.0\\.", {"undo": {"epoch": first}})

    def test_a_removed_leaf_is_declared_again(self):
        self.c.apply({"remove": {"selection": "odd.b"}})
        self.before = self.everything()
        self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, 'leaf "odd.b" was removed', self.c.declare,
                          leaf("new", 2, init={"zeros": True}), leaf("odd.b", 3, init={"zeros": True}))
        self.assertEqual(self.everything(), self.before)

    def test_stages(self):
        """What can't be staged is refused when it is staged."""
        self.before = self.everything()
        for what, tensors, code, message in (
            ("no such leaf", {"enc.0.x": bytes(8)}, "NOT_FOUND", r"enc\.0\.x"),
            ("too short", {"enc.0.b": bytes(16)}, "INVALID_ARGUMENT", r"enc\.0\.b"),
            ("NaN", {"enc.0.b": harness.f64(1, float("nan"), 3)}, "INVALID_ARGUMENT", r"leaf enc\.0\.b: element 1 .*not finite"),
        ):
            with self.subTest(what):
                self.assert_fails(getattr(grpc.StatusCode, code), message, self.c.stage, tensors)
                self.c.wait_for_nothing_staged()
                self.assertEqual(self.everything(), self.before)


harness.main()
