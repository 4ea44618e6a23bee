"""The naive model's timers, by the comments on struct esp_timer and the diff in server/tree/tree.h, those on struct
esp_operation in server/engine/engine.h, and docs/espctl.md: what freezes and thaws later."""

import dataclasses
import itertools
import re

import selecting
from model import Refused
from selecting import component

DUE = {"commit": 1, "pushes": 2, "time": 3}  # the wire's values


@dataclasses.dataclass(frozen=True)
class Timer:
    id: int
    due: str
    at: int  # a commit number, or commits of pushes; of a time nobody knows it here
    after: int  # when it was set
    frozen: bool
    reset_state: bool
    until_commit: int
    for_ms: int
    epoch: int
    selection: str

    def text(self):
        what = "freeze" if self.frozen else "thaw and reset state" if self.reset_state else "thaw"
        when = {
            "commit": f"at commit {self.at}",
            "pushes": f"after {self.after} pushes",
            "time": f"after {self.after} ms",
        }[self.due]
        end = f" until commit {self.until_commit}" if self.until_commit else f" for {self.for_ms} ms" * bool(self.for_ms)
        return f"{what} {when}{end} (timer {self.id})"


def text_of(model, number):
    return model.timers[number].text() if number else ""


def make(transaction, due, at, *, after=0, frozen=False, reset_state=False, until_commit=0, for_ms=0, selection):
    """A new timer, which nobody has yet."""
    model = transaction.model
    settings = (frozen, reset_state, until_commit, for_ms, transaction.epoch + 1, selection)
    timer = Timer(model.timer_id_next, due, at, after, *settings)
    model.timer_id_next += 1
    return timer


def end_of(transaction, until_commit, for_ms, selection):
    """The timer that ends a freeze, or None."""
    if until_commit:
        return make(transaction, "commit", until_commit, selection=selection)
    return make(transaction, "time", 0, after=for_ms, selection=selection) if for_ms else None


def give(transaction, leaves, timer):
    """The leaves' parameters have this timer (None: none) and no other one."""
    model = transaction.model
    number = timer.id if timer else 0
    changing = [leaf for leaf in leaves if leaf.param.timer != number]
    if timer and changing:
        model.timers.setdefault(number, timer)
    for leaf, because in transaction.with_ties(changing):
        transaction.note(leaf, "timer", text_of(model, leaf.param.timer), text_of(model, number), because)
    for leaf in changing:
        leaf.param.timer = number


def drop_unused(model):
    used = {param.timer for param in model.params()}
    model.timers = {number: timer for number, timer in model.timers.items() if number in used}


def is_ahead(transaction, timer):
    now = {"commit": transaction.commit_before, "pushes": transaction.model.pushes}
    return timer.due == "time" or timer.at > now[timer.due]


def check_commit(transaction, commit):
    if 0 < commit <= transaction.commit_before:
        raise Refused("FAILED_PRECONDITION")


def check(operations):
    """What can be told of them before any is done."""
    for operation in operations:
        ((kind, arguments),) = operation.items()
        at, until, lasts, every = (
            arguments.get(name, 0) for name in ("at_commit", "until_commit", "for_ms", "every_commits")
        )
        one_by_one = arguments.get("one_by_one", False)
        if (until and lasts) or (at and 0 < until <= at) or bool(every) != one_by_one or (one_by_one and at):
            raise Refused("INVALID_ARGUMENT")
        if kind == "cancel_timer" and arguments["timer"] == 0:
            raise Refused("INVALID_ARGUMENT")


def freeze(transaction, selection, for_ms=0, until_commit=0, at_commit=0):
    leaves = transaction.select(selection)
    check_commit(transaction, at_commit)
    check_commit(transaction, until_commit)
    if at_commit:
        end = {"until_commit": until_commit, "for_ms": for_ms}
        give(transaction, leaves, make(transaction, "commit", at_commit, frozen=True, selection=selection, **end))
        return
    transaction.flag_frozen(leaves, True, end_of(transaction, until_commit, for_ms, selection))


def thaw(transaction, selection, reset_state=False, at_commit=0, one_by_one=False, every_commits=0):
    if one_by_one:
        thaw_one_by_one(transaction, selection, reset_state, every_commits)
        return
    leaves = transaction.select(selection)
    check_commit(transaction, at_commit)
    if at_commit:
        timer = make(transaction, "commit", at_commit, reset_state=reset_state, selection=selection)
        give(transaction, leaves, timer)
        return
    transaction.thaw_now(leaves, reset_state)


def thaw_one_by_one(transaction, selection, reset_state, every):
    found = nodes_in_order(transaction.model, selection)
    transaction.count(sum(map(len, found)))
    named, steps = set(), []
    for leaves in found:
        leaves = [leaf for leaf in leaves if leaf.param.id not in named]  # what is tied goes with the first node
        named |= {leaf.param.id for leaf in leaves}
        steps += [leaves] if leaves else []
    transaction.thaw_now(steps[0], reset_state)
    for place, leaves in enumerate(steps[1:], 1):
        node = common_node(leaves) or selection
        after = place * every
        at = transaction.model.pushes + after
        give(transaction, leaves, make(transaction, "pushes", at, after=after, reset_state=reset_state, selection=node))


def cancel(transaction, timer):
    if timer not in transaction.model.timers:
        raise Refused("NOT_FOUND")
    give(transaction, [leaf for leaf in transaction.model.in_order() if leaf.param.timer == timer], None)


# ---- the nodes that a path, a pattern or several of them name, in the order in which they are written ----


def common_node(leaves):
    """The deepest one that all lie under, or the leaf."""
    components = zip(*(leaf.parts for leaf in leaves))
    return ".".join(one[0] for one in itertools.takewhile(lambda one: len(set(one)) == 1, components))


def nodes_in_order(model, text):
    if not text or re.search(r"[&!()@:<>=]", text) or "**" in text:
        raise Refused("INVALID_ARGUMENT")
    found, seen = [], set()
    for pattern in (one.strip() for one in text.split("|")):
        if not pattern or pattern in selecting.WORDS:
            raise Refused("INVALID_ARGUMENT")
        for leaves in below(model.in_order(), 0, pattern.split(".")):
            leaves = [leaf for leaf in leaves if leaf.path not in seen]
            seen |= {leaf.path for leaf in leaves}
            found += [leaves] if leaves else []
    if not found:
        raise Refused("NOT_FOUND")
    return found


def below(leaves, depth, pattern):
    """Of each node that matches the pattern, from this depth on, the leaves."""
    if not pattern:
        yield leaves
        return
    children = {}
    for leaf in leaves:
        if len(leaf.parts) > depth:
            children.setdefault(leaf.parts[depth], []).append(leaf)
    rank = ranks(pattern[0])
    names = [name for name in children if component(pattern[0]).fullmatch(name)]
    for name in sorted(names, key=lambda name: (rank.get(name, 0), name)):
        yield from below(children[name], depth + 1, pattern[1:])


def ranks(pattern):
    """{text: place} of all that the alternatives and ranges of a component without * may stand for."""
    if "*" in pattern:
        return {}
    choices = []
    for piece in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^{\[]+", pattern):
        if piece[0] == "{":
            choices.append(piece[1:-1].split(","))
        elif piece[0] == "[":
            first, last = piece[1:-1].split("-")
            step = 1 if int(first) <= int(last) else -1
            digits = len(first) if len(first) == len(last) else 0
            choices.append([f"{i:0{digits}}" for i in range(int(first), int(last) + step, step)])
        else:
            choices.append([piece])
    return {"".join(one): place for place, one in enumerate(itertools.product(*choices))}
