"""A plan that the server takes at its start: it comes before any push, or no push comes at all.

    plan_test.py BUILD_DIR
"""

import json
import os
import subprocess
import tempfile
import threading

import grpc

import harness
from harness import admin, f64, leaf

FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ESPCTL = os.path.join(harness.BUILD_DIR, "client", "espctl")
WORKERS = 4
PUSHES = 20


class Plan(harness.TestCase):
    def plan(self, text):
        file = tempfile.NamedTemporaryFile("w", suffix=".plan", encoding="utf-8")
        self.addCleanup(file.close)
        file.write(text)
        file.flush()
        return file.name

    def espctl(self, server, *words):
        command = [ESPCTL, f"--server={server.address}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=harness.TIMEOUT, check=True).stdout

    def work(self, address, failures):
        """A worker as it is found: declares, and pushes as fast as it can from the moment it is answered."""
        try:
            with harness.Client(address) as client:
                client.join()
                client.declare(leaf("encoder.w", 8), leaf("encoder.b", 2), leaf("head.w", 4))
                tensors = {"encoder.w": f64(*[1.0] * 8), "encoder.b": f64(1, 1), "head.w": f64(*[1.0] * 4)}
                for _ in range(PUSHES):
                    client.push(tensors)
        except BaseException as error:
            failures.append(error)

    def test_what_it_freezes_is_never_moved(self):
        file = self.plan("group create slow 'adam(lr=0.5)'\nregroup ** slow\nfreeze encoder\n")
        server = self.server(f"--plan={file}", "--group=default=sgd(lr=1)")
        failures = []
        threads = [threading.Thread(target=self.work, args=(server.address, failures)) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        client = self.client(server.address)
        self.assertEqual(client.value("encoder.w"), f64(*[0.0] * 8))
        self.assertEqual(client.value("encoder.b"), f64(0, 0))
        leaves = {info.path: info for info in client.describe().leaves}
        self.assertEqual([leaves[path].steps for path in ("encoder.w", "encoder.b", "head.w")], [0, 0, WORKERS * PUSHES])
        self.assertEqual({info.group for info in leaves.values()}, {"slow"})
        self.assertEqual(client.info().plan_waits, "")
        history = json.loads(self.espctl(server, "history", "--json"))["transactions"]
        self.assertEqual([entry["actor"] for entry in history].count("plan"), 1)
        entry = next(entry for entry in history if entry["actor"] == "plan")
        self.assertEqual(entry["reason"], f"--plan {file}")
        frozen = [change["path"] for change in entry["changes"] if change["field"] == "frozen"]
        self.assertEqual(frozen, ["encoder.b", "encoder.w"])
        self.assertEqual(entry["commit"], 2, "after the declaration and before any push")
        self.assertIn("was applied: epoch", server.stderr())

    def test_what_never_matches_lets_nobody_train(self):
        file = self.plan("# a slip of the pen\nfreeze encodr\n")
        server = self.server(f"--plan={file}")
        client = self.client(server.address)
        reply = client.declare(leaf("encoder.w", 2), leaf("head.w", 2))
        why = f'{file}:2: no leaf matches "encodr".*nearest: "encoder"'
        self.assertRegex(" ".join(reply.notes), why)
        for _ in range(2):
            self.assert_fails(FAILED_PRECONDITION, why, client.push, {"head.w": f64(1, 1)})
        self.assertEqual(client.value("head.w"), f64(0, 0))
        self.assertRegex(client.info().plan_waits, why)
        self.assertRegex(self.espctl(server, "status"), "plan +WAITS, and pushes are refused: " + why)
        self.assertRegex(json.loads(self.espctl(server, "status", "--json"))["plan_waits"], why)
        client.declare(leaf("encoder.w", 2))
        self.assertEqual(server.stderr().count("the plan can't be applied"), 1)
        # Who operates can make it fit, without a restart.
        client.apply({"rename": {"from": "encoder", "to": "encodr"}})
        harness.eventually(lambda: client.info().plan_waits == "", "the plan still waits")
        client.push({"head.w": f64(1, 1), "encodr.w": f64(1, 1)})
        self.assertEqual(client.value("encodr.w"), f64(0, 0))
        self.assertNotEqual(client.value("head.w"), f64(0, 0))

    def test_leaves_that_come_one_after_the_other(self):
        file = self.plan("freeze a\nfreeze b\n")
        server = self.server(f"--plan={file}")
        first, second = self.client(server.address), self.client(server.address)
        self.assertRegex(" ".join(first.declare(leaf("a", 2)).notes), f'{file}:2: no leaf matches "b"')
        self.assert_fails(FAILED_PRECONDITION, "plan", first.push, {"a": f64(1, 1)})
        self.assertEqual(first.info().frozen, 0, "all of it or nothing")
        reply = second.declare(leaf("b", 2))
        self.assertRegex(" ".join(reply.notes), f"plan was applied: epoch {reply.epoch}$")
        self.assertEqual(first.push({"a": f64(1, 1)}).frozen, 1)

    def test_wrong_files(self):
        for text, why in (
            ("freze a\n", ":1:1: there is no operation 'freze'"),
            ("freeze a\nfreeze 'b & &'\n", ":2: selector, column 5: "),
            ("freeze a\ngroup create g 'adm(lr=1)'\n", ":2: group g: column 1: unknown rule 'adm'"),
            ("freeze a\nset a a.npy\n", ":2: a plan can't set values"),
            ("", ": it has no operation"),
        ):
            file = self.plan(text)
            command = [harness.ESPALIERD, "--listen=127.0.0.1:0", f"--plan={file}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=harness.TIMEOUT)
            self.assertEqual((done.returncode, done.stdout), (2, ""), text)
            self.assertTrue(done.stderr.startswith(f"espalierd: --plan: {file}{why}"), done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_in_the_file_of_options(self):
        plan = self.plan("add w f64 2 --init 'constant(3)' --frozen\n")
        config = self.plan(f"plan: {plan}\n")
        server = self.server(f"--config={config}")
        client = self.client(server.address)
        self.assertEqual(client.value("w"), f64(3, 3))
        self.assertEqual(client.info().frozen, 1)
        records = list(client.admin.History(admin.HistoryRequest(), timeout=harness.TIMEOUT))
        self.assertEqual([entry.actor for page in records for entry in page.transactions], ["plan"])


harness.main()
