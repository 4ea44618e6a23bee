"""Gradients and weights that travel in bfloat16 and float16: a push has the bits of one of the floats that its elements
widen to, whatever is tied, turned, clipped and cut; a pull has the nearest. narrow.c does the same by the library.

    narrow_test.py BUILD_DIR
"""

import os
import random
import struct
import subprocess
import sys

from grpc import StatusCode

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness
from harness import f32, f64, leaf, push_header, types, wire

PROGRAM = os.path.join(harness.BUILD_DIR, "tests", "integration", "narrow", "narrow")
INVALID_ARGUMENT, UNIMPLEMENTED = StatusCode.INVALID_ARGUMENT, StatusCode.UNIMPLEMENTED
BF16, F16, F32, F64 = types.DTYPE_BF16, types.DTYPE_F16, types.DTYPE_F32, types.DTYPE_F64
NAMES = {BF16: "bf16", F16: "f16", F32: "f32"}
GROUPS = {
    "sgd": "sgd(lr=0.1, momentum=0.9)",
    "adam": "adam(lr=0.01)",
    "clip": "clip_norm(0.5) | sgd(lr=0.1)",
    "global": "clip_global_norm(0.5) | adam(lr=0.01)",
}
SHAPES = {"w": (37, 41), "big": (3, 70001), "v": (1000,), "s": ()}  # big: more than one range of a norm
INF = float("inf")


def bf16(*values):
    """Rounded to nearest, ties to even. NaNs are quiet."""
    out = []
    for (bits,) in struct.iter_unpack("<I", struct.pack(f"<{len(values)}f", *values)):
        is_nan = bits & 0x7FFFFFFF > 0x7F800000
        out.append((bits | 0x400000 if is_nan else bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    return struct.pack(f"<{len(out)}H", *out)


def f16(*values):
    return struct.pack(f"<{len(values)}e", *values)


NARROW = {BF16: bf16, F16: f16, F32: f32}


def widened(data, dtype):
    """The same numbers as f32."""
    if dtype == F32:
        return data
    if dtype == BF16:
        return b"".join(bytes(2) + data[i : i + 2] for i in range(0, len(data), 2))
    return f32(*struct.unpack(f"<{len(data) // 2}e", data))


def floats(data):
    return struct.unpack(f"<{len(data) // 4}f", data)


def count(shape):
    return shape[0] * count(shape[1:]) if shape else 1


class NarrowCase(harness.TestCase):
    def open(self, *flags):
        self.address = self.server(*flags).address
        self.c = self.client(self.address)


def chunks(path, data, dtype, rest, source):
    """Of random sizes: from 1 byte, where the tensor is small. The first has the header."""
    result, offset = [], 0
    longest = max(3, len(data) // 20)
    while offset < len(data):
        end = offset + source.randint(1, longest)
        chunk = types.Chunk(path=path, offset=offset, data=data[offset:end])
        if offset == 0:
            chunk.tensor.CopyFrom(types.TensorHeader(dtype=dtype, **rest))
        result.append(chunk)
        offset = end
    return result


def messages(tensors, source=None, message=wire.PushRequest, **fields):
    """A push of {path: (dtype, bytes)}, its chunks interleaved and spread over messages at random."""
    source = source or random.Random(0)
    data = {path: data for path, (_, data) in tensors.items()}
    lists = [chunks(path, data, dtype, {}, source) for path, (dtype, data) in tensors.items()]
    result = [message(push=push_header(data, **fields))]
    while lists:
        one = source.choice(lists)
        if source.random() < 0.5:
            result.append(message())
        result[-1].chunks.append(one.pop(0))
        lists = [one for one in lists if one]
    return result


class Pushes(NarrowCase):
    """The trees `narrow` and `wide` have the same leaves, groups and first values. Each push of the one goes to the
    other as floats."""

    def setUp(self):
        self.open(*(f"--group={name}={text}" for name, text in GROUPS.items()))
        self.seed = random.SystemRandom().randrange(1 << 32)
        self.source = random.Random(self.seed)
        init = types.Initializer(uniform={"low": -1, "high": 1}, seed=7)
        specs, nodes = [], []
        for root in ("narrow", "wide"):
            for group in GROUPS:
                top = f"{root}.{group}"
                nodes.append(types.NodeSpec(path=top, group=group))
                specs += [leaf(f"{top}.{name}", *shape, dtype="DTYPE_F32", init=init) for name, shape in SHAPES.items()]
                specs.append(leaf(f"{top}.tied", 37, 41, dtype="DTYPE_F32", alias_of=f"{top}.w"))
                specs.append(
                    leaf(f"{top}.turned", 41, 37, dtype="DTYPE_F32", alias_of=f"{top}.w", view="VIEW_TRANSPOSE")
                )
        self.c.declare(*specs, nodes=nodes)

    def gradients(self, names):
        """{path below the root: (dtype, bytes)}, of random dtypes."""
        shapes = SHAPES | {"tied": (37, 41), "turned": (41, 37)}
        result = {}
        for group in GROUPS:
            for name in names:
                values = [self.source.gauss(0, 10 ** self.source.randint(-8, 0))] * count(shapes[name])
                values[:5000] = [self.source.gauss(0, 0.01) for _ in values[:5000]]
                dtype = self.source.choice((BF16, F16, F32))
                result[f"{group}.{name}"] = dtype, NARROW[dtype](*values)
        return result

    def push_both(self, gradients):
        replies = []
        for root in ("narrow", "wide"):
            tensors = {f"{root}.{path}": one for path, one in gradients.items()}
            if root == "wide":
                tensors = {path: (F32, widened(data, dtype)) for path, (dtype, data) in tensors.items()}
            sent = messages(tensors, self.source)
            replies.append(self.c.ps.Push(iter(sent), timeout=harness.TIMEOUT))
        narrow, wide = replies
        self.assertEqual((narrow.applied, narrow.frozen, narrow.detached), (wide.applied, wide.frozen, wide.detached))
        self.assert_same()
        return narrow

    def assert_same(self):
        """Values, states and steps, leaf by leaf."""
        digests = []
        for root in ("narrow", "wide"):
            described = self.c.describe(root, digest=True).leaves
            digests.append({one.path.partition(".")[2]: one.digest for one in described})
        self.assertEqual(*digests, f"seed {self.seed}")
        self.assertEqual(len(digests[0]), len(GROUPS) * (len(SHAPES) + 2))

    def test_bits_are_those_of_the_widened(self):
        for names in (("w", "big", "v", "s"), ("w", "tied", "turned"), ("turned",), ("tied", "turned", "s"), ("v",)):
            self.push_both(self.gradients(names))

    def test_norm_of_a_long_leaf_alone(self):
        """Its ranges are more than its bytes have of f32."""
        self.push_both({"clip.big": (BF16, bf16(*[0.5] * count(SHAPES["big"])))})

    def test_frozen_and_detached(self):
        for root in ("narrow", "wide"):
            self.c.apply({"freeze": {"selection": f"{root}.*.v"}}, {"detach": {"selection": f"{root}.*.tied"}})
        gradients = self.gradients(("w", "tied", "turned", "v"))
        for group in GROUPS:
            gradients[f"{group}.v"] = F16, f16(*[float("nan")] * 1000)
        reply = self.push_both(gradients)
        self.assertEqual((reply.applied, reply.frozen, reply.detached), (8, 4, 4))

    def test_one_byte_a_chunk(self):
        gradients = {"adam.v": (BF16, bf16(*range(-500, 500))), "adam.s": (F16, f16(1.5))}
        data = {f"narrow.{path}": data for path, (_, data) in gradients.items()}
        sent = [wire.PushRequest(push=push_header(data))]
        for path, (dtype, data) in gradients.items():
            for offset in range(len(data)):
                chunk = types.Chunk(path=f"narrow.{path}", offset=offset, data=data[offset : offset + 1])
                chunk.tensor.dtype = dtype  # with each, which is no more than with the first
                sent.append(wire.PushRequest(chunks=[chunk]))
        self.c.ps.Push(iter(sent), timeout=harness.TIMEOUT)
        wide = {f"wide.{path}": widened(data, dtype) for path, (dtype, data) in gradients.items()}
        self.c.push(wide)
        self.assert_same()

    def test_a_stream_of_pushes(self):
        """On PushPull, with a pull behind them."""
        self.c.join()
        gradients = self.gradients(("w", "turned", "v"))
        tensors = {f"narrow.{path}": one for path, one in gradients.items()}
        sent = []
        for _ in range(3):
            sent += messages(tensors, self.source, wire.StreamRequest, **self.c.next_push())
            self.c.push({f"wide.{path}": widened(data, dtype) for path, (dtype, data) in gradients.items()})
        sent.append(wire.StreamRequest(pull=wire.PullRequest(selection="narrow.sgd.v", dtype=BF16)))
        *replies, last = self.c.ps.PushPull(iter(sent), timeout=harness.TIMEOUT)
        self.assertEqual([one.push.applied for one in replies if one.HasField("push")], [12] * 3)
        pulled = harness.Pulled([*replies, last])
        (data,) = pulled.tensors.values()
        self.assertEqual(data, bf16(*floats(self.c.value("wide.sgd.v"))))
        self.assert_same()


class Refused(NarrowCase):
    def setUp(self):
        self.open("--group=default=adam(lr=1)")
        self.c.declare(leaf("net.w", 2, 3, dtype="DTYPE_F32"), leaf("net.d", 2), leaf("net.v", 9000, dtype="DTYPE_F32"))
        self.before = self.c.digest(), self.c.info().commit

    def tearDown(self):
        self.c.wait_for_nothing_staged()
        self.assertEqual((self.c.digest(), self.c.info().commit), self.before)
        super().tearDown()

    def refuses(self, code, message, tensors, **tensor):
        sent = messages(tensors)
        for one in sent:
            for chunk in one.chunks:
                if chunk.offset == 0:
                    chunk.tensor.MergeFrom(types.TensorHeader(**tensor))
        self.assert_fails(code, f"^{message}$", self.c.ps.Push, iter(sent), timeout=harness.TIMEOUT)

    def test_dtypes(self):
        one = bf16(1, 2, 3, 4, 5, 6)
        for dtype, name in ((F64, "f64"), (17, "none")):
            message = f"leaf net.w: dtype f32, bf16 or f16 expected, got {name}"
            self.refuses(INVALID_ARGUMENT, message, {"net.w": (dtype, one)})
        for dtype in (BF16, F16, F32):
            message = f"leaf net.d: dtype f64 expected, got {NAMES[dtype]}: only f32 travels narrower yet"
            self.refuses(UNIMPLEMENTED, message, {"net.d": (dtype, f64(1, 2))})

    def test_a_leaf_in_two_dtypes(self):
        data = {"net.w": bf16(1, 2, 3, 4, 5, 6)}
        pairs = ((BF16, F16), (BF16, F32), (F16, BF16), (F32, BF16), (0, F16))
        for first, second in pairs:
            parts = [types.Chunk(path="net.w", offset=at, data=data["net.w"][at : at + 6]) for at in (0, 6)]
            parts[0].tensor.dtype, parts[1].tensor.dtype = first, second
            sent = [wire.PushRequest(push=push_header(data, total_bytes=24), chunks=parts)]
            message = f"^leaf net.w: dtype {NAMES[first or F32]} expected, got {NAMES[second]}$"
            self.assert_fails(INVALID_ARGUMENT, message, self.c.ps.Push, iter(sent))

    def test_bytes(self):
        whole = bf16(1, 2, 3, 4, 5, 6)
        self.refuses(INVALID_ARGUMENT, "leaf net.w: 12 bytes expected, got 24", {"net.w": (BF16, whole)}, bytes=24)
        self.refuses(INVALID_ARGUMENT, "leaf net.w: 12 bytes expected, got 1", {"net.w": (F16, whole)}, bytes=1)
        fits = "leaf net.w: its 12 bytes do not fit: the header declares 11 in all, and 0 belong to other leaves"
        self.refuses(INVALID_ARGUMENT, fits, {"net.w": (F16, whole[:11])})
        fits = "leaf net.w: its 24 bytes do not fit: the header declares 12 in all, and 0 belong to other leaves"
        self.refuses(INVALID_ARGUMENT, fits, {"net.w": (0, whole)})  # no dtype: the leaf's own
        both = {"net.w": (BF16, whole + whole), "net.v": (BF16, bytes(18000))}
        self.refuses(INVALID_ARGUMENT, "leaf net.w: 12 bytes expected, got 1[3-9] or more|leaf net.w was sent twice", both)

    def test_not_finite(self):
        nan, infinite = float("nan"), -INF
        for dtype in (BF16, F16):
            for at in (0, 4000, 8999):
                for value, name in ((nan, "NaN"), (infinite, "-infinity"), (INF, r"\+infinity")):
                    values = [1.0] * 9000
                    values[at] = value
                    message = f"leaf net.v: element {at} of the gradient is {name}"
                    tensors = {"net.w": (BF16, bf16(1, 2, 3, 4, 5, 6)), "net.v": (dtype, NARROW[dtype](*values))}
                    self.refuses(INVALID_ARGUMENT, message, tensors)

    def test_only_gradients(self):
        """A value, of a stage or a declaration, is in the leaf's dtype."""
        data = {"net.w": bf16(1, 2, 3, 4, 5, 6)}
        chunk = types.Chunk(path="net.w", data=data["net.w"])
        chunk.tensor.dtype = BF16
        header = wire.StageHeader(leaf_count=1, total_bytes=24)
        message = "^leaf net.w: dtype f32 expected, got bf16$"
        sent = [wire.StageRequest(header=header, chunks=[chunk])]
        self.assert_fails(INVALID_ARGUMENT, message, self.c.ps.Stage, iter(sent))
        spec = leaf("net.x", 6, dtype="DTYPE_F32", init=types.Initializer(follows=True))
        chunk = types.Chunk(index=0, data=data["net.w"])
        chunk.tensor.dtype = BF16
        header = wire.DeclareHeader(leaf_count=1, total_bytes=24)
        sent = [wire.DeclareRequest(header=header, leaves=[spec]), wire.DeclareRequest(chunks=[chunk])]
        self.assert_fails(INVALID_ARGUMENT, "^leaf net.x: dtype f32 expected, got bf16$", self.c.ps.Declare, iter(sent))

    def test_pulls(self):
        def refuses(code, message, **request):
            self.assert_fails(code, f"^{message}$", self.c.pull, **request)

        ids = [self.c.ids["net.w"], self.c.ids["net.d"]]
        for dtype, name in ((F64, "f64"), (17, "none"), (257, "none")):
            message = f"leaf net.w: dtype f32, bf16 or f16 expected, got {name}"
            refuses(INVALID_ARGUMENT, message, paths=["net.w"], dtype=dtype)
            refuses(INVALID_ARGUMENT, message, leaf_ids=ids[:1], dtypes=[dtype])
        for dtype in (F32, BF16, F16):
            message = f"leaf net.d: dtype f64 expected, got {NAMES[dtype]}: only f32 travels narrower yet"
            refuses(UNIMPLEMENTED, message, dtype=dtype)
            refuses(UNIMPLEMENTED, message, leaf_ids=ids, dtypes=[0, dtype])
        refuses(INVALID_ARGUMENT, "a pull of 2 leaf_ids has 1 dtypes", leaf_ids=ids, dtypes=[BF16])
        refuses(INVALID_ARGUMENT, "a pull of 0 leaf_ids has 2 dtypes", paths=["net.w"], dtypes=[BF16, BF16])


class Pulls(NarrowCase):
    def setUp(self):
        self.open("--group=default=sgd(lr=1)")
        source = random.Random(3)
        follows = types.Initializer(follows=True)
        self.values = {
            "a.w": f32(*(source.gauss(0, 1) for _ in range(300 * 70))),
            "a.v": f32(*(source.gauss(0, 10 ** source.randint(-9, 3)) for _ in range(9000))),
            # Buffers may hold anything: infinities stay what they are.
            "a.odd": f32(INF, -INF, float("nan"), 0.0, -0.0, 65519.0, 5.9e-8, 2.9e-8, 1e-45, -1e-45),
        }
        self.c.declare(
            leaf("a.w", 300, 70, dtype="DTYPE_F32", init=follows),
            leaf("a.v", 9000, dtype="DTYPE_F32", init=follows),
            leaf("a.odd", 10, dtype="DTYPE_F32", init=follows, kind="KIND_BUFFER"),
            values=self.values,
        )
        self.c.declare(leaf("a.wt", 70, 300, dtype="DTYPE_F32", alias_of="a.w", view="VIEW_TRANSPOSE"))
        self.c.declare(leaf("b.d", 2))
        self.values["a.wt"] = b"".join(self.values["a.w"][i * 4 + j * 280 :][:4] for i in range(70) for j in range(300))
        self.expected = {
            (path, dtype): NARROW[dtype](*floats(data)) for path, data in self.values.items() for dtype in NARROW
        }

    def assert_pulled(self, pulled, dtypes):
        """{path: dtype} came."""
        ids = {self.c.ids[path]: path for path in dtypes}
        self.assertEqual(set(pulled.tensors), set(ids))
        for number, path in ids.items():
            tensor, dtype = pulled.chunks[number].tensor, dtypes[path]
            expected = self.expected[path, dtype]
            self.assertEqual(pulled.tensors[number], expected, f"{path} in {NAMES[dtype]}")
            self.assertEqual((tensor.dtype, tensor.bytes), (dtype, len(expected)))
        self.assertEqual(pulled.header.total_bytes, sum(map(len, pulled.tensors.values())))

    def assert_nothing_kept(self):
        harness.eventually(lambda: self.c.info().memory.copy_on_write == 0, "nothing is kept for readers")

    def test_the_nearest(self):
        for dtype in NARROW:
            for consistent in (False, True):
                pulled = self.c.pull(selection="a", dtype=dtype, consistent=consistent)
                self.assert_pulled(pulled, dict.fromkeys(self.values, dtype))
        self.assertEqual(list(pulled.chunks[self.c.ids["a.wt"]].tensor.shape), [70, 300])
        self.assert_nothing_kept()

    def test_leaf_by_leaf(self):
        """dtypes are of leaf_ids; paths and a selection follow dtype, as those that are unspecified."""
        ids = [self.c.ids[path] for path in ("a.v", "a.w", "a.wt")]
        pulled = self.c.pull(leaf_ids=ids, dtypes=[F16, 0, F32], paths=["a.odd"], dtype=BF16)
        self.assert_pulled(pulled, {"a.v": F16, "a.w": BF16, "a.wt": F32, "a.odd": BF16})
        pulled = self.c.pull(leaf_ids=ids, dtypes=[F16, 0, BF16], consistent=True)
        self.assert_pulled(pulled, {"a.v": F16, "a.w": F32, "a.wt": BF16})

    def test_too_large(self):
        self.c.push({"a.v": f32(*[0.0] * 7000, *[-65520.0], *[0.0] * 1999)})
        place = struct.unpack_from("<f", self.c.value("a.v"), 7000 * 4)[0]
        self.assertGreaterEqual(place, 65500)
        self.c.push({"a.v": f32(*[0.0] * 7000, place - 65520, *[0.0] * 1999)})  # exactly
        for consistent in (False, True):
            message = "^leaf a.v: element 7000 is too large for f16$"
            code = StatusCode.OUT_OF_RANGE
            self.assert_fails(code, message, self.c.pull, paths=["a.v"], dtype=F16, consistent=consistent)
        pulled = self.c.pull(paths=["a.v"], dtype=BF16)
        self.assertEqual(pulled.tensors[self.c.ids["a.v"]], bf16(*floats(self.c.value("a.v"))))
        self.c.push({"a.v": f32(*[0.0] * 7000, 1.0, *[0.0] * 1999)})  # 65519 is not
        self.c.pull(paths=["a.v"], dtype=F16)
        self.assert_nothing_kept()

    def test_deltas(self):
        """What a client has counts in the dtype in which it has it."""
        number = self.c.ids["a.w"]
        for had in (0, F32, BF16, F16):
            first = self.c.pull(leaf_ids=[number], dtype=had)
            header = first.chunks[number].tensor
            self.assertEqual(header.dtype, had or F32)
            for said in {had, header.dtype}:
                have = wire.PullRequest.Have(
                    leaf_id=number, parameter=header.parameter, version=header.version, dtype=said
                )
                for wanted in (0, F32, BF16, F16):
                    for consistent in (False, True):
                        pulled = self.c.pull(
                            leaf_ids=[number],
                            dtype=wanted,
                            have=[have],
                            have_lineage=first.header.lineage,
                            consistent=consistent,
                        )
                        is_same = (wanted or F32) == (had or F32)
                        self.assertEqual((pulled.end.unchanged, pulled.end.sent), (int(is_same), int(not is_same)))
                        if not is_same:
                            self.assert_pulled(pulled, {"a.w": wanted or F32})


class Library(NarrowCase):
    def test_program(self):
        self.open("--group=default=sgd(lr=1)")
        done = subprocess.run(
            [PROGRAM, self.address], capture_output=True, text=True, timeout=harness.TIMEOUT, env=harness.environment()
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


harness.main()
