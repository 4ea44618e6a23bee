"""espalierd as its users start and stop it: options, the ready line, signals, exit codes, and that the reference in
docs/server.md is the table's.

    espalierd_test.py ESPALIERD PROTO_DIR
"""

import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

import grpc

ESPALIERD = sys.argv.pop(1)
sys.path.insert(0, sys.argv.pop(1))  # the generated code
from espalier.v1 import admin_pb2 as admin
from espalier.v1 import parameter_server_pb2 as wire

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*flags):
    return subprocess.run([ESPALIERD, *flags], capture_output=True, text=True, timeout=60)


class Server:
    """A server that is ready."""

    def __init__(self, *flags):
        self.process = subprocess.Popen(
            [ESPALIERD, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.ready = self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def addresses(self):
        return re.fullmatch(r"espalierd \d+\.\d+\.\d+ ready on (.+)\n", self.ready)[1].split()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


class Options(unittest.TestCase):
    def refused(self, message, *flags, code=2):
        got = run(*flags)
        self.assertEqual((got.returncode, got.stdout), (code, ""))
        self.assertEqual(got.stderr.count("\n"), 1, got.stderr)
        self.assertRegex(got.stderr, f"^espalierd: {message}")

    def test_bad_options(self):
        self.refused("--threads takes a number from 1 to 256, not \"0\"$", "--threads=0")
        self.refused("--nosuch: no such option", "--nosuch")
        self.refused("--listen: .*--insecure", "--listen=0.0.0.0:0")
        self.refused("--listen: ", "--listen=nonsense")
        self.refused("--group, --assign: .*a", "--group=a=nosuch(lr=1)")
        self.refused("--group, --assign: ", "--assign=a..b=default")
        self.refused("--config /nonexistent.yaml: No such file", "--config=/nonexistent.yaml")

    def test_bad_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("nosuch: 1\n")
            file.flush()
            self.refused(f"--config {file.name}: Unexpected key: nosuch", f"--config={file.name}")

    def test_address_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            got = run(f"--listen={address}")
        self.assertEqual((got.returncode, got.stdout), (1, ""))
        self.assertRegex(got.stderr, f"(?m)^espalierd: .*{address}")

    def test_version_and_help(self):
        version = re.search(r"project\(espalier VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
        self.assertEqual(run("--version").stdout, f"espalierd {version}\n")
        got = run("--help")
        self.assertEqual((got.returncode, got.stderr), (0, ""))
        self.assertIn("  --drain-timeout=DURATION\n", got.stdout)
        self.assertLessEqual(max(map(len, got.stdout.splitlines())), 120)

    def test_reference_is_the_table(self):
        page = (ROOT / "docs/server.md").read_text()
        table = "".join(line + "\n" for line in page.splitlines() if line.startswith("| "))
        self.assertEqual(table, run("--print-options-markdown").stdout)


class Life(unittest.TestCase):
    def test_ready_and_drained(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with tempfile.TemporaryDirectory() as folder, Server(
                "--listen=127.0.0.1:0", f"--listen=unix:{folder}/socket"
            ) as server:
                tcp, unix = server.addresses()
                self.assertEqual(unix, f"unix:{folder}/socket")
                self.assertEqual(os.stat(f"{folder}/socket").st_mode & 0o777, 0o600)
                host, port = tcp.rsplit(":", 1)
                socket.create_connection((host, int(port)), timeout=60).close()
                code, out, err = server.stop(number)
                self.assertEqual((code, out), (0, ""), err)
                self.assertIn("draining", err)
                self.assertIn("drained", err)

    def test_options_from_the_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("listen: [127.0.0.1:0]\nthreads: 3\nlog-level: error\ngroup:\n  - fast=adam(lr=0.1, beta1=0.8)\n")
            file.flush()
            with Server(f"--config={file.name}") as server:
                self.assertRegex(server.ready, r"^espalierd \S+ ready on 127\.0\.0\.1:[1-9]\d*$")
                self.assertEqual(server.stop()[0::2], (0, ""))


class PushUnderWay:
    """A server whose only client has sent half a push."""

    def __init__(self, server):
        self.server = server
        self.requests = queue.Queue()
        self.channel = grpc.insecure_channel(self.server.addresses()[0])
        declare = wire.DeclareRequest(header={}, leaves=[{"path": "w", "shape": [2], "dtype": "DTYPE_F64"}])
        reply = self.call("stream_unary", "ParameterServer/Declare", wire.DeclareReply)(iter([declare]), timeout=60)
        self.leaf = reply.ids[0].first
        self.push = self.call("stream_unary", "ParameterServer/Push", wire.PushReply).future(iter(self.requests.get, None))
        self.requests.put(wire.PushRequest(push={"sequence": 0, "total_bytes": 16, "leaf_count": 1}))
        self.requests.put(wire.PushRequest(chunks=[{"leaf_id": self.leaf, "data": bytes(8)}]))
        info = self.call("unary_unary", "Admin/ServerInfo", admin.ServerInfoReply)
        while info(admin.ServerInfoRequest(), timeout=60).memory.staged == 0:
            pass

    def call(self, kind, method, reply):
        serialize = lambda request: request.SerializeToString()
        return getattr(self.channel, kind)("/espalier.v1." + method, serialize, reply.FromString)

    def drain(self):
        self.server.process.send_signal(signal.SIGTERM)
        while "draining" not in self.server.process.stderr.readline():
            pass

    def finish(self):
        self.requests.put(wire.PushRequest(chunks=[{"leaf_id": self.leaf, "offset": 8, "data": bytes(8)}]))
        self.requests.put(None)
        return self.push.result(timeout=60)

    def close(self):
        self.requests.put(None)
        self.channel.close()


class Drain(unittest.TestCase):
    def push_under_way(self, *flags):
        server = Server("--listen=127.0.0.1:0", *flags)
        self.addCleanup(server.__exit__)
        half = PushUnderWay(server)
        self.addCleanup(half.close)
        return half

    def test_a_push_under_way_finishes(self):
        half = self.push_under_way("--drain-timeout=1h")
        half.drain()
        with self.assertRaises(grpc.RpcError) as refused:
            half.call("unary_unary", "ParameterServer/Join", wire.JoinReply)(wire.JoinRequest(), timeout=60)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(half.finish().applied, 1)
        self.assertEqual(half.server.process.wait(60), 0)

    def test_what_does_not_end_is_cancelled(self):
        half = self.push_under_way("--drain-timeout=100ms")
        half.drain()
        self.assertEqual(half.server.process.wait(60), 0)
        self.assertEqual(half.push.exception(60).code(), grpc.StatusCode.UNAVAILABLE)

    def test_a_second_signal_ends_it(self):
        for number in signal.SIGTERM, signal.SIGINT:
            half = self.push_under_way("--drain-timeout=1h")
            half.drain()
            half.server.process.send_signal(number)
            self.assertEqual(half.server.process.wait(60), 128 + number)


unittest.main(verbosity=2)
