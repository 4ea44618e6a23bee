"""A push of 201 messages is cut after each of them, in every way, and after the last its reply is: nothing changed, or
all of it, and the retry hears what the first send would have heard. For Push and for PushPull.

    cut_test.py BUILD_DIR
"""

import random

import grpc

import harness
from harness import Feed, eventually, f64, from_f64, leaf, wire
from proxy import TO_CLIENT, TO_SERVER, Proxy

CHUNK = 5  # bytes: cuts elements in two, and gives the messages their number
SIZES = {"net.a": 75, "net.b": 50}  # elements
BROKEN = (grpc.RpcError, grpc.FutureCancelledError)  # what a call that was cut raises
ANSWER = ("sequence", "commit", "epoch", "lineage", "applied", "frozen", "detached", "absent", "removed", "skipped")


def answer(reply):
    return {field: getattr(reply, field) for field in ANSWER}


class Way:
    """How a push is sent: one of the two methods. `call` is under way; its requests come from `feed`."""

    def __init__(self, method):
        self.is_stream = method == "PushPull"
        self.message = wire.StreamRequest if self.is_stream else wire.PushRequest

    def messages(self, tensors, **fields):
        return harness.push_messages(tensors, CHUNK, self.message, **fields)

    def start(self, client, *messages):
        feed = Feed(*messages)
        method = client.ps.PushPull if self.is_stream else client.ps.Push.future
        return feed, method(feed, timeout=harness.TIMEOUT)

    def reply(self, feed, call):
        """The answer to a push that was sent whole. On a stream a pull follows, which sees it."""
        if not self.is_stream:
            feed.end()
            return call.result()
        feed.put(wire.StreamRequest(pull=wire.PullRequest(selection="net")))
        feed.end()
        responses = list(call)
        pulled = harness.Pulled(responses[1:])
        if pulled.end.sent != len(SIZES):
            raise AssertionError(pulled.end)
        return responses[0].push

    def push(self, client, messages):
        return self.reply(*self.start(client, *messages))


class Cut(harness.TestCase):
    """Gradients of ones by sgd(lr=1): every element is minus the number of pushes applied."""

    def setUp(self):
        self.address = self.server("--group=default=sgd(lr=1)").address
        self.main = self.client(self.address)
        self.tensors = {path: f64(*[1.0] * count) for path, count in SIZES.items()}
        self.main.declare(*(leaf(path, count) for path, count in SIZES.items()), leaf("other", 3))
        self.main.join()
        self.applied = 0

    def assert_pushes(self, applied, what):
        """The number of pushes that went in, and nothing of any other."""
        self.applied = applied
        for path, count in SIZES.items():
            self.assertEqual(set(from_f64(self.main.value(path))), {-float(applied)}, f"{path}: {what}")
        self.assertEqual(self.main.info().pushes_applied, applied, what)

    def wait_for(self, condition, what):
        """Returns the ServerInfo that meets the condition."""

        def look():
            info = self.main.info()
            return condition(info) and info

        return eventually(look, what)

    def assert_nothing_changed(self, before, digest, what):
        info = self.wait_for(lambda info: info.memory.staged == 0, f"nothing is staged, {what}")
        self.assertEqual((info.commit, info.epoch), (before.commit, before.epoch), what)
        self.assertEqual(info.pushes_applied, before.pushes_applied, what)
        self.assertEqual(self.main.digest(), digest, what)
        return info

    def begin(self, way, client, messages, count, before):
        """Sends that many messages, and waits until the server has taken their bytes."""
        feed, call = way.start(client, *messages[:count])
        bytes_pushed = before.bytes_pushed + CHUNK * (count - 1)
        total = messages[0].push.total_bytes

        def has_arrived(info):
            if call.done():  # what it says is worth more than a time-out
                raise AssertionError(f"the call ended before message {count}: {call.code()}: {call.details()}")
            return info.memory.staged >= total and info.bytes_pushed == bytes_pushed

        self.wait_for(has_arrived, f"arrival of message {count} ({bytes_pushed} bytes in all)")
        return feed, call

    def cut_everywhere(self, way, cut):
        """cut(client, call) after every message but the last."""
        sequence = self.main.next_push()
        messages = way.messages(self.tensors, **sequence)
        self.assertGreaterEqual(len(messages), 200)
        before, digest = self.main.info(), self.main.digest()
        for count in range(1, len(messages)):
            client = cut.connect()
            feed, call = self.begin(way, client, messages, count, before)
            cut(client, call)
            with self.assertRaises(BROKEN):
                way.reply(feed, call)
            before = self.assert_nothing_changed(before, digest, f"cut after message {count}")
        reply = way.push(self.main, messages)  # the same sequence: a retry of all of those
        self.assertFalse(reply.replayed)
        self.assertEqual((reply.commit, reply.applied, reply.absent), (before.commit + 1, 2, 1))
        self.assert_pushes(self.applied + 1, "a whole push after all the cut ones")

    # Before the last message.

    def cancelled_calls(self):
        def cut(client, call):
            call.cancel()

        cut.connect = lambda: self.main
        return cut

    def connected(self, address):
        """A client with a connection that stands: the push is what is cut, not the way to it."""
        client = self.client(address)
        client.admin.ServerInfo(harness.admin.ServerInfoRequest(), wait_for_ready=True, timeout=harness.TIMEOUT)
        return client

    def closed_channels(self):
        def cut(client, call):
            client.close()

        cut.connect = lambda: self.connected(self.address)
        return cut

    def cut_connections(self):
        proxy = Proxy(self.address)
        self.addCleanup(proxy.close)

        def cut(client, call):
            proxy.cut()

        cut.connect = lambda: self.connected(proxy.address)
        return cut

    def test_push_cancelled(self):
        self.cut_everywhere(Way("Push"), self.cancelled_calls())

    def test_push_channel_closed(self):
        self.cut_everywhere(Way("Push"), self.closed_channels())

    def test_push_connection_cut(self):
        self.cut_everywhere(Way("Push"), self.cut_connections())

    def test_push_pull_cancelled(self):
        self.cut_everywhere(Way("PushPull"), self.cancelled_calls())

    def test_push_pull_channel_closed(self):
        self.cut_everywhere(Way("PushPull"), self.closed_channels())

    def test_push_pull_connection_cut(self):
        self.cut_everywhere(Way("PushPull"), self.cut_connections())

    # After the last message.

    def reply_is_cut(self, way):
        """The push goes in and its reply gets lost; whatever happens in between, the retry hears that reply."""
        proxy = Proxy(self.address)
        self.addCleanup(proxy.close)
        for count in range(1, 11):
            messages = way.messages(self.tensors, **self.main.next_push())
            before = self.main.info()
            client = self.connected(proxy.address)
            proxy.hold(TO_CLIENT)
            feed, call = way.start(client, *messages)
            eventually(lambda: self.main.info().pushes_applied == count, "the push is applied")
            proxy.cut()
            proxy.release(TO_CLIENT)
            with self.assertRaises(BROKEN):
                way.reply(feed, call)
            expected = {"sequence": count, "commit": before.commit + 1, "epoch": before.epoch}
            expected |= {"lineage": before.lineage, "applied": 2, "absent": 1}
            self.main.freeze("net.b") if count % 2 else self.main.thaw("net.b")
            if count % 2 == 0:
                expected |= {"applied": 1, "frozen": 1}
            digest = self.main.digest()
            for _ in range(2):
                reply = way.push(self.main, messages)
                self.assertTrue(reply.replayed)
                self.assertEqual(answer(reply), answer(wire.PushReply(**expected)))
            self.assertEqual(self.main.digest(), digest)
            self.assertEqual(self.main.info().commit, before.commit + 2)
        self.assertEqual(set(from_f64(self.main.value("net.a"))), {-10.0})
        self.assertEqual(set(from_f64(self.main.value("net.b"))), {-5.0})

    def test_push_reply_cut(self):
        self.reply_is_cut(Way("Push"))

    def test_push_pull_reply_cut(self):
        self.reply_is_cut(Way("PushPull"))

    def retried_until_answered(self, way, send):
        """send(messages) begins a push that is cut at a moment nobody knows. All or nothing, and once."""
        for count in range(1, 41):
            messages = way.messages(self.tensors, **self.main.next_push())
            before, digest = self.main.info(), self.main.digest()
            send(messages)
            self.main.wait_for_nothing_staged()
            went_in = self.main.info().commit - before.commit
            self.assertIn(went_in, (0, 1))
            self.assertEqual(self.main.digest() == digest, went_in == 0)
            reply = way.push(self.main, messages)
            self.assertEqual(reply.replayed, went_in == 1)
            self.assertEqual((reply.commit, reply.applied), (before.commit + 1, 2))
            self.assert_pushes(count, "a push and its retry")

    def cancelled_after_the_last(self, way):
        """Cancelled as soon as gRPC has asked for more than the last message, which is being sent then."""

        def send(messages):
            feed, call = way.start(self.main, *messages)
            eventually(lambda: feed.taken == len(messages), "all messages are taken")
            call.cancel()

        self.retried_until_answered(way, send)

    def test_push_cancelled_after_the_last(self):
        self.cancelled_after_the_last(Way("Push"))

    def test_push_pull_cancelled_after_the_last(self):
        self.cancelled_after_the_last(Way("PushPull"))

    def cut_at_bytes(self, way):
        """The connection is cut after a byte that is drawn, between the first of the push and past its last."""
        seed = random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        source = random.Random(seed)
        proxy = Proxy(self.address)
        self.addCleanup(proxy.close)

        def send(messages):
            proxy.cut_after(TO_SERVER, source.randrange(1, source.choice((3000, 20000))))
            client = self.client(proxy.address)
            feed, call = way.start(client, *messages)
            try:
                way.reply(feed, call)
            except BROKEN:
                pass
            client.close()
            proxy.cut()

        self.retried_until_answered(way, send)

    def test_push_cut_at_bytes(self):
        self.cut_at_bytes(Way("Push"))

    def test_push_pull_cut_at_bytes(self):
        self.cut_at_bytes(Way("PushPull"))


harness.main()
