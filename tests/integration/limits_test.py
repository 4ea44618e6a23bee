"""The bounds on connections and on what they may have under way, each with its option, as docs/errors.md and
docs/server.md have them.

    limits_test.py BUILD_DIR
"""

import os
import resource
import socket
import struct

import grpc

import harness
import h2
from harness import Feed, f64, leaf, push_header, push_messages, wire

INFO = "/espalier.v1.Admin/ServerInfo"
PUSH = "/espalier.v1.ParameterServer/Push"
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)


def is_cut(connection):
    """Waits until the server has closed it, which had nothing to say."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


class Connections(harness.TestCase):
    def connect(self, address, first=b""):
        connection = h2.connect(address)
        self.addCleanup(connection.close)
        connection.sendall(first)
        return connection

    def h2(self, address):
        connection = h2.Connection(address)
        self.addCleanup(connection.close)
        return connection

    def line(self, what):
        """The line of the log that docs/errors.md has for it."""
        return harness.documented("Connections")[what]

    def test_one_more_than_there_may_be(self):
        """It is closed, those that are there go on, and one that goes makes room."""
        server = self.server("--max-connections=20")
        c = self.client(server.address)
        c.declare(leaf("a"))
        others = [self.connect(server.address, h2.PREFACE) for _ in range(19)]
        harness.eventually(lambda: c.info().connections == 20, "all are there")
        for _ in range(100):
            self.assertTrue(is_cut(self.connect(server.address, h2.PREFACE)))
        info = c.info()
        self.assertEqual((info.connections, info.connections_max, info.connections_refused), (20, 20, 100))
        self.assertEqual(c.push({"a": f64(1)}).applied, 1)
        self.assertRegex(server.stderr(), r"connections refused: \d+, since there are 20, which is --max-connections")
        others[7].close()
        harness.eventually(lambda: c.info().connections == 19, "it is gone")
        with harness.Client(server.address) as another:
            self.assertEqual(another.info().connections, 20)

    def test_a_thousand(self):
        """1,000 connections that ask nothing, and a worker among them."""
        count = 200 if harness.is_sanitized() else 1000
        server = self.server(f"--max-connections={count}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        c = self.client(server.address)
        c.declare(leaf("a"))
        for _ in range(count - 1):
            self.connect(server.address, h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
        harness.eventually(lambda: c.info().connections == count, "all are there")
        self.assertTrue(is_cut(self.connect(server.address, h2.PREFACE)))
        self.assertEqual(c.push({"a": f64(1)}).applied, 1)
        line = self.line("1,000 connections, and one more").replace("1000", str(count))
        harness.eventually(lambda: line in server.stderr(), line)

    def test_what_speaks_no_http2(self):
        server = self.server()
        c = self.client(server.address)
        for first in (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", TLS_HELLO, b"\0", h2.PREFACE[:10] + b"no"):
            self.assertTrue(is_cut(self.connect(server.address, first)), first)
        harness.eventually(lambda: c.info().connections == 1, "they are gone")
        line = self.line("HTTP/1, TLS or anything else that is no HTTP/2")
        harness.eventually(lambda: line in server.stderr(), line)

    def test_what_says_nothing(self):
        """It is closed after --stall-timeout; whoever says a little does not last longer."""
        server = self.server("--stall-timeout=300ms")
        c = self.client(server.address)
        self.assertTrue(is_cut(self.connect(server.address)))
        line = self.line("nothing for `--stall-timeout`, or for 10 s")
        harness.eventually(lambda: line in server.stderr(), line)
        slow = self.connect(server.address, h2.PREFACE[:10])
        silent = [self.connect(server.address) for _ in range(10)]
        self.assertTrue(all(is_cut(one) for one in (*silent, slow)))
        self.assertEqual(c.info().connections, 1)

    def test_a_preface_in_pieces(self):
        """Is waited for."""
        server = self.server()
        connection = self.connect(server.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0):
            connection.sendall(bytes([byte]))
        self.assertEqual(connection.recv(9)[3], h2.SETTINGS)

    def test_no_descriptors(self):
        """Accepting pauses while the process may open no more files, and goes on after it."""
        server = self.server()
        c = self.client(server.address)
        c.info()
        before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        used = max(int(name) for name in os.listdir(f"/proc/{server.pid}/fd")) + 1
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 5, before[1]))
        for _ in range(10):
            self.connect(server.address, h2.PREFACE)
        line = self.line("more than the machine has open files for")
        harness.eventually(lambda: line in server.stderr(), line)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
        harness.eventually(lambda: c.info().connections == 11, "the others are taken")

    def test_open_files_are_provided_for(self):
        """The soft limit is raised; where the hard one is too low fewer connections are taken, with a warning."""
        server = self.server("--max-connections=3000")
        self.assertGreaterEqual(resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0], 3256)
        server = self.server("--max-connections=1000000")
        limit = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0]
        most = self.client(server.address).info().connections_max
        self.assertTrue(most == 1000000 or most <= limit - 256)
        self.assertEqual(most < 1000000, "--max-connections 1000000 needs" in server.stderr())

    def test_idle(self):
        """A connection without calls is closed, and its client comes back by itself."""
        server = self.server("--idle-timeout=200ms")
        c = self.client(server.address)
        c.declare(leaf("a"))
        connection = self.h2(server.address)
        self.assertTrue(connection.is_closed())
        self.assertEqual(c.push({"a": f64(1)}).applied, 1)

    def test_keepalive(self):
        """A connection is asked for a sign of life again and again, and closed when it gives none."""
        server = self.server("--keepalive=200ms", "--keepalive-timeout=200ms")
        connection, asked = self.h2(server.address), 0
        while asked < 5:
            got = connection.read()
            self.assertIsNotNone(got)
            connection.take(got)
            asked += got[0] == h2.PING and not got[1] & h2.ACK
        while (got := connection.read()) is not None:
            pass

    def test_floods(self):
        """PING: the connection is closed. SETTINGS, and calls that are opened and reset: taken, within memory."""
        count = 2000 if harness.is_sanitized() else 20000
        server = self.server()
        c = self.client(server.address)
        for flood in (self.pings, self.settings, self.resets, self.resets_of_answered):
            with self.subTest(flood.__name__):
                flood(self.h2(server.address), count)
                harness.eventually(lambda: c.info().streams == 1, "no call is left")
        with open(f"/proc/{server.pid}/status", encoding="utf-8") as status:
            (peak,) = (int(line.split()[1]) >> 10 for line in status if line.startswith("VmHWM:"))
        if not harness.is_sanitized():
            self.assertLess(peak, 256)

    def pings(self, connection, count):
        try:
            for _ in range(count):
                connection.send(h2.PING, 0, 0, bytes(8))
        except ConnectionError:
            pass
        self.assertTrue(connection.is_closed())

    def settings(self, connection, count):
        for _ in range(count):
            connection.send(h2.SETTINGS, 0, 0)
        connection.close()

    def resets(self, connection, count):
        for stream in range(1, 2 * count, 2):
            connection.request(stream, PUSH)
            connection.send(h2.RST_STREAM, 0, stream, b"\0\0\0\x08")
        connection.close()

    def resets_of_answered(self, connection, count):
        """Of a call that is answered though its client has gone, before and after its request is there."""
        for stream in range(1, count // 10, 2):
            connection.request(stream, INFO)
            if stream % 4 == 1:
                connection.send(h2.DATA, h2.END_STREAM, stream, h2.message(b""))
            connection.send(h2.RST_STREAM, 0, stream, b"\0\0\0\x08")
        connection.close()

    def test_replies_that_nobody_takes(self):
        """They end after --stall-timeout, and others are answered all the while."""
        server = self.server("--stall-timeout=300ms")
        c = self.client(server.address)
        connections = [self.h2(server.address) for _ in range(2)]
        for connection in connections:
            connection.send(h2.SETTINGS, 0, 0, struct.pack(">HI", h2.INITIAL_WINDOW_SIZE, 0))
            for stream in range(1, 2000, 2):
                connection.request(stream, INFO)
                connection.send(h2.DATA, h2.END_STREAM, stream, h2.message(b""))
        for connection in connections:
            code, text = connection.status(1)
            self.assertEqual((code, "--stall-timeout" in text), (4, True))
        harness.eventually(lambda: c.info().streams == 1, "no call is left")

    def test_addresses(self):
        """All addresses share the bound; a Unix socket has no preface's worth of difference."""
        path = f"{self.enterContext(harness.tempfile.TemporaryDirectory())}/socket"
        server = self.server("--max-connections=2", listen=("127.0.0.1:0", f"unix:{path}", "localhost:0"))
        clients = [self.client(address) for address in server.addresses]
        self.assertEqual(clients[0].info().connections, 1)
        self.assertEqual(clients[1].info().connections, 2)
        with self.assertRaises(grpc.RpcError) as caught:
            clients[2].info()
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        clients[0].close()
        harness.eventually(lambda: clients[1].info().connections == 1, "it is gone")
        harness.eventually(lambda: self.answers(clients[2]), "there is room")
        clients[1].close()

    def answers(self, client):
        try:
            return client.info()
        except grpc.RpcError:
            return None


class Pushes(harness.TestCase):
    def begin(self, client, **fields):
        """A push that has begun and does not end."""
        feed = Feed(wire.PushRequest(push=push_header({"a": f64(1)}, **fields)))
        call = client.ps.Push.future(feed, timeout=4 * harness.TIMEOUT)
        self.addCleanup(feed.end)
        self.addCleanup(call.cancel)
        return call

    def test_of_all_sessions(self):
        server = self.server("--max-pushes=3")
        c = self.client(server.address)
        c.declare(leaf("a"))
        c.join()
        calls = [self.begin(c), self.begin(c), self.begin(c, **c.next_push())]
        harness.eventually(lambda: c.info().in_flight == 3, "they have begun")
        self.assertEqual(c.info().in_flight_max, 3)
        self.assert_fails(RESOURCE_EXHAUSTED, "3 pushes .* --max-pushes", c.push, {"a": f64(1)}, session=0)
        calls[0].cancel()
        harness.eventually(lambda: c.info().in_flight == 2, "one has gone")
        for _ in range(10):
            self.assertEqual(c.push({"a": f64(1)}).applied, 1)

    def test_of_one_session(self):
        server = self.server("--max-in-flight=2")
        c, other = self.client(server.address), self.client(server.address)
        c.declare(leaf("a"))
        self.assertEqual(c.join().in_flight_max, 2)
        other.join()
        calls = [self.begin(c, **c.next_push()) for _ in range(2)]
        harness.eventually(lambda: c.info().in_flight == 2, "they have begun")
        third = c.next_push()
        message = "2 pushes of this session are in flight, which is --max-in-flight: sequence 3"
        self.assert_fails(RESOURCE_EXHAUSTED, message, c.push, {"a": f64(1)}, **third)
        self.assertEqual(other.push({"a": f64(1)}).applied, 1)
        calls[1].cancel()
        harness.eventually(lambda: c.info().in_flight == 1, "one has gone")
        self.assertEqual(c.push({"a": f64(1)}, **third).applied, 1)
        # A retry takes the place of its original, and no more room.
        self.assertEqual(c.push({"a": f64(1)}, session=c.session, sequence=1).applied, 1)
        # A stream is read on when there is room, so it meets no refusal.
        many = [m for _ in range(30) for m in push_messages({"a": f64(1)}, message=wire.StreamRequest, **c.next_push())]
        replies = list(c.ps.PushPull(iter(many), timeout=harness.TIMEOUT))
        self.assertEqual([reply.push.applied for reply in replies], [1] * 30)

    def test_chunks(self):
        server = self.server("--max-chunk=1MiB", "--max-message=1088KiB")
        c = self.client(server.address)
        c.declare(leaf("a", 1 << 20))
        self.assertEqual(c.join().chunk_bytes_max, 1 << 20)
        self.assertEqual(c.push({"a": bytes(8 << 20)}).applied, 1)
        message = "leaf a: a chunk has 1049600 bytes, --max-chunk allows 1048576"
        self.assert_fails(RESOURCE_EXHAUSTED, message, c.push, {"a": bytes(8 << 20)}, chunk_bytes=(1 << 20) + 1024)
        too_long = lambda: c.push({"a": bytes(8 << 20)}, chunk_bytes=1100 << 10)
        self.assert_fails(RESOURCE_EXHAUSTED, r"larger than max \(\d+ vs\. 1114112\)", too_long)


harness.main()
