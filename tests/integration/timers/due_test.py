"""Timers that become due: at exactly which commit, in which order, and that nobody has to do anything for it.

    due_test.py BUILD_DIR
"""

import subprocess
import threading

from timers import Case, harness, leaf, wire
from semantics import ESPCTL

LAYERS = 12


class Due(Case):
    def setUp(self):
        super().setUp()
        self.declare(leaf("a.w", 3, 5), leaf("a.b", 5), leaf("b", 70))

    def test_a_freeze_ends_though_everything_is_frozen(self):
        end = self.commit() + 6
        done = self.espctl("freeze", "**", "--until-commit", str(end))
        self.assertEqual(done["commit"], end - 5)
        self.assertEqual(self.frozen(), set(self.params))
        self.assertEqual([(one["wait"], one["at"], one["left"]) for one in self.timers()], [("commit", end, 5)])
        for commit in range(end - 4, end):
            self.push_all(frozen=set(self.params), commit=commit)
        harness.eventually(lambda: not self.frozen(), "it is thawed, and nobody pushes")
        self.assertEqual(self.by_timer(), [(end, {(path, "false") for path in self.params})])
        self.assertEqual(self.timers(), [])
        self.assert_as_expected()
        self.push_all(commit=end + 1)
        self.assert_as_expected()

    def test_a_freeze_ends_after_a_time(self):
        begun = self.espctl("freeze", "a", "--for", "50ms")
        harness.eventually(lambda: not self.frozen(), "it is thawed")
        self.push_all()
        self.assert_as_expected()
        (before, after) = self.history()[-2:]
        self.assertEqual((before.epoch, after.epoch, after.actor), (begun["epoch"], begun["epoch"] + 1, "timer"))
        self.assertGreaterEqual(after.at_ms, before.at_ms + 50)

    def test_a_time_that_is_not_over(self):
        self.espctl("freeze", "a", "--for", "1h30m")
        self.push_all(frozen={"a.w", "a.b"})
        (timer,) = self.timers()
        self.assertEqual((timer["does"], timer["wait"], timer["leaves"]), ("thaw", "time", 2))
        self.assertTrue(0 < timer["left"] <= 5400000, timer)
        self.assert_as_expected()

    def test_at_a_commit(self):
        first = self.commit() + 1
        done = self.espctl("freeze", "a", "--at-commit", str(first + 4), "--until-commit", str(first + 8))
        self.assertEqual(done["commit"], first)
        self.assertEqual(self.frozen(), set())
        (timer,) = self.timers()
        self.assertEqual((timer["does"], timer["at"], timer["until_commit"]), ("freeze", first + 4, first + 8))
        for commit in (first + 1, first + 2, first + 3):
            self.push_all(commit=commit)
        for commit in (first + 5, first + 6, first + 7):
            self.push_all(commit=commit, frozen={"a.w", "a.b"})
            self.assert_as_expected()
        for commit in (first + 9, first + 10):
            self.push_all(commit=commit)
        self.assert_as_expected()
        a = {"a.w", "a.b"}
        expected = [(first + 4, {(path, "true") for path in a}), (first + 8, {(path, "false") for path in a})]
        self.assertEqual(self.by_timer(), expected)

    def test_a_thaw_at_a_commit_with_a_new_state(self):
        self.push_all()
        self.espctl("freeze", "a")
        at = self.commit() + 3
        self.espctl("thaw", "a", "--at-commit", str(at), "--reset-state")
        self.push_all(commit=at - 1, frozen={"a.w", "a.b"})
        for path in ("a.w", "a.b"):
            self.params[path].reset()
        self.push_all(commit=at + 1)
        self.assert_as_expected()

    def test_under_pushers(self):
        """Pushes below a number step the leaf, those above it do not, whoever sent them, and nobody has the number. They
        are sent without waiting for answers, so that there is always one for the next number."""
        pushes, workers, leaves = 60, 4, 30
        server = self.server("--group=default=sgd(lr=1)")
        client = self.client(server.address)
        paths = [f"x{i}" for i in range(leaves)]
        client.declare(*(leaf(path, 9, init=None) for path in paths))
        first = client.info().commit + 20
        freezes = {path: first + 5 * i for i, path in enumerate(paths)}
        client.apply(*({"freeze": {"selection": path, "at_commit": at}} for path, at in freezes.items()))
        replies = []
        gradient = harness.f64(*[-1.0] * 9)

        def work():
            one = harness.push_messages(dict.fromkeys(paths, gradient), message=wire.StreamRequest)
            with harness.Client(server.address) as worker:
                answers = list(worker.ps.PushPull(iter(one * pushes), timeout=harness.TIMEOUT))
                replies.extend(answer.push for answer in answers)

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(replies), workers * pushes)
        self.assertFalse({reply.commit for reply in replies} & set(freezes.values()))
        for reply in replies:
            self.assertEqual(reply.applied, sum(reply.commit < at for at in freezes.values()), reply.commit)
        for path, at in freezes.items():
            steps = float(sum(reply.commit < at for reply in replies))
            self.assertEqual(harness.from_f64(client.value(path)), [steps] * 9, path)

    def test_history_and_watch_tell_of_it(self):
        end = self.commit() + 3
        environment = harness.environment()
        command = [ESPCTL, "watch", "b", "--count", "2", "--server", self.address]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watch:
            harness.eventually(lambda: self.c.info().watches == 1, "it watches")
            self.espctl("freeze", "b", "--until-commit", str(end), "--reason", "it has learned")
            self.push_all(commit=end - 1, frozen={"b"})
            lines = watch.communicate(timeout=harness.TIMEOUT)[0].splitlines()
        self.assertEqual(watch.returncode, 0)
        self.assertRegex(lines[0], rf"  commit {end - 2}  b  frozen$")
        self.assertRegex(lines[1], rf"  commit {end}  b  thawed$")
        last = self.espctl("history", "--count", "1")["transactions"][0]
        self.assertEqual((last["actor"], last["commit"]), ("timer", end))
        changes = {(one["path"], one["field"], one["from"], one["to"]) for one in last["changes"]}
        self.assertIn(("b", "frozen", "true", "false"), changes)


class OneByOne(Case):
    def test_layers(self):
        """From the last to the first, each three commits of pushes after the one before, also of those that name nothing."""
        self.declare(*(leaf(f"layers.{i}.w", 3) for i in range(LAYERS)), leaf("head", 2))
        self.push_all()
        self.c.freeze("layers")
        done = self.espctl("thaw", f"layers.[{LAYERS - 1}-0]", "--one-by-one", "--every", "3")
        self.assertEqual(done["matched"], LAYERS)
        frozen = {f"layers.{i}.w" for i in range(LAYERS - 1)}
        self.assertEqual(self.frozen(), frozen)
        listed = [(one["wait"], one["left"], one["leaves"], one["selection"]) for one in self.timers()]
        self.assertEqual(listed, [("pushes", 3 * (LAYERS - 1 - i), 1, f"layers.{i}.w") for i in range(LAYERS - 2, -1, -1)])
        for pushes in range(1, 3 * LAYERS + 1):
            if pushes % 3 == 1:
                self.push_nothing()
            else:
                self.push_all(frozen=frozen)
            if pushes % 3 == 0 and frozen:
                thawed = f"layers.{LAYERS - 1 - pushes // 3}.w"
                frozen.remove(thawed)
                harness.eventually(lambda: self.frozen() == frozen, f"{thawed} is thawed")
        self.assertEqual((self.timers(), self.frozen()), ([], set()))
        order = [changes for _, changes in self.by_timer()]
        self.assertEqual(order, [{(f"layers.{i}.w", "false")} for i in range(LAYERS - 2, -1, -1)])
        self.assert_as_expected()

    def test_parts_and_state(self):
        self.declare(leaf("a.x", 2), leaf("a.y", 2), leaf("b", 2), leaf("c", 2))
        self.push_all()
        self.c.freeze("**")
        self.espctl("thaw", "c | {b,a}", "--one-by-one", "--every", "1", "--reset-state")
        self.params["c"].reset()
        self.assertEqual(self.frozen(), {"a.x", "a.y", "b"})
        self.push_all(frozen={"a.x", "a.y", "b"})
        self.params["b"].reset()
        self.push_all(frozen={"a.x", "a.y"})
        self.params["a.x"].reset()
        self.params["a.y"].reset()
        self.push_all()
        self.assert_as_expected()


harness.main()
