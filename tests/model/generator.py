"""Random operations, from a seed, for a tree as the model has it: mostly such as are accepted."""

from rules import BadExpression
from vocabulary import ADJUSTMENTS, BACK, CLIPS, GROUPS, LARGE, MIDDLES, NAMES, RULES, SHAPES, TAGS, TOPS


def make_config(rng, available):
    """A server for an episode."""
    rules = RULES + CLIPS if available.clips else RULES
    names = ["default"] + rng.sample(GROUPS[1:], rng.randint(1, 3))
    return {
        "groups": {name: rng.choice(rules) for name in names},
        "assigns": {rng.choice(TOPS): rng.choice(names + ["later"]) for _ in range(rng.randint(0, 2))},
        "threads": rng.choice((1, 2, 4)),
        "isa": rng.choice(available.isas),
        "nonfinite": rng.choice(("reject", "reject", "reject", "skip")),
        "leaves_max": rng.choice((5, 20, 60, 200)),
        "large": rng.choice((0, 0, 1, 3)),
    }


class Generator:
    def __init__(self, rng, config, available):
        self.rng = rng
        self.config = config
        self.available = available  # what the server has built
        self.kinds = available.kinds
        self.rules = RULES + CLIPS if available.clips else RULES
        self.large = config["large"]
        self.after = []  # operations that are to follow

    def chance(self, probability):
        return self.rng.random() < probability

    def seed(self):
        return self.rng.randrange(1 << 30)

    def next(self, model):
        """The next operation."""
        self.model = model
        self.paths = [leaf.path for leaf in model.in_order()]
        self.trained = [leaf.path for leaf in model.in_order() if leaf.param.kind == "trained"]
        if len(self.paths) < min(5, self.config["leaves_max"]):
            return self.declare()
        if self.after:
            return self.after.pop(0)
        kinds = {"push": 20, "burst": 5, "pull": 7, "declare": 5, "apply": 60, "retry": 5, "cut": 4, "look": 3}
        return getattr(self, self.rng.choices(list(kinds), list(kinds.values()))[0])()

    # ---- the tree ----

    def path(self):
        rng = self.rng
        parts = [rng.choice(TOPS)]
        if self.chance(0.7):
            parts += [rng.choice(MIDDLES), str(rng.randrange(12))]
        if self.chance(0.2):
            parts.append(rng.choice(MIDDLES))
        return ".".join(parts + [rng.choice(NAMES)])

    def node(self):
        """A node above a leaf that there is, or could be."""
        parts = (self.rng.choice(self.paths) if self.paths and self.chance(0.7) else self.path()).split(".")
        return ".".join(parts[: self.rng.randint(1, max(1, len(parts) - 1))])

    def shape(self):
        if self.large > 0 and self.chance(0.1):
            self.large -= 1
            return self.rng.choice(LARGE)
        return self.rng.choice(SHAPES)

    def init(self):
        rng = self.rng
        kind = rng.choice(("zeros", "constant", "uniform", "normal", "follows"))
        if kind == "uniform":
            return [kind, -0.5, 0.5, self.seed()]
        if kind == "normal":
            return [kind, 0.125, 0.5, self.seed()]
        return [kind, 0.25 if kind == "constant" else 0.0, 0.0, self.seed()]

    def spec(self, path):
        rng = self.rng
        return {
            "path": path,
            "shape": list(self.shape()),
            "dtype": rng.choice(("f32", "f32", "f64")),
            "kind": "buffer" if self.chance(0.1) else "trained",
            "tag": rng.choice(TAGS) if self.chance(0.2) else "",
            "group": rng.choice(GROUPS + ("later",)) if self.chance(0.1) else "",
            "frozen": self.chance(0.1),
            "detached": self.available.born_detached and self.chance(0.05),
            "init": self.init(),
        }

    def joined(self, path):
        """A declaration of a leaf that is there."""
        leaf = self.model.leaves[path]
        spec = {**self.spec(path), "shape": list(leaf.shape()), "dtype": leaf.param.dtype, "kind": leaf.param.kind}
        spec["init"] = ["zeros", 0.0, 0.0, 0]
        if self.available.born_tied and self.chance(0.1):  # settings at birth count no more
            spec.update(alias_of=self.rng.choice(self.paths), view=0)
        return spec

    def declare(self):
        rng = self.rng
        room = self.config["leaves_max"] - len(self.paths)
        specs = []
        if room > 0:
            for _ in range(rng.randint(1, min(room, 12))):
                path = self.path()
                taken = self.paths + [spec["path"] for spec in specs]
                if path in self.model.removed and self.chance(0.9):
                    continue
                if not any(path == t or path.startswith(t + ".") or t.startswith(path + ".") for t in taken):
                    specs.append(self.spec(path))
        if self.paths and (not specs or self.chance(0.4)):
            specs += [self.joined(path) for path in rng.sample(self.paths, min(len(self.paths), rng.randint(1, 5)))]
        self.make_aliases(specs)
        rng.shuffle(specs)
        if specs and self.chance(0.15) and not any(spec["path"] in self.model.removed for spec in specs):
            self.spoil(specs)
        nodes = []
        if self.chance(0.25):
            nodes.append(
                {
                    "path": self.node(),
                    "group": rng.choice(GROUPS + ("later", "")),
                    "frozen": self.chance(0.3),
                    "detached": self.available.born_detached and self.chance(0.1),
                    "tag": rng.choice(TAGS) if self.available.node_tags and self.chance(0.5) else "",
                }
            )
        return {"op": "declare", "worker": rng.randrange(3), "leaves": specs, "nodes": nodes}

    def make_aliases(self, specs):
        """Some of the new leaves are born tied: to one of the tree or of this declaration, an alias perhaps."""
        if not self.available.born_tied:
            return
        for place, spec in enumerate(specs):
            if spec["path"] not in self.model.leaves and self.chance(0.3):
                self.make_alias(spec, specs[:place])

    def make_alias(self, spec, others=()):
        rng = self.rng
        there = [(leaf.path, leaf.shape(), leaf.param.dtype, leaf.param.kind) for leaf in self.model.in_order()]
        there += [(one["path"], tuple(one["shape"]), one["dtype"], one["kind"]) for one in others]
        if not there:
            return
        path, shape, dtype, kind = rng.choice(there)
        spec["alias_of"], spec["view"] = path, int(len(shape) == 2 and self.chance(0.5))
        if not self.chance(0.1):  # else of another shape, mostly
            spec.update(shape=list(shape[::-1] if spec["view"] else shape), dtype=dtype, kind=kind)

    def spoil(self, specs):
        """One mistake."""
        spec = self.rng.choice(specs)
        how = self.rng.randrange(6)
        aliases = [spec for spec in specs if spec.get("alias_of")]
        if how == 5 and aliases:
            rng = self.rng
            spec = rng.choice(aliases)
            spec["alias_of"] = rng.choice(("no.such.leaf", spec["path"], *(one["path"] for one in aliases)))
        elif how == 0:
            spec["shape"] = list(spec["shape"]) + [2]
        elif how == 1:
            spec["init"] = ["uniform", 1.0, 0.0, 0]
        elif how == 2:
            specs.append(dict(spec))
        elif how == 3:
            spec["path"] += ".below"
        else:
            spec["path"] = spec["path"].rpartition(".")[0] or spec["path"]

    # ---- pushes ----

    def named_leaves(self, most):
        """[path, how, kind, seed] of some trained leaves."""
        rng = self.rng
        if not self.trained:
            return []
        count = min(len(self.trained), rng.choice((0, 1, 1, 2, 3, 5, 8, most)))
        zero = self.chance(0.1)
        return [
            [path, rng.choice(("id", "path")), "zero" if zero and self.chance(0.5) else "normal", self.seed()]
            for path in rng.sample(self.trained, count)
        ]

    def chunk(self, leaves):
        """Bytes of a cut; 0: none. Small ones only where few bytes go."""
        if self.chance(0.8):
            return 0
        total = sum(self.model.leaves[one[0]].param.value.nbytes for one in leaves if one[0] in self.model.leaves)
        return max(self.rng.choice((3, 64, 1000, 4097)), total // 50)

    def push(self):
        rng = self.rng
        leaves = self.named_leaves(60)
        operation = {
            "op": "push",
            "worker": rng.randrange(3),
            "via": rng.choice(("stream", "stream", "stream", "call")),
            "chunk": self.chunk(leaves),
            "session": True,
            "skip": 1 if self.chance(0.97) else 2,
            "leaves": leaves,
        }
        if self.chance(0.03):
            operation.update(via="call", session=False)
        if self.chance(0.15) and leaves:
            rng.choice(leaves)[2] = rng.choice(("nan", "inf"))
        elif self.chance(0.08):
            operation["require_epoch"] = rng.choice((0, 0, 1, -1)) if self.model.epoch > 1 else 0
        elif self.chance(0.06):
            self.spoil_push(leaves)
        return operation

    def spoil_push(self, leaves):
        rng = self.rng
        if leaves and self.chance(0.3):
            rng.choice(leaves)[2] = "short"
            return
        known = {one[0] for one in leaves}
        removed = [path for path in sorted(self.model.removed) if path not in known]
        buffers = [path for path in self.paths if path not in self.trained]
        if removed and self.chance(0.6):
            leaves.append([rng.choice(removed), rng.choice(("id", "id", "path")), "normal", self.seed()])
        elif buffers and self.chance(0.5):
            leaves.append([rng.choice(buffers), "id", "normal", self.seed()])
        else:
            leaves.append(["no.such.leaf", "path", "normal", self.seed()])

    def burst(self):
        """Many pushes to few leaves, so that their order shows."""
        rng = self.rng
        kind = rng.choice(("apply", "toggles", "toggles", "none"))
        known = self.model.timers or any(one.timers for one in self.model.history[-9:])  # which an undo may bring back
        if kind == "apply" and known:  # what is refused, while they fire, was refused nobody knows when
            kind = "toggles"
        some = self.named_leaves(30) + self.named_leaves(3)
        some = list({one[0]: one for one in some}.values())
        pushes = []
        count = rng.choice((4, 8, 16) if kind == "toggles" else (2, 4, 8, 16))
        for _ in range(count):
            leaves = [[path, "id", "normal", self.seed()] for path, *_ in some if self.chance(0.7)]
            pushes.append([rng.randrange(3), leaves])
        apply = self.apply(alone=True) if kind == "apply" else None
        if apply and some and self.chance(0.15):  # of what is being pushed
            apply["operations"] = [{"remove": {"selection": rng.choice(some)[0]}}]
        return {
            "op": "burst",
            "chunk": self.chunk(some) if self.chance(0.3) else 0,
            "pushes": pushes,
            "apply": apply,
            "apply_after": rng.randint(1, count),
            "toggles": self.toggles(some, count) if kind == "toggles" else [],
            "pull_after": rng.randint(1, count) if self.chance(0.2) else 0,
        }

    def toggles(self, leaves, count):
        """Freezes and thaws between pushes, of leaves that these name, mostly of one."""
        rng = self.rng
        paths = [leaves[0][0]] * 3 + [one[0] for one in leaves[:5]] if leaves else []
        kinds = [kind for kind in ("freeze", "thaw", "detach", "attach") if kind in self.kinds]
        return [
            [rng.randint(1, count), rng.choice(kinds), rng.choice(paths)] for _ in range(rng.randint(4, 14)) if paths
        ]

    def retry(self):
        return {"op": "retry", "worker": self.rng.randrange(3), "back": self.rng.choice(BACK)}

    def cut(self):
        leaves = self.named_leaves(20)
        return {
            "op": "cut",
            "worker": self.rng.randrange(3),
            "chunk": self.chunk(leaves),
            "leaves": leaves,
            "way": self.rng.choice(("there", "there", "back")),
            "share": self.rng.random(),
        }

    # ---- reads ----

    def pull(self):
        rng = self.rng
        paths = rng.sample(self.paths, min(len(self.paths), rng.choice((0, 1, 1, 3, 10))))
        if paths and self.chance(0.05):
            paths.append(rng.choice((paths[0], "no.such.leaf")))
        return {
            "op": "pull",
            "worker": rng.randrange(3),
            "via": rng.choice(("stream", "call")),
            "paths": paths,
            "selection": self.selection() if not paths and self.chance(0.7) else "",
            "consistent": self.chance(0.4),
            "delta": self.chance(0.6),
        }

    def look(self):
        """At the history and what has changed."""
        return {
            "op": "look",
            "back": self.rng.choice((0, 1, 2, 10, 1000)),
            "limit": self.rng.choice((0, 0, 1, 3)),
            "picture": self.rng.randrange(1000),
        }

    # ---- transactions ----

    def selection(self, few=True):
        """A selector, of a few leaves mostly."""
        rng = self.rng
        if self.chance(0.03):
            return rng.choice(("no.such", "*.nothing.**", "zzz"))
        if self.available.selectors and self.chance(0.3):
            return self.expression(2)
        path = rng.choice(self.paths)
        parts = path.split(".")
        how = rng.random()
        if how < 0.45:
            return path
        if how < 0.75:
            return ".".join(parts[: rng.randint(max(1, len(parts) - (1 if few else 2)), len(parts))])
        parts[rng.randrange(len(parts))] = "*"
        if how > 0.93:
            return "**." + parts[-1] if parts[-1] != "*" else "**.bias"
        return ".".join(parts)

    def expression(self, depth):
        """A selector of the whole language."""
        rng = self.rng
        if depth and self.chance(0.6):
            a, b = self.expression(depth - 1), self.expression(depth - 1)
            return rng.choice((f"{a} & {b}", f"{a} | {b}", f"({a} | {b}) & {a}", f"{a} & !{b}", f"!({a} | {b})"))
        path = rng.choice(self.paths)
        parts = path.split(".")
        return rng.choice((
            path,
            ".".join(parts[:2]),
            f"name:{rng.choice(NAMES)}",
            "name:{w,bias}",
            f"tag:{rng.choice(TAGS)}",
            f"tag:{rng.choice(TAGS)} > {rng.choice(MIDDLES)}",
            f"group:{rng.choice(GROUPS)}",
            f"dtype:{rng.choice(('f32', 'f64'))}",
            "kind:buffer",
            f"rank:{rng.randrange(4)}",
            f"size>={rng.choice((1, 12, 512, 65536))}",
            f"size{rng.choice(('<', '<=', '!=', '=', '>'))}{rng.choice((1, 12, 512))}",
            "frozen",
            "tied",
            "detached",
            f"**.[{rng.randrange(12)}-{rng.randrange(12)}].*",
            f"{parts[0]}.*.[3-0]",
            f"@{rng.choice(sorted(self.model.selections) or ['one'])}",
        ))  # fmt: skip

    def operation(self):
        # They are refused more than others, or less is made of them.
        often = ("delete_group", "delete_group", "delete_group", "tie", "copy", "adjust", "undo", "rename", "reset")
        often += ("add", "define_group", "set", "reinit", "remove", "name_selection", "untie", "regroup")
        often += ("cancel_timer",) * 3 if self.model.timers else ()
        kinds = [kind for kind in self.kinds if kind != "cancel_timer" or self.model.timers or self.chance(0.2)]
        kind = self.rng.choice([*kinds, *(kind for kind in often if kind in self.kinds)])
        return {kind: getattr(self, "of_" + kind)()}

    def few(self):
        return {"selection": self.selection()}

    of_reset = of_detach = few

    def of_freeze(self):
        return {"selection": self.selection(self.chance(0.9)), **self.timed(("until_commit", "until_commit", "for_ms"))}

    def timed(self, ends):
        """When it begins and ends; commits by their distance from the one of now."""
        rng = self.rng
        if not self.available.timers or not self.chance(0.6):
            return {}
        times = {rng.choice(ends): 1 << 30} if self.chance(0.7) else {}
        if "until_commit" in times:
            times["until_commit"] = self.distance()
        if not times or self.chance(0.4):
            times["at_commit"] = self.distance()
        if self.chance(0.05):
            times["until_commit"] = self.distance()
        return times

    def distance(self):
        return self.rng.choice((1, 2, 3, 5, 8, 20, 50, 0 if self.chance(0.2) else 4))

    def timer_operation(self):
        if self.model.timers and self.chance(0.4):
            return {"cancel_timer": self.of_cancel_timer()}
        if self.chance(0.3):
            return {"thaw": self.one_by_one()}
        kind = self.rng.choice(("freeze", "thaw"))
        return {kind: {"selection": self.selection(), "at_commit": self.distance()}}

    def of_cancel_timer(self):
        return {"place": self.rng.randrange(100)}

    def of_thaw(self):
        if self.available.timers and self.chance(0.15):
            return self.one_by_one()
        if self.available.timers and self.chance(0.15):
            return {"selection": self.selection(), "reset_state": self.chance(0.3), "at_commit": self.distance()}
        selection = self.one_with(lambda leaf: leaf.param.frozen) or self.selection(False)
        return {"selection": selection, "reset_state": self.chance(0.3)}

    def one_by_one(self):
        rng = self.rng
        path = rng.choice(self.paths)
        parts = path.split(".")
        selection = rng.choice((
            f"{parts[0]}.*.[11-0]",
            f"{{{','.join(rng.sample(TOPS, 3))}}}.*",
            " | ".join(rng.sample(TOPS, 4)),
            f"{path} | {parts[0]}",
            "*.{mlp,attn,layers}.[0-11].*",
            self.expression(1) if self.chance(0.3) else "*",
        ))  # fmt: skip
        if "**" in selection or "name:" in selection:  # whose order the model does not know
            selection = "*"
        times = {"one_by_one": True, "every_commits": rng.choice((1, 1, 2, 5, 20))}
        if self.chance(0.05):
            times.popitem()
        return {"selection": selection, "reset_state": self.chance(0.3), **times}

    def of_attach(self):
        return {"selection": self.one_with(lambda leaf: leaf.detached) or self.selection(False)}

    def one_with(self, condition):
        """A leaf that is so, sometimes."""
        found = [leaf.path for leaf in self.model.in_order() if condition(leaf)]
        return self.rng.choice(found) if found and self.chance(0.6) else None

    def of_untie(self):
        selection = self.one_with(lambda leaf: len(leaf.param.leaves) > 1) or self.selection()
        return {"selection": selection, "reset_state": self.chance(0.3)}

    def partner(self, transposed):
        """Two leaves that can be tied or copied; sometimes, and where there are no such, any two."""
        rng = self.rng
        leaves = self.model.in_order()
        one = other = None
        for _ in range(1 if self.chance(0.05) else 12):
            one = rng.choice(leaves)
            shape = one.shape()[::-1] if transposed else one.shape()
            alike = [leaf for leaf in leaves if leaf is not one and self.is_alike(leaf, one, shape)]
            other = rng.choice(alike or leaves)
            if alike and (not transposed or len(shape) == 2):
                break
        return one, other

    @staticmethod
    def is_alike(leaf, one, shape):
        return (leaf.shape(), leaf.param.dtype, leaf.param.kind) == (shape, one.param.dtype, one.param.kind)

    def of_tie(self):
        rng = self.rng
        if self.chance(0.1):
            a, b = rng.sample(TOPS, 2)
            leaf, to = rng.choice(((f"{a}.**.w", f"{b}.**.w"), (a, b), (f"{a}.*.3.bias", f"{b}.*.3.bias"), (f"{a}.*", f"{b}.*")))
            return {"leaf": leaf, "to": to, "view": 0, "value": rng.randrange(2)}
        transposed = self.chance(0.4) and any(len(leaf.shape()) == 2 for leaf in self.model.in_order())
        one, other = self.partner(transposed)
        return {"leaf": one.path, "to": other.path, "view": int(transposed), "value": int(self.chance(0.3))}

    def of_copy(self):
        one, other = self.partner(False)
        return {"from": one.path, "to": other.path}

    def of_regroup(self):
        selection = self.selection(self.chance(0.8))
        return {"selection": selection, "group": self.rng.choice(GROUPS + ("later",))}

    def of_adjust(self):
        group = self.rng.choice(list(self.model.groups))
        changes = self.rng.choice(ADJUSTMENTS)
        for _ in range(0 if self.chance(0.1) else 10):
            if self.fits(group, changes):
                break
            changes = self.rng.choice(ADJUSTMENTS)
        return {"group": group, "hyperparameters": changes}

    def fits(self, group, changes):
        try:
            self.model.groups[group].adjusted(changes)
        except BadExpression:
            return False
        return True

    def of_define_group(self):
        return {"name": self.rng.choice(GROUPS + ("later",)), "expression": self.rng.choice(self.rules)}

    def of_delete_group(self):
        return {"name": self.rng.choice([name for name in self.model.groups if name != "default"] or ["nosuch"])}

    def of_name_selection(self):
        name = self.rng.choice(("one", "two"))
        forget = name in self.model.selections and self.chance(0.3)
        return {"name": name, "selection": "" if forget else self.selection()}

    def of_rename(self):
        source = self.rng.choice(self.paths) if self.chance(0.6) else self.node()
        to = self.path()
        while to.startswith(source + "."):  # what is assigned on the way is not seen to go
            to = self.path()
        return {"from": source, "to": to}

    def of_add(self):
        removed = sorted(self.model.removed)
        spec = self.spec(self.rng.choice(removed) if removed and self.chance(0.5) else self.path())
        if spec["init"][0] == "follows":
            spec["init"][0] = "zeros"
        if self.available.born_tied and self.chance(0.3):
            self.make_alias(spec)
        return {"leaf": spec}

    def of_undo(self):
        """Of the last transaction, or one of some time ago: mostly one that nobody has touched the leaves of since."""
        epochs = [one.epoch for one in self.model.history[-8:]]
        return {"epoch": self.rng.choice((0, 0, *epochs[-3:], *epochs, *(epochs and (epochs[-1] + 1,))))}

    def of_remove(self):
        return {"selection": self.selection()}

    def of_reinit(self):
        init = self.init()
        if init[0] == "follows":
            init[0] = "zeros"
        return {"selection": self.selection(), "init": init}

    def of_set(self):
        path = self.rng.choice(self.paths)
        parts = path.split(".")
        node = ".".join(parts[: self.rng.randint(max(1, len(parts) - 1), len(parts))])
        below = [path for path in self.paths if path == node or path.startswith(node + ".")]
        if len(below) > 1 and self.chance(0.1):
            below.pop()
        return {"selection": node, "values": {path: self.seed() for path in below}, "reset_state": self.chance(0.3)}

    def apply(self, alone=False):
        rng = self.rng
        operations = [self.operation() for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 3, 5)))]
        if self.available.timers and self.chance(0.1):  # alone, so that nothing else is in the way
            operations = [self.timer_operation()]
        request = {
            "op": "apply",
            "operations": operations,
            "if_epoch": rng.choice((0, 0, 0, 1, -1)) if self.chance(0.15) else None,
            "dry": False,
            "key": "",
            "max_leaves": rng.choice((1, 5, 50)) if self.chance(0.05) else 0,
            "reason": f"reason {self.seed()}" if self.chance(0.2) else "",
        }
        if self.model.epoch == 1 and request["if_epoch"] == -1:
            request["if_epoch"] = None
        if alone:
            for one in request["operations"]:  # which commits have been when it comes nobody knows
                for arguments in one.values():
                    arguments.pop("at_commit", None)
                    arguments.pop("until_commit", None)
            return request
        if self.chance(0.12):
            self.after.append({**request, "if_epoch": 0})
            request["dry"] = True
        elif "undo" in self.kinds and self.chance(0.06):  # and perhaps once more, which is the transaction again
            back = {**request, "operations": [{"undo": {"epoch": 0}}], "max_leaves": 0, "if_epoch": None}
            self.after += [back] * rng.choice((1, 1, 2))
        elif self.chance(0.06):
            request["key"] = f"key {self.seed()}"
            self.after += [dict(request)] if self.chance(0.5) else [self.push(), dict(request)]
        return request
