"""HTTP/2 frames made by hand, for what no gRPC library would send. One connection, one thread; it reads only when it is
asked to or when flow control wants it."""

import socket
import struct

import harness

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 4
FRAME_BYTES_MAX = 16384


def connect(address):
    """A socket to HOST:PORT."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=harness.TIMEOUT)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(data, compressed=0, length=None):
    """A gRPC message: its prefix, which may lie, and its bytes."""
    return struct.pack(">BI", compressed, len(data) if length is None else length) + data


def header_block(*pairs):
    """Literals without indexing and without Huffman's code."""
    texts = [text.encode() for pair in pairs for text in pair]
    assert all(len(text) < 127 for text in texts)
    literals = [bytes([len(text)]) + text for text in texts]
    return b"".join(b"\x00" + name + value for name, value in zip(literals[::2], literals[1::2], strict=True))


def literal_after(block, name):
    """The value of a header. gRPC's C core writes the first block of a connection in literals without Huffman's code."""
    at = block.find(name)
    if at < 0:
        return None
    at += len(name)
    length, at = block[at], at + 1
    if length == 127:
        shift = 0
        while True:
            byte, at = block[at], at + 1
            length += (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
    return block[at : at + length].decode()


class Connection:
    """After the preface and empty SETTINGS, which are sent at once."""

    def __init__(self, address):
        self.socket = connect(address)
        self.buffered = b""
        self.windows = {0: 65535}  # what may be sent, of the connection (0) and of its streams
        self.initial_window = 65535
        self.ends = {}  # the last headers of streams that have ended
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, *frame_of):
        self.socket.sendall(frame(*frame_of))

    def request(self, stream, path, *more, flags=0):
        """Opens a stream: a call of gRPC."""
        block = header_block(
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "test"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *more,
        )
        self.windows[stream] = self.initial_window
        self.send(HEADERS, END_HEADERS | flags, stream, block)

    def data(self, stream, data, frame_bytes=FRAME_BYTES_MAX, flags=0):
        """Sends DATA, as flow control allows, until the stream ends from the other side."""
        at = 0
        while at < len(data) and stream in self.windows:
            room = min(self.windows[0], self.windows[stream], frame_bytes, len(data) - at)
            if room <= 0:
                self.take(self.read())
                continue
            last = at + room == len(data)
            self.send(DATA, flags if last else 0, stream, data[at : at + room])
            self.windows[0] -= room
            self.windows[stream] -= room
            at += room

    def read(self):
        """The next frame: kind, flags, stream, payload. None at the connection's end."""
        head = self._read(9)
        if head is None:
            return None
        payload = self._read(int.from_bytes(head[:3], "big"))
        return None if payload is None else (head[3], head[4], int.from_bytes(head[5:9], "big"), payload)

    def _read(self, length):
        while len(self.buffered) < length:
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionError:
                more = b""
            if not more:
                return None
            self.buffered += more
        data, self.buffered = self.buffered[:length], self.buffered[length:]
        return data

    def take(self, got):
        """Does what a frame wants done: windows, and acknowledgements."""
        if got is None:
            raise ConnectionResetError("the connection is closed")
        kind, flags, stream, payload = got
        if kind == WINDOW_UPDATE and stream in self.windows:
            self.windows[stream] += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == INITIAL_WINDOW_SIZE:
                    for key in self.windows.keys() - {0}:
                        self.windows[key] += value - self.initial_window
                    self.initial_window = value
            self.send(SETTINGS, ACK, 0)
        elif kind == RST_STREAM or kind == HEADERS and flags & END_STREAM:
            self.windows.pop(stream, None)
            self.ends.setdefault(stream, payload if kind == HEADERS else b"")
        elif kind == PING and not flags & ACK:
            self.send(PING, ACK, 0, payload)

    def status(self, stream):
        """How a call ended: (code's number, message). Of the first one of the connection that ended."""
        while stream not in self.ends:
            self.take(self.read())
        block = self.ends[stream]
        return int(literal_after(block, b"grpc-status")), literal_after(block, b"grpc-message")

    def is_closed(self):
        """Reads until the server closes the connection."""
        while (got := self.read()) is not None:
            try:
                self.take(got)
            except ConnectionError:
                pass  # what it has sent before is still read
        return True
