"""docs/python.md keeps its word: its commands generate the code and run the example, which trains, skips what is frozen,
retries without applying a gradient twice, and stops on a new lineage.

    python_worker_test.py BUILD_DIR
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile

import harness
from proxy import Proxy

with open(os.path.join(harness.ROOT, "docs", "python.md"), encoding="utf-8") as page:
    PAGE = page.read()
LINES_PROMISED = 149
ENDLESS = 10**9  # steps
ENCODER = {"encoder.weight", "encoder.bias"}
BYTES = {"encoder.weight": 4 * 32 * 64, "encoder.bias": 4 * 32, "head.weight": 4 * 10 * 32, "head.bias": 4 * 10}
# `python3` is the one that runs this.
ENVIRONMENT = dict(os.environ, PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])


def command(marker):
    """The shell command after its marker."""
    return re.search(rf"<!-- {marker} -->\n```sh\n(.*?)```\n", PAGE, re.DOTALL)[1]


class Training:
    """A worker that runs as the page says, in a directory that looks like the source tree."""

    def __init__(self, tree, address, steps):
        run = command("run").replace("127.0.0.1:7433", address).replace("--steps 2000", f"--steps {steps}")
        self.output = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(
            ["bash", "-c", run],
            cwd=tree,
            env=ENVIRONMENT,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def text(self):
        with open(f"/proc/self/fd/{self.output.fileno()}", encoding="utf-8") as output:
            return output.read()

    def lines(self):
        """What it has printed of its steps: (loss, frozen paths)."""
        found = re.findall(r"(?m)^step \d+ loss (\S+) frozen: (.*)\n", self.text())
        return [(float(loss), set(frozen.replace("-", "").split())) for loss, frozen in found]

    def wait_for_lines(self, count, frozen=None):
        """Waits for more lines, that have these frozen leaves, and returns them."""
        before = len(self.lines())

        def look():
            if self.process.poll() is not None:
                raise AssertionError(f"the worker ended with {self.process.returncode}: {self.text()}")
            new = [line for line in self.lines()[before:] if frozen is None or line[1] == frozen]
            return len(new) >= count and new

        return harness.eventually(look, f"{count} lines with {frozen} frozen")

    def wait(self):
        """Its exit code."""
        return self.process.wait(4 * harness.TIMEOUT)

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.output.close()


class PythonWorker(harness.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tree = cls.enterClassContext(tempfile.TemporaryDirectory())
        for folder in ("proto", "client"):
            os.symlink(os.path.join(harness.ROOT, folder), os.path.join(cls.tree, folder))
        subprocess.run(["bash", "-ec", command("generate")], cwd=cls.tree, env=ENVIRONMENT, check=True)

    def setUp(self):
        self.espalierd = self.server("--group=default=adam(lr=0.005)")
        self.operator = self.client(self.espalierd.address)

    def training(self, address, steps):
        training = Training(self.tree, address, steps)
        self.addCleanup(training.close)
        return training

    def test_length(self):
        with open(os.path.join(harness.ROOT, "client", "examples", "worker.py"), encoding="utf-8") as worker:
            self.assertLessEqual(len(worker.readlines()), LINES_PROMISED)

    def test_freeze(self):
        first = self.training(self.espalierd.address, ENDLESS)
        first.wait_for_lines(2)
        for selection, frozen in (("encoder.weight", {"encoder.weight"}), ("encoder", ENCODER)):
            self.operator.freeze(selection)
            digest, head = self.operator.digest(selection), self.operator.digest("head")
            first.wait_for_lines(1, frozen)
            before = self.operator.info()
            first.wait_for_lines(3, frozen)
            after = self.operator.info()
            self.assertEqual(self.operator.digest(selection), digest)
            self.assertNotEqual(self.operator.digest("head"), head)
            pushes = after.pushes_applied - before.pushes_applied + 1  # one is under way
            wanted = sum(BYTES[path] for path in BYTES.keys() - frozen)
            self.assertLessEqual(after.bytes_pushed - before.bytes_pushed, pushes * wanted)
        self.operator.thaw("encoder")
        first.wait_for_lines(2, set())
        self.assertNotEqual(self.operator.digest("encoder"), digest)

        # One that joins has the weights of the one that trained.
        self.operator.freeze("encoder.bias")
        second = self.training(self.espalierd.address, 101)
        self.assertEqual(second.wait(), 0, second.text())
        self.assertEqual([line[1] for line in second.lines()], [{"encoder.bias"}] * 2)
        self.assertGreater(first.lines()[0][0], 2)  # ln 10 is to know nothing
        self.assertLess(second.lines()[0][0], 1)
        self.assertLess(first.lines()[-1][0], 1)

    def test_retries(self):
        seed = random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        proxy = Proxy(self.espalierd.address, seed=seed)
        self.addCleanup(proxy.close)
        training = self.training(proxy.address, 301)
        training.wait_for_lines(1)
        proxy.cut_replies = 0.03
        self.assertEqual(training.wait(), 0, training.text())
        self.assertGreater(proxy.cuts, 0)
        self.assertEqual(self.operator.info().pushes_applied, 302)  # and the one for the first weights

    def test_new_lineage(self):
        training = self.training(self.espalierd.address, ENDLESS)
        training.wait_for_lines(1)
        self.espalierd.stop()
        self.server(listen=(self.espalierd.address,))
        self.assertEqual(training.wait(), 1)
        self.assertRegex(training.text(), r"What was trained is lost.*\nABORTED: .*lineage")


harness.main()
