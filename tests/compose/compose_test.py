"""Espalier as it is deployed: the image, deploy/compose.yaml, and workers, operators and servers on a network that is
cut, or that are killed, paused and stopped. Each test ends by comparing values with what the order of the commits says
that they must be: the commits in the workers' logs are applied to a second server, one by one.

    compose_test.py BUILD_DIR

Needs Docker and Compose, and nothing else of the machine. Where they are not there it ends with SKIPPED; with
ESPALIER_REQUIRE=docker in the environment that is a failure.
"""

import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration", "load"))
import load
import stack
from load import harness

SKIPPED = 77
LEAVES = ["encoder.weight:f32:1000x300", "encoder.bias:f64:1000", "head.weight:f32:10x1000", "head.bias:f64:3"]
SMALL = ["encoder.weight:f32:2500", "head.weight:f64:2500"]  # arrives, also where nobody reads it
SMALL_BYTES = 30000
BEGUN_BYTES = 60000  # not yet all of a push of LEAVES
PUSHES = 10  # of each worker: a while


def gradients(leaves):
    return ["--random", *(f"--leaf={leaf}" for leaf in leaves)]


def commit_of(line):
    return load.parse(line).commit


def line_of_change(change, verb, selection):
    return f"{verb} {change['commit']} {change['epoch']} {selection}\n"


class Compose(harness.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.images = stack.Images()

    def start(self, one, leaves, *flags):
        """A server, and two workers that are under way."""
        server = one.start_server()
        workers = [one.pusher(seed, *gradients(leaves), *flags) for seed in (1, 2)]
        self.go_on(workers)
        return server, workers

    def go_on(self, workers):
        """Waits until each has pushed for a while."""
        for worker, count in [(worker, len(worker.lines)) for worker in workers]:
            worker.wait_for_pushes(count + PUSHES)

    def missing(self, lines, commit):
        """The commits after the declaration's, up to this one, that are in no line."""
        commits = [commit_of(line) for line in lines]
        self.assertEqual(len(commits), len(set(commits)), "a commit is in two lines")
        return sorted(set(range(2, commit + 1)) - set(commits))

    def assert_replays(self, one, leaves, lines, digests, commit):
        """Applied to another server, in the order of their commits, they make the same values, states and steps."""
        self.assertEqual(self.missing(lines, commit), [])
        twin = one.start_server("twin")
        flags = [*gradients(leaves), f"--deadline-ms={stack.DEADLINE_MS}", f"--below={commit + 1}"]
        script = 'cat >/tmp/log && exec pusher --server=twin:7433 --replay=/tmp/log "$@"'
        one.once(f"--network={one.network}", command=["sh", "-c", script, "sh", *flags], stdin="".join(lines))
        self.assertEqual(twin.digests(), (digests, commit))
        print(f"{commit} commits, replayed", flush=True)

    def stop_and_replay(self, one, leaves, server, workers, more=()):
        for worker in workers:
            worker.stop()
        lines = [line for worker in workers for line in worker.lines]
        self.assert_replays(one, leaves, [*lines, *more], *server.digests())

    def test_freeze_and_thaw(self):
        with stack.Stack(self.images) as one:
            server, workers = self.start(one, LEAVES)
            frozen = one.operate("freeze", "encoder")
            first, _ = server.digests()
            self.go_on(workers)
            last, _ = server.digests()
            for path in first:
                self.assertEqual(first[path] == last[path], path.startswith("encoder."), path)
            thawed = one.operate("thaw", "encoder")
            self.go_on(workers)
            changes = [line_of_change(frozen, "freeze", "encoder"), line_of_change(thawed, "thaw", "encoder")]
            self.stop_and_replay(one, LEAVES, server, workers, changes)
            for push in workers[0].pushes() + workers[1].pushes():
                window = frozen["commit"] < push.commit < thawed["commit"]
                self.assertTrue(push.frozen == 2 if window else push.applied == push.sent.bit_count(), push)

    def test_a_worker_is_killed_and_another_joins(self):
        with stack.Stack(self.images) as one:
            server, (killed, other) = self.start(one, LEAVES)
            stack.docker("kill", killed.name)
            self.assertEqual(killed.wait(), 128 + signal.SIGKILL)
            third = one.pusher(3, *gradients(LEAVES))
            self.go_on([other, third])
            other.stop()
            third.stop()
            status = server.espctl("status")
            self.assertEqual(status["memory"]["staged"], 0)
            # The order may have one push whose answer the killed worker did not live to log: its next.
            lines = killed.lines + other.lines + third.lines
            lost = [
                f"push {killed.seed} {len(killed.pushes()) + 1} {commit} 0 {len(LEAVES)} 0 0 0 f f\n"
                for commit in self.missing(lines, status["commit"])
            ]
            self.assertLessEqual(len(lost), 1)
            self.assert_replays(one, LEAVES, lines + lost, *server.digests())

    def catch(self, server, is_caught):
        """Pauses the server at a moment at which is_caught() holds."""

        def pause():
            server.pause()
            if is_caught():
                return True
            server.unpause()
            return False

        harness.eventually(pause, "the server is paused at the right moment", load.LONG)

    def cut_and_heal(self, one, server, workers):
        """Cuts the network while something is on its way; returns whether that was a push of which a part had come."""
        self.catch(server, lambda: max(one.unread(server)) >= BEGUN_BYTES)
        one.cut(server)
        server.unpause()
        harness.eventually(lambda: max(one.unread(server)) == 0, "what had come is read")
        server.digests()  # waits for what that completed
        in_mid_push = server.espctl("status")["memory"]["staged"] > 0
        one.heal(server, "server")
        self.go_on(workers)
        return in_mid_push

    def test_the_network_is_cut_in_mid_push(self):
        with stack.Stack(self.images, lease="3s") as one:
            server, workers = self.start(one, LEAVES)
            harness.eventually(lambda: self.cut_and_heal(one, server, workers), "a cut in mid-push", load.LONG)
            self.stop_and_replay(one, LEAVES, server, workers)

    def test_the_network_is_cut_before_the_answer(self):
        with stack.Stack(self.images, lease="3s") as one:
            server, workers = self.start(one, SMALL)
            self.catch(server, lambda: max(one.unread(server)) >= SMALL_BYTES)
            one.cut(server)
            answered = max(push.commit for worker in workers for push in worker.pushes())
            server.unpause()
            harness.eventually(lambda: server.espctl("status")["commit"] > answered, "its commit")
            one.heal(server, "server")
            self.go_on(workers)
            self.stop_and_replay(one, SMALL, server, workers)
            again = [push for worker in workers for push in worker.pushes() if push.replayed]
            self.assertGreaterEqual(len(again), 1)

    def test_the_server_is_paused(self):
        with stack.Stack(self.images) as one:
            server, workers = self.start(one, LEAVES)
            self.catch(server, lambda: max(one.unread(server)) >= BEGUN_BYTES)
            server.unpause()
            self.go_on(workers)
            self.stop_and_replay(one, LEAVES, server, workers)
            self.assertFalse(any(push.replayed for worker in workers for push in worker.pushes()))

    def test_the_server_is_stopped(self):
        with stack.Stack(self.images) as one:
            server, workers = self.start(one, LEAVES, "--deadline-ms=10000")
            digests, commit = server.digests()
            self.go_on(workers)
            stack.docker("stop", server.name)
            self.assertEqual(server.inspect("{{.State.ExitCode}}"), "0")
            lines = []
            for worker in workers:
                self.assertEqual(worker.wait(), 1)
                # What ends at its deadline says DEADLINE_EXCEEDED.
                self.assertEqual(worker.log()[-1].code, "UNAVAILABLE")
                self.assertRegex(worker.stderr(), "pusher: push: UNAVAILABLE: ")
                lines += [line for line in worker.lines if line.startswith("push ")]
            self.assertEqual(self.missing(lines, len(lines) + 1), [])
            lines = [line for line in lines if commit_of(line) <= commit]
            self.assert_replays(one, LEAVES, lines, digests, commit)

    def test_as_deployed(self):
        with stack.Stack(self.images, added=False) as one:
            one.up()
            server = one.service("server")
            workers = [one.service("worker-1"), one.service("worker-2")]
            self.assertEqual(server.inspect("{{.State.Health.Status}}"), "healthy")  # workers waited for it
            self.assertEqual(server.run("id", "-u").strip(), "7433")
            limit = int(server.inspect("{{.HostConfig.Memory}}"))
            self.assertEqual(server.espctl("status")["memory"]["staged_max"], limit // 4)
            self.wait_for_commits(server, 1000)
            one.operate("freeze", "encoder")
            first, commit = server.digests()
            self.wait_for_commits(server, commit + 1000)
            last, _ = server.digests()
            for path in first:
                self.assertEqual(first[path] == last[path], path.startswith("encoder."), path)
            one.operate("thaw", "encoder")
            self.wait_for_commits(server, 6000)
            self.assertNotEqual(server.digests()[0]["encoder.weight"], last["encoder.weight"])
            stack.docker("stop", *(worker.name for worker in workers))
            for worker in workers:
                self.assertEqual(worker.inspect("{{.State.ExitCode}}"), "0")
            accuracy = one.compose("run", "--rm", "-T", "worker-1", "espalier-digits", "--role=evaluate")
            self.assertRegex(accuracy, r"^accuracy (0\.9|1\.0)")
            stack.docker("stop", server.name)
            self.assertEqual(server.inspect("{{.State.ExitCode}}"), "0")

    def wait_for_commits(self, server, count):
        harness.eventually(lambda: server.espctl("status")["commit"] >= count, f"{count} commits", load.LONG)


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    why = stack.what_is_missing()
    if why:
        if "docker" in os.environ.get("ESPALIER_REQUIRE", "").split():
            sys.exit(f"ESPALIER_REQUIRE has docker, but {why}")
        print(f"skipped: {why}", flush=True)
        sys.exit(SKIPPED)
    signal.signal(signal.SIGTERM, interrupt)
    harness.main()
