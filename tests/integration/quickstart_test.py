"""The quickstart against a built tree: it passes (under a sanitizer too: every program's exit code counts, so a leak in
any of them fails it), and interrupted at any stage by either signal it leaves neither a process nor a file.

  quickstart_test.py BUILD_DIR
"""

import os
import signal
import subprocess
import tempfile

import harness

SCRIPT = os.path.join(harness.ROOT, "deploy", "quickstart.sh")


def processes_of_session(session):
    """Their command lines, zombies left out: those have ended."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                fields = stat.read().rpartition(")")[2].split()
            with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as command:
                words = command.read().replace("\0", " ")
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(f"{entry} {words}")
    return found


class Quickstart(harness.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)

    def start(self, steps):
        environment = dict(harness.environment(), TMPDIR=self.temporary.name, QUICKSTART_STEPS=str(steps))
        process = subprocess.Popen(
            [SCRIPT, "--build-dir", harness.BUILD_DIR],
            env=environment,
            start_new_session=True,  # by which its processes are found afterwards
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        return process

    def assert_nothing_left(self, process):
        self.assertEqual(processes_of_session(process.pid), [])
        self.assertEqual(os.listdir(self.temporary.name), [])

    def test_passes(self):
        process = self.start(3000)
        output = process.communicate()[0]
        print(output, end="")
        self.assertEqual(process.returncode, 0)
        self.assertRegex(output, r"(?m)^accuracy (0\.9[5-9]\d|1\.000)$")
        self.assertRegex(output, r"(?m)^\d+ steps per second")
        self.assert_nothing_left(process)

    def interrupt_at(self, text, number):
        process = self.start(10**9)
        seen = ""
        while text not in seen:
            line = process.stdout.readline()
            self.assertTrue(line, f"ended without {text!r}:\n{seen}")
            seen += line
        process.send_signal(number)
        process.communicate()
        self.assertEqual(process.returncode, 128 + number)
        self.assert_nothing_left(process)

    def test_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            for text in ("a server on a free port", "ready on", "step   500"):
                with self.subTest(text=text, signal=number.name):
                    self.interrupt_at(text, number)


if __name__ == "__main__":
    harness.main()
