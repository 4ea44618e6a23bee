"""What the tests of timers share, on top of those of semantics (values, state and step counts as numpy has them). Import
this first: it brings the harness.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "semantics"))
import semantics
from semantics import admin, harness, leaf, wire


class Case(semantics.Case):
    """A server, and espctl on it, which sets timers."""

    GROUPS = {"default": "adam(lr=0.01)"}

    def commit(self):
        """The last number that was taken."""
        return self.c.info().commit

    def timers(self):
        """What espctl lists."""
        return self.espctl("timers")["timers"]

    def frozen(self):
        return {info.path for info in self.c.describe().leaves if info.frozen}

    def by_timer(self):
        """The transactions of the actor timer: [(commit, {(path, frozen after it)})]."""
        return [
            (one.commit, {(change.path, change.to) for change in one.changes if change.field == "frozen"})
            for one in self.history()
            if one.actor == "timer"
        ]

    def push_all(self, frozen=(), commit=None):
        """A push of all leaves, of which exactly these stand still; its number is this, where it is given."""
        reply = self.step(self.gradients(), but=frozen)
        self.assertEqual((reply.frozen, reply.applied), (len(frozen), len(self.params) - len(frozen)), reply.commit)
        if commit is not None:
            self.assertEqual(reply.commit, commit)
        return reply.commit

    def push_nothing(self):
        return self.push({}).commit

    def everything(self):
        """All that a refusal or a dry run must leave as it was."""
        timers = [one | {"left": 0} for one in self.timers()]  # time passes
        return self.c.info().epoch, self.commit(), self.c.digest(), self.frozen(), timers
