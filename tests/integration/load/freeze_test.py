"""Freezing while eight clients push as fast as they can: what is frozen stands still to the last bit, and everything
equals a replay of the pushes, one by one, in commit order.

    freeze_test.py BUILD_DIR
"""

from load import LONG, Change, Push, TestCase, harness, scaled

# Two groups and both dtypes, sizes that fill no block, and one tensor that several kernel threads share.
LEAVES = [
    "enc.a:f64:1000",
    "enc.b:f32:10x37",
    "enc.c:f32:70001",
    "head.w:f32:999",
    "head.b:f64:3",
    "head.deep.c:f64:64x5",
]
GROUPS = [
    "--group=default=adamw(lr=0.01, weight_decay=0.1)",
    "--group=momentum=sgd(lr=0.001, momentum=0.9)",
    "--assign=head=momentum",
    "--threads=3",
    "--rpc-threads=4",
    # The pusher reads the library's flags before each push; no heartbeat may change them in between.
    "--lease=1h",
]
GRADIENTS = ["--random", "--subset"]


class Freeze(TestCase):
    def digests(self, client):
        """The digest of each leaf by its path, with its steps, and the commit at which they are."""
        described = client.describe(digest=True)
        return {leaf.path: (leaf.digest.hex(), leaf.steps) for leaf in described.leaves}, described.commit

    def replayed(self, pusher, *flags):
        """The digests on a new server to which the pusher's log was applied."""
        twin = self.server(*GROUPS)
        self.replay(pusher, LEAVES, twin.address, *GRADIENTS, *flags)
        return self.digests(self.client(twin.address))[0]

    def test_a_frozen_window(self):
        server = self.server(*GROUPS)
        client = self.client(server.address)
        pusher = self.pusher(server.address, LEAVES, *GRADIENTS, "--threads=8")
        pusher.wait_for(Push, scaled(2000, 100))
        # A leaf of either group, under both kinds of selection.
        frozen = client.apply({"freeze": {"selection": "enc"}}, {"freeze": {"selection": "head.*.c"}})
        first, first_commit = self.digests(client)
        still = ["enc.a", "enc.b", "enc.c", "head.deep.c"]
        later = first_commit + scaled(10000, 200)
        harness.eventually(lambda: client.info().commit >= later, "10,000 pushes later", LONG)
        last, last_commit = self.digests(client)
        self.assertGreaterEqual(last_commit, later)
        log = pusher.stop()  # asserts that no push has failed
        for path in still:
            self.assertEqual(first[path], last[path])
            self.assertGreater(first[path][1], 0)
        for path in set(last) - set(still):
            self.assertNotEqual(first[path], last[path])
        # Who pushed after the freeze was told of it.
        for push in log:
            self.assertEqual(push.epoch >= frozen.epoch, push.commit > frozen.commit)
        # The replay knows nothing of the freeze: it ends with the last commit before it.
        replayed = self.replayed(pusher, f"--below={frozen.commit}")
        for path in still:
            self.assertEqual(replayed[path], first[path])

    def test_cycles(self):
        cycles = scaled(10000, 100)
        server = self.server(*GROUPS)
        operator = [f"--cycles={cycles}", "--selection=enc"]
        pusher = self.pusher(server.address, LEAVES, *GRADIENTS, "--threads=8", *operator)
        log = pusher.wait()  # asserts that no push and no change has failed
        changes = [entry for entry in log if isinstance(entry, Change)]
        pushes = [entry for entry in log if isinstance(entry, Push)]
        self.assertEqual([change.is_freeze for change in changes], [True, False] * cycles)
        self.assertEqual([change.epoch for change in changes], [changes[0].epoch + i for i in range(2 * cycles)])
        # Every commit but the declaration's is in the log, once.
        commits = sorted(entry.commit for entry in log)
        self.assertEqual(commits, list(range(commits[0], commits[0] + len(commits))))
        # Each push met the layout of its place in that order.
        epoch = changes[0].epoch - 1
        for entry in sorted(log, key=lambda entry: entry.commit):
            epoch = entry.epoch if isinstance(entry, Change) else epoch
            self.assertEqual(entry.epoch, epoch)
        self.assertTrue(any(push.frozen for push in pushes))
        self.assertGreater(len(pushes), cycles // 10)
        client = self.client(server.address)
        digests, commit = self.digests(client)
        self.assertEqual(commit, commits[-1])
        print(f"{len(pushes)} pushes during {cycles} cycles", flush=True)
        self.assertEqual(self.replayed(pusher), digests)


harness.main()
