"""One client used by many threads at once, and what the library knows of frozen leaves.

    share_test.py BUILD_DIR
"""

import os
import subprocess

from load import LONG, PROGRAMS, TestCase, harness, scaled

LEAVES = ["a:f64:1000", "b:f64:2000", "c:f64:4000"]
A, B, C = 1, 2, 4


class Share(TestCase):
    def test_every_call_from_every_thread(self):
        server = self.server("--group=default=sgd(lr=1)")
        command = [os.path.join(PROGRAMS, "sharer"), server.address, str(scaled(500, 60))]
        done = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, timeout=LONG, env=harness.environment(), check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_frozen_leaves_are_not_sent(self):
        server = self.server("--group=default=sgd(lr=1)")
        client = self.client(server.address)
        pusher = self.pusher(server.address, LEAVES, "--paced")

        def push(sent, applied):
            """One push; what it added to the bytes that the server has taken."""
            before = client.info().bytes_pushed
            entry = pusher.next()
            self.assertEqual((entry.named, entry.sent), (A | B | C, sent))
            self.assertEqual((entry.applied, entry.frozen, entry.absent), (applied, 3 - applied, 0))
            return client.info().bytes_pushed - before

        everything = push(A | B | C, 3)
        self.assertEqual(push(A | B | C, 3), everything)
        self.assertGreaterEqual(everything, 7000 * 8)
        client.freeze("b")
        push(A | B | C, 2)  # its answer is how the worker hears of it
        for _ in range(3):
            self.assertEqual(push(A | C, 2), everything - 2000 * 8)
        client.freeze("c")
        push(A | C, 1)
        self.assertEqual(push(A, 1), everything - 6000 * 8)
        client.thaw("b")
        # Not sent, because it has not heard; that it was thawed when the push arrived doesn't count.
        push(A, 1)
        self.assertEqual(push(A | B, 2), everything - 4000 * 8)
        client.thaw("c")
        push(A | B, 2)
        self.assertEqual(push(A | B | C, 3), everything)
        self.assertEqual([leaf.steps for leaf in client.describe().leaves], [12, 5, 7])
        pusher.stop()

    def test_a_worker_that_comes_later_knows_at_once(self):
        server = self.server()
        client = self.client(server.address)
        client.declare(*(harness.leaf(text.split(":")[0], int(text.split(":")[2])) for text in LEAVES))
        client.freeze("a")
        pusher = self.pusher(server.address, LEAVES, "--paced")
        self.assertEqual(pusher.next().sent, B | C)
        pusher.stop()


harness.main()
