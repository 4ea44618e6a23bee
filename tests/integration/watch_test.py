"""Watch with follow: a worker hears of every change of the layout while it happens, or of many at once where it is
slow, and is told when the server goes.

    watch_test.py BUILD_DIR
"""

import signal
import threading

import grpc

import harness
from harness import Feed, eventually, f64, leaf, wire

DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOW = 2**64 - 1
PAGE = 1 << 20


class Picture:
    """What a watcher knows of the leaves, from nothing but events."""

    def __init__(self):
        self.paths = {}  # of ids
        self.frozen = {}
        self.epoch = 0
        self.events = 0

    def add(self, event):
        self.events += 1
        self.epoch = event.epoch
        for one in event.leaves:
            if one.path:
                self.paths[one.id] = one.path
            self.frozen[one.id] = one.frozen

    def of_describe(self, described):
        self.epoch = described.epoch
        for one in described.leaves:
            self.paths[one.id], self.frozen[one.id] = one.path, one.frozen
        return self

    def __eq__(self, other):
        return (self.paths, self.frozen, self.epoch) == (other.paths, other.frozen, other.epoch)


class Following(harness.TestCase):
    def start(self, *flags, leaves=("enc.w", "enc.b", "head.w")):
        self.started = self.server(*flags)
        self.c = self.client(self.started.address)
        self.c.declare(*(leaf(path, 2) for path in leaves))

    def slow_client(self):
        """One whose connection holds little that was not read."""
        return self.client(self.started.address, **{"grpc.http2.bdp_probe": 0, "grpc.http2.lookahead_bytes": 1 << 16})

    def follow(self, since_epoch, client=None, timeout=4 * harness.TIMEOUT):
        request = wire.WatchRequest(since_epoch=since_epoch, follow=True)
        return (client or self.c).ps.Watch(request, timeout=timeout)

    def wait_for_watches(self, count):
        eventually(lambda: self.c.info().watches == count, f"{count} watches")

    def flags(self, event):
        return {one.id: one.frozen for one in event.leaves}

    def test_freezes_of_one_are_heard_by_another(self):
        self.start()
        ids, other = self.c.ids, self.client(self.started.address)
        watch = self.follow(0, other)
        first = next(watch)
        self.assertEqual({one.path: one.id for one in first.leaves}, ids)
        self.assertEqual((first.epoch, first.lineage), (self.c.info().epoch, self.c.info().lineage))
        frozen = self.c.freeze("enc")
        event = next(watch)
        self.assertEqual(self.flags(event), {ids["enc.w"]: True, ids["enc.b"]: True})
        self.assertEqual((event.epoch, event.commit), (frozen.epoch, frozen.commit))
        self.assertEqual({one.path for one in event.leaves}, {""})
        self.c.thaw("enc.w")
        self.assertEqual(self.flags(next(watch)), {ids["enc.w"]: False})
        # New leaves come with their paths; pushes are no change of the layout, and neither is a freeze of the frozen.
        self.c.push({"head.w": f64(1, 1)})
        self.c.freeze("enc.b")
        self.c.declare(leaf("new.a", 2, frozen=True))
        (one,) = next(watch).leaves
        self.assertEqual((one.path, one.id, one.frozen), ("new.a", self.c.ids["new.a"], True))

    def test_removed_leaves_are_told(self):
        self.start()
        ids, before = dict(self.c.ids), self.c.info().epoch
        watch = self.follow(NOW)
        next(watch)
        self.c.apply({"remove": {"selection": "enc.w"}})
        event = next(watch)
        self.assertEqual([(one.id, one.removed, one.path) for one in event.leaves], [(ids["enc.w"], True, "")])
        self.assertEqual([one.id for one in next(self.follow(before)).leaves if one.removed], [ids["enc.w"]])
        # Who knows nothing has nothing to forget.
        self.assertNotIn(True, [one.removed for one in next(self.follow(0)).leaves])

    def test_since(self):
        self.start()
        epoch = self.c.info().epoch
        self.c.declare(leaf("new.a", 2))
        self.c.freeze("enc.w")
        event = next(self.follow(epoch))
        self.assertEqual({one.id: one.path for one in event.leaves}, {self.c.ids["enc.w"]: "", self.c.ids["new.a"]: "new.a"})
        # The epoch of now, and those that are not there yet: from now on.
        for since in (epoch + 2, epoch + 100, NOW):
            watch = self.follow(since)
            event = next(watch)
            self.assertEqual((event.epoch, len(event.leaves)), (self.c.info().epoch, 0))
            thawed = self.c.thaw("enc.w")
            event = next(watch)
            self.assertEqual((event.epoch, self.flags(event)), (thawed.epoch, {self.c.ids["enc.w"]: False}))
            self.c.freeze("enc.w")
        self.assert_fails(grpc.StatusCode.NOT_FOUND, "^tree", self.c.ps.Watch, wire.WatchRequest(tree="x", follow=True))

    def test_watches_are_counted_while_they_last(self):
        self.start()
        clients = [self.client(self.started.address) for _ in range(3)]
        watches = [self.follow(NOW, client) for client in clients]
        self.wait_for_watches(3)
        watches[0].cancel()
        self.wait_for_watches(2)
        clients[1].close()
        self.wait_for_watches(1)
        self.c.freeze("enc")  # those that went are not told
        self.assertEqual(len(next(watches[2]).leaves), 0)
        self.assertEqual(len(next(watches[2]).leaves), 2)
        list(self.c.ps.Watch(wire.WatchRequest(), timeout=harness.TIMEOUT))  # one that does not follow is none
        self.assertEqual(self.c.info().watches, 1)

    def test_many_changes_are_one_to_a_slow_client(self):
        """1,000 transactions, while the watcher reads nothing, of many times the bytes that its connection holds."""
        self.start("--stall-timeout=1h", leaves=[f"layer{i:03}.weight" for i in range(200)])
        watch, picture = self.follow(0, self.slow_client()), Picture()
        eventually(lambda: self.c.info().watches == 1, "it watches")
        for _ in range(499):
            self.c.freeze("**")
            self.c.thaw("**")
        self.c.freeze("layer1*")
        self.c.freeze("layer*2.**")
        expected = Picture().of_describe(self.c.describe())
        while picture.epoch != expected.epoch:
            picture.add(next(watch))
        self.assertEqual(picture, expected)
        self.assertLess(picture.events, 900)
        watch.cancel()

    def test_pages(self):
        """A client that breaks off between two pages asks from where it was."""
        paths = [f"{i:04}." + ".".join("x" * 200 for _ in range(4)) for i in range(3000)]
        self.start(leaves=paths)
        pages = list(self.c.ps.Watch(wire.WatchRequest(), timeout=harness.TIMEOUT))
        watch, picture = self.follow(0), Picture()
        for _ in pages:
            page = next(watch)
            self.assertLessEqual(page.ByteSize(), PAGE)
            picture.add(page)
        self.assertGreater(len(pages), 2)
        epoch = self.c.info().epoch
        self.assertEqual([page.epoch for page in pages], [0] * (len(pages) - 1) + [epoch])
        self.assertEqual(picture, Picture().of_describe(self.c.describe()))
        # A layout that comes between two pages is told after the last.
        watch = self.follow(0, self.client(self.started.address))
        picture.add(next(watch))
        frozen = self.c.freeze("0000")
        while picture.epoch != frozen.epoch:
            picture.add(next(watch))
        self.assertEqual(picture, Picture().of_describe(self.c.describe()))

    def test_who_takes_nothing_is_cut_off(self):
        paths = [f"{i:04}." + ".".join("x" * 200 for _ in range(4)) for i in range(3000)]
        self.start("--stall-timeout=200ms", leaves=paths)
        watch = self.follow(0, self.slow_client())
        next(watch)  # the first page
        self.wait_for_watches(0)
        with self.assertRaises(grpc.RpcError) as caught:
            list(watch)
        self.assertEqual(caught.exception.code(), DEADLINE_EXCEEDED)
        self.assertIn("--stall-timeout", caught.exception.details())

    def test_who_is_told_nothing_is_not(self):
        self.start("--stall-timeout=100ms")
        watch = self.follow(NOW)
        next(watch)
        feed = Feed(harness.push_messages({"head.w": f64(1, 1)})[0])
        push = self.c.ps.Push.future(feed, timeout=harness.TIMEOUT)
        self.assertEqual(push.exception().code(), DEADLINE_EXCEEDED)  # so much time has passed
        feed.end()
        self.c.freeze("enc")
        self.assertEqual(len(next(watch).leaves), 2)

    def test_the_end_of_the_server(self):
        self.start("--drain-timeout=1h")
        watches = [self.follow(since) for since in (0, NOW)]
        for watch in watches:
            next(watch)
        feed = Feed(*harness.push_messages({"head.w": f64(1, 1)}, 8))
        messages = [feed.queue.get() for _ in range(3)]  # header and two chunks
        feed.put(*messages[:2])
        push = self.c.ps.Push.future(feed, timeout=harness.TIMEOUT)
        eventually(lambda: self.c.info().bytes_pushed == 8, "half of a push has come")
        self.started.process.send_signal(signal.SIGTERM)
        for watch in watches:
            self.assert_fails(UNAVAILABLE, "^the server is shutting down$", next, watch)
        self.assertIsNone(self.started.process.poll(), "the push is waited for")
        feed.put(messages[2])
        feed.end()
        self.assertEqual(push.result().applied, 1)
        self.assertEqual(self.started.wait(), 0)

    def test_watchers_come_and_go_under_load(self):
        self.start()
        over = threading.Event()
        failed = []

        def come_and_go(client):
            try:
                while not over.is_set():
                    watch = self.follow(NOW, client)
                    for _ in range(3):
                        next(watch)
                    watch.cancel()
            except grpc.RpcError as error:
                failed.append(error)

        threads = [threading.Thread(target=come_and_go, args=(self.client(self.started.address),)) for _ in range(4)]
        watch, picture = self.follow(0), Picture()
        for thread in threads:
            thread.start()
        for _ in range(200):
            self.c.freeze("enc")
            self.c.thaw("enc")
        over.set()
        while any(thread.is_alive() for thread in threads):  # they may wait for events
            self.c.freeze("enc")
            self.c.thaw("enc")
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        expected = Picture().of_describe(self.c.describe())
        while picture.epoch != expected.epoch:
            picture.add(next(watch))
        self.assertEqual(picture, expected)
        watch.cancel()
        self.wait_for_watches(0)


harness.main()
