"""README.md keeps its word: its worker builds and fits its line on a real server, and its operator's session is run again
on a server that trains, and says the same, numbers aside.

  readme_test.py BUILD_DIR
  readme_test.py BUILD_DIR --print    prints the session as it is now, for README.md
"""

import os
import re
import subprocess
import sys
import tempfile

import harness

with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as readme:
    README = readme.read()
CLIENT = os.path.join(harness.BUILD_DIR, "client")
LINES_PROMISED = 30
GROUPS = (
    "--group=default=adamw(lr=0.0005, weight_decay=0.02)",
    "--group=output=sgd(lr=0.005, momentum=0.9)",
    "--assign=head=output",
)


def block(marker, language):
    """The fenced block after its marker."""
    return re.search(rf"<!-- {marker} -->\n```{language}\n(.*?)```\n", README, re.DOTALL)[1]


def setting(name):
    """Of the build's cache; "" where it is not there."""
    with open(os.path.join(harness.BUILD_DIR, "CMakeCache.txt"), encoding="utf-8") as cache:
        return (re.findall(rf"(?m)^{name}:[A-Z]+=(.*)$", cache.read()) or [""])[0]


def build_worker(directory):
    source, program = os.path.join(directory, "worker.c"), os.path.join(directory, "worker")
    with open(source, "w", encoding="utf-8") as file:
        file.write(block("worker.c", "c"))
    sanitize = setting("ESPALIER_SANITIZE")
    command = [setting("CMAKE_C_COMPILER"), "-std=c11", "-Wall", "-Wextra", "-Werror", source, "-o", program]
    command += [f"-I{harness.ROOT}/base/include", f"-I{harness.ROOT}/client/include"]
    command += [f"-L{CLIENT}", f"-Wl,-rpath,{CLIENT}", "-lespalier"]
    subprocess.run(command + ([f"-fsanitize={sanitize}"] if sanitize else []), check=True)
    return program


def numbers_aside(text):
    """What differs from run to run and from machine to machine becomes N; columns may be of another width."""
    text = re.sub(r"\bup [^,]+,", "up N,", text)
    text = re.sub(r"\bisa \w+", "isa N", text)
    text = re.sub(r"\b[0-9a-f]{16,32}\b", "N", text)
    text = re.sub(r"[0-9]+(\.[0-9]+)?( [KMGT]?i?B\b)?", "N", text)
    text = re.sub(r"\bthreads?\b", "threads", text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]


def run_session(environment, directory):
    """The transcript of the session's commands; --if-epoch's number is taken from the dry run before it."""
    transcript = ""
    epoch = "0"
    for command in re.findall(r"(?m)^\$ (.*)$", block("session", "console")):
        command = re.sub(r"(--if-epoch) \d+", rf"\1 {epoch}", command)
        result = subprocess.run(
            ["bash", "-c", f'espctl() {{ "{CLIENT}/espctl" "$@"; }}; {command}'],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=harness.TIMEOUT,
            check=False,
        )
        transcript += f"$ {command}\n{result.stdout}"
        epoch = (re.findall(r"--if-epoch (\d+)", result.stdout) or [epoch])[-1]
    return transcript


def run_session_while_training(server):
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
            return run_session(environment, directory)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


class Readme(harness.TestCase):
    def test_worker(self):
        self.assertLessEqual(len(block("worker.c", "c").splitlines()), LINES_PROMISED)
        promised = re.search(r"\./worker\n\s+(.*)\n", README)[1]
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
        self.maxDiff = None
        now = run_session_while_training(self.server(*GROUPS))
        digests = re.findall(r"(?m)^([0-9a-f]{32})  <all>", now)
        self.assertEqual(len(digests), 2)
        self.assertEqual(digests[0], digests[1], "what is frozen stands still")
        self.assertEqual(numbers_aside(now), numbers_aside(block("session", "console")))


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        espalierd = harness.Server(*GROUPS)
        print(run_session_while_training(espalierd), end="")
        espalierd.stop()
    else:
        harness.main()
