"""A server that dies under its workers, or stops for a while, or for good: workers are told in time, or notice nothing.

    restart_test.py BUILD_DIR
"""

import signal
import struct

from load import Failed, Lineage, Push, TestCase, harness, scaled

LEAVES = ["a:f64:50000", "b.c:f64:7"]
ONES = "--group=default=sgd(lr=1)"


class Restart(TestCase):
    def assert_value(self, server, pushes):
        """Each push was of ones, applied once."""
        client = self.client(server.address)
        for path in "a", "b.c":
            self.assertEqual(set(struct.iter_unpack("<d", client.value(path))), {(-float(pushes),)})

    def stop_server(self, server, stopped):
        server.process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
        if stopped:
            harness.eventually(lambda: harness.process_state(server.pid) == "T", "the server has stopped")

    def run_restart(self, workers, *flags):
        """Kills a server under a pusher and starts another; returns the second, and the log from the kill on."""
        server = self.server(ONES)
        pusher = self.pusher(server.address, LEAVES, f"--threads={workers}", "--redeclare", *flags)
        before = self.client(server.address).info().lineage
        pusher.wait_for(Push, scaled(1000, 100))
        server.process.kill()
        self.assertEqual(server.wait(), -signal.SIGKILL)
        twin = self.server(ONES, listen=(server.address,))
        after = self.client(twin.address).info().lineage
        self.assertNotEqual(before, after)
        pusher.wait_for(Lineage, 1)
        harness.eventually(
            lambda: self.client(twin.address).info().commit > scaled(1000, 100) or pusher.process.poll() is not None,
            "pushes to the second server",
        )
        log = pusher.stop()
        for entry in log:
            if isinstance(entry, Lineage):
                self.assertEqual(entry, Lineage(before, after))
            elif isinstance(entry, Failed):
                self.assertEqual(entry.code, "ABORTED")
        return twin, log

    def test_each_with_its_client(self):
        twin, log = self.run_restart(4)
        self.assertEqual(sum(isinstance(entry, Lineage) for entry in log), 4)
        self.assertEqual(sorted(entry.seed for entry in log if isinstance(entry, Failed)), [1, 2, 3, 4])
        # What a worker pushed before it was told went to the first server, the rest, once each, to the second.
        told = set()
        pushes = 0
        for entry in log:
            if isinstance(entry, Failed):
                told.add(entry.seed)
            elif isinstance(entry, Push):
                pushes += entry.seed in told
        self.assertGreater(pushes, scaled(1000, 100) // 2)
        self.assert_value(twin, pushes)

    def test_one_client_for_all(self):
        twin, log = self.run_restart(6, "--shared")
        self.assertEqual(sum(isinstance(entry, Lineage) for entry in log), 1)
        self.assertTrue(any(isinstance(entry, Failed) for entry in log))
        self.assertGreater(self.client(twin.address).info().pushes_applied, scaled(1000, 100) // 2)

    def test_a_pause_is_survived(self):
        server = self.server(ONES)
        pusher = self.pusher(server.address, LEAVES, "--threads=4", "--deadline-ms=120000")
        count = 0
        for _ in range(scaled(10, 2)):
            count = len(pusher.wait_for(Push, count + 50))
            self.stop_server(server, True)
            seen = len(pusher.of(Push))
            self.assertIsNone(pusher.process.poll())
            self.stop_server(server, False)
            count = len(pusher.wait_for(Push, seen + 1))
        log = pusher.stop()
        self.assertTrue(all(isinstance(entry, Push) for entry in log))
        self.assert_value(server, len(log))

    def test_a_server_that_stays_stopped(self):
        server = self.server(ONES)
        for flags in [], ["--shared"]:
            pusher = self.pusher(server.address, LEAVES, "--threads=4", "--deadline-ms=3000", *flags)
            pusher.wait_for(Push, 50)
            self.stop_server(server, True)
            log = pusher.wait(code=1)  # that it ends is the point
            self.stop_server(server, False)
            failed = [entry.code for entry in log if isinstance(entry, Failed)]
            self.assertGreaterEqual(len(failed), 1)
            self.assertLessEqual(set(failed), {"DEADLINE_EXCEEDED", "UNAVAILABLE"})
            self.assertRegex(pusher.stderr(), "DEADLINE_EXCEEDED|UNAVAILABLE")
        # Nothing of it keeps the server from working.
        self.client(server.address).wait_for_nothing_staged()

    def test_a_session_that_expired_is_no_new_lineage(self):
        server = self.server(ONES, "--lease=100ms", "--session-retention=100ms")
        client = self.client(server.address)
        pusher = self.pusher(server.address, LEAVES, "--paced")
        self.assertIsInstance(pusher.next(), Push)
        pusher.process.send_signal(signal.SIGSTOP)
        harness.eventually(lambda: harness.process_state(pusher.process.pid) == "T", "the pusher has stopped")
        stopped_ms = client.info().uptime_ms
        harness.eventually(lambda: client.info().sessions == 0, "the lease has ended")
        harness.eventually(lambda: client.info().uptime_ms > stopped_ms + 1000, "the session is forgotten")
        pusher.process.send_signal(signal.SIGCONT)
        self.assertIsInstance(pusher.next(), Push)
        self.assertEqual(len(pusher.stop()), 2)
        self.assert_value(server, 2)


harness.main()
