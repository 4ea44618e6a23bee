"""A TCP proxy that breaks connections on command, for tests. Two threads a connection, at most CONNECTIONS_MAX of them;
each reads at most BUFFER bytes ahead of the side that it writes to.
"""

import random
import socket
import struct
import threading
import time

TO_SERVER = "to the server"
TO_CLIENT = "to the client"
CONNECTIONS_MAX = 64
BUFFER = 1 << 16
FRAME_HEADER = 9  # bytes, of HTTP/2
DATA = 0  # the type of a frame


class Replies:
    """Follows HTTP/2's frames to the client, and finds those of data, by which a server answers (its settings, window
    updates and pings are no answers)."""

    def __init__(self):
        self.header = b""
        self.left = 0  # bytes of the frame's payload

    def starts(self, data):
        """Where in data a frame of data begins, once its header is complete, and the bytes that it has then."""
        found = []
        at = 0
        while at < len(data):
            if self.left > 0:
                skipped = min(self.left, len(data) - at)
                self.left -= skipped
                at += skipped
                continue
            taken = data[at : at + FRAME_HEADER - len(self.header)]
            self.header += taken
            at += len(taken)
            if len(self.header) == FRAME_HEADER:
                self.left = int.from_bytes(self.header[:3], "big")
                if self.header[3] == DATA:
                    found.append((at, self.left))
                self.header = b""
        return found


class Connection:
    """Two sockets and the threads that carry bytes between them."""

    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.sockets = {TO_SERVER: server, TO_CLIENT: client}  # by which of them is written to
        self.was_cut = False
        self.kept = None  # what waits for deliver() to go to the server; None: nothing waits
        self.is_stranded = False
        self.ends_left = 2
        for direction, source in ((TO_SERVER, client), (TO_CLIENT, server)):
            threading.Thread(target=self.carry, args=(direction, source), daemon=True).start()

    def cut(self):
        """Ends both sides at once; their threads notice, and close."""
        self.was_cut = True
        for side in self.sockets.values():
            self.end(side)

    @staticmethod
    def end(side):
        try:
            # What was written and not yet sent is dropped, and the peer's reads fail.
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            side.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # that side has ended already

    def keep(self):
        """Keeps what comes for the server from now on."""
        self.kept = b""

    def strand(self):
        """Ends the client's side alone. To the server the connection stands, and what was kept is on its way."""
        self.is_stranded = True
        self.end(self.sockets[TO_CLIENT])

    def deliver(self):
        """What was kept arrives."""
        self.sockets[TO_SERVER].sendall(self.kept)

    def pass_on(self, direction, data):
        if direction == TO_SERVER and self.kept is not None:
            self.kept += data
        elif direction == TO_SERVER or not self.is_stranded:
            self.sockets[direction].sendall(data)

    def carry(self, direction, source):
        replies = Replies()
        try:
            while data := source.recv(BUFFER):
                data, cut = self.proxy.admit(self, direction, data, replies)
                self.pass_on(direction, data)
                if cut:
                    self.cut()
                    break
            if not self.is_stranded:
                self.sockets[direction].shutdown(socket.SHUT_WR)
        except OSError:
            if not self.is_stranded:
                self.cut()  # one side is gone: so goes the other
        self.proxy.ended(self)


class Proxy:
    """Listens on `address` and carries what comes to `target`. Cuts a reply, before or in the middle of it, with
    probability cut_replies, from a seed that is printed, unless it was given."""

    def __init__(self, target, *, cut_replies=0.0, seed=None, bytes_per_second=None):
        self.target = target
        self.cut_replies = cut_replies
        self.bytes_per_second = bytes_per_second  # in each direction of each connection; None: as fast as it goes
        self.cuts = 0
        self.condition = threading.Condition()  # for all below
        self.connections = set()
        self.held = set()  # directions in which nothing passes
        self.limits = {}  # direction: bytes that still pass before the connection is cut
        self.closed = False
        if seed is None:
            seed = random.SystemRandom().randrange(1 << 32)
        if cut_replies > 0:
            print(f"proxy: replies are cut with probability {cut_replies}, seed {seed}", flush=True)
        self.random = random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _connect(self):
        if self.target.startswith("unix:"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target[len("unix:") :])
            return server
        host, port = self.target.rsplit(":", 1)
        server = socket.create_connection((host, int(port)))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return  # close() ended it
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.condition:
                full = self.closed or len(self.connections) >= CONNECTIONS_MAX
            try:
                server = None if full else self._connect()
            except OSError:
                server = None  # the client meets what it would meet without us: an end
            if server is None:
                client.close()
                continue
            with self.condition:
                self.connections.add(Connection(self, client, server))

    def admit(self, connection, direction, data, replies):
        """What of data may pass, once it may, and whether the connection is to be cut after it."""
        if self.bytes_per_second is not None:
            time.sleep(len(data) / self.bytes_per_second)  # the link's speed, not a wait
        starts = replies.starts(data) if direction == TO_CLIENT else []
        with self.condition:
            while direction in self.held and not self.closed and not connection.was_cut:
                self.condition.wait()
            if direction in self.limits:
                limit = self.limits[direction]
                if limit <= len(data):
                    del self.limits[direction]
                    self.cuts += 1
                    return data[:limit], True
                self.limits[direction] = limit - len(data)
            for start, count in starts:
                if self.random.random() < self.cut_replies:
                    self.cuts += 1
                    return data[: start + self.random.randrange(max(count, 1))], True
        return data, False

    def ended(self, connection):
        with self.condition:
            connection.ends_left -= 1
            if connection.ends_left > 0:
                return
            self.connections.discard(connection)
            self.condition.notify_all()
        for side in connection.sockets.values():
            side.close()

    def hold(self, direction):
        """Nothing passes in a direction until release(). It still reads BUFFER bytes ahead."""
        with self.condition:
            self.held.add(direction)

    def release(self, direction):
        with self.condition:
            self.held.discard(direction)
            self.condition.notify_all()

    def cut_after(self, direction, count):
        """Cuts the connection over which, from now on, the count-th byte in this direction goes; that byte still
        passes."""
        with self.condition:
            self.limits[direction] = count

    def cut(self):
        """Cuts all connections, and waits until they are gone."""
        with self.condition:
            connections = set(self.connections)  # whoever was cut may be back before the last one is
            for connection in connections:
                self.cuts += 1
                connection.cut()
            self.condition.notify_all()
            self.condition.wait_for(lambda: not connections & self.connections, timeout=60)

    def close(self):
        self.closed = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()
        self.thread.join(timeout=60)
