"""A push that the library sends again is answered as if it had been sent once, also where its first send arrives late.

    late_test.py BUILD_DIR
"""

from driver import AsyncCase, harness
from harness import Feed, eventually, f64, wire
from proxy import TO_CLIENT

COUNT = 400  # elements of the leaf that is pushed
FILLING = 1 << 17  # of the one that leaves no room for it


class Late(AsyncCase):
    """A push is cut, and its first send reaches the server after the header of the second, whose place it takes. Both
    wait for staging memory, which another push holds until the test has seen that."""

    flags = (f"--max-staged={8 * FILLING + 2048}",)

    def setUp(self):
        super().setUp()
        self.d.ok("declare", "a", COUNT)
        self.d.ok("declare", "rest", FILLING)
        header = harness.push_header({"rest": bytes(8 * FILLING)})
        self.filling = self.c.ps.Push.future(Feed(wire.PushRequest(push=header)), timeout=10 * harness.TIMEOUT)
        self.wait_for(in_flight=1)

    def wait_for(self, **fields):
        """Until the server's info has them."""

        def has_them():
            info = self.c.info()
            return all(getattr(info, name) == value for name, value in fields.items())

        eventually(has_them, fields)

    def push(self):
        """Begins one that waits, and returns what waits for it."""
        handle = self.d.begin("push", "a=1")
        return lambda: self.d.wait(handle)

    def push_now(self):
        self.d.tell("push_now", "a=1")
        return self.d.hear

    def come_late(self, push):
        """The push's first send takes the place of the second, and the client has not heard of it."""
        (connection,) = self.proxy.connections
        connection.keep()
        end = push()
        eventually(lambda: f64(*[1] * COUNT) in connection.kept, "the first send")  # its last bytes
        connection.strand()
        self.wait_for(in_flight=2)
        self.proxy.hold(TO_CLIENT)
        connection.deliver()
        self.wait_for(in_flight=2, pushes_refused=1)
        return connection, end

    def assert_applied(self, end, replayed):
        answer = end()
        self.assertEqual((answer["code"], answer.get("replayed")), ("OK", replayed), answer)
        self.assertEqual((self.c.info().pushes_applied, self.value("a")), (1, -1))

    def late_and_applied(self, push):
        _, end = self.come_late(push)
        self.filling.cancel()
        self.wait_for(pushes_applied=1)
        self.proxy.release(TO_CLIENT)
        self.assert_applied(end, replayed=True)

    def late_and_cut(self, push):
        connection, end = self.come_late(push)
        connection.cut()
        self.wait_for(in_flight=1)
        self.proxy.release(TO_CLIENT)
        self.filling.cancel()
        self.assert_applied(end, replayed=False)

    def late_and_under_way(self, push):
        _, end = self.come_late(push)
        self.proxy.release(TO_CLIENT)
        self.wait_for(pushes_refused=2)
        self.filling.cancel()
        self.assert_applied(end, replayed=False)

    def test_applied(self):
        self.late_and_applied(self.push)

    def test_applied_now(self):
        self.late_and_applied(self.push_now)

    def test_cut(self):
        self.late_and_cut(self.push)

    def test_cut_now(self):
        self.late_and_cut(self.push_now)

    def test_under_way(self):
        self.late_and_under_way(self.push)

    def test_under_way_now(self):
        self.late_and_under_way(self.push_now)


harness.main()
