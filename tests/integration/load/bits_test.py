"""One recorded sequence of pushes gives the same bits with any number of threads, any instruction set that the machine
has, and the stream cut anywhere, from one byte up.

    bits_test.py BUILD_DIR
"""

import random
import subprocess

import numpy

from load import TestCase, harness, scaled

ISAS = "sse2", "avx2", "avx512"
THREADS = 1, 2, 7, 16
TENSOR = scaled(8 << 20, 1 << 18)  # bytes
PUSHES = 3
# Of each dtype and group a large one; and an odd one, whose end fills no vector.
LEAVES = {
    "adam.f32": ("DTYPE_F32", TENSOR // 4),
    "adam.f64": ("DTYPE_F64", TENSOR // 8),
    "sgd.f32": ("DTYPE_F32", TENSOR // 4),
    "sgd.f64": ("DTYPE_F64", TENSOR // 8),
    "sgd.odd": ("DTYPE_F32", 100003),
}
GROUPS = [
    "--group=default=adamw(lr=0.01, weight_decay=0.1)",
    "--group=momentum=sgd(lr=0.001, momentum=0.9, nesterov=true, weight_decay=0.01)",
    "--assign=sgd=momentum",
]


def has_isa(isa):
    """A server that can't have it ends with an error instead of getting ready."""
    command = [harness.ESPALIERD, f"--isa={isa}", "--listen=127.0.0.1:0", "--group=default=nosuch(lr=1)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=harness.TIMEOUT, env=harness.environment())
    return "nosuch" in done.stderr


def record(seed):
    """The gradients of every push, by path."""
    generator = numpy.random.default_rng(seed)
    return [
        {
            path: generator.standard_normal(count).astype("<f4" if dtype == "DTYPE_F32" else "<f8")
            for path, (dtype, count) in LEAVES.items()
        }
        for _ in range(PUSHES)
    ]


def cut_lengths(total, source):
    """Lengths of pieces that make up a tensor: large ones, and at a few places bursts of the smallest."""
    while total > 0:
        for _ in range(source.randrange(8)):
            length = min(source.choice((1, 1, 1, 2, 3, 5, 7, 13, 4093)), total)
            if length > 0:
                yield length
            total -= length
        length = min(source.randrange(1, 1 << 20), total)
        if length > 0:
            yield length
        total -= length


def cut_anywhere(client, tensors, source, header):
    """The messages of a push: the leaves' pieces interleave, and share messages as it comes."""
    yield harness.wire.PushRequest(push=header)
    left = {path: (0, cut_lengths(data.nbytes, source)) for path, data in tensors.items()}
    message, size = harness.wire.PushRequest(), 0
    while left:
        path = source.choice(list(left))
        offset, lengths = left[path]
        length = next(lengths, None)
        if length is None:
            del left[path]
            continue
        data = tensors[path].view(numpy.uint8)[offset : offset + length].tobytes()
        message.chunks.add(leaf_id=client.ids[path], offset=offset, data=data)
        left[path] = offset + length, lengths
        size += length
        if size > 1 << 20 or source.random() < 0.2:
            yield message
            message, size = harness.wire.PushRequest(), 0
    if message.chunks:
        yield message


class Bits(TestCase):
    def run_record(self, pushes, isa, threads, seed):
        """The digest after the pushes, the streams cut as the seed has it; None: in pieces of 1 MiB."""
        server = self.server(*GROUPS, f"--isa={isa}", f"--threads={threads}")
        with harness.Client(server.address) as client:
            normal = harness.types.Initializer(normal={"mean": 0, "stddev": 1}, seed=7)
            client.declare(
                *(harness.leaf(path, count, dtype=dtype, init=normal) for path, (dtype, count) in LEAVES.items())
            )
            self.assertEqual((client.info().isa, client.info().threads), (isa, threads))
            for number, tensors in enumerate(pushes):
                if seed is None:
                    reply = client.push({client.ids[path]: data.tobytes() for path, data in tensors.items()})
                else:
                    header = harness.push_header({path: data.data.cast("B") for path, data in tensors.items()})
                    messages = cut_anywhere(client, tensors, random.Random(seed + number), header)
                    reply = client.ps.Push(messages, timeout=harness.TIMEOUT)
                self.assertEqual(reply.applied, len(LEAVES))
            digest = client.digest()
        server.stop()
        return digest.hex()

    def test_one_digest(self):
        seed = random.SystemRandom().randrange(1 << 32)
        isas = list(filter(has_isa, ISAS))
        print(f"this machine has {isas}; seed {seed}", flush=True)
        self.assertIn("sse2", isas)
        pushes = record(seed)
        expected = self.run_record(pushes, "sse2", 1, None)
        for isa in isas:
            for threads in THREADS:
                with self.subTest(isa=isa, threads=threads):
                    self.assertEqual(self.run_record(pushes, isa, threads, seed + 1000 * threads), expected)
        # That the digest would have shown a difference: one bit of one gradient, in the last element of the last push.
        pushes[-1]["sgd.odd"].view("<u4")[-1] ^= 1 << 22
        self.assertNotEqual(self.run_record(pushes, "sse2", 1, None), expected)


harness.main()
