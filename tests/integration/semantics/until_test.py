"""Freezes that end, or begin, at a commit: pushes count though all that they name is frozen.

    until_test.py BUILD_DIR
"""

from semantics import Case, freeze, harness, leaf, thaw


class Until(Case):
    GROUPS = {"default": "adamw(lr=0.01, weight_decay=0.1)"}

    def setUp(self):
        super().setUp()
        self.declare(leaf("a", 3), leaf("b.w", 4, 2), leaf("b.tied", 4, 2, alias_of="b.w"))
        self.all = sorted(self.params)
        self.step(self.gradients("a", "b.w"))

    def push_until(self, last, begin, end, named=("a", "b.w")):
        """Pushes up to a commit number, at least: those of numbers between begin and end find all frozen."""
        commit = self.c.info().commit
        while commit < last:
            gradients = self.gradients(*named) if named else {}
            reply = self.push(gradients)
            self.assertGreater(reply.commit, commit)
            commit = reply.commit
            self.assertNotIn(commit, (begin, end), "the number of a freeze or a thaw")
            is_frozen = begin < commit < end
            self.assertEqual((reply.frozen, reply.applied), (len(named), 0) if is_frozen else (0, len(named)), commit)
            if not is_frozen:
                for path, gradient in gradients.items():
                    self.params[path].step(gradient)
            self.assert_as_expected(f"commit {commit}")

    def assert_by_timer(self, commit, is_frozen, paths):
        """The transaction of that commit."""
        (record,) = (one for one in self.history() if one.commit == commit)
        self.assertEqual(record.actor, "timer")
        changes = [(one.path, one.to) for one in record.changes if one.field == "frozen"]
        self.assertEqual(changes, [(path, "true" if is_frozen else "false") for path in paths])

    def test_ends_though_everything_is_frozen(self):
        """Nothing of any push is applied meanwhile, and each is a commit."""
        now = self.c.info().commit
        end = now + 6
        reply = self.c.apply({"freeze": {"selection": "**", "until_commit": end}})
        self.assertEqual(reply.commit, now + 1)
        self.assertEqual(self.c.info().frozen, 3)
        self.push_until(end + 3, reply.commit, end)
        self.assertEqual(self.c.info().frozen, 0)
        self.assert_by_timer(end, False, self.all)

    def test_ends_by_pushes_that_name_nothing(self):
        now = self.c.info().commit
        end = now + 4
        self.c.apply({"freeze": {"selection": "**", "until_commit": end}})
        self.push_until(end + 1, now + 1, end, named=())
        self.assertEqual(self.c.info().frozen, 0)
        self.assert_by_timer(end, False, self.all)
        self.step(self.gradients("a", "b.w"))
        self.assert_as_expected("after it")

    def test_begins_and_ends(self):
        now = self.c.info().commit
        begin, end = now + 4, now + 8
        self.c.apply({"freeze": {"selection": "**", "at_commit": begin, "until_commit": end}})
        self.assertEqual(self.c.info().frozen, 0)
        self.push_until(end + 2, begin, end)
        self.assert_by_timer(begin, True, self.all)
        self.assert_by_timer(end, False, self.all)

    def test_by_espctl(self):
        now = self.c.info().commit
        end = now + 3
        self.espctl("freeze", "**", "--until-commit", str(end))
        self.assertEqual(self.c.info().frozen, 3)
        self.push_until(end + 1, now + 1, end)
        self.assert_by_timer(end, False, self.all)

    def test_the_last_word_counts(self):
        """A thaw takes the timer away, and so does a freeze without an end: then nothing ends it."""
        now = self.c.info().commit
        end = now + 6
        until = {"freeze": {"selection": "b.tied", "until_commit": end}}
        for operation in (thaw("b.w"), freeze("b.w")):
            self.c.apply(until)
            reply = self.c.apply(operation)
            self.assertIn(("timer", ""), [(one.field, one.to) for one in reply.changes])
        while self.c.info().commit < end + 1:
            self.step(self.gradients("a", "b.w"), but=("b.w",))
        self.assertTrue(self.infos()["b.w"].frozen)
        self.assertNotIn("timer", [one.actor for one in self.history()])
        self.assert_as_expected()


harness.main()
