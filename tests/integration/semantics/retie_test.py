"""Ties, re-ties and unties while four workers push: what the parameters are in the end is what the same pushes and
operations give one after the other, in the order of their commits, to the last bit of value and state; and each push
says the epoch at which it was committed.

    retie_test.py BUILD_DIR
"""

import itertools
import threading

import numpy as np

from semantics import Case, Param, harness, leaf, tie

PUSHERS = 4
GRADIENTS = 5  # of each, which it repeats
LEAVES = ("a", "b", "c")
ADAM = "adam(lr=0.01)"


class Model:
    """Bindings and parameters, changed by one commit after the other."""

    def __init__(self, params):
        self.params = params  # by path

    def push(self, gradients):
        for param in {id(one): one for one in self.params.values()}.values():
            param.step(*(gradients[path] for path in LEAVES if self.params[path] is param))

    def tie(self, one, to, mean=False):
        old, self.params[one] = self.params[one], self.params[to]
        if mean:
            self.params[to].value = old.value * 0.5 + self.params[to].value * 0.5

    def untie(self, one):
        old = self.params[one]
        new = self.params[one] = Param(old.value, str(old.optimizer))
        new.steps, new.states = old.steps, {name: np.array(state) for name, state in old.states.items()}


class Retie(Case):
    GROUPS = {"default": ADAM}
    FLAGS = ("--threads=3",)

    def run_load(self, n, rounds):
        self.declare(*(leaf(path, n) for path in LEAVES))
        drawn = [[self.gradients() for _ in range(GRADIENTS)] for _ in range(PUSHERS)]
        commits = {}  # number: (epoch, what the model does)
        errors = []
        lock = threading.Lock()
        over = threading.Event()
        model = Model(dict(self.params))

        def note(commit, epoch, what, *arguments):
            with lock:
                self.assertNotIn(commit, commits)
                commits[commit] = (epoch, what, arguments)

        def work(gradients):
            try:
                with harness.Client(self.address) as client:
                    client.join("pusher")
                    for sent in itertools.cycle(gradients):
                        if over.is_set():
                            break
                        reply = self.push(sent, client)
                        if (reply.applied, reply.absent) != (len(LEAVES), 0):
                            raise AssertionError(f"a push stepped {reply.applied} leaves")
                        note(reply.commit, reply.epoch, model.push, sent)
            except Exception as error:  # told by the main thread
                errors.append(error)

        def operate(operation, what, *arguments):
            before = len(commits)
            harness.eventually(lambda: len(commits) > before or errors, "no push was committed")
            reply = self.c.apply(operation)
            self.assertTrue(reply.changes)
            note(reply.commit, reply.epoch, what, *arguments)

        threads = [threading.Thread(target=work, args=(gradients,)) for gradients in drawn]
        for thread in threads:
            thread.start()
        try:
            for _ in range(rounds):
                operate(tie("a", "b"), model.tie, "a", "b")
                operate(tie("a", "c"), model.tie, "a", "c")
                operate({"untie": {"selection": "a"}}, model.untie, "a")
                operate(tie("b", "c", mean=True), model.tie, "b", "c", True)
                operate({"untie": {"selection": "b"}}, model.untie, "b")
        finally:
            over.set()
            for thread in threads:
                thread.join()
        self.assertEqual(errors, [])
        first = self.c.info().commit - len(commits) + 1
        self.assertEqual(sorted(commits), list(range(first, first + len(commits))))
        epoch = 0
        for commit in sorted(commits):
            at, what, arguments = commits[commit]
            changes = what != model.push
            self.assertTrue(epoch == 0 or at == epoch + changes, f"commit {commit}: epoch {at} after {epoch}")
            epoch = at
            what(*arguments)
        self.params = model.params
        self.assert_as_expected("in the order of commits")

    def test_small(self):
        self.run_load(3, 3 if harness.is_sanitized() else 20)

    def test_of_more_than_one_share(self):
        """The threads take different parts of each tensor."""
        self.run_load(70001, 2 if harness.is_sanitized() else 5)


harness.main()
