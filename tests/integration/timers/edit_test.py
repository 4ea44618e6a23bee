"""Timers that are listed, cancelled, replaced and taken back before they are due, and those that are refused.

    edit_test.py BUILD_DIR
"""

import grpc

from timers import Case, admin, harness, leaf

INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Edit(Case):
    def setUp(self):
        super().setUp()
        self.declare(leaf("a.w", 3, 5), leaf("a.b", 5), leaf("b", 7))

    def listed(self):
        return [(one["does"], one["at"], one["leaves"], one["selection"]) for one in self.timers()]

    def test_list(self):
        at = self.commit() + 100
        self.assertEqual(self.timers(), [])
        self.espctl("freeze", "a", "--at-commit", str(at), "--for", "10m")
        done = self.espctl("apply", "-e", f"freeze b --until-commit {at}", "-e", f"freeze a.w --at-commit {at + 1}")
        first, second, third = self.timers()
        self.assertEqual(self.listed(), [("freeze", at, 1, "a"), ("thaw", at, 1, "b"), ("freeze", at + 1, 1, "a.w")])
        self.assertEqual(first["for_ms"], 600000)
        self.assertEqual((second["epoch"], third["epoch"]), (done["epoch"], done["epoch"]))
        self.assertEqual(second["left"], at - self.commit())
        self.assertEqual([one.id for one in self.pages()], [first["timer"], second["timer"], third["timer"]])

    def pages(self):
        pages = list(self.c.admin.Timers(admin.TimersRequest(), timeout=harness.TIMEOUT))
        info = self.c.info()
        for page in pages:
            self.assertEqual((page.epoch, page.commit, page.lineage), (info.epoch, info.commit, info.lineage))
        return [one for page in pages for one in page.timers]

    def test_a_list_of_many_pages(self):
        """Each page has 1 MiB at most, and there are more bytes than that: selections are long."""
        leaves = 160
        long = "x" * 200
        self.c.declare(*(leaf(f"m.{long}.{i}", 1, init=None) for i in range(leaves)))
        at = self.commit() + 1000
        selection = " | ".join(["m.{0}.{1}"] + ["nosuch" * 40] * 30)
        operations = [
            {"freeze": {"selection": selection.format(long, i), "at_commit": at + i}} for i in range(leaves)
        ]
        self.c.apply(*operations)
        pages = list(self.c.admin.Timers(admin.TimersRequest(), timeout=harness.TIMEOUT))
        self.assertGreater(len(pages), 1)
        self.assertTrue(all(page.ByteSize() <= 1 << 20 for page in pages))
        self.assertEqual([one.at for page in pages for one in page.timers], [at + i for i in range(leaves)])
        self.assertEqual(len(self.timers()), leaves)

    def test_cancel(self):
        at = self.commit() + 3
        self.espctl("freeze", "a", "--at-commit", str(at))
        (timer,) = self.timers()
        done = self.espctl("timer", "cancel", str(timer["timer"]))
        self.assertEqual({(one["path"], one["field"], one["to"]) for one in done["changes"]},
                         {("a.w", "timer", ""), ("a.b", "timer", "")})
        self.assertEqual(self.timers(), [])
        for _ in range(4):
            self.push_all()
        self.assertEqual(self.by_timer(), [])
        self.assert_as_expected()

    def test_a_thaw_takes_the_timer_away(self):
        end = self.commit() + 4
        self.espctl("freeze", "a", "--until-commit", str(end))
        self.espctl("thaw", "a.w")
        self.assertEqual(self.listed(), [("thaw", end, 1, "a")])
        self.espctl("thaw", "a")
        self.assertEqual((self.timers(), self.frozen()), ([], set()))
        self.push_all()
        self.push_all()
        self.assertEqual(self.by_timer(), [])
        self.espctl("freeze", "a", "--at-commit", str(self.commit() + 9))
        self.espctl("thaw", "a")  # it is not frozen, but it would be
        self.assertEqual(self.timers(), [])
        self.assert_as_expected()

    def test_the_last_freeze_wins(self):
        end = self.commit() + 5
        self.espctl("freeze", "**", "--until-commit", str(end))
        self.espctl("freeze", "a.w")
        self.espctl("freeze", "b", "--until-commit", str(end + 2))
        self.assertEqual(self.listed(), [("thaw", end, 1, "**"), ("thaw", end + 2, 1, "b")])
        self.push_all(frozen=set(self.params), commit=end - 1)
        self.push_all(frozen={"a.w", "b"}, commit=end + 1)
        self.push_all(frozen={"a.w"}, commit=end + 3)
        self.push_all(frozen={"a.w"})
        self.assert_as_expected()

    def test_a_dry_run_is_what_happens(self):
        at = self.commit() + 50
        lines = (
            ("freeze", "a", "--until-commit", str(at)),
            ("freeze", "b", "--at-commit", str(at), "--for", "10m"),
            ("freeze", "a.b", "--for", "1h"),
            ("freeze", "**"),
            ("thaw", "a.w | b", "--one-by-one", "--every", "5"),
            ("timer", "cancel", "4"),
            ("thaw", "**", "--at-commit", str(at)),
            ("undo",),
        )
        for line in lines:
            before = self.everything()
            dry = self.espctl(*line, "--dry-run")
            self.assertEqual(self.everything(), before, line)
            real = self.espctl(*line, "--if-epoch", str(dry["epoch"]))
            for one in (dry, real):
                one.pop("dry_run"), one.pop("commit"), one.pop("epoch")
            self.assertEqual(dry, real, line)
            self.assertTrue(real["changes"], line)
            self.assertEqual(self.c.info().epoch, before[0] + 1, line)

    def test_undo(self):
        end = self.commit() + 20
        self.espctl("freeze", "a", "--until-commit", str(end))
        timers = self.timers()
        self.espctl("undo")
        self.assertEqual((self.timers(), self.frozen()), ([], set()))
        self.espctl("undo")  # of the undo
        self.assertEqual(self.frozen(), {"a.w", "a.b"})
        self.assertEqual(self.listed(), [("thaw", end, 2, "a")])
        self.espctl("timer", "cancel", str(self.timers()[0]["timer"]))
        self.espctl("undo")
        self.assertEqual([one["at"] for one in self.timers()], [one["at"] for one in timers])
        while self.commit() < end - 1:
            self.push_all(frozen={"a.w", "a.b"})
        harness.eventually(lambda: not self.frozen(), "it is thawed")
        self.espctl("undo")  # of what the timer did
        self.assertEqual((self.timers(), self.frozen()), ([], {"a.w", "a.b"}))
        self.assert_as_expected()


class Refused(Case):
    def setUp(self):
        super().setUp()
        self.declare(leaf("a.w", 3, 5), leaf("a.b", 5), leaf("b", 7))
        self.push_all()
        self.espctl("freeze", "b", "--until-commit", "1000")
        self.before = self.everything()

    def tearDown(self):
        self.assertEqual(self.everything(), self.before)
        super().tearDown()

    def refused(self, code, message, *words):
        self.assertRegex(self.espctl(*words, code=code), rf"(?m)^espctl: {message}$")

    def test_by_espctl(self):
        now = self.commit()
        self.refused(4, f"commit {now} has been: .*", "freeze", "a", "--at-commit", str(now))
        self.refused(4, f"commit {now} has been: .*", "freeze", "a", "--until-commit", str(now))
        self.refused(4, "commit 1 has been: .*", "thaw", "a", "--at-commit", "1")
        self.refused(3, ".*nosuch.*", "freeze", "nosuch", "--for", "1s")
        self.refused(3, ".*1.*", "timer", "cancel", "77")
        self.refused(4, ".*", "thaw", "a & name:w", "--one-by-one", "--every", "5")
        self.refused(2, "--for and --until-commit .*", "freeze", "a", "--for", "1s", "--until-commit", "2000")
        self.refused(2, "--one-by-one needs --every N.*", "thaw", "a", "--one-by-one")
        self.refused(2, "'10' is no time; .*", "freeze", "a", "--for", "10")
        self.refused(4, "operation 2 of 2: .*has been.*", "apply", "-e", "freeze a --for 1h", "-e", "thaw b --at-commit 1")
        self.refused(4, ".*3 leaves.*", "freeze", "**", "--at-commit", "2000", "--max-leaves", "2")

    def test_by_a_client_that_says_what_espctl_does_not(self):
        def refused(message, **operation):
            self.assert_fails(INVALID, message, self.c.apply, operation)

        refused("one of them", freeze={"selection": "a", "for_ms": 1, "until_commit": 2000})
        refused("not after it", freeze={"selection": "a", "at_commit": 2000, "until_commit": 2000})
        refused("later than any time", freeze={"selection": "a", "for_ms": (1 << 64) - 1})
        refused("needs a number", thaw={"selection": "a", "one_by_one": True})
        refused("one by one", thaw={"selection": "a", "every_commits": 5})
        refused("begins now", thaw={"selection": "a", "one_by_one": True, "every_commits": 5, "at_commit": 2000})
        refused("more than can be counted",
                thaw={"selection": "{a,b}", "one_by_one": True, "every_commits": (1 << 64) - 1})
        refused("names no timer", cancel_timer={})


harness.main()
