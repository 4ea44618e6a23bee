"""espalierd as its users start and stop it: options, the ready line, signals, exit codes, and that the reference in
docs/server.md is the table's.

    espalierd_test.py ESPALIERD
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

ESPALIERD = sys.argv.pop(1)
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


unittest.main(verbosity=2)
