"""Clients that stop and servers that are stopped: a worker that is held by SIGSTOP in the middle of a push delays no
freeze, and a server drains.

    stop_test.py BUILD_DIR
"""

import os
import signal
import subprocess
import sys

import grpc

import harness
from harness import Feed, eventually, f64, from_f64, leaf, process_state, wire

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
COUNT = 1000  # elements of each leaf
PATHS = ("enc.a", "enc.b", "head")


class Half:
    """A push of ones to all leaves, by one of the two methods, of which half has been sent."""

    def __init__(self, client, method, **fields):
        is_stream = method == "PushPull"
        message = wire.StreamRequest if is_stream else wire.PushRequest
        messages = harness.push_messages({path: f64(*[1.0] * COUNT) for path in PATHS}, 100, message, **fields)
        half = len(messages) // 2
        self.bytes = sum(len(chunk.data) for one in messages[:half] for chunk in one.chunks)
        self.rest = messages[half:]
        self.feed = Feed(*messages[:half])
        call = client.ps.PushPull if is_stream else client.ps.Push.future
        self.call = call(self.feed, timeout=harness.TIMEOUT)
        self.is_stream = is_stream

    def finish(self):
        """Sends the rest; returns the reply."""
        self.feed.put(*self.rest)
        self.feed.end()
        return next(self.call).push if self.is_stream else self.call.result()


def child(address, method):
    """Sends half of its push, says how many bytes, sends the rest when it is told to by a line, and prints what the
    reply counts."""
    client = harness.Client(address)
    client.join()
    half = Half(client, method, **client.next_push())
    print(half.bytes, flush=True)
    sys.stdin.readline()
    reply = half.finish()
    print(reply.applied, reply.frozen, reply.epoch, flush=True)


class Stopped(harness.TestCase):
    def test_freeze_does_not_wait_for_a_stopped_push(self):
        self.stopped_in("Push")

    def test_freeze_does_not_wait_for_a_stopped_push_pull(self):
        self.stopped_in("PushPull")

    def stopped_in(self, method):
        server = self.server("--group=default=sgd(lr=1, momentum=0.9)")
        operator = self.client(server.address)
        operator.declare(*(leaf(path, COUNT) for path in PATHS))
        process = subprocess.Popen(
            [sys.executable, __file__, harness.BUILD_DIR, "--child", server.address, method],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.end, process)
        sent = int(process.stdout.readline())
        eventually(lambda: operator.info().bytes_pushed == sent, "half of the push has come")
        os.kill(process.pid, signal.SIGSTOP)
        eventually(lambda: process_state(process.pid) == "T", "the client is stopped")
        frozen = operator.freeze("enc")
        state = process_state(process.pid)
        self.assertEqual((state, len(frozen.changes)), ("T", 2), "the freeze returned while the client is stopped")
        digest = operator.digest("enc")
        self.assertGreater(operator.info().memory.staged, 0)  # the half is there, and waits
        others = self.client(server.address)
        self.assertEqual(others.push({path: f64(*[1.0] * COUNT) for path in PATHS}).frozen, 2)
        self.assertEqual(process_state(process.pid), "T")
        os.kill(process.pid, signal.SIGCONT)
        output = process.communicate("go on\n", timeout=harness.TIMEOUT)[0]
        self.assertEqual(process.returncode, 0)
        self.assertEqual(output.split(), ["1", "2", str(frozen.epoch)])
        self.assertEqual(operator.digest("enc"), digest)
        self.assertEqual(set(from_f64(operator.value("enc.a"))), {0.0})
        self.assertEqual(set(from_f64(operator.value("head"))), {-1.0 - (0.9 * 1.0 + 1.0)})
        operator.wait_for_nothing_staged()

    def end(self, process):
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


class Drained(harness.TestCase):
    """Beside what program.espalierd has: several kinds of calls at once, and what became of the pushes."""

    def start(self):
        """A server and its client, which waits for its pushes to end for as long as it takes."""
        server = self.server("--group=default=sgd(lr=1)", "--drain-timeout=1h")
        client = self.client(server.address)
        client.declare(*(leaf(path, COUNT) for path in PATHS))
        return server, client

    def drain(self, server, client, *halves):
        """Sends the signal once those halves have come; returns once it is being obeyed."""
        sent = sum(half.bytes for half in halves)
        eventually(lambda: client.info().bytes_pushed == sent, "the halves have come")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: "draining" in server.stderr(), "draining")

    def test_what_is_under_way_succeeds_and_no_more_begins(self):
        server, client = self.start()
        idle_feed = Feed()
        idle = client.ps.PushPull(idle_feed, timeout=harness.TIMEOUT)
        push, stream = Half(client, "Push"), Half(client, "PushPull")
        self.drain(server, client, push, stream)
        self.assert_fails(UNAVAILABLE, "shutting down", next, idle)
        idle_feed.end()
        for _ in range(100):  # on a connection that is there, and stays as long as it is needed
            self.assert_fails(UNAVAILABLE, "shutting down", client.push, {"head": f64(*[1.0] * COUNT)})
            late = client.ps.PushPull(iter([wire.StreamRequest(pull={"paths": ["head"]})]), timeout=harness.TIMEOUT)
            self.assert_fails(UNAVAILABLE, "shutting down", list, late)
        first = push.finish()
        self.assertIsNone(server.process.poll(), "it waits for the other")
        second = stream.finish()
        self.assertEqual((first.applied, second.applied, second.commit), (3, 3, first.commit + 1))
        self.assertEqual(server.wait(), 0)

    def test_a_second_signal_ends_it_at_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name):
                server, client = self.start()
                half = Half(client, "Push")
                self.drain(server, client, half)
                server.process.send_signal(number)
                self.assertEqual(server.wait(), 128 + number)
                self.assertEqual(half.call.exception().code(), UNAVAILABLE)
                half.feed.end()


if sys.argv[1:2] == ["--child"]:
    child(*sys.argv[2:])
else:
    harness.main()
