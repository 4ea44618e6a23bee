"""What the log of `linear` says; linear.c, worker.c and operator.c say what its lines are."""

from array import array
from dataclasses import dataclass, field


@dataclass
class Apply:
    operator: int
    start: int
    end: int
    epoch: int
    commit: int  # 0: it changed nothing
    operations: list
    changes: list  # of (path, field, from, to)

    def __str__(self):
        return f"operator {self.operator}'s {self.operations} (commit {self.commit}, epoch {self.epoch})"


class Pushes:
    """Columns: there may be millions."""

    NAMES = "worker number start end epoch commit applied frozen detached absent named sent".split()

    def __init__(self):
        self.columns = [array("q") for _ in self.NAMES]
        for name, column in zip(self.NAMES, self.columns):
            setattr(self, name, column)

    def __len__(self):
        return len(self.commit)

    def add(self, words):
        for column, word in zip(self.columns[:10], words, strict=False):
            column.append(int(word))
        self.named.append(int(words[10], 16))
        self.sent.append(int(words[11], 16))

    def text(self, i):
        return f"push {self.number[i]} of worker {self.worker[i]} (commit {self.commit[i]}, epoch {self.epoch[i]})"


@dataclass
class Leaf:
    path: str
    dtype: str
    rows: int
    cols: int
    param: int
    transposed: bool = False


@dataclass
class Log:
    leaves: list = field(default_factory=list)
    pushes: Pushes = field(default_factory=Pushes)
    applies: list = field(default_factory=list)
    values: dict = field(default_factory=dict)  # path: (parameter, transposed, numbers)
    begin: tuple = ()  # epoch, commit
    end: tuple = ()

    def add(self, line):
        kind, *words = line.rstrip("\n").split("\t")
        if kind == "push":
            self.pushes.add(words)
        elif kind == "apply":
            texts = words[6:]
            changes = list(zip(texts[0::4], texts[1::4], texts[2::4], texts[3::4], strict=True))
            self.applies.append(Apply(*map(int, words[:5]), words[5].split("; "), changes))
        elif kind == "leaf":
            self.leaves.append(Leaf(words[0], words[1], *map(int, words[2:])))
        elif kind == "value":
            self.values[words[0]] = (int(words[1]), words[2] == "1", list(map(float, words[3:])))
        elif kind in ("begin", "end"):
            setattr(self, kind, tuple(map(int, words)))
        else:
            raise ValueError(f"not a line of a log: {line!r}")


def read(path):
    log = Log()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            log.add(line)
    return log


def figures(log):
    """What there was, for people: {name: number}."""
    seconds = (max(log.pushes.end) - min(log.pushes.start)) / 1e9
    numbers = {"seconds": round(seconds, 1), "pushes": len(log.pushes), "pushes a second": len(log.pushes) / seconds}
    numbers["transactions"] = len(log.applies)
    numbers["transactions a second"] = len(log.applies) / seconds
    numbers["transactions that changed something"] = sum(apply.commit > 0 for apply in log.applies)
    for name in "applied", "frozen", "detached", "absent":
        numbers[f"leaves {name}"] = sum(getattr(log.pushes, name))
    numbers["leaves not sent"] = sum((a & ~b).bit_count() for a, b in zip(log.pushes.named, log.pushes.sent))
    for apply in log.applies:
        for operation in apply.operations if apply.commit else ():
            name = "in those, " + operation.split()[0]
            numbers[name] = numbers.get(name, 0) + 1
    return numbers
