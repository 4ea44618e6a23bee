"""What no well-made client sends: each bad input is answered with its canonical code and a message that names the leaf,
changes nothing, and leaves the server alive; what is unusual and legal is understood.

    wire_test.py BUILD_DIR
"""

import random
import struct

import grpc

import harness
from harness import Feed, admin, chunks_of, f64, from_f64, leaf, push_header, push_messages, types, wire

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
SERVICE = "/espalier.v1.ParameterServer/"
ADMIN = "/espalier.v1.Admin/"
NAN, INFINITY = float("nan"), float("inf")
GOOD = {"net.w": f64(1, 2, 3, 4, 5, 6), "net.b": f64(7)}
STREAMS_UP = ("Declare", "Push", "Stage", "PushPull")


def varint(number):
    data = b""
    while number >= 0x80:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])


def field(number, value):
    """A field as it travels, made by hand: of an integer or of bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def chunk_in_order(*fields):
    """A Chunk's field of a push, made of (number, value)."""
    return field(2, b"".join(field(*one) for one in fields))


class WireCase(harness.TestCase):
    def setUp(self):
        self.started = self.server("--group=default=sgd(lr=1, momentum=0.5)", "--max-staged=1MiB", "--max-tree=1GiB")
        self.c = self.client(self.started.address)
        self.c.declare(leaf("net.w", 2, 3), leaf("net.b"), leaf("net.mean", 2, kind="KIND_BUFFER"), leaf("big", 1000))
        self.c.declare(leaf("single", 1, dtype="DTYPE_F32"))
        self.c.push(GOOD)
        self.digest, self.commit = self.c.digest(), self.c.info().commit
        self.ids = self.c.ids

    def assert_unharmed(self):
        self.assertIsNone(self.started.process.poll())
        self.c.wait_for_nothing_staged()
        self.assertEqual((self.c.digest(), self.c.info().commit), (self.digest, self.commit))

    def refused(self, code, message, call, *arguments, **keywords):
        self.assert_fails(code, message, call, *arguments, **keywords)
        self.assert_unharmed()

    def raw(self, method, *messages, streams=True):
        """A call with these bytes as messages; the answer's bytes."""
        make = self.c.channel.stream_stream if streams else self.c.channel.unary_stream
        return list(make(method)(iter(messages) if streams else messages[0], timeout=harness.TIMEOUT))

    def push_bytes(self, *messages):
        """A push of raw messages, by Push and by PushPull, whose messages have the same form."""
        for method in ("Push", "PushPull"):
            yield method, lambda: self.raw(SERVICE + method, *messages)

    def refused_push(self, code, message, messages):
        """By both methods."""
        raw = [one if isinstance(one, bytes) else one.SerializeToString() for one in messages]
        for _, call in self.push_bytes(*raw):
            self.refused(code, message, call)


class Pushes(WireCase):
    def test_leaves(self):
        half = {**GOOD, "net.w": f64(1, 2, 3)}
        nearest = r"no leaf has the path net\.x; nearest: .*net\.w"
        self.refused_push(NOT_FOUND, nearest, push_messages({"net.x": f64(1)}))
        self.refused_push(NOT_FOUND, "no leaf has the id 999", push_messages({999: f64(1)}))
        self.refused_push(INVALID_ARGUMENT, "leaf net.mean is a buffer", push_messages({"net.mean": f64(1, 2)}))
        self.refused_push(INVALID_ARGUMENT, "names no leaf", push_messages({0: f64(1)}))
        self.refused_push(INVALID_ARGUMENT, "net.w.* 48 bytes", push_messages({"net.w": f64(1, 2, 3)}))
        self.refused_push(INVALID_ARGUMENT, "net.w.*48 bytes expected, got 56", self.spare("net.w", f64(*range(7))))
        self.refused_push(INVALID_ARGUMENT, "ended after 24 of 56", push_messages(half, total_bytes=56)[:2])

    def spare(self, path, data):
        """A push whose header leaves room for more than the leaf has."""
        return push_messages({path: data}, total_bytes=len(data) + 100, leaf_count=2)

    def test_tensor_headers(self):
        def described(**tensor):
            messages = push_messages(GOOD)
            messages[1].chunks[0].tensor.CopyFrom(types.TensorHeader(**tensor))
            return messages

        shape = r"leaf net.w: shape \[2, ?3\] expected, got \[3, ?2\]"
        self.refused_push(INVALID_ARGUMENT, shape, described(shape=[3, 2]))
        self.refused_push(INVALID_ARGUMENT, "leaf net.w: shape .* got ", described(shape=[1 << 63, 1 << 63]))
        self.refused_push(INVALID_ARGUMENT, "rank|shape", described(shape=[1] * 9))
        self.refused_push(INVALID_ARGUMENT, "leaf net.w: 48 bytes expected, got 40", described(bytes=40))
        self.refused_push(INVALID_ARGUMENT, "leaf net.w: 48 bytes expected, got", described(bytes=1 << 62))
        for dtype in ("f32", "bf16", "f16"):
            message = f"leaf net.w: dtype f64 expected, got {dtype}: only f32 travels narrower yet"
            self.refused_push(UNIMPLEMENTED, message, described(dtype="DTYPE_" + dtype.upper()))
        self.refused_push(INVALID_ARGUMENT, "leaf net.w: dtype f64 expected", described(dtype=17))
        wider = push_messages({"single": bytes(4)})
        wider[1].chunks[0].tensor.dtype = types.DTYPE_F64
        self.refused_push(INVALID_ARGUMENT, "leaf single: dtype f32, bf16 or f16 expected, got f64", wider)
        self.refused_push(UNIMPLEMENTED, "leaf net.w: row-sparse", described(rows=[1 << 63]))

    def test_offsets(self):
        w = self.ids["net.w"]

        def at(*offsets):
            """Chunks of 16 bytes of net.w at these offsets."""
            chunks = [types.Chunk(leaf_id=w, offset=offset, data=bytes(16)) for offset in offsets]
            return [wire.PushRequest(push=push_header({w: bytes(48)})), wire.PushRequest(chunks=chunks)]

        expected = "leaf net.w: offset {} expected, got {}"
        self.refused_push(INVALID_ARGUMENT, expected.format(0, 16), at(16))  # its beginning is missing
        self.refused_push(INVALID_ARGUMENT, expected.format(16, 32), at(0, 32))
        self.refused_push(INVALID_ARGUMENT, expected.format(16, 8), at(0, 8))  # overlaps
        self.refused_push(INVALID_ARGUMENT, expected.format(16, 0), at(0, 0))
        self.refused_push(INVALID_ARGUMENT, expected.format(0, (1 << 64) - 16), at((1 << 64) - 16))
        self.refused_push(INVALID_ARGUMENT, "ended after 32 of 48 bytes", at(0, 16))

    def test_counts(self):
        both = sum(map(len, GOOD.values()))
        more = push_messages(GOOD, total_bytes=both + 8)
        self.refused_push(INVALID_ARGUMENT, f"ended after {both} of {both + 8}", more)
        short = push_messages(GOOD, total_bytes=both - 8)
        self.refused_push(INVALID_ARGUMENT, "only 1 of the 2 leaves", short)
        odd = push_messages(GOOD, total_bytes=both - 1)
        self.refused_push(INVALID_ARGUMENT, "leaf net.b: its 8 bytes do not fit", odd)
        self.refused_push(INVALID_ARGUMENT, "leaf net.b is one more than the 1", push_messages(GOOD, leaf_count=1))
        self.refused_push(INVALID_ARGUMENT, "only 2 of the 3 leaves", push_messages(GOOD, leaf_count=3))
        twice = push_messages({"net.w": GOOD["net.w"], self.ids["net.w"]: GOOD["net.w"]})
        self.refused_push(INVALID_ARGUMENT, "leaf net.w was sent twice", twice)
        many = push_messages(GOOD, leaf_count=6)
        self.refused_push(INVALID_ARGUMENT, "6 leaves are declared, but the tree has 5", many)
        for size in (1 << 62, (1 << 64) - 1, 1 << 40):
            self.refused_push(INVALID_ARGUMENT, f"{size} bytes are declared", push_messages(GOOD, total_bytes=size))
        huge = push_messages(GOOD, leaf_count=(1 << 64) - 1)
        self.refused_push(INVALID_ARGUMENT, "18446744073709551615 leaves are declared", huge)
        self.refused_push(INVALID_ARGUMENT, "56 bytes in 0 leaves", push_messages(GOOD, leaf_count=0))
        after = [*push_messages(GOOD), wire.PushRequest(chunks=chunks_of({"net.b": f64(1)}))]
        call = lambda: self.raw(SERVICE + "PushPull", *(one.SerializeToString() for one in after))
        self.assert_fails(INVALID_ARGUMENT, "belongs to no push", call)  # the push before it is whole, and counts
        self.assertEqual(self.c.info().commit, self.commit + 1)

    def test_larger_than_the_budget(self):
        leaf_of_2_mib = leaf("huge", 1 << 18)
        self.c.declare(leaf_of_2_mib)
        self.digest, self.commit = self.c.digest(), self.c.info().commit
        self.refused_push(RESOURCE_EXHAUSTED, "--max-staged", push_messages({"huge": bytes(1 << 21)}))

    def test_not_finite(self):
        for bad, name in ((NAN, "NaN"), (INFINITY, r"\+infinity"), (-INFINITY, "-infinity")):
            last = {"big": f64(*[1.0] * 1000), "net.w": GOOD["net.w"], "net.b": f64(bad)}
            self.refused_push(INVALID_ARGUMENT, f"leaf net.b: element 0 of the gradient is {name}", push_messages(last))
            element = {"net.w": GOOD["net.w"], "big": f64(*[1.0] * 999, bad)}
            message = f"leaf big: element 999 of the gradient is {name}"
            self.refused_push(INVALID_ARGUMENT, message, push_messages(element, 13))
        self.assertEqual(self.c.info().pushes_nonfinite, 12)

    def test_headers(self):
        chunks = wire.PushRequest(chunks=chunks_of(GOOD))
        header = wire.PushRequest(push=push_header(GOOD))
        for method, call in self.push_bytes(chunks.SerializeToString()):
            self.refused(INVALID_ARGUMENT, "no header" if method == "Push" else "belongs to no push", call)
        self.refused_push(INVALID_ARGUMENT, "header|began", [header, header])
        self.refused(INVALID_ARGUMENT, "ended before its header", self.raw, SERVICE + "Push")
        self.assertEqual(self.raw(SERVICE + "PushPull"), [])
        self.refused_push(NOT_FOUND, 'tree "x"', [wire.PushRequest(push=push_header(GOOD, tree="x"))])
        early = [header, wire.StreamRequest(pull=wire.PullRequest())]
        self.refused(INVALID_ARGUMENT, "a pull began", self.c.ps.PushPull, iter(map(self.as_stream, early)))

    def as_stream(self, message):
        return wire.StreamRequest.FromString(message.SerializeToString())

    def test_no_reply_is_sent_for_what_never_ends(self):
        """A push that is over-declared is waited for; another takes no harm."""
        messages = push_messages(GOOD, leaf_count=3, total_bytes=64)
        feed = Feed(*messages)
        call = self.c.ps.Push.future(feed, timeout=harness.TIMEOUT)
        harness.eventually(lambda: self.c.info().memory.staged > 0, "it has begun")
        self.assertEqual(self.c.push({"net.b": f64(1)}).applied, 1)
        self.digest, self.commit = self.c.digest(), self.c.info().commit
        call.cancel()
        feed.end()
        self.assert_unharmed()


class Paths(WireCase):
    BAD = (
        (b"net\x00.w", "UTF-8|NUL"),
        (b"net.\xff\xfe", "UTF-8"),
        (b"net.\xc0\xae", "UTF-8"),
        (b"net.\xed\xa0\x80", "UTF-8"),
        (b"net.\n", "control|character|no leaf"),
        (b"net.\x1b[2J", "control|character|no leaf"),
        (b"net.\x7f", "control|character|no leaf"),
        (b"net..w", "empty|no leaf"),
        (b".", "empty|no leaf"),
        (b"net.*", "selector|operator|character|no leaf|\\*"),
        (b".".join([b"x"] * 1000), "1000 components|no leaf"),
        (b"x" * 256, "256 bytes|no leaf"),
        (b"x" * 5000, "5000 bytes|4096"),
    )

    def test_in_a_push(self):
        for path, message in self.BAD:
            chunk = chunk_in_order((2, path), (15, f64(1)))
            with self.subTest(path[:20]):
                header = wire.PushRequest(push=push_header({0: f64(1)})).SerializeToString()
                for _, call in self.push_bytes(header, chunk):
                    with self.assertRaises(grpc.RpcError) as caught:
                        call()
                    self.assertIn(caught.exception.code(), (INVALID_ARGUMENT, NOT_FOUND))
                    self.printable(caught.exception.details(), message)

    def test_in_a_declaration(self):
        for path, message in self.BAD:
            spec = field(1, path) + field(2, varint(1)) + field(3, 2)
            with self.subTest(path[:20]), self.assertRaises(grpc.RpcError) as caught:
                self.raw(SERVICE + "Declare", field(1, b"") + field(3, spec))
            self.assertEqual(caught.exception.code(), INVALID_ARGUMENT)
            self.printable(caught.exception.details(), message.replace("|no leaf", ""))

    def test_in_a_pull(self):
        for path, message in self.BAD:
            with self.subTest(path[:20]), self.assertRaises(grpc.RpcError) as caught:
                self.raw(SERVICE + "Pull", field(3, path), streams=False)
            self.assertIn(caught.exception.code(), (INVALID_ARGUMENT, NOT_FOUND))
            self.printable(caught.exception.details(), message)

    def printable(self, text, message):
        """It says what is wrong, within its limit, and is fit for a terminal."""
        self.assertRegex(text, message)
        self.assertLessEqual(len(text.encode()), 2048)
        self.assertTrue(text.isprintable(), repr(text))
        self.assert_unharmed()


class Declarations(WireCase):
    def test_shapes_and_values(self):
        refused = lambda message, spec, **rest: self.refused(INVALID_ARGUMENT, message, self.c.declare, spec, **rest)
        refused('"a" has rank 9', leaf("a", *[1] * 9))
        refused("leaf a: .*0", leaf("a", 3, 0))
        refused("leaf a: ", leaf("a", 1 << 62, 1 << 62))
        refused("leaf a: ", leaf("a", 1 << 61))
        refused('"a" has no dtype', leaf("a", 1, dtype="DTYPE_UNSPECIFIED"))
        refused('"a" has no dtype', leaf("a", 1, dtype=9))
        refused('"a" has no kind', leaf("a", 1, kind=9))
        refused("leaf a: ", leaf("a", 1, init={"uniform": {"low": 1, "high": 0}}))
        refused("leaf a: ", leaf("a", 1, init={"constant": NAN}))
        follows = {"init": {"follows": True}}
        refused("ended after 0 of the 8 bytes|did not", leaf("a", 1, **follows), values={})
        refused("leaf a: element 1 .*finite", leaf("a", 2, **follows), values={"a": f64(1, NAN)})
        refused("leaf a: 16 bytes expected", leaf("a", 2, **follows), values={"a": f64(1, 2, 3)})
        refused("leaf a.*initialiser is another", leaf("a", 1), values={"a": f64(1)})
        refused("net.w.x", leaf("net.w.x", 1))
        refused("net", leaf("net", 1))
        clash = r'leaf "net.w" is f64 \[2, ?3\], and is declared as f64 \[6\]'
        refused(clash, leaf("net.w", 6))

    def test_larger_than_the_tree_may_be(self):
        self.refused(RESOURCE_EXHAUSTED, "leaf a: .*--max-tree", self.c.declare, leaf("a", 1 << 28))
        self.refused(RESOURCE_EXHAUSTED, "leaf a: .*--max-tensor", self.c.declare, leaf("a", 1 << 50))

    def test_twice_in_one(self):
        self.refused(INVALID_ARGUMENT, "a", self.c.declare, leaf("a", 1), leaf("a", 2))

    def test_a_broken_stream_declares_nothing(self):
        feed = Feed(wire.DeclareRequest(header=wire.DeclareHeader(), leaves=[leaf("a", 1)]))
        call = self.c.ps.Declare.future(feed, timeout=harness.TIMEOUT)
        harness.eventually(lambda: feed.taken == 1, "it has been taken")
        call.cancel()
        feed.end()
        self.assert_unharmed()


class Messages(WireCase):
    def methods(self):
        for service, path in ((wire.DESCRIPTOR, SERVICE), (admin.DESCRIPTOR, ADMIN)):
            for method in service.services_by_name[path[len("/espalier.v1.") : -1]].methods:
                if method.name not in ("Save", "Load", "Workers", "History"):
                    yield method, path + method.name

    def test_random_bytes(self):
        """Of lengths 0 to 200, to every method; some are by chance legal, so only what they may do is asserted."""
        seed = random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        source = random.Random(seed)
        for method, path in self.methods():
            for length in (1, 2, 3, 5, 10, 50, 200):
                try:
                    self.raw(path, source.randbytes(length), streams=method.name in STREAMS_UP)
                except grpc.RpcError as error:
                    self.assertNotIn(error.code(), (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL), path)
        self.assert_unharmed()

    def test_truncated_messages(self):
        """Every prefix of a push's message and of an Apply's."""
        whole = wire.PushRequest(push=push_header(GOOD), chunks=chunks_of(GOOD)).SerializeToString()
        for end in range(len(whole)):
            with self.assertRaises(grpc.RpcError, msg=end) as caught:
                self.raw(SERVICE + "Push", whole[:end])
            self.assertEqual(caught.exception.code(), INVALID_ARGUMENT, caught.exception.details())
        request = admin.ApplyRequest(operations=[{"freeze": {"selection": "net"}}], reason="r").SerializeToString()
        for end in range(1, len(request) - 3):  # where the last field goes too it is a whole message
            with self.assertRaises(grpc.RpcError, msg=end) as caught:
                self.raw(ADMIN + "Apply", request[:end], streams=False)
            self.assertEqual(caught.exception.code(), INVALID_ARGUMENT, caught.exception.details())
        self.assert_unharmed()

    def test_too_long(self):
        header = push_messages({"big": bytes(8000)})[0].SerializeToString()
        long = wire.PushRequest(chunks=[types.Chunk(path="big", data=bytes(5 << 20))]).SerializeToString()
        self.refused_push(RESOURCE_EXHAUSTED, "larger than max|message", [header, long])

    def test_amplification(self):
        """Two bytes a message on the wire, a hundred in memory."""
        request = field(2, b"") * 500000
        self.refused(RESOURCE_EXHAUSTED, "memory", self.raw, ADMIN + "Apply", request, streams=False)

    def test_compressed(self):
        for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            with self.subTest(algorithm):
                data = {"big": f64(*[1.0] * 1000)}
                messages = iter(push_messages(data))
                self.refused(UNIMPLEMENTED, "compressed", self.c.ps.Push, messages, compression=algorithm)

    def test_unknown_methods(self):
        for path in ("/espalier.v1.ParameterServer/Nosuch", "/nosuch", "/espalier.v1.Admin/Push", "//"):
            self.refused(UNIMPLEMENTED, f"no method {path}$", self.raw, path, b"x")

    def test_not_text(self):
        for path, number, message in (
            (SERVICE + "Join", 2, "worker"),
            (ADMIN + "Describe", 2, "selection"),
            (ADMIN + "Apply", 5, "idempotency_key"),
        ):
            for text in (b"\xff", b"a\x00b"):
                request = field(number, text)
                self.refused(INVALID_ARGUMENT, f"field {message} .*UTF-8", self.raw, path, request, streams=False)
        self.refused(INVALID_ARGUMENT, "255", self.c.join, "x" * 256)

    def test_unusual_and_legal(self):
        """Fields in another order, repeated, unknown, of more bytes than needed; any number of chunks a message."""
        w, data = self.ids["net.w"], GOOD["net.w"]
        header = field(1, field(4, 48) + field(5, 1))
        fixed = varint(101 << 3 | 1) + bytes(8) + varint(102 << 3 | 5) + bytes(4)
        unknown = field(99, 1 << 63) + field(100, b"unknown") + fixed
        unknown_inside = field(2, unknown + field(1, w) + unknown + field(15, data))
        parts = [chunk_in_order((1, w), (15, data[:9])), chunk_in_order((1, w), (4, 9), (15, data[9:]))]
        bytewise = [chunk_in_order((1, w), (4, i), (15, data[i : i + 1])) for i in range(len(data))]
        long_varint = varint(1 << 3) + bytes([w | 0x80, 0x80, 0x80, 0x00])
        tensor = field(3, 48) + field(2, varint(2) + varint(3)) + field(1, 2)
        unpacked = field(2, 2) + field(2, 3) + field(1, 1) + field(1, 2)
        variants = {
            "data first": [header, chunk_in_order((15, data), (4, 0), (1, w))],
            "the last counts": [header, chunk_in_order((15, b"no"), (1, 77), (4, 5), (1, w), (4, 0), (15, data))],
            "unknown fields": [unknown + header + unknown, unknown_inside + unknown],
            "header after its chunks": [chunk_in_order((1, w), (15, data)) + header],
            "empty messages": [header, b"", parts[0], b"", parts[1]],
            "empty chunks": [header, chunk_in_order((1, w), (15, b"")) + chunk_in_order((1, w), (15, data))],
            "a long varint": [header, field(2, long_varint + field(15, data))],
            "a tensor's header": [header, chunk_in_order((5, tensor), (1, w), (15, data))],
            "a shape that is not packed": [header, chunk_in_order((5, unpacked), (1, w), (15, data))],
            "a byte a chunk": [header + b"".join(bytewise)],
        }
        for name, messages in variants.items():
            for method, call in self.push_bytes(*messages):
                with self.subTest(name, method=method):
                    (data_of_reply,) = call()
                    if method == "Push":
                        reply = wire.PushReply.FromString(data_of_reply)
                    else:
                        reply = wire.StreamResponse.FromString(data_of_reply).push
                    self.commit += 1
                    self.assertEqual((reply.applied, reply.commit), (1, self.commit))
        # Momentum tells whether it was the same gradient each time.
        steps, momentum, value = 1 + 2 * len(variants), 0.0, [0.0] * 6
        for t in range(steps):
            momentum = 1.0 if t == 0 else 0.5 * momentum + 1.0
            value = [x - momentum * g for x, g in zip(value, struct.unpack("<6d", data), strict=True)]
        self.assertEqual(from_f64(self.c.value("net.w")), value)


harness.main()
