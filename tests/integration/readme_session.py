"""The operator's session in README.md: its commands are run again on a server that trains the digits, and must say the
same, numbers aside.

  readme_session.py BUILD_DIR           compares
  readme_session.py BUILD_DIR --print   prints the session as it is now, for README.md
"""

import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GROUPS = ["--group=default=adamw(lr=0.0003, weight_decay=0.02)", "--group=output=sgd(lr=0.003, momentum=0.9)"]


def session_of_readme():
    """The block after the marker."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
        text = readme.read().split("<!-- session -->\n", 1)[1]
    return re.match(r"```console\n(.*?)```\n", text, re.DOTALL).group(1)


def numbers_aside(text):
    """What differs from run to run and from machine to machine becomes N; columns may be of another width."""
    text = re.sub(r"\bup [^,]+,", "up N,", text)
    text = re.sub(r"\bisa \w+", "isa N", text)
    text = re.sub(r"\b[0-9a-f]{16,32}\b", "N", text)
    text = re.sub(r"[0-9]+(\.[0-9]+)?( [KMGT]?i?B\b)?", "N", text)
    text = re.sub(r"\bthreads?\b", "threads", text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]


def run_session(build, session, directory, environment):
    """The transcript of the session's commands; --if-epoch's number is taken from the dry run before it."""
    transcript = ""
    epoch = "0"
    for command in re.findall(r"(?m)^\$ (.*)$", session):
        command = re.sub(r"(--if-epoch) \d+", rf"\1 {epoch}", command)
        result = subprocess.run(
            ["bash", "-c", f'espctl() {{ "{build}/client/espctl" "$@"; }}; {command}'],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        transcript += f"$ {command}\n{result.stdout}"
        epoch = (re.findall(r"--if-epoch (\d+)", result.stdout) or [epoch])[-1]
    return transcript


def run_with_server(build, session):
    """Runs the session while two workers train."""
    with tempfile.TemporaryDirectory() as directory:
        started = []
        try:
            server = subprocess.Popen(
                [f"{build}/server/espalierd", "--listen=127.0.0.1:0", *GROUPS, "--assign=head=output"],
                stdout=subprocess.PIPE,
                text=True,
            )
            started.append(server)
            address = server.stdout.readline().split(" ready on ")[1].strip()
            environment = dict(os.environ, ESPALIER_SERVER=address)
            digits = [f"{build}/client/examples/espalier-digits", "--role=train", "--steps=10000000", "--report=1000"]
            digits.append(f"--data={ROOT}/client/examples/data/digits.csv.gz")
            for seed in (1, 2):
                worker = subprocess.Popen(
                    [*digits, f"--seed={seed}"], env=environment, stdout=subprocess.PIPE, text=True
                )
                started.append(worker)
            for worker in started[1:]:
                worker.stdout.readline()  # it has trained; the pipe takes more lines than it has time to write
            return run_session(build, session, directory, environment)
        finally:
            for process in started:
                process.kill()
                process.wait()
                process.stdout.close()


def main():
    build = os.path.abspath(sys.argv[1])
    written = session_of_readme()
    now = run_with_server(build, written)
    if sys.argv[2:] == ["--print"]:
        print(now, end="")
        return 0
    digests = re.findall(r"(?m)^([0-9a-f]{32})  <all>", now)
    if len(digests) < 2 or len(set(digests)) != 1:
        print(f"the digests of what is frozen are to be equal: {digests}", file=sys.stderr)
        return 1
    expected, got = numbers_aside(written), numbers_aside(now)
    if expected == got:
        return 0
    print("README.md's session is not what the programs say now (--print shows it):", file=sys.stderr)
    for line in sorted(set(expected) ^ set(got)):
        print(f"  {'README' if line in expected else 'now   '}  {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
