"""The naive model's undo, by design.md (sections 4 and 11), docs/espctl.md and the header of server/engine/undo.c: the
lines of the transaction's diff, read backwards, are taken back on the tree of now, unless a later transaction touched the
same. Groups come before bindings, flags and names last."""

import re

from model import Refused


def was(line):
    return getattr(line, "from")


def thing(line):
    """What a line is of: a leaf, whatever of it, or one setting of a node, a group or a name."""
    return line.leaf_id or (line.path, line.field)


def settled(records):
    """The epochs of those of these that were undone again, and of their undos: together they changed nothing."""
    epochs, found = {one.epoch for one in records}, set()
    for one in reversed(records):
        if one.undoes in epochs and one.epoch not in found:
            found |= {one.epoch, one.undoes}
    return found


def undo(transaction, epoch):
    history = transaction.model.history
    place = len(history) - 1 if epoch == 0 else next((i for i, one in enumerate(history) if one.epoch == epoch), -1)
    if place < 0:
        raise Refused("NOT_FOUND")
    lines = history[place].changes
    transaction.count(len({line.leaf_id for line in lines if line.leaf_id}))
    transaction.undoes = history[place].epoch
    touched = {thing(line) for line in lines}
    later = history[place + 1 :]
    passed = settled(later)
    if any(thing(line) in touched for one in later if one.epoch not in passed for line in one.changes):
        raise Refused("FAILED_PRECONDITION")
    take_back_each(transaction, lines, take_back_place)
    take_back_groups(transaction, lines)
    take_back_each(transaction, lines, take_back_binding)
    take_back_each(transaction, lines, take_back_stepper)
    take_back_flags(transaction, lines)
    for line in reversed(lines):
        take_back_name(transaction, line)


def loses(lines):
    """Whether an undo of these lines has to say that something is not brought back."""
    return any(line.field in ("value", "state") or (line.field == "leaf" and not line.to) for line in lines)


def brings_all_back(before, model):
    """Whether an undo at once has all that it needs to make the tree what it was before: no leaf, no parameter went."""
    params = {param.id for param in model.params()}
    leaves = {leaf.id for leaf in model.leaves.values()}
    return all(number in leaves and bound in params for number, (*_, bound, _) in before["leaves"].items())


def take_back_each(transaction, lines, step):
    for line in reversed(lines):
        step(transaction, line)
        transaction.settle()


def take_back_place(transaction, line):
    """What was added goes, what was renamed gets its name again; what was removed is gone."""
    leaf = transaction.model.by_id(line.leaf_id)
    if leaf and line.field == "leaf" and not was(line):
        transaction.take_out([leaf])
    elif leaf and line.field == "path":
        transaction.move(line.to, was(line))


def take_back_groups(transaction, lines):
    """Of several assignments to one node, with no group defined between them, the last counts."""
    assigned = {}

    def assign():
        for node, group in assigned.items():
            transaction.assign(node, group)
        assigned.clear()

    for line in reversed(lines):
        if line.field == "group" and not line.because:
            assigned[line.path] = was(line) or None
        elif line.field == "optimizer":
            assign()
            if was(line):
                transaction.define_group(line.path, was(line))
            else:
                transaction.delete_group(line.path)
    assign()


def take_back_binding(transaction, line):
    """To the parameter that it was bound to; where that is no more, to one of its own."""
    leaf = transaction.model.by_id(line.leaf_id)
    if not leaf or line.field != "parameter" or not was(line):
        return
    number = int(re.match(r"parameter (\d+)", was(line))[1])
    param = next((param for param in transaction.model.params() if param.id == number), None)
    if param is None:
        transaction.split_off([leaf])
        return
    others = [one for one in param.leaves if one is not leaf]
    if others:
        transposed = was(line).endswith(" transposed")
        transaction.bind(leaf, others[0], others[0].transposed != transposed, False)


def take_back_stepper(transaction, line):
    """What it is tied to brought the leaf into another group. Where that was taken back it is there again."""
    leaf = transaction.model.by_id(line.leaf_id)
    if leaf and line.field == "stepped_by" and line.because and transaction.model.group_of(leaf.param) != was(line):
        transaction.assign(line.path, was(line))


def take_back_flags(transaction, lines):
    for field, setting in (("frozen", transaction.flag_frozen), ("detached", transaction.flag_detached)):
        first = {}  # what each was before all of it
        for line in reversed(lines):
            if line.field == field:
                first[line.leaf_id] = was(line) == "true"
        for flag in (True, False):
            setting([leaf for leaf in transaction.model.in_order() if first.get(leaf.id) is flag], flag)


def take_back_name(transaction, line):
    if line.field == "selection":
        transaction.name_selection(line.path.removeprefix("@"), was(line))
    elif line.field == "tag" and not line.leaf_id:
        transaction.tag(line.path, was(line))
