"""Pushes that do not fit into --max-staged together: all of them finish, memory stays in its bounds, and one that holds
its room without sending is cut off, so that the others go on. For Push and for PushPull.

    staging_test.py BUILD_DIR
"""

import struct
import threading

import grpc

from load import TestCase, harness, is_sanitized, resident, resident_peak, scaled
from proxy import TO_CLIENT, TO_SERVER, Proxy

MIB = 1 << 20
CALL = 4 * harness.TIMEOUT  # for pushes that wait for each other
PUSHES = 8
PUSH = scaled(100, 8) * MIB
MAX_STAGED = PUSH * 256 // 100
OVERHEAD = 64 * MIB  # what gRPC may have on its way
MOMENTUM = 0.5  # makes the order matter, and the values exact
FLAGS = [
    f"--max-staged={MAX_STAGED}",
    f"--group=default=sgd(lr=1, momentum={MOMENTUM})",
    "--group=plain=sgd(lr=1)",
    "--assign=wide=plain",
]
TREE = {"w": PUSH, "wide": 2 * PUSH}
HELD = 3  # chunks that a holder sends before it stops
STALL = "--stall-timeout=3s"
METHODS = "Push", "PushPull"


class Sender:
    """A push of one leaf, all of whose elements are `value`, in chunks of 1 MiB. Nobody passes the barrier `begun`
    before each push has sent its header. After `chunks` of them (None: all) it stops until may_end is set."""

    def __init__(self, client, method, value, path="w", begun=None, chunks=None):
        self.value = value
        self.begun = begun
        self.is_stream = method == "PushPull"
        self.message = harness.wire.StreamRequest if self.is_stream else harness.wire.PushRequest
        self.header = harness.wire.PushHeader(
            leaf_count=1, total_bytes=TREE[path], wait_ms=int(CALL * 1000), **client.next_push()
        )
        self.leaf = client.ids[path]
        self.chunks = TREE[path] // MIB if chunks is None else chunks
        self.stops = chunks is not None
        self.may_end = threading.Event()
        call = client.ps.PushPull if self.is_stream else client.ps.Push.future
        self.call = call(self.messages(), timeout=CALL)

    def messages(self):
        yield self.message(push=self.header)
        if self.begun is not None:
            self.begun.wait(CALL)
        data = struct.pack("<f", self.value) * (MIB // 4)
        for i in range(self.chunks):
            yield self.message(chunks=[harness.types.Chunk(leaf_id=self.leaf, offset=i * MIB, data=data)])
        if self.stops:
            self.may_end.wait(CALL)

    def reply(self):
        return next(self.call).push if self.is_stream else self.call.result()


class Staging(TestCase):
    def start(self, paths, *flags):
        """A server with these leaves. self.base is what its process takes beside what it stages: what it had when it
        was new, the parameters, and their state."""
        self.running = self.server(*FLAGS, *flags)
        self.main = self.client(self.running.address)
        self.main.info()
        new = resident(self.running.pid)
        self.main.declare(*(harness.leaf(path, TREE[path] // 4, dtype="DTYPE_F32") for path in paths))
        memory = self.main.info().memory
        self.base = new + memory.parameters + memory.state

    def worker(self, address):
        """A client with a connection and a session of its own."""
        worker = self.client(address)
        worker.join()
        worker.ids = self.main.ids
        return worker

    def assert_value(self, pushes):
        """Of every element of w: the pushes {commit: value}, in the order of their commits. wide has had none."""
        velocity = value = 0.0
        for commit in sorted(pushes):
            velocity = MOMENTUM * velocity + pushes[commit]
            value -= velocity
        # One element more, because a cut may be inside of one.
        expected = {"w": struct.pack("<f", value) * (MIB // 4 + 1), "wide": bytes(MIB + 4)}
        expected = {self.main.ids[path]: expected[path] for path in self.main.ids}
        got = dict.fromkeys(expected, 0)
        for response in self.main.ps.Pull(harness.wire.PullRequest(leaf_ids=expected), timeout=harness.TIMEOUT):
            for chunk in response.chunks:
                begin = chunk.offset % 4
                self.assertEqual(chunk.data, expected[chunk.leaf_id][begin : begin + len(chunk.data)])
                got[chunk.leaf_id] += len(chunk.data)
        self.assertEqual(list(got.values()), [TREE[path] for path in self.main.ids])
        steps = {leaf.path: leaf.steps for leaf in self.main.describe().leaves}
        self.assertEqual(steps, {path: len(pushes) if path == "w" else 0 for path in self.main.ids})

    def finish(self, senders):
        """All of them are answered and applied, once, and nothing else was."""
        replies = [sender.reply() for sender in senders]
        self.assertEqual({(reply.applied, reply.replayed) for reply in replies}, {(1, False)})
        commits = {reply.commit: sender.value for reply, sender in zip(replies, senders)}
        self.assertEqual(len(commits), len(senders))
        self.main.wait_for_nothing_staged()
        self.assert_value(commits)

    def start_senders(self, method, workers, others=0):
        """A sender for each worker, which begin together, and with so many others that wait for the same barrier."""
        begun = threading.Barrier(len(workers) + others)
        return begun, [Sender(worker, method, float(i + 1), begun=begun) for i, worker in enumerate(workers)]

    def interleave(self, method, workers):
        _, senders = self.start_senders(method, workers)
        self.finish(senders)
        peak = resident_peak(self.running.pid)
        print(f"MiB: base {self.base >> 20}, staging {MAX_STAGED >> 20}, peak {peak >> 20}", flush=True)
        if not is_sanitized(self.running.pid):
            self.assertLessEqual(peak, self.base + MAX_STAGED + OVERHEAD)

    def test_interleaved_on_one_connection(self):
        for method in METHODS:
            with self.subTest(method=method):
                self.start(["w"])
                self.interleave(method, [self.worker(self.running.address)] * PUSHES)

    def test_interleaved_on_many_connections(self):
        for method in METHODS:
            with self.subTest(method=method):
                self.start(["w"])
                self.interleave(method, [self.worker(self.running.address) for _ in range(PUSHES)])

    def test_more_than_there_is(self):
        self.start(TREE)
        before = self.main.info()
        header = harness.wire.PushHeader(leaf_count=2, total_bytes=3 * PUSH)
        for call, message in (
            (self.main.ps.Push.future, harness.wire.PushRequest),
            (self.main.ps.PushPull, harness.wire.StreamRequest),
        ):
            feed = harness.Feed(message(push=header))  # the first message, and no other before the answer
            under_way = call(feed, timeout=harness.TIMEOUT)
            harness.eventually(under_way.done, "it is refused")
            self.assertEqual(under_way.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertRegex(under_way.details(), f"bytes of staging.*--max-staged is {MAX_STAGED}")
            feed.end()
        after = self.main.info()
        self.assertEqual((after.commit, after.memory.staged), (before.commit, 0))
        self.assert_value({})

    # A holder has more room than it leaves to any other, and stops after its first chunks.

    def held_up(self, method, *flags):
        """A holder behind a proxy, which has stopped, and senders that wait for its room."""
        self.start(TREE, *flags)
        proxy = Proxy(self.running.address)
        self.addCleanup(proxy.close)
        holder = Sender(self.worker(proxy.address), method, 1000.0, path="wide", chunks=HELD)
        self.addCleanup(holder.may_end.set)
        harness.eventually(lambda: self.main.info().bytes_pushed == HELD * MIB, "the holder's chunks have arrived")
        workers = [self.worker(self.running.address) for _ in range(3)]
        begun, senders = self.start_senders(method, workers, others=1)
        begun.wait(CALL)
        info = self.main.info()
        self.assertGreaterEqual(info.memory.staged, 2 * PUSH)
        self.assertEqual(info.bytes_pushed, HELD * MIB)
        return proxy, holder, senders

    def assert_stalled(self, holder):
        harness.eventually(holder.call.done, "the holder is answered")
        self.assertEqual(holder.call.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertRegex(holder.call.details(), f"--stall-timeout.*{HELD * MIB} of {2 * PUSH}")

    def test_a_holder_that_stops(self):
        for method in METHODS:
            with self.subTest(method=method):
                _, holder, senders = self.held_up(method, STALL)
                self.finish(senders)
                self.assert_stalled(holder)

    def test_a_holder_whose_connection_hangs(self):
        for method in METHODS:
            with self.subTest(method=method):
                proxy, holder, senders = self.held_up(method, STALL)
                proxy.hold(TO_SERVER)
                proxy.hold(TO_CLIENT)
                self.finish(senders)
                self.assertFalse(holder.call.done())
                proxy.release(TO_CLIENT)
                self.assert_stalled(holder)

    def test_a_holder_whose_connection_is_cut(self):
        for method in METHODS:
            with self.subTest(method=method):
                proxy, holder, senders = self.held_up(method, "--stall-timeout=1h")
                proxy.cut()
                self.finish(senders)
                harness.eventually(holder.call.done, "the holder is told")
                self.assertEqual(holder.call.code(), grpc.StatusCode.UNAVAILABLE)


harness.main()
