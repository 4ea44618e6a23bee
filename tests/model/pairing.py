"""Pairs of leaves for tie and copy, by the comment on esp_pair_leaves in server/tree/tree.h."""

import re

from model import Refused, is_within


def wildcards(pattern):
    return [part for part in pattern.split(".") if part in ("*", "**")]


def expression(pattern):
    """A regular expression of whole paths, a group for each wildcard."""
    parts = {"*": r"([^.]+)", "**": r"(.+)"}
    return re.compile(r"\.".join(parts.get(part, re.escape(part)) for part in pattern.split(".")))


def filled(pattern, values):
    values = iter(values)
    return ".".join(next(values) if part in ("*", "**") else part for part in pattern.split("."))


def below(model, node):
    return [leaf for leaf in model.in_order() if is_within(leaf.path, node)]


def pair(model, source, to):
    """[(leaf, leaf)], in the order of the first ones' paths."""
    if not source or not to:
        raise Refused("INVALID_ARGUMENT")
    if wildcards(source) != wildcards(to):
        raise Refused("INVALID_ARGUMENT")
    if wildcards(source):
        pairs = by_pattern(model, source, to)
    else:
        if not below(model, source):
            raise Refused("NOT_FOUND")
        if is_within(source, to) or is_within(to, source):
            raise Refused("INVALID_ARGUMENT")
        pairs = [(leaf, to + leaf.path[len(source) :]) for leaf in below(model, source)]
    if not pairs:
        raise Refused("NOT_FOUND")
    if any(path not in model.leaves for _, path in pairs):
        raise Refused("NOT_FOUND")
    pairs = [(leaf, model.leaves[path]) for leaf, path in pairs]
    froms = {leaf.path for leaf, _ in pairs}
    if any(other.path in froms for _, other in pairs):
        raise Refused("INVALID_ARGUMENT")
    return pairs


def by_pattern(model, source, to):
    """What the pattern matches, leaves and nodes, with what the other becomes."""
    pattern = expression(source)
    pairs = {}
    for leaf in model.in_order():
        for i in range(1, len(leaf.parts) + 1):
            node = ".".join(leaf.parts[:i])
            match = pattern.fullmatch(node)
            if match:
                pairs.setdefault(leaf.path, (leaf, filled(to, match.groups()) + leaf.path[len(node) :]))
                break
    return list(pairs.values())
