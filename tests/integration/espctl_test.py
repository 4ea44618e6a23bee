"""espctl against a real server: what it prints, what it exits with, how its live view treats a terminal, and what bash
completes.

    espctl_test.py BUILD_DIR
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
import threading

import harness
from harness import eventually, f64, leaf

ESPCTL = os.path.join(harness.BUILD_DIR, "client", "espctl")
COMPLETION = os.path.join(harness.ROOT, "deploy", "completion", "espctl.bash")
NOWHERE = "unix:/nonexistent/espalier"
ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE = b"\x1b[?7h\x1b[?25h\x1b[?1049l"
TREE = (leaf("enc.w", 4, 3), leaf("enc.b", 3), leaf("enc.mean", 3, kind="KIND_BUFFER"), leaf("head.w", 10, group="fast"))


class Lines:
    """The lines of a running espctl, as they come."""

    def __init__(self, process):
        self.process = process
        self.rest = b""

    def next(self):
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], harness.TIMEOUT)[0]:
                raise TimeoutError(f"no line came after {self.rest!r}")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise AssertionError(f"espctl ended with {self.process.wait()} after {self.rest!r}")
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode()


class EspctlCase(harness.TestCase):
    def setUp(self):
        groups = ("--group=default=adam(lr=0.01)", "--group=fast=sgd(lr=1)")
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.address = f"unix:{self.folder.name}/socket"
        self.start = lambda: self.server(*groups, listen=(self.address,))
        self.espalierd = self.start()
        self.c = self.client(self.address)

    def environment(self, address=None):
        return dict(harness.environment(), ESPALIER_SERVER=address or self.address)

    def espctl(self, *words, address=None, **rest):
        """Runs it to its end."""
        ended = subprocess.run(
            [ESPCTL, *words],
            env=self.environment(address),
            stdin=subprocess.DEVNULL,
            capture_output=not rest,
            timeout=harness.TIMEOUT,
            text=True,
            **rest,
        )
        self.assertFalse(harness.SANITIZER.search(ended.stderr or ""), ended.stderr)
        return ended

    def prints(self, *words):
        ended = self.espctl(*words)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    def json(self, *words):
        return json.loads(self.prints(*words, "--json"))

    def fails(self, code, message, *words, address=None):
        ended = self.espctl(*words, address=address)
        self.assertEqual((ended.returncode, ended.stdout), (code, ""), ended.stderr)
        self.assertRegex(ended.stderr, re.compile(message, re.MULTILINE))

    def spawn(self, *words, before=(), **rest):
        command = [*before, ESPCTL, *words]
        process = subprocess.Popen(command, env=self.environment(), **{"stdout": subprocess.PIPE, **rest})
        self.addCleanup(self.reap, process)
        return process

    @staticmethod
    def reap(process):
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


class Looking(EspctlCase):
    def test_status(self):
        self.c.join("gpu-1")
        self.c.declare(*TREE)
        self.c.push({"enc.w": f64(*range(12))}, **self.c.next_push())
        info = self.c.info()
        status = self.json("status")
        self.assertEqual(status["server"], self.address)
        self.assertEqual((status["leaves"], status["sessions"], status["pushes"]["applied"]), (4, 1, 1))
        memory = status["memory"]
        self.assertEqual(memory["parameters"], info.memory.parameters)
        self.assertEqual(memory["staged_max"], info.memory.staged_max)
        self.assertEqual(memory["copy_on_write_max"], info.memory.copy_on_write_max)
        self.assertGreater(memory["resident"], memory["parameters"])
        self.assertEqual(status["pushes"]["in_flight_max"], info.in_flight_max)
        network = status["network"]
        self.assertEqual(network["connections"], 2)  # the raw client's, and its own
        self.assertEqual((network["connections_max"], network["connections_refused"]), (info.connections_max, 0))
        self.assertEqual(network["streams"], 1)  # its own call
        text = self.prints("status")
        self.assertRegex(text, r"(?m)^workers  1$")
        self.assertRegex(text, r"(?m)^         staged +0 B of at most ")
        self.assertRegex(text, r"(?m)^         copy-on-write +0 B of at most ")
        self.assertRegex(text, r"(?m)^network  2 of at most \d+ connections, 0 refused; 1 streams, 0 watches$")

    def test_groups(self):
        self.assertEqual([group["leaves"] for group in self.json("groups")["groups"]], [0, 0])
        self.c.declare(*TREE)
        self.c.freeze("enc.w")
        default, fast = self.json("groups")["groups"]
        self.assertEqual((default["name"], default["optimizer"]), ("default", "adam(lr=0.01)"))
        self.assertEqual((default["leaves"], default["leaves_frozen"], default["parameters"]), (3, 1, 3))
        self.assertEqual((default["elements"], default["elements_frozen"], default["bytes"]), (18, 12, 144))
        self.assertEqual((fast["name"], fast["elements"], fast["elements_frozen"], fast["state_bytes"]), ("fast", 10, 0, 0))
        self.assertRegex(self.prints("groups"), r"(?m)^default +3 +18 +144 B .* 67%  adam\(lr=0\.01\)$")

    def test_workers(self):
        self.assertEqual(self.json("workers"), {"count": 0, "workers": []})
        self.assertRegex(self.prints("workers"), "^no workers")
        other = self.client(self.address)
        self.c.join("gpu-1")
        other.join("evil\x1b[2Jname")
        self.c.declare(*TREE)
        self.c.push({"enc.w": f64(*range(12))})
        for _ in range(3):
            other.push({"enc.b": f64(1, 2, 3)})
        listed = self.json("workers")
        self.assertEqual(listed["count"], 2)
        first, second = listed["workers"]  # the most stale first
        self.assertEqual((first["name"], first["session"], first["live"]), ("gpu-1", f"{self.c.session:016x}", True))
        self.assertEqual((first["pushes"], first["last_sequence"], first["in_flight"]), (1, 1, 0))
        self.assertEqual((first["staleness"], second["staleness"]), (3, 0))
        self.assertEqual((second["pushes"], second["last_sequence"]), (3, 3))
        self.assertLess(second["last_seen_ms"], harness.TIMEOUT * 1000)
        text = self.prints("workers")
        self.assertRegex(text, r"(?m)^gpu-1 .* live +1 +0 +3 ")
        self.assertIn("evil?[2Jname", text)

    def test_errors(self):
        self.c.declare(*TREE)
        self.fails(2, "top takes no arguments", "top", "enc")
        self.fails(2, "--interval|'0s' is no time", "top", "--interval", "0s")
        self.fails(2, "--count '0': expected a number from 1", "watch", "--count", "0")
        self.fails(2, "watch takes no --interval", "watch", "--interval", "1s")
        self.fails(3, "nosuch", "watch", "nosuch")
        for command in ("groups", "workers", "watch"):
            self.fails(5, "^espctl: .*/nonexistent/espalier", command, address=NOWHERE)
        with open("/dev/full", "w", encoding="utf-8") as full:
            for words in (("groups",), ("workers", "--json"), ("top",), ("top", "--json")):
                ended = self.espctl(*words, stdout=full, stderr=subprocess.PIPE)
                self.assertEqual(ended.returncode, 1, words)
                self.assertEqual(ended.stderr, "espctl: cannot write the result: No space left on device\n")

    def test_help_names_them(self):
        for command in ("groups", "workers", "watch", "top"):
            self.assertRegex(self.prints("help"), rf"(?m)^  {command}\b")
            self.assertRegex(self.prints("help", command), rf"^usage: espctl {command}\b")


class Changing(EspctlCase):
    """What the commands and the protocol say is in the unit tests: here they meet a server."""

    def setUp(self):
        super().setUp()
        self.c.declare(*TREE)

    def frozen(self):
        return {one["path"] for one in self.json("tree")["leaves"] if one["frozen"]}

    def plan(self, *lines):
        path = os.path.join(self.folder.name, "a plan")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
        return path

    def test_several_operations_are_one_epoch(self):
        before = self.c.info().epoch
        path = self.plan("# all but the head", "freeze enc", "", "thaw 'enc.b' # again", "")
        dry = self.json("apply", path, "--dry-run")
        self.assertEqual((dry["epoch"], self.frozen()), (before, set()))
        done = self.json("apply", path, "--if-epoch", str(before))
        self.assertEqual((done["epoch"], done["changes"]), (before + 1, dry["changes"]))
        self.assertEqual(self.frozen(), {"enc.w", "enc.mean"})
        self.prints("apply", "-e", "freeze head", "-e", "thaw enc")
        self.assertEqual(self.frozen(), {"head.w"})
        self.assertEqual(self.c.info().epoch, before + 2)

    def test_one_that_fails_undoes_all(self):
        epoch = self.c.info().epoch
        self.fails(3, r"operation 2 of 3: .*nosuch", "apply", "-e", "freeze enc", "-e", "thaw nosuch", "-e", "freeze head")
        self.assertEqual((self.c.info().epoch, self.frozen()), (epoch, set()))

    def test_wrong_lines_say_where(self):
        path = self.plan("freeze enc", "\tfreeze 'é' x")
        self.fails(2, rf"^espctl: {re.escape(path)}:2:13: 'x' is one word too many for freeze SELECTION ", "apply", path)
        self.fails(2, "^espctl: -e:1:1: there is no operation 'frezee'$", "apply", "-e", "frezee enc")
        self.fails(3, "cannot open /nonexistent", "apply", "/nonexistent")
        self.assertEqual(self.c.info().epoch, 2)

    def test_from_standard_input(self):
        ended = subprocess.run(
            [ESPCTL, "apply", "-"], env=self.environment(), input=b"freeze enc", capture_output=True, timeout=harness.TIMEOUT
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, b""))
        self.fails(2, "^espctl: there is no operation to apply", "apply", "-")  # it is empty

    def test_many_leaves(self):
        self.fails(4, "^espctl: this touches 3 leaves, more than 2: look with --dry-run, then pass --yes", "freeze", "enc", "--max-leaves", "2")
        self.assertEqual(self.frozen(), set())
        self.prints("freeze", "enc", "--max-leaves", "2", "--yes")
        self.assertEqual(len(self.frozen()), 3)
        self.prints("thaw", "enc", "--max-leaves", "3")

    def test_select(self):
        self.assertRegex(self.prints("select", "enc"), r"(?m)^enc\.b     \[3\]     f64$(.|\n)*^3 leaves, 0 frozen; ")
        self.assertEqual([one["path"] for one in self.json("select", "enc.*")["leaves"]], ["enc.b", "enc.mean", "enc.w"])
        self.fails(3, "nosuch", "select", "nosuch")

    def test_group_show(self):
        self.assertRegex(self.prints("group", "show", "fast"), r"^GROUP .*\nfast +1 +10 (.|\n)*\nhead\.w  \[10\]")
        self.fails(3, "there is no group slow; espctl groups lists them", "group", "show", "slow")


class Operating(EspctlCase):
    """Each operation's command, and what it leaves."""

    def setUp(self):
        super().setUp()
        self.c.declare(
            leaf("emb.w", 4, 3), leaf("head.w", 3, 4), leaf("head.b", 2), leaf("enc.a", 2), leaf("enc.b", 3), leaf("dec.a", 2)
        )

    def leaf(self, path):
        (one,) = [one for one in self.json("tree")["leaves"] if one["path"] == path]
        return one

    def changes(self, *words):
        """The real call's changes, which are those of its dry run."""
        dry = self.json(*words, "--dry-run")
        done = self.json(*words, "--if-epoch", str(dry["epoch"]))
        self.assertEqual(done["changes"], dry["changes"])
        self.assertEqual(done["epoch"], dry["epoch"] + 1)
        return [(one["path"], one["field"], one["from"], one["to"]) for one in done["changes"]]

    def test_ties(self):
        self.changes("tie", "head.w", "emb.w", "--transpose")
        self.assertEqual(self.leaf("head.w")["tied_to"], "emb.w")
        self.assertIn(("head.w", "frozen", "false", "true"), self.changes("freeze", "emb"))
        self.changes("untie", "head.w", "--state", "reset")
        self.assertEqual(self.leaf("head.w")["tied_to"], "")
        self.changes("tie", "dec.a", "enc.a", "--value", "mean")
        self.assertEqual(self.leaf("dec.a")["tied_to"], "enc.a")
        self.fails(4, "head.b", "tie", "head.b", "enc.b")  # other shapes
        self.assertRegex(self.prints("tree"), r"(?m)^dec\.a .* tied to enc\.a$")

    def test_detached(self):
        self.assertEqual(self.changes("detach", "enc.a"), [("enc.a", "detached", "false", "true")])
        self.assertTrue(self.leaf("enc.a")["detached"])
        self.changes("tie", "dec.a", "enc.a")
        self.changes("detach", "dec.a")
        self.changes("attach", "enc.a")
        self.assertFalse(self.leaf("enc.a")["detached"])

    def test_groups(self):
        self.assertEqual(self.changes("group", "create", "slow", "sgd(lr=0.1)"), [("slow", "optimizer", "", "sgd(lr=0.1)")])
        self.fails(4, "there is a group slow already", "group", "create", "slow", "sgd")
        self.fails(3, "there is no group none", "group", "set", "none", "sgd")
        self.fails(4, "column 1", "group", "create", "new", "nosuch(1)")
        self.changes("regroup", "head", "slow")
        self.assertEqual(self.leaf("head.b")["group"], "slow")
        self.assertEqual(self.changes("adjust", "slow", "lr=0.5"), [("slow", "optimizer", "sgd(lr=0.1)", "sgd(lr=0.5)")])
        self.fails(4, "nosuch.*lr", "adjust", "slow", "nosuch=1")
        self.changes("group", "set", "slow", "sgd(lr=2, momentum=0.5)")
        self.assertRegex(self.prints("group", "show", "slow"), r" sgd\(lr=2, momentum=0\.5\)\n")
        self.changes("group", "delete", "slow")
        self.assertEqual(self.leaf("head.b")["group"], "default")
        self.fails(3, "1 leaf is|2 leaves are assigned to it", "group", "show", "slow")
        self.fails(4, "default", "group", "delete", "default")

    def test_leaves_come_and_go(self):
        self.changes("add", "new.b", "f32", "2x5", "--init", "constant(2)", "--tag", "T", "--group", "fast", "--frozen")
        one = self.leaf("new.b")
        self.assertEqual((one["shape"], one["dtype"], one["tag"], one["group"], one["frozen"]), ([2, 5], "f32", "T", "fast", True))
        self.assertEqual(harness.from_f32(self.c.value("new.b")), [2.0] * 10)
        self.changes("add", "new.t", "f64", "4x3", "--alias-of", "head.w", "--transpose", "--detached")
        one = self.leaf("new.t")
        self.assertEqual((one["detached"], self.leaf("head.w")["tied_to"] or one["tied_to"]), (True, "head.w"))
        self.changes("rename", "new", "newer.still")
        self.assertEqual(self.leaf("newer.still.b")["tag"], "T")
        self.changes("remove", "newer.still.b")
        self.fails(3, "newer", "remove", "newer.still.b")
        self.changes("add", "newer.still.b", "f64", "scalar")

    def test_values(self):
        self.changes("reinit", "enc", "constant(3)")
        self.assertEqual(harness.from_f64(self.c.value("enc.b")), [3.0] * 3)
        self.changes("reinit", "head.b", "normal(0, 1)", "--seed", "7")
        first = self.c.value("head.b")
        self.changes("copy", "enc.a", "head.b")
        self.assertEqual(harness.from_f64(self.c.value("head.b")), [3.0] * 2)
        self.changes("reinit", "head.b", "normal(0, 1)", "--seed", "7")
        self.assertEqual(self.c.value("head.b"), first)
        self.c.push({"enc.a": f64(1, 1)})
        self.assertEqual(self.leaf("enc.a")["steps"], 1)
        self.changes("reset", "enc.a")
        self.assertEqual(self.leaf("enc.a")["steps"], 0)

    def test_named_selections(self):
        self.changes("name", "back", "enc")
        self.assertEqual({path for path, *_ in self.changes("freeze", "@back")}, {"enc.a", "enc.b"})
        self.assertEqual(len(self.json("select", "frozen & !dec")["leaves"]), 2)
        self.changes("name", "back", "")
        self.fails(4, "back", "select", "@back")

    def test_explain(self):
        self.prints("freeze", "enc.a", "--reason", "it is good")
        self.prints("name", "back", "enc")
        (explained,) = self.json("explain", "enc.a")["leaves"]
        facts = {fact["what"]: fact for fact in explained["facts"]}
        self.assertEqual((explained["path"], explained["id"]), ("enc.a", self.c.ids["enc.a"]))
        because = "frozen by unix: it is good"
        self.assertEqual(facts["frozen"], {"what": "frozen", "value": "yes", "because": because, "epoch": 3})
        self.assertEqual(facts["selection"]["value"], "@back")
        self.assertEqual((facts["a gradient"]["value"], facts["steps"]["value"]), ("is dropped", "0"))
        told = self.prints("explain", "enc.a | head.b")
        self.assertRegex(told, r"(?m)^enc\.a\n  leaf +f64 \[2\], trained +added by .*declaration +epoch 2$")
        self.assertRegex(told, r"(?m)^  frozen +yes +frozen by unix: it is good +epoch 3$")
        self.assertRegex(told, r"(?m)^  a gradient +is applied +group default steps it$")
        self.fails(3, 'no leaf matches "encoder"', "explain", "encoder")

    def test_undo_and_history(self):
        self.prints("freeze", "enc", "--reason", "it is good")
        self.assertEqual(self.changes("undo"), [("enc.a", "frozen", "true", "false"), ("enc.b", "frozen", "true", "false")])
        first, second = self.json("history", "2")["transactions"]
        self.assertEqual((first["epoch"], first["reason"], first["actor"]), (3, "it is good", "unix"))
        self.assertEqual([one["path"] for one in second["changes"]], ["enc.a", "enc.b"])
        self.assertEqual(len(self.json("history", "--count", "1")["transactions"]), 1)
        self.assertRegex(self.prints("history", "2"), r"(?m)^reason: it is good\nenc\.a  frozen  false -> true$")
        self.fails(4, "epoch", "undo", "3")  # epoch 4 has touched the same


class Asking(EspctlCase):
    """A person at a terminal is asked before many leaves are touched."""

    def setUp(self):
        super().setUp()
        self.c.declare(*TREE)
        self.master, self.slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, self.slave)

    def ask(self, answer, meanwhile=lambda: None):
        """Its exit code and what the terminal showed."""
        process = self.spawn("freeze", "enc", "--max-leaves", "2", stdin=self.slave, stderr=self.slave)
        shown = b""
        while b"[y/N] " not in shown:
            self.assertTrue(select.select([self.master], [], [], harness.TIMEOUT)[0], shown)
            shown += os.read(self.master, 65536)
        self.assertIn(b"This touches 3 leaves, with 3 changes. Go on? [y/N] ", shown)
        meanwhile()
        os.write(self.master, answer)
        code = process.wait(harness.TIMEOUT)
        while select.select([self.master], [], [], 0)[0]:
            shown += os.read(self.master, 65536)
        return code, shown.decode()

    def test_yes(self):
        self.assertEqual(self.ask(b"y\n")[0], 0)
        self.assertEqual(self.c.info().frozen, 3)

    def test_no(self):
        for answer in (b"n\n", b"\n", b"yes please\n", b"\x04"):
            code, shown = self.ask(answer)
            self.assertEqual(code, 4, answer)
            self.assertIn("espctl: nothing was changed", shown)
        self.assertEqual(self.c.info().frozen, 0)

    def test_only_what_was_shown(self):
        code, shown = self.ask(b"yes\n", lambda: self.c.declare(leaf("enc.more", 1)))
        self.assertEqual(code, 4)
        self.assertIn("epoch", shown)
        self.assertEqual(self.c.info().frozen, 0)


class Exporting(EspctlCase):
    LEAVES = 50

    def setUp(self):
        super().setUp()
        self.espalierd.stop()
        self.espalierd = self.server("--group=default=sgd(lr=1)", "--max-copy-on-write=200KiB", listen=(self.address,))
        self.c.close()
        self.c = self.client(self.address)
        self.c.join()
        self.c.declare(*(leaf(f"leaf{i}", 16) for i in range(self.LEAVES)))
        self.file = os.path.join(self.folder.name, "out.safetensors")

    def exported(self):
        """{name: values} of the file, and its metadata."""
        with open(self.file, "rb") as file:
            (header_len,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_len))
            data = file.read()
        metadata = header.pop("__metadata__")
        return {name: harness.from_f64(data[slice(*one["data_offsets"])]) for name, one in header.items()}, metadata

    def test_all_of_one_commit(self):
        """Each push makes every element one more; they go on all the time."""
        ended = threading.Event()
        gradients = {self.c.ids[f"leaf{i}"]: f64(*[-1.0] * 16) for i in range(self.LEAVES)}

        def push():
            while not ended.is_set():
                self.c.push(gradients)

        pusher = threading.Thread(target=push)
        pusher.start()
        try:
            for _ in range(5):
                before = self.c.info().commit
                said = self.json("export", self.file, "leaf*")
                self.assertTrue(said["consistent"])
                self.assertGreaterEqual(said["commit"], before)
                tensors, metadata = self.exported()
                self.assertEqual(len(tensors), self.LEAVES)
                # The declaration was commit 1.
                self.assertEqual({value for one in tensors.values() for value in one}, {float(said["commit"] - 1)})
                self.assertEqual(metadata["commit"], str(said["commit"]))
        finally:
            ended.set()
            pusher.join()

    def test_too_large_for_the_server_s_bound(self):
        self.c.declare(leaf("large", 16384), leaf("larger", 20000))  # each fits, both do not
        self.fails(8, "--max-copy-on-write(.|\n)*^espctl: --piecewise needs little memory", "export", self.file)
        self.assertFalse(os.path.exists(self.file))
        said = self.json("export", self.file, "--piecewise")
        self.assertEqual((said["leaves"], said["commit"], said["commit_after"]), (self.LEAVES + 2, 2, 2))
        self.assertEqual(self.exported()[0]["larger"], [0.0] * 20000)


class Watching(EspctlCase):
    def watch(self, *words):
        """A watch that follows: what is changed from now on is printed."""
        process = self.spawn("watch", *words)
        eventually(lambda: self.c.info().watches == 1, "espctl does not follow")
        return process, Lines(process)

    def assert_change(self, line, epoch, path, what):
        self.assertRegex(line, rf"^20\d\d-\d\d-\d\dT[\d:.]+Z  epoch {epoch}  commit \d+  {re.escape(path)}  {what}$")

    def test_changes(self):
        self.c.declare(*TREE)
        process, lines = self.watch()
        epoch = self.c.freeze("enc.w").epoch
        self.assert_change(lines.next(), epoch, "enc.w", "frozen")
        self.c.thaw("enc.w")
        self.assert_change(lines.next(), epoch + 1, "enc.w", "thawed")
        self.c.declare(leaf("new.w", 2), leaf("new.b", 2, frozen=True))
        told = [lines.next() for _ in range(3)]
        self.assertEqual(
            sorted(line.split("  ", 3)[3] for line in told), ["new.b  added", "new.b  frozen", "new.w  added"]
        )
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(harness.TIMEOUT), -signal.SIGINT)
        eventually(lambda: self.c.info().watches == 0, "the server still has the watch")

    def test_selection(self):
        self.c.declare(*TREE)
        process, lines = self.watch("enc", "--json", "--count", "3")
        self.c.freeze("head")
        self.c.declare(leaf("head.b", 2), leaf("enc.new", 2))
        self.c.freeze("enc.b")
        self.c.thaw("head")
        self.c.thaw("enc.b")
        told = [json.loads(lines.next()) for _ in range(3)]
        self.assertEqual(
            [(one["path"], one["what"]) for one in told],
            [("enc.new", "added"), ("enc.b", "frozen"), ("enc.b", "thawed")],
        )
        self.assertEqual(told[1]["id"], self.c.ids["enc.b"])
        self.assertEqual(told[1]["lineage"], f"{self.c.info().lineage:016x}")
        self.assertLess(told[1]["commit"], told[2]["commit"])
        self.assertEqual(process.wait(harness.TIMEOUT), 0)  # --count

    def test_a_server_that_starts_anew(self):
        self.c.declare(*TREE)
        process, lines = self.watch()
        self.espalierd.process.kill()
        self.espalierd.process.wait()
        self.espalierd.has_ended = True
        os.unlink(self.address.removeprefix("unix:"))
        self.start()
        self.c = self.client(self.address)
        self.c.declare(leaf("other", 2))
        self.assertRegex(lines.next(), "the server has lost its state: a new lineage$")
        self.assertRegex(lines.next(), "  other  added$")
        self.c.freeze("other")
        self.assertRegex(lines.next(), "  other  frozen$")
        self.assertIsNone(process.poll())

    def test_a_full_disk_ends_it(self):
        self.c.declare(*TREE)
        with open("/dev/full", "w", encoding="utf-8") as full:
            process = self.spawn("watch", stdout=full, stderr=subprocess.PIPE)
            eventually(lambda: self.c.info().watches == 1, "espctl does not follow")
            self.c.freeze("enc")
            self.assertEqual(process.wait(harness.TIMEOUT), 1)
            with process.stderr as stderr:
                self.assertEqual(stderr.read(), b"espctl: cannot write the result: No space left on device\n")


class Top(EspctlCase):
    def test_text(self):
        self.c.join("gpu-1")
        self.c.declare(*TREE)
        text = self.prints("top", "--count", "2", "--interval", "20ms")
        self.assertNotIn("\x1b", text)
        first, second, _ = re.split(r"(?m)^server ", text)[1:] + [""]
        self.assertRegex(first, r"(?m)^pushes   -, - in; refused -,")
        self.assertRegex(second, r"(?m)^pushes   0\.0/s, 0 B/s in; refused 0\.0/s,")
        for snapshot in (first, second):
            self.assertRegex(snapshot, r"(?m)^         staged +\[\.{20}\]  0 B of at most ")
            self.assertRegex(snapshot, r"(?m)^fast +1 +10 ")
            self.assertRegex(snapshot, r"(?m)^gpu-1 ")

    def test_rates_and_an_absent_server(self):
        self.c.join("gpu-1")
        self.c.declare(*TREE)
        process = self.spawn("top", "--json", "--interval", "10ms", "--timeout", "5s")
        lines = Lines(process)
        snapshot = lambda: json.loads(lines.next())
        first = snapshot()
        self.assertEqual((first["answered"], first["rates"]), (True, None))
        self.assertEqual(first["workers"][0]["name"], "gpu-1")
        self.c.push({"enc.w": f64(*range(12))})
        self.c.value("enc.w")
        seen = eventually(lambda: (lambda one: one["rates"]["pulls"] and one)(snapshot()), "no rate went up")
        self.assertGreater(seen["rates"]["bytes_pulled"], seen["rates"]["pulls"])  # 96 bytes a pull
        self.espalierd.process.kill()
        self.espalierd.process.wait()
        self.espalierd.has_ended = True
        os.unlink(self.address.removeprefix("unix:"))
        eventually(lambda: "no server at unix:" in snapshot().get("error", ""), "top still has answers")
        self.start()
        back = eventually(lambda: (lambda one: one["answered"] and one)(snapshot()), "top does not come back")
        self.assertEqual((back["rates"], back["workers"]), (None, []))
        self.assertNotEqual(back["status"]["lineage"], first["status"]["lineage"])


class OnTerminal(EspctlCase):
    """top as a person meets it: espctl on a pseudo-terminal of our own."""

    def setUp(self):
        super().setUp()
        self.c.join("gpu-1")
        self.c.declare(*TREE)
        self.master, self.slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, self.slave)
        self.settings = termios.tcgetattr(self.slave)
        self.screen = b""
        self.resize(40, 100)

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def top(self, *words):
        on_terminal = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}
        # By a program that execs it: code of ours between fork and exec may wait for ever for a thread of gRPC's.
        return self.spawn("top", *words, before=("setsid", "--ctty"), **on_terminal)

    def shows(self, pattern):
        """Waits until the screen's last picture matches, and returns it."""

        def look():
            while select.select([self.master], [], [], 0)[0]:
                self.screen += os.read(self.master, 65536)
            last = self.screen.rpartition(b"\x1b[H\x1b[J")[2].decode()
            return re.search(pattern, last) and last

        return eventually(look, f"{pattern} is not shown: {self.screen[-2000:]!r}")

    def assert_given_back(self):
        self.shows(re.escape(LEAVE.decode()) + "[^\x1b]*$")
        self.assertEqual(self.screen.count(ENTER), 1)
        self.assertEqual(self.screen.count(LEAVE), 1)
        self.assertEqual(termios.tcgetattr(self.slave), self.settings)

    def test_q_ends_it(self):
        process = self.top("--interval", "1h")
        self.shows(r"gpu-1 ")
        self.assertTrue(self.screen.startswith(ENTER))
        self.assertFalse(termios.tcgetattr(self.slave)[3] & termios.ECHO)
        os.write(self.master, b"xq")
        self.assertEqual(process.wait(harness.TIMEOUT), 0)
        self.assert_given_back()

    def test_it_fits_the_window(self):
        process = self.top("--interval", "1h")
        before = self.shows(r"gpu-1 ")
        self.assertRegex(before, rf"staged +\[{'.' * 40}\] ".replace(".", r"\."))
        self.resize(16, 70)  # and the kernel sends SIGWINCH
        after = self.shows(rf"staged +\[{'.' * 10}\] ".replace(".", r"\."))
        self.assertNotIn("gpu-1", after)
        self.assertLess(after.count("\n"), 16)
        os.write(self.master, b"\x03")  # Ctrl-C
        self.assertEqual(process.wait(harness.TIMEOUT), -signal.SIGINT)
        self.assert_given_back()

    def test_signals_give_the_terminal_back(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            self.screen = b""
            process = self.top()
            self.shows(r"gpu-1 ")
            process.send_signal(number)
            self.assertEqual(process.wait(harness.TIMEOUT), -number)
            self.assert_given_back()

    def test_it_is_live(self):
        process = self.top("--interval", "10ms", "--timeout", "200ms")
        self.shows(r"\(0 frozen\)")
        self.c.freeze("head")
        self.shows(r"\(1 frozen\)(.|\n)*fast .* 100% ")
        self.espalierd.process.send_signal(signal.SIGSTOP)
        self.shows(r"^NO ANSWER since .*\r\nserver ")
        self.espalierd.process.send_signal(signal.SIGCONT)
        self.shows(r"^server ")
        os.write(self.master, b"q")
        self.assertEqual(process.wait(harness.TIMEOUT), 0)
        self.assert_given_back()


class Completion(EspctlCase):
    def complete(self, line, address=None):
        """What bash would offer for the line, the cursor at its end."""
        script = f"""set -u; source {COMPLETION}
        COMP_LINE=$1; COMP_POINT=${{#1}}; _espctl "$2" || exit 1
        [ ${{#COMPREPLY[@]}} -eq 0 ] || printf '%s\\n' "${{COMPREPLY[@]}}" """
        ended = subprocess.run(
            ["bash", "--norc", "-c", script, "bash", line, ESPCTL],
            env=self.environment(address),
            capture_output=True,
            timeout=harness.TIMEOUT,
            text=True,
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout.splitlines()

    def test_words(self):
        self.assertEqual(self.complete("espctl wa"), ["watch"])
        self.assertEqual(self.complete("espctl t"), ["tree", "timers", "top", "thaw", "timer", "tie"])
        self.assertEqual(self.complete("espctl top --c"), ["--count"])
        self.assertEqual(self.complete("espctl ex"), ["explain", "export"])
        self.assertEqual(self.complete("espctl help fr"), ["freeze"])

    def test_paths(self):
        self.c.declare(*TREE, leaf("$PATH;ls", 1))
        self.assertEqual(self.complete("espctl tree "), [r"\$PATH\;ls", "enc.", "head."])
        self.assertEqual(self.complete("espctl freeze --dry-run en"), ["enc."])
        self.assertEqual(self.complete("espctl freeze enc."), ["enc.b", "enc.mean", "enc.w"])
        self.assertEqual(self.complete("espctl explain he"), ["head."])
        self.assertEqual(self.complete("espctl get enc.m"), ["enc.mean"])
        self.assertEqual(self.complete("espctl tree nosuch."), [])
        line = f"espctl --server {self.address} watch h"
        self.assertEqual(self.complete(line, address=NOWHERE), ["head."])

    def test_files(self):
        path = os.path.join(self.folder.name, "a b.npy")
        with open(path, "w", encoding="utf-8"):
            pass
        self.assertEqual(self.complete(f"espctl set enc.w {self.folder.name}/a"), [path])

    def test_nobody_answers(self):
        self.assertEqual(self.complete("espctl tree e", address=NOWHERE), [])
        self.espalierd.process.send_signal(signal.SIGSTOP)
        self.assertEqual(self.complete("espctl tree e"), [])  # within a second, or the test's time-out
        self.espalierd.process.send_signal(signal.SIGCONT)


harness.main()
