"""--max-copy-on-write on the wire: pulls wait for their turn, never for themselves, and leave the queue with their client.

    copies_test.py BUILD_DIR
"""

import grpc

import harness
from harness import Pulled, eventually, leaf, wire

MIB = 1 << 20


class Copies(harness.TestCase):
    def serve(self, bound, *leaves):
        self.started = self.server(f"--max-copy-on-write={bound}")
        self.c = self.client(self.started.address)
        self.c.declare(*leaves)

    def reserved(self):
        return self.c.info().memory.copy_on_write

    def assert_all_free(self):
        eventually(lambda: self.reserved() == 0, "all is given back")

    def assert_active(self, pulls):
        eventually(lambda: self.c.info().pulls_active == pulls, f"{pulls} pulls have begun")


class Small(Copies):
    """A bound of less than two leaves, of which the end of one and the beginning of the next share a message."""

    ELEMENTS = 75_000

    def setUp(self):
        self.serve("1MiB", *(leaf(f"small.l{i}", self.ELEMENTS) for i in range(3)))

    def test_a_pull_waits_for_nothing_of_its_own(self):
        pulled = self.c.pull(selection="small")
        self.assertEqual([len(data) for data in pulled.tensors.values()], [8 * self.ELEMENTS] * 3)
        self.assert_all_free()

    def test_more_than_there_is(self):
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        words = "consistent pull of these 3 leaves .* --max-copy-on-write is 1048576"
        self.assert_fails(exhausted, words, self.c.pull, selection="small", consistent=True)
        self.c.declare(leaf("large", MIB // 8))
        words = "leaf large: .* --max-copy-on-write is 1048576"
        self.assert_fails(exhausted, words, self.c.pull, selection="large")
        self.assert_all_free()


class Held(Copies):
    """A client that reads nothing holds most of the bound: more than the network takes of it."""

    def setUp(self):
        self.serve("80MiB", leaf("large", 60 * MIB // 8), leaf("other", 30 * MIB // 8), leaf("tiny", 8))
        self.first = self.begin(paths=["large"])
        eventually(lambda: self.reserved() > 60 * MIB, "the first pull holds its tensor")

    def begin(self, **request):
        call = self.client(self.started.address).ps.Pull(wire.PullRequest(**request))
        self.addCleanup(call.cancel)
        return call

    def test_who_waits_too_long_hears_for_what(self):
        words = "waited .* --max-copy-on-write 83886080"
        deadline = grpc.StatusCode.DEADLINE_EXCEEDED
        for consistent in (True, False):
            self.assert_fails(deadline, words, self.c.pull, paths=["other"], consistent=consistent, wait_ms=200)
        self.first.cancel()
        self.assert_all_free()

    def test_a_client_that_has_gone_is_waited_for_no_more(self):
        for consistent in (True, False):
            second = self.begin(paths=["other"], consistent=consistent)
            self.assert_active(2)
            third = self.begin(paths=["tiny"])  # there is room for it, but it is not its turn
            self.assert_active(3)
            second.cancel()
            self.assertEqual(len(Pulled(third).tensors), 1)
            self.assert_active(1)
        self.first.cancel()
        self.assert_all_free()

    def test_pushes_never_wait(self):
        self.begin(paths=["large"], consistent=True)
        self.assert_active(2)
        for _ in range(3):
            self.assertEqual(self.c.push({"large": bytes(60 * MIB), "tiny": bytes(64)}).applied, 2)
        self.assert_active(2)


harness.main()
