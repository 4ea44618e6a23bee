"""Reading while others push as fast as they can, without waiting for readers: no tensor is torn, a consistent pull has one
commit everywhere, what is kept apart for readers stays in its option, and a reader that takes nothing is ended.

    reads_test.py BUILD_DIR

Each push adds 1 to every element of every leaf, so that a value says how many pushes it has seen.
"""

import os
import select
import subprocess
import sys
import threading

import grpc
import numpy

from load import LONG, TestCase, harness, is_sanitized, resident, resident_peak, scaled
from proxy import Proxy

MIB = 1 << 20
BIG = scaled(8, 4) * MIB  # several messages in any case
SMALLS = scaled(1000, 100)  # leaves
SMALL = 16  # elements
PULLS = scaled(5, 2)  # of each reader
READERS = 3
THROTTLE = 10_000_000  # bytes a second
MAX_STAGED = 64 * MIB
MAX_COPY_ON_WRITE = 40 * MIB
OVERHEAD = 64 * MIB
FLAGS = ["--group=default=sgd(lr=1)", f"--max-staged={MAX_STAGED}"]
NEVER = "--stall-timeout=1h"
# A reader takes what it asks for, and little more.
SHORT_SIGHTED = {"grpc.http2.bdp_probe": 0}
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


def tree():
    """A big leaf, and the small ones."""
    yield harness.leaf("big", BIG // 4, dtype="DTYPE_F32")
    for i in range(SMALLS):
        yield harness.leaf(f"small.{i:04}", SMALL, dtype="DTYPE_F32")


def push_on(address):
    """What --pusher does: pushes until its stdin ends, then prints how many pushes were applied."""
    client = harness.Client(address)
    client.declare(*tree())
    small = numpy.full(SMALL, -1, "<f4").tobytes()
    tensors = {client.ids[leaf.path]: small for leaf in tree()}
    tensors[client.ids["big"]] = numpy.full(BIG // 4, -1, "<f4").tobytes()
    big, *smalls = harness.chunks_of(tensors, BIG)
    header = harness.push_header(tensors, wait_ms=int(LONG * 1000))
    messages = [harness.wire.StreamRequest(push=header, chunks=smalls)]
    messages += [harness.wire.StreamRequest(chunks=[chunk]) for chunk in harness.chunks_of({big.leaf_id: big.data})]

    def requests():
        while not select.select([sys.stdin], [], [], 0)[0]:
            yield from messages

    print(sum(response.push.applied == 1 + SMALLS for response in client.ps.PushPull(requests())), flush=True)


class Pulled(harness.Pulled):
    """With what its tensors say."""

    def value(self, leaf):
        """The one integer of a leaf."""
        elements = numpy.frombuffer(self.tensors[leaf], "<f4")
        first = elements[0]
        if not (elements == first).all() or first != int(first):
            raise AssertionError(f"leaf {leaf} is torn: {first} and {elements[elements != first][:3]}")
        return int(first)


class Reads(TestCase):
    def start(self, *flags):
        """A server with the tree, and one that pushes to it."""
        self.running = self.server(*FLAGS, *flags)
        self.main = self.client(self.running.address)
        self.main.info()
        new = resident(self.running.pid)
        self.before = self.main.declare(*tree()).commit  # a value is the commit that it is of, less this
        self.base = new + self.main.info().memory.parameters
        self.ids = list(self.main.ids.values())  # the big one first
        self.pusher = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), harness.BUILD_DIR, "--pusher", self.running.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.end_pusher)
        self.wait_for_commits(self.before, 5)

    def end_pusher(self):
        """Returns how many pushes it has made."""
        count, _ = self.pusher.communicate(timeout=LONG)
        return int(count)

    def wait_for_commits(self, commit, count):
        """Waits until there are so many after a commit: pushes go on."""

        def look():
            if self.pusher.poll() is not None:
                raise AssertionError("the pusher has ended")
            return self.main.info().commit >= commit + count

        harness.eventually(look, f"{count} commits after {commit}", LONG)

    def reader(self, bytes_per_second=None):
        """A client, through a proxy of its own."""
        proxy = Proxy(self.running.address, bytes_per_second=bytes_per_second)
        self.addCleanup(proxy.close)
        return self.client(proxy.address, **SHORT_SIGHTED)

    def begin(self, client, **request):
        """A pull of all leaves, of which the first message was read."""
        call = client.ps.Pull(harness.wire.PullRequest(leaf_ids=self.ids, **request), timeout=LONG)
        return call, Pulled([next(call)])

    def finish(self, call, pulled):
        """Reads the rest, and returns the values, the big leaf's first."""
        for response in call:
            pulled.add(response)
        self.assertEqual(list(pulled.tensors), self.ids)
        self.assertEqual(pulled.end.sent, len(self.ids))
        return [pulled.value(leaf) for leaf in self.ids]

    def assert_consistent(self, pulled, values):
        self.assertEqual(set(values), {pulled.header.commit - self.before})

    def in_parallel(self, *jobs):
        """Runs them on threads; the first that fails fails the test."""
        failed = []

        def run(job):
            try:
                job()
            except BaseException as failure:
                failed.append(failure)

        threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        if failed:
            raise failed[0]

    def watch_memory(self, ended):
        """Until then, what is kept for readers is within its option."""
        most = 0
        while not ended.wait(0.005):
            memory = self.main.info().memory
            self.assertEqual(memory.copy_on_write_max, MAX_COPY_ON_WRITE)
            self.assertLessEqual(memory.copy_on_write, MAX_COPY_ON_WRITE)
            most = max(most, memory.copy_on_write)
        self.assertGreater(most, 0)

    def read_on(self, check, **request):
        """Readers behind slow links, who stop in each pull until pushes have gone on."""
        ended = threading.Event()

        def read():
            client = self.reader(THROTTLE)
            for _ in range(PULLS):
                call, pulled = self.begin(client, **request)
                self.wait_for_commits(pulled.header.commit, 5)
                check(pulled, self.finish(call, pulled))

        def read_all():
            try:
                self.in_parallel(*[read] * READERS)
            finally:
                ended.set()

        self.in_parallel(read_all, lambda: self.watch_memory(ended))
        pushes = self.end_pusher()
        self.assertEqual(self.main.info().commit, self.before + pushes)
        pulled = Pulled(self.main.ps.Pull(harness.wire.PullRequest(), timeout=harness.TIMEOUT))
        self.assertEqual({pulled.value(leaf) for leaf in self.ids}, {pushes})
        self.assert_nothing_kept()
        peak = resident_peak(self.running.pid)
        print(f"{pushes} pushes; MiB: base {self.base >> 20}, peak {peak >> 20}", flush=True)
        if not is_sanitized(self.running.pid):
            self.assertLessEqual(peak, self.base + MAX_STAGED + MAX_COPY_ON_WRITE + OVERHEAD)

    def assert_nothing_kept(self):
        harness.eventually(lambda: self.main.info().memory.copy_on_write == 0, "nothing is kept for readers")

    def test_consistent_pulls(self):
        self.start(NEVER, f"--max-copy-on-write={MAX_COPY_ON_WRITE}")
        self.read_on(self.assert_consistent, consistent=True)

    def test_plain_pulls(self):
        self.start(NEVER, f"--max-copy-on-write={MAX_COPY_ON_WRITE}")

        def check(pulled, values):
            big, *smalls = values
            self.assertGreaterEqual(big, pulled.header.commit - self.before)
            # The big one was being read when the others changed: a pull that is not consistent is known by that.
            self.assertGreater(min(smalls), big)

        self.read_on(check)

    def test_a_budget(self):
        self.start(NEVER, f"--max-copy-on-write={BIG * 3 // 2}")
        self.main.declare(harness.leaf("other", BIG // 4, dtype="DTYPE_F32"))
        self.before += 1
        self.assert_fails(
            RESOURCE_EXHAUSTED, f"--max-copy-on-write is {BIG * 3 // 2}", self.main.pull, consistent=True
        )
        first, first_pulled = self.begin(self.reader(), consistent=True)
        kept = self.main.info().memory.copy_on_write
        self.assertGreaterEqual(kept, BIG)
        for request in {"consistent": True}, {}:
            self.assert_fails(
                DEADLINE_EXCEEDED, "--max-copy-on-write", self.main.pull, leaf_ids=self.ids, wait_ms=200, **request
            )
        before = self.main.info().commit

        def wait_for_turn():
            call, pulled = self.begin(self.reader(), consistent=True)
            self.assert_consistent(pulled, self.finish(call, pulled))
            self.assertGreaterEqual(pulled.header.commit, before)

        def release():
            harness.eventually(lambda: self.main.info().pulls_active == 1 + READERS, "the others wait")
            self.wait_for_commits(before, 5)
            self.assertEqual(self.main.info().memory.copy_on_write, kept)
            self.assert_consistent(first_pulled, self.finish(first, first_pulled))

        self.in_parallel(release, *[wait_for_turn] * READERS)
        self.assert_nothing_kept()

    def test_a_tensor_larger_than_the_budget(self):
        self.start(f"--max-copy-on-write={BIG // 2}")
        for request in {"consistent": True}, {}:
            self.assert_fails(RESOURCE_EXHAUSTED, f"--max-copy-on-write is {BIG // 2}", self.main.pull, **request)
        small = self.main.pull(leaf_ids=self.ids[1:], consistent=True)
        self.assertEqual(small.end.sent, SMALLS)

    def test_pushes_do_not_wait_for_a_reader(self):
        """Who takes its time, and in the end all of it."""
        self.start(NEVER)
        for request in {"consistent": True}, {}:
            call, pulled = self.begin(self.reader(), **request)
            self.wait_for_commits(pulled.header.commit, scaled(50, 10))
            self.assertGreaterEqual(self.main.info().memory.copy_on_write, BIG)
            values = self.finish(call, pulled)
            if request:
                self.assert_consistent(pulled, values)
        self.assert_nothing_kept()

    def test_a_reader_that_takes_nothing(self):
        self.start("--stall-timeout=3s")
        pull = harness.wire.PullRequest(leaf_ids=self.ids, consistent=True)
        feed = harness.Feed(harness.wire.StreamRequest(pull=pull))
        self.addCleanup(feed.end)
        for method in "Pull", "PushPull":
            with self.subTest(method=method):
                request = pull if method == "Pull" else feed
                call = getattr(self.reader().ps, method)(request, timeout=LONG)
                harness.eventually(lambda: self.main.info().memory.copy_on_write >= BIG, "the pull has begun")
                self.assert_nothing_kept()
                self.wait_for_commits(self.main.info().commit, 5)
                with self.assertRaises(grpc.RpcError) as caught:
                    list(call)
                self.assertEqual(caught.exception.code(), DEADLINE_EXCEEDED)
                self.assertRegex(caught.exception.details(), "--stall-timeout")


if sys.argv[1:2] == ["--pusher"]:
    push_on(sys.argv[2])
else:
    harness.main()
