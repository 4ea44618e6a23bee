"""README.md keeps its word: its worker builds and fits its line on a real server, and its operator's session is run again
on a server that trains, and says the same, numbers aside.

  readme_test.py BUILD_DIR
  readme_test.py BUILD_DIR --update    writes the session as it is now into README.md
"""

import os
import re
import subprocess
import tempfile

import harness
import session

IS_UPDATE = session.is_update()
README = session.Page("README.md")
CLIENT = os.path.join(harness.BUILD_DIR, "client")
LINES_PROMISED = 30
GROUPS = (
    "--group=default=adamw(lr=0.0005, weight_decay=0.02)",
    "--group=output=sgd(lr=0.005, momentum=0.9)",
    "--assign=head=output",
)


def setting(name):
    """Of the build's cache; "" where it is not there."""
    with open(os.path.join(harness.BUILD_DIR, "CMakeCache.txt"), encoding="utf-8") as cache:
        return (re.findall(rf"(?m)^{name}:[A-Z]+=(.*)$", cache.read()) or [""])[0]


def build_worker(directory):
    source, program = os.path.join(directory, "worker.c"), os.path.join(directory, "worker")
    with open(source, "w", encoding="utf-8") as file:
        file.write(README.block("worker.c", "c"))
    sanitize = setting("ESPALIER_SANITIZE")
    command = [setting("CMAKE_C_COMPILER"), "-std=c11", "-Wall", "-Wextra", "-Werror", source, "-o", program]
    command += [f"-I{harness.ROOT}/base/include", f"-I{harness.ROOT}/client/include"]
    command += [f"-L{CLIENT}", f"-Wl,-rpath,{CLIENT}", "-lespalier"]
    subprocess.run(command + ([f"-fsanitize={sanitize}"] if sanitize else []), check=True)
    return program


def numbers_aside(text):
    """What differs from run to run and from machine to machine becomes N, but equal digests stay equal; columns may be of
    another width."""
    text = re.sub(r"\bup [^,]+,", "up N,", session.masked(text))
    text = re.sub(r"\bisa \w+", "isa N", text)
    text = re.sub(r"(?<!ID)\b[0-9]+(\.[0-9]+)?( [KMGT]?i?B\b)?", "N", text)
    text = re.sub(r"\bthreads?\b", "threads", text)
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.splitlines())


class Session:
    """Runs the commands; --if-epoch's number is taken from the dry run before it."""

    def __init__(self, environment, directory):
        self.shell = session.Shell(directory, environment)
        self.epoch = "0"

    def run(self, command):
        printed = self.shell.run(re.sub(r"(--if-epoch) \d+", rf"\1 {self.epoch}", command))
        self.epoch = (re.findall(r"--if-epoch (\d+)", printed) or [self.epoch])[-1]
        return printed


def check_while_training(server):
    """Two workers train meanwhile; the session begins when each has taken its first steps."""
    environment = dict(harness.environment(), ESPALIER_SERVER=server.address)
    command = [os.path.join(CLIENT, "examples", "espalier-digits"), "--role=train", "--steps=10000000", "--report=500"]
    command.append(f"--data={harness.ROOT}/client/examples/data/digits.csv.gz")
    workers = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            for seed in (1, 2):
                log = os.path.join(directory, f"worker-{seed}")
                with open(log, "w", encoding="utf-8") as out:
                    workers.append(subprocess.Popen([*command, f"--seed={seed}"], env=environment, stdout=out))
                harness.eventually(lambda log=log: os.path.getsize(log) > 0, "the worker took no steps")
            README.check(README.text, Session(environment, directory).run, numbers_aside, IS_UPDATE)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


class Readme(harness.TestCase):
    def test_worker(self):
        self.assertLessEqual(len(README.block("worker.c", "c").splitlines()), LINES_PROMISED)
        promised = re.search(r"\./worker\n\s+(.*)\n", README.text)[1]
        server = self.server("--group=default=sgd(lr=0.5)")
        with tempfile.TemporaryDirectory() as directory:
            output = subprocess.run(
                [build_worker(directory)],
                env=dict(harness.environment(), ESPALIER_SERVER=server.address),
                stdout=subprocess.PIPE,
                text=True,
                timeout=harness.TIMEOUT,
                check=True,
            ).stdout
        self.assertEqual(output, promised + "\n")

    def test_session(self):
        check_while_training(self.server(*GROUPS))


harness.main()
