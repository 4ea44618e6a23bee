"""Operations that are not waited for, through the library: their order, their ends, and what becomes of them when the
network or the server goes. driver.c beside this is what the tests tell what to do.

    async_test.py BUILD_DIR
"""

from driver import WAIT_MS, AsyncCase, harness
from harness import Server, eventually, from_f64, leaf
from proxy import TO_CLIENT, TO_SERVER, Proxy

SPOILT = -12345


class Handles(AsyncCase):
    def test_64_in_flight_in_their_order(self):
        """All are sent and applied before the first answer comes; the 65th waits."""
        self.d.ok("declare", "a", 100)
        self.proxy.hold(TO_CLIENT)
        handles = [self.d.begin("push", f"a={i}") for i in range(70)]
        eventually(lambda: self.c.info().pushes_applied == 64, "64 pushes were not applied")
        self.assertEqual(self.d("wait_any", 0, *handles)["code"], "DEADLINE_EXCEEDED")
        answer = self.d("wait", handles[0], 0)
        self.assertEqual((answer["code"], answer["done"]), ("DEADLINE_EXCEEDED", False))
        self.assertEqual(self.c.info().pushes_applied, 64)
        self.assertEqual(self.value("a"), -sum(range(64)))
        self.proxy.release(TO_CLIENT)
        commits = {}
        left = list(handles)
        while left:
            handle = left.pop(self.d.ok("wait_any", WAIT_MS, *left)["index"])
            answer = self.d.wait_ok(handle)
            self.assertEqual((answer["applied"], answer["replayed"]), (1, False))
            commits[handle] = answer["commit"]
            self.d.ok("free", handle)
        ordered = [commits[handle] for handle in handles]
        self.assertEqual(ordered, list(range(ordered[0], ordered[0] + 70)))
        self.assertEqual(self.value("a"), -sum(range(70)))

    def test_a_pull_sees_the_pushes_before_it(self):
        self.d.ok("declare", "a", 5000)
        self.d.ok("declare", "b", 1)
        for count in range(1, 31):
            self.d.begin("push", "a=1", "b=2")
            pulled = self.d.wait_ok(self.d.begin("pull", "a", "b"))
            self.assertEqual((pulled["values"], pulled["sent"]), ({"a": -count, "b": -2 * count}, 2))
            both = self.d.wait_ok(self.d.begin("both", "b=0"))
            self.assertEqual((both["values"], both["applied"]), ({"b": -2 * count}, 1))
            self.assertGreaterEqual(both["pull_commit"], both["commit"])

    def test_large_ones_both_ways_at_once(self):
        """Pulls that come while pushes go: neither may wait for the other."""
        self.d.ok("declare", "a", 700001)
        handles = []
        for _ in range(6):
            handles += [self.d.begin("push", "a=1"), self.d.begin("pull", "a")]
        for count, handle in enumerate(handles):
            answer = self.d.wait_ok(handle)
            if count % 2 == 1:
                self.assertEqual(answer["sent"], 1)
        self.assertEqual(self.d.wait_ok(self.d.begin("pull", "a"))["values"], {"a": -6})

    def test_one_that_fails_does_not_hold_up_those_behind_it(self):
        self.d.ok("declare", "a", 10)
        handles = [self.d.begin("push", f"a={'nan' if i % 5 == 2 else 1}") for i in range(20)]
        commits = []
        for i, handle in enumerate(handles):
            answer = self.d.wait(handle)
            if i % 5 == 2:
                self.assertEqual(answer["code"], "INVALID_ARGUMENT")
                self.assertRegex(answer["message"], "leaf a: element 0 of the gradient is NaN")
            else:
                self.assertEqual((answer["code"], answer["applied"]), ("OK", 1), answer)
                commits.append(answer["commit"])
        self.assertEqual(commits, sorted(set(commits)))
        self.assertEqual(self.value("a"), -16)

    def test_wrong_arguments_give_no_handle(self):
        self.d.ok("declare", "a", 10)
        self.d.ok("rows", "a", 24, 32)  # which does not divide 80
        answer = self.d("pull", "a")
        self.assertEqual(answer["code"], "INVALID_ARGUMENT")
        self.assertIn("rows of 24 bytes, which do not divide its 80 bytes", answer["message"])
        self.d.ok("rows", "a", 16, 8)
        self.assertIn("rows of 16 bytes that begin every 8 bytes", self.d("pull", "a")["message"])

    def test_callbacks(self):
        """Each once, in the order of the answers."""
        self.d.ok("declare", "a", 10)
        handles = [self.d.begin("push_cb", f"a={'inf' if i == 7 else 1}") for i in range(30)]
        for handle in handles:
            self.d.wait(handle)
        want = [f"{handle}:{'INVALID_ARGUMENT' if i == 7 else 'OK'}" for i, handle in enumerate(handles)]
        self.assertEqual(self.d("called")["called"], want)

    def test_a_callback_begins_the_next(self):
        self.d.ok("declare", "a", 10)
        self.d.ok("chain", 50, "a=1")
        eventually(lambda: self.d("called")["chain"] == 50, "a chain of pushes")
        self.assertFalse(self.d("called")["chain_failed"])
        self.assertEqual(self.value("a"), -50)


class Ends(AsyncCase):
    def test_cancelled_in_mid_push(self):
        """The network takes nothing more. Memory is given back, and what was begun around it is applied, once."""
        self.d.ok("declare", "big", 4 << 20)
        self.d.ok("declare", "small", 10)
        self.proxy.bytes_per_second = 8e6
        first = self.d.begin("push", "small=1")
        large = self.d.begin("push_cb", "big=1")
        second = self.d.begin("push", "small=10")
        eventually(lambda: self.c.info().memory.staged > 0, "the large push has not begun")
        self.proxy.hold(TO_SERVER)
        self.d.ok("cancel", large)
        answer = self.d.wait(large)
        self.assertEqual((answer["code"], self.d("called")["called"]), ("CANCELLED", [f"{large}:CANCELLED"]))
        self.assertIn("may or may not have been applied", answer["message"])
        self.proxy.bytes_per_second = None
        self.proxy.release(TO_SERVER)
        self.d.wait_ok(first)
        self.d.wait_ok(second)
        self.c.wait_for_nothing_staged()
        self.assertEqual((self.value("small"), self.value("big")), (-11, 0))

    def test_cancelled_before_it_was_sent(self):
        self.d.ok("declare", "a", 10)
        self.proxy.hold(TO_CLIENT)
        sent = [self.d.begin("push", "a=1") for _ in range(64)]
        waiting = self.d.begin("push", "a=100")
        self.d.ok("cancel", waiting)
        answer = self.d.wait(waiting)
        self.assertEqual((answer["code"], answer["message"]), ("CANCELLED", "the operation was cancelled"))
        self.d.ok("cancel", sent[5])
        self.assertEqual(self.d.wait(sent[5])["code"], "CANCELLED")
        self.d.ok("free", self.d.begin("push", "a=1000"))  # which cancels it too
        self.proxy.release(TO_CLIENT)
        for handle in sent[:5] + sent[6:]:
            self.d.wait_ok(handle)
        self.assertIn(self.value("a"), (-63, -64))

    def test_cut_connections(self):
        """Replies are lost, in the middle of anything: each push is applied once, in the order of the beginnings."""
        proxy = Proxy(self.server_process.address, cut_replies=0.2)
        self.addCleanup(proxy.close)
        d = self.driver(target=proxy.address)
        d.ok("declare", "a", 1000)
        d.ok("declare", "b", 3)
        handles = [d.begin("both" if i % 3 == 0 else "push", "a=1", f"b={i % 7}") for i in range(300)]
        answers = [d.wait_ok(handle) for handle in handles]
        commits = [answer["commit"] for answer in answers]
        self.assertEqual(commits, sorted(set(commits)))
        self.assertGreater(proxy.cuts, 3)
        self.assertGreater(sum(answer["replayed"] for answer in answers), 0)
        self.assertEqual((self.value("a"), self.value("b")), (-300, -sum(i % 7 for i in range(300))))

    def test_deadline(self):
        """Of a server that does not answer: all that have begun end, and what begins later goes through."""
        d = self.driver("deadline_ms=400")
        d.ok("declare", "a", 10)
        self.proxy.hold(TO_CLIENT)
        handles = [d.begin("push", "a=1") for _ in range(10)]
        self.assertEqual({d.wait(handle)["code"] for handle in handles}, {"DEADLINE_EXCEEDED"})
        self.proxy.release(TO_CLIENT)

        def goes_through():  # with more time than the deadline, for a slow machine
            return d.wait(d.begin("push", "a=0"))["code"] == "OK"

        eventually(goes_through, "no push went through after the proxy had let go")

    def test_closed_with_handles(self):
        self.d.ok("declare", "big", 2 << 20)
        self.proxy.hold(TO_CLIENT)
        for _ in range(5):
            self.d.begin("push", "big=1")
            self.d.begin("push_cb", "big=1")
            self.d.begin("pull", "big")
        self.assertEqual(set(self.d("close")["ended"]), {"CANCELLED"})
        self.assertEqual(len(self.d("called")["called"]), 5)

    def test_nobody_there(self):
        """An operation that has nobody to be sent to is cancelled at once, and by closing."""
        target = self.server_process.address
        self.server_process.stop()
        d = self.driver(target=target)
        d.ok("cancel", d.begin("push"))
        self.assertEqual(d.wait(0)["code"], "CANCELLED")
        d.begin("push")
        self.assertEqual(d("close")["ended"], ["CANCELLED", "CANCELLED"])


class Channels(AsyncCase):
    def test_connections(self):
        d = self.driver("channels=4", "in_flight_max=2")
        d.ok("declare", "a", 10)
        self.proxy.hold(TO_CLIENT)
        before = len(self.proxy.connections)
        handles = [d.begin("push", "a=1") for _ in range(12)]
        eventually(lambda: len(self.proxy.connections) == before + 3, "four connections in all")
        eventually(lambda: self.c.info().pushes_applied == 8, "two pushes a channel were not applied")
        self.proxy.release(TO_CLIENT)
        for handle in handles:
            d.wait_ok(handle)
        self.assertEqual(len(self.proxy.connections), before + 3)
        self.assertEqual(self.value("a"), -12)


class Lineages(AsyncCase):
    def declare(self, driver):
        for name in "a", "b":
            driver.ok("declare", name, 10)

    def test_fail(self):
        self.declare(self.d)
        self.d.wait_ok(self.d.begin("push", "a=1"))
        self.restart()
        for _ in range(3):
            answer = self.d.wait(self.d.begin("both", "a=1"))
            self.assertEqual(answer["code"], "ABORTED")
            self.assertTrue(answer["message"].endswith("; declare them again"), answer)
        self.assertEqual(self.d("called")["lineages"], 1)
        self.declare(self.d)
        self.assertEqual(self.d.wait_ok(self.d.begin("both", "a=2"))["values"], {"a": -2})

    def test_redeclare(self):
        d = self.driver("redeclare=1", "in_flight_max=2")
        self.declare(d)
        d.wait_ok(d.begin("push", "a=1"))
        self.proxy.hold(TO_SERVER)
        handles = [d.begin("push", "a=1") for _ in range(5)]  # of the old lineage, all of them, sent or not
        self.proxy.hold(TO_CLIENT)
        self.restart()
        self.proxy.release(TO_SERVER)
        self.proxy.release(TO_CLIENT)
        for handle in handles:
            answer = d.wait(handle)
            self.assertEqual(answer["code"], "ABORTED", answer)
        self.assertEqual(d("called")["lineages"], 1)
        self.assertEqual(d.wait_ok(d.begin("both", "a=1", "b=3"))["values"], {"a": -1, "b": -3})
        self.assertEqual(self.c.info().pushes_applied, 1)

    def test_redeclare_that_gets_other_ids(self):
        """Whose ids would mean other leaves: it is as if there were no such policy."""
        d = self.driver("redeclare=1")
        self.declare(d)
        self.restart(lambda other: other.declare(leaf("x", 10)))
        for _ in range(2):
            answer = d.wait(d.begin("push", "a=1"))
            self.assertEqual(answer["code"], "ABORTED")
            self.assertTrue(answer["message"].endswith("; declare them again"), answer)
        self.declare(d)
        d.wait_ok(d.begin("push", "a=1"))
        self.assertEqual((self.value("a"), self.value("x")), (-1, 0))


class Reading(AsyncCase):
    def test_without_a_session(self):
        self.c.declare(leaf("x.w", 6), leaf("x.b", 2))
        self.c.push({"x.w": harness.f64(*[1.0] * 6), "x.b": harness.f64(2, 2)})
        self.d.ok("find", "x.b", 2)
        self.d.ok("find", "x.w", 6)
        missing = self.d("find", "x.nothing", 2)
        self.assertEqual(missing["code"], "NOT_FOUND")
        self.assertIn('"x.nothing"', missing["message"])
        self.assertEqual(self.d.wait_ok(self.d.begin("pull", "x.b", "x.w"))["values"], {"x.b": -2, "x.w": -1})
        self.assertEqual(self.c.info().sessions, 0)
        self.restart(lambda other: other.declare(leaf("x.b", 2)))
        for name in "x.w", "x.b":  # one that is not there, and one of another lineage
            answer = self.d.wait(self.d.begin("pull", name))
            self.assertEqual(answer["code"], "ABORTED", answer)
        self.assertEqual((self.d("called")["lineages"], self.c.info().sessions), (1, 0))
        self.d.ok("find", "x.b", 2)
        self.assertEqual(self.d.wait_ok(self.d.begin("pull", "x.b"))["values"], {"x.b": 0})

    def test_rows(self):
        """Rows that lie apart, with messages that end anywhere in them; the driver looks between them."""
        self.d.ok("declare", "a", 300000)
        self.d.wait_ok(self.d.begin("push", "a=4"))
        for row, stride in ((24, 32), (8, 48), (2400000, 2400008), (800, 800)):
            self.d.ok("rows", "a", row, stride)
            self.assertEqual(self.d.wait_ok(self.d.begin("pull", "a"))["values"], {"a": -4})

    def test_delta(self):
        """What has not changed is not sent: its memory, which was spoilt meanwhile, stays as it is."""
        for name in "a", "b", "c":
            self.d.ok("declare", name, 5000)

        def delta(sent, values):
            answer = self.d.wait_ok(self.d.begin("delta", "a", "b", "c"))
            self.assertEqual((answer["sent"], answer["unchanged"]), (sent, 3 - sent))
            self.assertEqual(answer["values"], dict(zip("abc", values)))
            for name in "abc":
                self.d.ok("spoil", name)

        delta(3, (0, 0, 0))
        delta(0, (SPOILT, SPOILT, SPOILT))
        self.d.wait_ok(self.d.begin("push", "b=1"))
        delta(1, (SPOILT, -1, SPOILT))
        self.c.freeze("b")
        self.d.wait_ok(self.d.begin("push", "a=2", "b=2"))
        delta(1, (-2, SPOILT, SPOILT))
        self.restart()
        self.assertEqual(self.d.wait(self.d.begin("delta", "a"))["code"], "ABORTED")
        for name in "a", "b", "c":
            self.d.ok("declare", name, 5000)
        delta(3, (0, 0, 0))

    def test_delta_through_a_cut(self):
        """A pull that was cut in the middle: what came whole is had, and what came by half is not."""
        for name in "a", "b":
            self.d.ok("declare", name, 1 << 17)  # 1 MiB
        self.d.wait_ok(self.d.begin("push", "a=1", "b=1"))
        self.proxy.cut_after(TO_CLIENT, 3 << 19)
        answer = self.d.wait_ok(self.d.begin("delta", "a", "b"))
        self.assertEqual((answer["sent"], answer["values"]), (2, {"a": -1, "b": -1}))
        self.assertEqual(self.proxy.cuts, 1)
        pulled = self.c.info().bytes_pulled
        self.d.ok("spoil", "a")
        answer = self.d.wait_ok(self.d.begin("delta", "a", "b"))
        self.assertEqual((answer["sent"], answer["values"]), (0, {"a": SPOILT, "b": -1}))
        self.assertEqual(self.c.info().bytes_pulled, pulled)

    def test_consistent(self):
        """Each push adds one to all leaves: a consistent pull beside them sees one number everywhere."""
        names = [f"leaf{i}" for i in range(20)]
        for name in names:
            self.d.ok("declare", name, 20000)
        pushes, pulls = [], []
        for _ in range(20):
            pushes.append(self.d.begin("push", *[f"{name}=1" for name in names]))
        other = self.driver()
        for name in names:
            other.ok("find", name, 20000)
        for _ in range(5):
            answer = other.wait_ok(other.begin("consistent", *names))
            self.assertEqual(len(set(answer["values"].values())), 1, answer)
            pulls.append(answer)
        for handle in pushes:
            self.d.wait_ok(handle)
        self.assertEqual(set(other.wait_ok(other.begin("consistent", *names))["values"].values()), {-20})


class Watches(AsyncCase):
    def setUp(self):
        super().setUp()
        for name in "a", "b":
            self.d.ok("declare", name, 10)
        self.ids = {one.path: one.id for one in self.c.describe().leaves}

    def next(self, want):
        """The flags that the next event tells of."""
        event = self.d.ok("next", WAIT_MS)["event"]
        self.assertEqual({change["leaf"]: change["frozen"] for change in event["changes"]}, want)
        return event

    def test_polling(self):
        self.d.ok("watch", 0)
        first = self.next({self.ids["a"]: False, self.ids["b"]: False})
        self.assertEqual({change["path"] for change in first["changes"]}, {"a", "b"})
        self.assertEqual(self.d("next", 0)["code"], "DEADLINE_EXCEEDED")
        self.c.freeze("a")
        event = self.next({self.ids["a"]: True})
        self.assertEqual((event["epoch"], event["changes"][0]["path"]), (self.c.info().epoch, ""))
        # The library's own flags have followed, with no push in between.
        self.assertEqual((self.d("frozen", "a")["frozen"], self.d("frozen", "b")["frozen"]), (True, False))
        self.proxy.cut()
        self.c.freeze("b")
        self.next({self.ids["b"]: True})
        self.c.thaw("a")
        self.next({self.ids["a"]: False})
        self.assertEqual((self.d("frozen", "a")["frozen"], self.d("frozen", "b")["frozen"]), (False, True))
        self.assertEqual(self.d("next", 0)["code"], "DEADLINE_EXCEEDED")
        self.d.ok("unwatch")
        eventually(lambda: self.c.info().watches == 0, "the server still has a watch")

    def test_a_cut_loses_nothing(self):
        self.d.ok("watch", "now")
        self.proxy.hold(TO_CLIENT)
        self.c.freeze("a")
        self.c.freeze("b")
        self.proxy.cut()
        self.proxy.release(TO_CLIENT)
        seen = {}
        while seen != {self.ids["a"]: True, self.ids["b"]: True}:
            event = self.d.ok("next", WAIT_MS)["event"]
            seen |= {change["leaf"]: change["frozen"] for change in event["changes"]}

    def test_a_new_lineage(self):
        self.d.ok("watch", "now")
        self.c.freeze("a")
        old = self.next({self.ids["a"]: True})
        self.restart(lambda other: other.declare(leaf("x", 1)))
        answer = self.d("next", WAIT_MS)
        self.assertEqual(answer["code"], "ABORTED", answer)
        event = self.d.ok("next", WAIT_MS)["event"]
        self.assertNotEqual(event["lineage"], old["lineage"])
        self.assertEqual([change["path"] for change in event["changes"]], ["x"])
        self.c.freeze("x")
        self.next({event["changes"][0]["leaf"]: True})

    def test_callback(self):
        self.d.ok("watch_cb", "now")
        self.assertEqual(self.d("next", 0)["code"], "FAILED_PRECONDITION")
        self.c.freeze("a")
        eventually(lambda: self.d("frozen", "a")["frozen"], "the flag does not follow")
        eventually(lambda: self.d("seen")["events"], "no event")
        self.restart(lambda other: other.declare(leaf("x", 1)))
        events = eventually(lambda: self.d("seen")["events"][1:], "no event of the new lineage")
        self.assertEqual([change["path"] for change in events[0]["changes"]], ["x"])

    def test_nobody_there(self):
        """A watch waits for a server, and is closed while it does."""
        self.server_process.stop()
        self.d.ok("watch", 0)
        self.d.ok("unwatch")
        self.d.ok("watch_cb", 0)
        self.d.ok("close")  # which closes the watch before


harness.main()
