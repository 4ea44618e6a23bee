"""Bad input by a raw client, row by row as docs/errors.md has it: each row's answer is compared with what the server
says, nothing changes, the server lives, and a worker that trains meanwhile has each of its pushes applied.

    abuse_test.py BUILD_DIR
"""

import random
import struct
import threading
import zlib

import grpc

import harness
import h2
from harness import Client, chunks_of, f32, f64, leaf, push_header, push_messages, types, wire

PUSH = "/espalier.v1.ParameterServer/Push"
STREAM = "/espalier.v1.ParameterServer/PushPull"
W, B = f64(1, 2, 3, 4, 5, 6), f64(7)
GOOD = {"net.w": W, "net.b": B, "net.s": f32(8)}
GIB = 1 << 30
STREAMS = 10000
STREAMS_MAX = 1000  # the default of --max-streams
MEMORY_MAX = 256 << 20  # that the server may need for all of it: it holds messages of 16 MiB, and 10,000 open calls
CODES = {code.value[0]: code.name for code in grpc.StatusCode}

rows = {}  # what was sent (a row of the table): the function that sends it and returns the answer


def row(what):
    def add(function):
        rows[what] = function
        return function

    return add


def answer(call, *arguments, **keywords):
    """The refusal as the table has it."""
    try:
        result = call(*arguments, **keywords)
        if hasattr(result, "code"):
            list(result)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    raise AssertionError("it was not refused")


def push(case, tensors, messages=None, **header):
    """A push by Push and by PushPull, whose answers are the same."""
    messages = messages or push_messages(tensors, **header)
    raw = [one if isinstance(one, bytes) else one.SerializeToString() for one in messages]
    answers = {answer(case.raw, method, *raw) for method in (PUSH, STREAM)}
    case.assertEqual(len(answers), 1, answers)
    return answers.pop()


def described(path, **tensor):
    """A push of which the leaf's chunk has a header."""
    messages = push_messages({path: GOOD[path]})
    messages[1].chunks[0].tensor.CopyFrom(types.TensorHeader(**tensor))
    return messages


def in_two_dtypes():
    """A push of net.s byte by byte, the second in another dtype."""
    chunks = [types.Chunk(path="net.s", offset=offset, data=b"1") for offset in (0, 1)]
    chunks[0].tensor.dtype, chunks[1].tensor.dtype = types.DTYPE_BF16, types.DTYPE_F16
    return [wire.PushRequest(push=push_header({"net.s": bytes(2)}), chunks=chunks)]


def w_at(*offsets):
    """A push with 16 bytes of net.w at these offsets."""
    chunks = [types.Chunk(path="net.w", offset=offset, data=bytes(16)) for offset in offsets]
    return [wire.PushRequest(push=push_header({"net.w": W})), wire.PushRequest(chunks=chunks)]


def bytes_field(number, data):
    def varint(value):
        return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])

    return varint(number << 3 | 2) + varint(len(data)) + data


def at_path(path):
    """A push that names a leaf by these bytes."""
    return [push_messages({0: B})[0], bytes_field(2, bytes_field(2, path) + bytes_field(15, B))]


# ---- leaves ----

row("an id that no leaf has")(lambda case: push(case, {99: B}))
row("a path that no leaf has")(lambda case: push(case, {"net.c": B}))
row("a chunk that names no leaf")(lambda case: push(case, {0: B}))
row("a gradient for a buffer")(lambda case: push(case, {"net.mean": f64(1, 2)}))
row("another dtype")(lambda case: push(case, {}, described("net.s", dtype="DTYPE_F64")))
row("a gradient narrower than an f64 leaf")(lambda case: push(case, {}, described("net.w", dtype="DTYPE_BF16")))
row("a leaf in two dtypes")(lambda case: push(case, {}, in_two_dtypes()))
row("a bf16 gradient of too many bytes")(lambda case: push(case, {}, described("net.s", dtype="DTYPE_BF16", bytes=4)))
row("another shape")(lambda case: push(case, {}, described("net.w", shape=[3, 2])))
row("too few bytes")(lambda case: push(case, {"net.w": f64(1, 2)}))
row("too many bytes")(lambda case: push(case, {"net.w": f64(*range(7))}, total_bytes=100, leaf_count=2))
row("a leaf twice")(lambda case: push(case, {"net.w": W, case.ids["net.w"]: W}))
row("a missing chunk")(lambda case: push(case, {}, w_at(0, 32)))
row("overlapping chunks")(lambda case: push(case, {}, w_at(0, 8)))
row("a stream that ends too early")(lambda case: push(case, {}, w_at(0, 16)))
row("more bytes declared than come")(lambda case: push(case, GOOD, total_bytes=100))
row("more leaves declared than come")(lambda case: push(case, GOOD, leaf_count=4))
row("more leaves declared than the tree has")(lambda case: push(case, GOOD, leaf_count=100))
row("a declared size of 2^62 bytes")(lambda case: push(case, GOOD, total_bytes=1 << 62))
row("more than --max-staged")(lambda case: push(case, {"big": bytes(2 << 20)}))
row("NaN in the last element of the last leaf")(lambda case: push(case, {"net.w": W, "net.z": NAN_LAST}))
row("infinity")(lambda case: push(case, {"net.b": f64(float("-inf"))}))
row("a path with a NUL")(lambda case: push(case, {}, at_path(b"net\0.w")))
row("a path that is not UTF-8")(lambda case: push(case, {}, at_path(b"net.\xff")))
row("a path with control characters")(lambda case: push(case, {}, at_path(b"net.\x1b[2J")))
row("a path of depth 1,000")(lambda case: push(case, {}, at_path(b".".join([b"x"] * 1000))))
row("no header")(lambda case: answer(case.raw, PUSH, b""))
NAN_LAST = f64(*[1.0] * 999, float("nan"))


# ---- declarations ----


def declare(case, *leaves, **rest):
    return answer(case.c.declare, *leaves, **rest)


row("a declaration with a path of depth 1,000")(lambda case: declare(case, leaf(".".join(["x"] * 1000), 1)))
row("a declaration with a control character")(lambda case: declare(case, leaf("net.\n", 1)))
row("a declaration of 2^62 elements")(lambda case: declare(case, leaf("a", 1 << 62)))
row("a declaration over --max-tensor")(lambda case: declare(case, leaf("a", 1 << 28)))
row("a declaration over --max-tree")(lambda case: declare(case, *(leaf(f"a{i}", 1 << 27) for i in range(4))))
row("a leaf twice in a declaration")(lambda case: declare(case, leaf("a", 1), leaf("a", 2)))
row("a leaf that is there with another shape")(lambda case: declare(case, leaf("net.w", 6)))


# ---- messages ----


def stream_ends(case, *data, encoding=(), flags=h2.END_STREAM):
    """One Push of these bytes, as they are, on a connection of its own."""
    with h2.Connection(case.address) as connection:
        connection.request(1, PUSH, *encoding)
        for one in data:
            connection.data(1, one, flags=flags if one is data[-1] else 0)
        code, text = connection.status(1)
        return f"{CODES[code]}: {text}"


@row("a message cut short")
def cut_short(case):
    whole = wire.PushRequest(push=push_header(GOOD), chunks=chunks_of(GOOD)).SerializeToString()
    for end in range(1, len(whole)):
        case.assertRegex(answer(case.raw, PUSH, whole[:end]), "^INVALID_ARGUMENT: ")
    return answer(case.raw, PUSH, whole[:-1])


@row("random bytes as a message")
def random_bytes(case):
    """All of them have the row's code; the row has the text of the first."""
    seed = random.SystemRandom().randrange(1 << 32)
    source = random.Random(seed)
    for length in [1, 2, 3, 5, 10, 50] * 20:
        got = answer(case.raw, PUSH, b"\x0f" + source.randbytes(length))
        case.assertRegex(got, "^INVALID_ARGUMENT: ", f"seed {seed}")
    return answer(case.raw, PUSH, b"\x0f" * 9)


row("a message of 17 MiB")(lambda case: answer(case.raw, PUSH, bytes(17 << 20)))
row("a chunk over --max-chunk")(lambda case: push(case, {"net.w": bytes(5 << 20)}, chunk_of(5 << 20)))
row("an unknown method")(lambda case: answer(case.raw, "/espalier.v1.ParameterServer/Nosuch", b""))


def chunk_of(size):
    return [push_messages({"net.w": W})[0], wire.PushRequest(chunks=[types.Chunk(path="net.w", data=bytes(size))])]


@row("a compressed message that inflates to 10 GiB")
def gzip_bomb(case):
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    again = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    bomb = first + again * (10 * GIB // (1 << 20) - 1)
    return stream_ends(case, h2.message(bomb, compressed=1), encoding=[("grpc-encoding", "gzip")])


@row("a length prefix of 4 GiB, and bytes that never end")
def endless_message(case):
    return stream_ends(case, h2.message(b"", length=0xFFFFFFFF), *[bytes(1 << 20)] * 512, flags=0)


@row("a length prefix of 4 GiB, and the stream's end")
def long_prefix(case):
    return stream_ends(case, h2.message(bytes(10), length=0xFFFFFFFF))


@row("a push in DATA frames of 1 byte")
def small_frames(case):
    """Is understood, if not liked."""
    whole = wire.PushRequest(push=push_header({"net.w": W}), chunks=chunks_of({"net.w": f64(*[float("nan")] * 6)}))
    data = h2.message(whole.SerializeToString())
    with h2.Connection(case.address) as connection:
        connection.request(1, PUSH)
        connection.data(1, data, frame_bytes=1, flags=h2.END_STREAM)
        code, text = connection.status(1)
        return f"{CODES[code]}: {text}"


@row("10,000 open streams by a client that never agreed to a limit")
def open_streams(case):
    """How all but 1,000 of them end. Which ones is not said: the server's threads take them side by side."""
    with h2.Connection(case.address) as connection:
        for i in range(STREAMS):
            connection.request(2 * i + 1, PUSH)
        while len(connection.ends) < STREAMS - STREAMS_MAX:
            connection.take(connection.read())
        code, text = connection.status(next(iter(connection.ends)))
        case.assertLess(case.c.info().streams, STREAMS_MAX + 10)  # the trainer's and this client's own
        return f"{CODES[code]}: {text}"


class Trainer:
    """A worker that pushes all the time, each push OK."""

    def __init__(self, address):
        self.client = Client(address)
        self.client.declare(leaf("train.w", 1000))
        self.client.join("trainer")
        self.pushes = 0
        self.error = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.ended.is_set():
                self.client.push({"train.w": bytes(8000)})
                self.pushes += 1
        except BaseException as error:
            self.error = error

    def end(self):
        self.ended.set()
        self.thread.join()
        self.client.close()


class Abuse(harness.TestCase):
    def setUp(self):
        server = self.server(
            "--group=default=sgd(lr=1, momentum=0.5)",
            "--max-staged=1MiB",
            "--max-message=16MiB",
            "--max-tensor=1GiB",
            "--max-tree=2GiB",
        )
        self.address, self.process, self.pid = server.address, server.process, server.pid
        self.c = self.client(self.address)
        self.c.declare(leaf("net.w", 2, 3), leaf("net.b"), leaf("net.mean", 2, kind="KIND_BUFFER"))
        self.c.declare(leaf("net.s", 1, dtype="DTYPE_F32"), leaf("net.z", 1000), leaf("big", 1 << 18))
        self.c.push(GOOD)
        self.ids = self.c.ids

    def raw(self, method, *messages):
        return list(self.c.channel.stream_stream(method)(iter(messages), timeout=harness.TIMEOUT))

    def state(self):
        return self.c.digest("net"), self.c.digest("big"), self.c.info().epoch

    def memory_peak(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as status:
            (line,) = (line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) << 10

    def test_the_table(self):
        table = harness.documented("Bad input")
        self.assertEqual(set(table), set(rows))
        trainer = Trainer(self.address)
        self.addCleanup(trainer.end)
        commit, before, peak = self.c.info().commit, self.state(), self.memory_peak()
        pushes = trainer.pushes
        for what, send in rows.items():
            with self.subTest(what):
                self.assertEqual(send(self), table[what])
                self.assertIsNone(self.process.poll())
                self.assertEqual(self.state(), before)
                harness.eventually(lambda: trainer.error or trainer.pushes > pushes, "others train on")
                pushes = trainer.pushes
        trainer.end()
        self.assertIsNone(trainer.error)
        self.c.wait_for_nothing_staged()
        harness.eventually(lambda: self.c.info().in_flight == 0, "no push is in flight")
        # Every commit is one of the trainer's pushes.
        self.assertEqual(self.c.info().pushes_applied, trainer.pushes + 1)
        self.assertGreaterEqual(self.c.info().commit, commit)
        if not harness.is_sanitized():
            self.assertLess(self.memory_peak() - peak, MEMORY_MAX)


if __name__ == "__main__":
    harness.main()
