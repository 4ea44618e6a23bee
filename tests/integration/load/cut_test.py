"""Replies that are lost: every push is applied exactly once all the same, and no worker hears of it.

    cut_test.py BUILD_DIR
"""

import struct

from load import Push, TestCase, harness, scaled
from proxy import Proxy

LEAVES = ["a:f64:1000", "b.c:f64:3x5x7", "d:f64:1"]
WORKERS = 4


class Cut(TestCase):
    def test_exactly_once(self):
        pushes = scaled(1000, 40)
        server = self.server("--group=default=sgd(lr=1)")
        proxy = Proxy(server.address, cut_replies=0.3)
        self.addCleanup(proxy.close)
        count = [f"--threads={WORKERS}", f"--pushes={pushes}"]
        pusher = self.pusher(proxy.address, LEAVES, *count, "--deadline-ms=600000")
        log = pusher.wait()  # asserts that no push has failed
        self.assertEqual(len(log), WORKERS * pushes)
        self.assertTrue(all(isinstance(entry, Push) for entry in log))
        self.assertEqual(len({push.commit for push in log}), WORKERS * pushes)
        replayed = sum(push.replayed for push in log)
        print(f"{proxy.cuts} replies were cut; {replayed} of {len(log)} pushes got their answer on a retry", flush=True)
        self.assertGreater(replayed, len(log) // 50)
        client = self.client(server.address)
        for path in "a", "b.c", "d":
            values = set(struct.iter_unpack("<d", client.value(path)))
            self.assertEqual(values, {(-float(WORKERS * pushes),)})
        for leaf in client.describe().leaves:
            self.assertEqual(leaf.steps, WORKERS * pushes)


harness.main()
