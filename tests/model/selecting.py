"""Selectors by the comment on esp_select in server/tree/tree.h, read naively: every leaf is asked about every term."""

import functools
import re

WORDS = ("frozen", "tied", "detached")
NUMBERS = {"=": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
TOKEN = re.compile(
    r"\s*(?:(?P<operator>[&|!()])"
    r"|(?P<number>(?:rank|size)\s*(?:<=|>=|!=|=|<|>|:)\s*\d+)"
    r"|tag:(?P<tag>[^\s&|!()>]+)(?:\s*>\s*(?P<child>[^\s&|!()]+))?"
    r"|(?P<key>name|group|dtype|kind):(?P<value>[^\s&|!()]+)"
    r"|@(?P<named>[^\s&|!()]+)"
    r"|(?P<path>[^\s&|!()]+))"
)


class BadSelector(Exception):
    """INVALID_ARGUMENT."""


@functools.lru_cache(maxsize=4096)
def component(pattern):
    """A regular expression of one component of a pattern."""
    out = ""
    for piece in re.findall(r"\*|\{[^}]*\}|\[[^\]]*\]|[^*{\[]+", pattern):
        if piece == "*":
            out += r"[^.]*"
        elif piece[0] == "{":
            out += "(?:" + "|".join(map(re.escape, piece[1:-1].split(","))) + ")"
        elif piece[0] == "[":
            ends = piece[1:-1].split("-")
            first, last = sorted(map(int, ends))
            digits = len(ends[0]) if len(ends[0]) == len(ends[-1]) else 0
            out += "(?:" + "|".join(f"{i:0{digits}}" for i in range(first, last + 1)) + ")"
        else:
            out += re.escape(piece)
    return re.compile(out)


def matches(parts, pattern):
    """Whether components match a pattern's components, ** being any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and bool(component(pattern[0]).fullmatch(parts[0])) and matches(parts[1:], pattern[1:])


def under(parts, pattern):
    """Whether a leaf, or a node above it, matches."""
    pattern = pattern.split(".")
    return any(matches(parts[:i], pattern) for i in range(1, len(parts) + 1))


class Parser:
    def __init__(self, model, text, within=()):
        self.model = model
        self.within = within  # names of the selections that are being read
        self.tokens = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = TOKEN.match(text, at)
            if not match:
                raise BadSelector(text)
            self.tokens.append(match)
            at = match.end()

    def take(self, operator):
        if self.tokens and self.tokens[0]["operator"] == operator:
            return self.tokens.pop(0)
        return None

    def whole(self):
        found = self.any_of()
        if self.tokens:
            raise BadSelector("more")
        return found

    def any_of(self):
        terms = [self.all_of()]
        while self.take("|"):
            terms.append(self.all_of())
        return lambda leaf: any([term(leaf) for term in terms])

    def all_of(self):
        terms = [self.term()]
        while self.take("&"):
            terms.append(self.term())
        return lambda leaf: all([term(leaf) for term in terms])

    def term(self):
        if self.take("!"):
            inner = self.term()
            return lambda leaf: not inner(leaf)
        if self.take("("):
            inner = self.any_of()
            if not self.take(")"):
                raise BadSelector("parenthesis")
            return inner
        if not self.tokens or self.tokens[0]["operator"]:
            raise BadSelector("term")
        return self.atom(self.tokens.pop(0))

    def atom(self, token):
        model = self.model
        if token["number"]:
            name, how, number = re.fullmatch(r"(\w+)\s*(\W+?)\s*(\d+)", token["number"]).groups()
            compare = NUMBERS["=" if how == ":" else how]
            size = (lambda leaf: len(leaf.shape())) if name == "rank" else (lambda leaf: leaf.param.value.size)
            return lambda leaf: getattr(size(leaf), compare)(int(number))
        if token["tag"]:
            return lambda leaf: tagged(model, leaf, token["tag"], token["child"])
        if token["key"]:
            return self.keyed(token["key"], token["value"])
        if token["named"]:
            name = token["named"]
            if name in self.within or name not in model.selections:
                raise BadSelector(name)
            return Parser(model, model.selections[name], (*self.within, name)).whole()
        text = token["path"]
        if text in WORDS:
            return {
                "frozen": lambda leaf: leaf.param.frozen,
                "tied": lambda leaf: len(leaf.param.leaves) > 1,
                "detached": lambda leaf: leaf.detached,
            }[text]
        return lambda leaf: under(leaf.parts, text)

    def keyed(self, key, value):
        pattern = component(value)
        if key == "name":
            return lambda leaf: any(pattern.fullmatch(part) for part in leaf.parts)
        if key == "group":
            return lambda leaf: any(pattern.fullmatch(name) for name in self.model.groups_named(leaf.param))
        if key == "dtype":
            return lambda leaf: bool(pattern.fullmatch(leaf.param.dtype))
        return lambda leaf: bool(pattern.fullmatch(leaf.param.kind))


def tagged(model, leaf, tag, child):
    """Whether the leaf has the tag or is under a node that has it; with a child, whether it is under that of such a
    node."""
    pattern = component(tag)
    nodes = [(i, model.tags.get(".".join(leaf.parts[:i]))) for i in range(len(leaf.parts))]
    places = [i for i, found in nodes if found and pattern.fullmatch(found)]
    if leaf.tag and pattern.fullmatch(leaf.tag):
        places.append(len(leaf.parts))
    if child is None:
        return bool(places)
    return any(under(leaf.parts[i:], child) for i in places)


def is_path(text):
    """Whether it is a plain path, of a node or a leaf."""
    return text not in WORDS and re.fullmatch(r"[^*?{}\[\]()&|!:<>=@,\s]+", text) is not None


class Nothing:
    """A model to check syntax with: each named selection is one that matches nothing."""

    class selections(dict):
        def __contains__(self, name):
            return True

        def __getitem__(self, name):
            return "x"

    selections = selections()


def check(text):
    """BadSelector, as far as can be told without a tree."""
    Parser(Nothing(), text).whole()


def check_circle(model, name, text):
    """BadSelector where what it names leads back to it."""
    met, texts = set(), [text]
    while texts:
        named = set(re.findall(r"@\s*([^\s()&|!:<>=@]+)", texts.pop()))
        if name in named:
            raise BadSelector(name)
        texts += [model.selections[one] for one in named - met if one in model.selections]
        met |= named


def select(model, text):
    """The leaves, in path order; perhaps none."""
    if text == "":
        return model.in_order()
    matcher = Parser(model, text).whole()
    return [leaf for leaf in model.in_order() if matcher(leaf)]
