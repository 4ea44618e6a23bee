"""Console sessions of the documents: what a page shows is what running it prints.

A session is a fenced `console` block after the line `<!-- session -->`. A line that begins with "$ " is a command (lines
with "> " go on with it), what follows is what it printed. check() runs the commands and compares; with --update on the
test's command line it writes into the page what they print now, so that nobody types that by hand.
"""

import difflib
import os
import pty
import re
import select
import subprocess
import sys

import harness

UPDATE = "--update"
BLOCK = re.compile(r"(?<=<!-- session -->\n```console\n).*?(?=```\n)", re.DOTALL)
COMMAND = re.compile(r"(?m)^\$ (.*(?:\n> .*)*)$")
ANSWERED = re.compile(r"# at a terminal, answered with (\w+)$")
IDS = re.compile(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{16}\b")


def is_update():
    """Whether pages are to be rewritten; takes the word off the command line."""
    if UPDATE not in sys.argv:
        return False
    sys.argv.remove(UPDATE)
    return True


def masked(text):
    """Times, ports and ids aside. Equal ids stay equal: an id becomes its place among those of the text."""
    text = re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", text)
    text = re.sub(r"\b127\.0\.0\.1:\d+\b", "127.0.0.1:PORT", text)
    seen = {}
    return IDS.sub(lambda found: f"ID{seen.setdefault(found[0], len(seen))}", text)


class Shell:
    """Runs commands in a directory; `espctl` is the one that was built. Returned is what they print, errors too."""

    def __init__(self, directory, environment):
        self.directory = directory
        self.environment = environment

    def start(self, command, **streams):
        """The process, which goes on."""
        espctl = os.path.join(harness.BUILD_DIR, "client", "espctl")
        return subprocess.Popen(
            ["bash", "-c", f'espctl() {{ "{espctl}" "$@"; }}\n{command}'],
            cwd=self.directory,
            env=self.environment,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams},
        )

    @staticmethod
    def wait(process):
        with process:
            return process.communicate(timeout=harness.TIMEOUT)[0].decode()

    def run(self, command):
        answer = ANSWERED.search(command)
        return self._run_at_terminal(command, answer[1]) if answer else self.wait(self.start(command))

    def _run_at_terminal(self, command, answer):
        """The answer is given when it asks."""
        master, slave = pty.openpty()
        with self.start(command, stdin=slave, stdout=slave, stderr=slave), open(master, "r+b", buffering=0) as terminal:
            os.close(slave)
            shown = b""
            has_answered = False
            while True:
                if not select.select([terminal], [], [], harness.TIMEOUT)[0]:
                    raise TimeoutError(f"{command}: nothing came after {shown}")
                try:
                    shown += terminal.read(65536)
                except OSError:  # nobody has the other side any more
                    return shown.decode().replace("\r\n", "\n")
                if not has_answered and shown.endswith(b"[y/N] "):
                    terminal.write(f"{answer}\n".encode())
                    has_answered = True


def block(text, marker, language):
    """The fenced block after its marker, or None."""
    found = re.search(rf"<!-- {marker} -->\n```{language}\n(.*?)```\n", text, re.DOTALL)
    return found and found[1]


def transcript(block, run):
    """The block anew. run(command) returns what the command prints."""
    commands = COMMAND.findall(block)
    return "".join(f"$ {command}\n{run(command.replace(chr(10) + '> ', chr(10)))}" for command in commands)


class Page:
    """A document. check() with is_update writes it back."""

    def __init__(self, *path):
        self.path = os.path.join(harness.ROOT, *path)
        with open(self.path, encoding="utf-8") as page:
            self.text = page.read()

    def block(self, marker, language):
        return block(self.text, marker, language)

    def sections(self):
        """{heading: text}, of those that have a session."""
        parts = re.split(r"(?m)^## (.*)\n", self.text)[1:]
        return {name: text for name, text in zip(parts[::2], parts[1::2], strict=True) if BLOCK.search(text)}

    def check(self, text, run, mask, is_updating):
        """Runs the sessions of this part of the page. AssertionError with a diff of what is not as it says."""
        blocks = BLOCK.findall(text)
        now = [transcript(block, run) for block in blocks]
        if is_updating:
            self._update(text, blocks, now, mask)
            return
        said, found = mask("".join(blocks)), mask("".join(now))
        if said != found:
            lines = difflib.unified_diff(said.splitlines(), found.splitlines(), "the page", "now", lineterm="")
            raise AssertionError("\n".join([f"{self.path} ({UPDATE} rewrites it):", *lines]))

    def _update(self, text, blocks, now, mask):
        """What differs by masked words only stays."""
        if mask("".join(blocks)) == mask("".join(now)):
            return
        new = iter(now)
        self.text = self.text.replace(text, BLOCK.sub(lambda _: next(new), text))
        with open(self.path, "w", encoding="utf-8") as page:
            page.write(self.text)
