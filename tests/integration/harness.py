"""What the integration tests share: a real espalierd, and a raw client on grpcio and the generated code, which checks
nothing by itself. proxy.py beside this has the proxy that cuts connections.

A test is a program `NAME_test.py BUILD_DIR`: it imports this module first, which takes BUILD_DIR from the command line
and finds the generated code in it, and ends with harness.main(). Nothing here sleeps for a guess's length, and every
wait has an end: TIMEOUT seconds, ample for a sanitized server on a busy machine.
"""

import os
import queue
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import grpc

BUILD_DIR = os.path.abspath(sys.argv.pop(1))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ESPALIERD = os.path.join(BUILD_DIR, "server", "espalierd")
sys.path.insert(0, os.path.join(BUILD_DIR, "tests", "integration"))

from espalier.v1 import admin_pb2 as admin
from espalier.v1 import admin_pb2_grpc
from espalier.v1 import parameter_server_pb2 as wire
from espalier.v1 import parameter_server_pb2_grpc
from espalier.v1 import types_pb2 as types

TIMEOUT = 60.0
READY = re.compile(r"espalierd \S+ ready on (.+)\n")
SANITIZER = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:")


def environment():
    """Of a program that may be sanitized: a report ends it with a code of its own."""
    suppressions = os.path.join(ROOT, "tests", "support", "tsan.supp")
    return dict(
        os.environ,
        ASAN_OPTIONS="exitcode=66:detect_leaks=1",
        TSAN_OPTIONS=f"exitcode=66:halt_on_error=1:atexit_sleep_ms=0:suppressions={suppressions}",
        UBSAN_OPTIONS="print_stacktrace=1",
    )


def is_sanitized():
    """Whether the build has a sanitizer, which needs memory and time of its own."""
    with open(os.path.join(BUILD_DIR, "CMakeCache.txt"), encoding="utf-8") as cache:
        return bool(re.search(r"^ESPALIER_SANITIZE:\w+=.", cache.read(), re.M))


def documented(heading):
    """The table under that heading of docs/errors.md: {what was sent: answer}."""
    with open(f"{ROOT}/docs/errors.md", encoding="utf-8") as doc:
        section = doc.read().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line.split(" | `", 1) for line in section.splitlines() if line.startswith("| ") and line.endswith("` |")]
    return {what.removeprefix("| "): text.removesuffix("` |") for what, text in lines}


def eventually(condition, what, timeout=TIMEOUT):
    """Waits until condition() is true, and returns what it was. Polls, with pauses, only because there is no event."""
    deadline = time.monotonic() + timeout
    pause = 0.0002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout} s: {what}")
        select.select([], [], [], pause)
        pause = min(pause * 2, 0.005)


def process_state(pid):
    """R, S, T (stopped), Z ..., of /proc."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()[0]


class Server:
    """A server that is ready. Tests end it by stop(), which looks at how it ended; close() is for tests that failed."""

    def __init__(self, *flags, listen=("127.0.0.1:0",)):
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # no pipe that could fill up
        command = [ESPALIERD, *(f"--listen={address}" for address in listen), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment())
        self.pid = self.process.pid
        self.has_ended = False  # and wait() has looked at how
        try:
            self.addresses = self._ready()
        except BaseException:
            self.close()
            raise
        self.address = self.addresses[0]

    def _ready(self):
        line = ""
        while not line.endswith("\n"):
            readable = select.select([self.process.stdout], [], [], TIMEOUT)[0]
            more = self.process.stdout.readline() if readable else ""
            if not more:
                raise AssertionError(f"espalierd is not ready: {line!r}\n{self.stderr()}")
            line += more
        return READY.fullmatch(line)[1].split()

    def stderr(self):
        """What it has logged so far."""
        self.log.flush()
        with open(f"/proc/self/fd/{self.log.fileno()}", encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait(self, timeout=TIMEOUT):
        """Its exit code, after it has ended by itself; asserts that no sanitizer had anything to say."""
        code = self.process.wait(timeout)
        self.has_ended = True
        log = self.stderr()
        if SANITIZER.search(log):
            raise AssertionError(f"espalierd has a sanitizer's report:\n{log}")
        return code

    def stop(self, number=signal.SIGTERM, timeout=TIMEOUT):
        """Ends it in order."""
        self.process.send_signal(number)
        code = self.wait(timeout)
        if code != 0:
            raise AssertionError(f"espalierd ended with {code}:\n{self.stderr()}")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Feed:
    """The requests of a stream, given one at a time: iterate over it in the call."""

    def __init__(self, *messages):
        self.queue = queue.Queue()
        self.taken = 0  # messages that gRPC asked for
        self.put(*messages)

    def put(self, *messages):
        for message in messages:
            self.queue.put(message)

    def end(self):
        """Half-closes the stream."""
        self.queue.put(None)

    def __iter__(self):
        return self

    def __next__(self):
        message = self.queue.get(timeout=4 * TIMEOUT)
        if message is None:
            raise StopIteration
        self.taken += 1
        return message


def f64(*values):
    return struct.pack(f"<{len(values)}d", *values)


def f32(*values):
    return struct.pack(f"<{len(values)}f", *values)


def from_f64(data):
    return list(struct.unpack(f"<{len(data) // 8}d", data))


def from_f32(data):
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def leaf(path, *shape, dtype="DTYPE_F64", **rest):
    """A LeafSpec."""
    return types.LeafSpec(path=path, shape=shape, dtype=dtype, **rest)


def chunks_of(tensors, chunk_bytes=1 << 20):
    """Chunks of {leaf id or path: bytes}, in that order."""
    chunks = []
    for name, data in tensors.items():
        key = {"path": name} if isinstance(name, str) else {"leaf_id": name}
        for offset in range(0, len(data), chunk_bytes):
            chunks.append(types.Chunk(offset=offset, data=data[offset : offset + chunk_bytes], **key))
    return chunks


def push_header(tensors, **fields):
    """A PushHeader that declares what {leaf: bytes} has."""
    return wire.PushHeader(**{"leaf_count": len(tensors), "total_bytes": sum(map(len, tensors.values())), **fields})


def push_messages(tensors, chunk_bytes=1 << 20, message=wire.PushRequest, **fields):
    """The messages of a push: the header alone, then one a chunk. `message` is PushRequest or StreamRequest."""
    messages = [message(push=push_header(tensors, **fields))]
    return messages + [message(chunks=[chunk]) for chunk in chunks_of(tensors, chunk_bytes)]


class Pulled:
    """A pull's answer. `tensors` is {leaf id: bytes}, `chunks` are the first chunks of each, for their headers."""

    def __init__(self, responses):
        self.header = self.end = None
        self.tensors = {}
        self.chunks = {}
        for response in responses:
            self.add(response)

    def add(self, response):
        if response.HasField("header"):
            self.header = response.header
        for chunk in response.chunks:
            have = self.tensors.setdefault(chunk.leaf_id, b"")
            if chunk.offset != len(have):
                raise AssertionError(f"leaf {chunk.leaf_id}: offset {chunk.offset} after {len(have)} bytes")
            self.chunks.setdefault(chunk.leaf_id, chunk)
            self.tensors[chunk.leaf_id] = have + chunk.data
        if response.HasField("end"):
            self.end = response.end


class Client:
    """A connection of its own. What fails raises grpc.RpcError."""

    def __init__(self, address, **options):
        arguments = {
            "grpc.use_local_subchannel_pool": 1,  # or channels to one address would share a connection
            "grpc.enable_retries": 0,
            "grpc.initial_reconnect_backoff_ms": 100,
            "grpc.max_reconnect_backoff_ms": 1000,
            "grpc.max_receive_message_length": 1 << 24,
            **options,
        }
        self.channel = grpc.insecure_channel(address, options=list(arguments.items()))
        self.ps = parameter_server_pb2_grpc.ParameterServerStub(self.channel)
        self.admin = admin_pb2_grpc.AdminStub(self.channel)
        self.session = 0
        self.sequence = 0
        self.ids = {}  # of the paths that this client declared

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def join(self, worker="test", session=0):
        reply = self.ps.Join(wire.JoinRequest(worker=worker, session=session), timeout=TIMEOUT)
        self.session, self.sequence = reply.session, reply.last_sequence
        return reply

    def declare(self, *leaves, nodes=(), values=None, chunk_bytes=1 << 20):
        """Declares, `values` being {path: bytes} of the leaves whose init follows. self.ids learns the ids."""
        values = values or {}
        paths = [spec.path for spec in leaves]
        header = wire.DeclareHeader(
            session=self.session, leaf_count=len(values), total_bytes=sum(map(len, values.values()))
        )
        messages = [wire.DeclareRequest(header=header, nodes=nodes, leaves=leaves)]
        for path, data in values.items():
            for chunk in chunks_of({0: data}, chunk_bytes):
                chunk.index = paths.index(path)
                messages.append(wire.DeclareRequest(chunks=[chunk]))
        reply = self.ps.Declare(iter(messages), timeout=TIMEOUT)
        ids = [number for run in reply.ids for number in range(run.first, run.first + run.count)]
        self.ids.update(zip(paths, ids, strict=True))
        return reply

    def next_push(self):
        """The fields of a header that give a push of this session its sequence; none without a session."""
        if self.session == 0:
            return {}
        self.sequence += 1
        return {"session": self.session, "sequence": self.sequence}

    def push(self, tensors, chunk_bytes=1 << 20, **fields):
        """One push of {leaf id or path: bytes}, of this session, if there is one, and with its next sequence."""
        messages = push_messages(tensors, chunk_bytes, **(fields or self.next_push()))
        return self.ps.Push(iter(messages), timeout=TIMEOUT)

    def pull(self, **request):
        return Pulled(self.ps.Pull(wire.PullRequest(**request), timeout=TIMEOUT))

    def value(self, path):
        """The bytes of one leaf."""
        (data,) = self.pull(paths=[path]).tensors.values()
        return data

    def apply(self, *operations, **fields):
        """Each operation a dict as {"freeze": {"selection": ...}}. The pages are merged."""
        request = admin.ApplyRequest(operations=[admin.Operation(**one) for one in operations], **fields)
        merged = admin.ApplyResponse()
        for page in self.admin.Apply(request, timeout=TIMEOUT):
            merged.MergeFrom(page)
        return merged

    def freeze(self, selection, **fields):
        return self.apply({"freeze": {"selection": selection}}, **fields)

    def thaw(self, selection, **fields):
        return self.apply({"thaw": {"selection": selection}}, **fields)

    def stage(self, tensors, chunk_bytes=1 << 20):
        header = wire.StageHeader(leaf_count=len(tensors), total_bytes=sum(map(len, tensors.values())))
        messages = [wire.StageRequest(header=header)]
        messages += [wire.StageRequest(chunks=[chunk]) for chunk in chunks_of(tensors, chunk_bytes)]
        return self.ps.Stage(iter(messages), timeout=TIMEOUT)

    def describe(self, selection="", **fields):
        """The pages, merged."""
        merged = admin.DescribeResponse()
        for page in self.admin.Describe(admin.DescribeRequest(selection=selection, **fields), timeout=TIMEOUT):
            merged.MergeFrom(page)
        return merged

    def digest(self, selection=""):
        """Of values, states and step counts of what is selected: equal digests, nothing changed."""
        return self.describe(selection, digest=True).digest

    def info(self):
        return self.admin.ServerInfo(admin.ServerInfoRequest(), timeout=TIMEOUT)

    def wait_for_nothing_staged(self):
        eventually(lambda: self.info().memory.staged == 0, "staged bytes did not return to 0")


class TestCase(unittest.TestCase):
    """With servers and clients that go when the test ends, and a check of the servers' ends."""

    def shortDescription(self):  # unittest's name: the test's name alone is shown
        return None

    def server(self, *flags, **rest):
        server = Server(*flags, **rest)
        self.addCleanup(server.close)
        self.addCleanup(self._stop, server)
        return server

    def _stop(self, server):
        if server.process.poll() is None:
            server.stop()
        elif not server.has_ended:
            code = server.wait()
            raise AssertionError(f"espalierd ended by itself with {code}:\n{server.stderr()}")

    def client(self, address, **options):
        client = Client(address, **options)
        self.addCleanup(client.close)
        return client

    def assert_fails(self, code, message, call, *arguments, **keywords):
        """The call is answered with this status, whose text matches the expression. Returns the text."""
        with self.assertRaises(grpc.RpcError) as caught:
            result = call(*arguments, **keywords)
            if hasattr(result, "code"):  # a stream's answer
                list(result)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertRegex(caught.exception.details(), message)
        return caught.exception.details()


def main():
    unittest.main(verbosity=2)
