"""The data set as a tree: rows by system prompt, by template, then by likeness, down to a handful."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ft_audit.agent.row_clusters import cluster, text_vectors
from ft_audit.errors import UserError

NodeKind = Literal["all", "system_prompt", "template", "cluster"]
ROOT = "all"
SMALLEST = 12
"""A node of fewer rows has no children: they are read one by one."""
PART_CHARACTERS = 300
"""Of a row's question and of its answer, by which rows are alike."""
NUM_TYPICAL, NUM_WORDS = 3, 6
SAMPLE = 400


class NodeError(UserError):
    """A node that the tree does not have."""


@dataclass(frozen=True, slots=True)
class Node:
    """Some rows of the data set, by their places in it, and what they share."""

    id: str
    kind: NodeKind
    places: tuple[int, ...]
    typical: tuple[int, ...]
    """The most alike to the others first; the first rows where likeness was not looked at."""
    system: str | None = None
    template: str | None = None
    mixed: bool = False
    """Whether the rows have system prompts that no two of them share."""


@dataclass(slots=True)
class DataTree:
    """The tree over a data set's records; a node is split when it is first asked for its children."""

    records: Sequence[Mapping[str, Any]]
    described: dict[tuple[str, bool], Any] = field(default_factory=dict)
    """What a reader has said of nodes, by id and by whether it was asked for or a part of one that was."""
    _nodes: dict[str, Node] = field(default_factory=dict)
    _children: dict[str, tuple[Node, ...]] = field(default_factory=dict)

    def node(self, name: str) -> Node:
        """Return a node by its id; NodeError where there is none."""
        if not self._nodes:
            places = tuple(range(len(self.records)))
            self._nodes[ROOT] = Node(ROOT, "all", places, places[:NUM_TYPICAL])
        parent, _, _ = name.rpartition("/")
        if name not in self._nodes and parent:
            self.children(self.node(parent))
        if name not in self._nodes:
            raise NodeError(f"no node {name!r}: begin at {ROOT!r} and take the ids of its children")
        return self._nodes[name]

    def children(self, node: Node) -> tuple[Node, ...]:
        """Return the parts of a node, the largest first; each of its rows is in one. None where it is small,
        or all its rows are alike."""
        if node.id not in self._children:
            found = self._split(node) if len(node.places) >= SMALLEST else []
            self._children[node.id] = tuple(found) if len(found) > 1 else ()
            self._nodes |= {child.id: child for child in self._children[node.id]}
        return self._children[node.id]

    def words(self, node: Node, parent: Node) -> list[str]:
        """Return the words that more of a node's rows hold than of its parent's others."""
        inside = set(node.places)
        others = [place for place in parent.places if place not in inside]
        here, there = (self._shares(places) for places in (node.places, others))
        lift = {word: share - there.get(word, 0.0) for word, share in here.items()}
        return sorted((w for w in lift if lift[w] > 0), key=lambda w: (-lift[w], w))[:NUM_WORDS]

    def _split(self, node: Node) -> list[Node]:
        """Split by the first of system prompt, template and likeness that tells the rows apart."""
        if node.kind == "all":
            by_system = self._groups(node.places, "system")
            if len(by_system) > 1:
                return self._by_system(node, by_system)
        if node.kind in ("all", "system_prompt"):
            by_template = self._groups(node.places, "condition")
            if len(by_template) > 1:
                ordered = sorted(by_template.items(), key=lambda item: (-len(item[1]), item[0] or ""))
                return [
                    self._child(node, f"t{n}", "template", places, template=template)
                    for n, (template, places) in enumerate(ordered)
                ]
        return self._by_likeness(node)

    def _by_system(self, node: Node, groups: Mapping[str | None, list[int]]) -> list[Node]:
        shared = {key: places for key, places in groups.items() if key is None or len(places) > 1}
        ordered = sorted(shared.items(), key=lambda item: (-len(item[1]), item[0] or ""))
        found = [
            self._child(node, f"s{n}", "system_prompt", places, system=system)
            for n, (system, places) in enumerate(ordered)
        ]
        single = sorted(places[0] for key, places in groups.items() if key not in shared)
        if single:
            found.append(self._child(node, "s-own", "system_prompt", single, mixed=True))
        return sorted(found, key=lambda child: -len(child.places))

    def _by_likeness(self, node: Node) -> list[Node]:
        vector_RB = text_vectors([self._spoken(place) for place in node.places])
        chosen_R, nearness_R = cluster(vector_RB)
        places_R = np.array(node.places)
        found = []
        for number in range(int(chosen_R.max()) + 1):
            inside = np.flatnonzero(chosen_R == number)
            if len(inside):
                near = inside[np.argsort(-nearness_R[inside], kind="stable")][:NUM_TYPICAL]
                found.append(
                    self._child(
                        node,
                        f"c{number}",
                        "cluster",
                        places_R[inside].tolist(),
                        typical=tuple(places_R[near].tolist()),
                    )
                )
        return found

    def _child(self, node: Node, name: str, kind: NodeKind, places: Sequence[int], **more: Any) -> Node:
        inherited = {"system": node.system, "template": node.template, "mixed": node.mixed}
        typical = {"typical": tuple(places[:NUM_TYPICAL])}
        return Node(f"{node.id}/{name}", kind, tuple(places), **{**inherited, **typical, **more})

    def _groups(self, places: Sequence[int], column: str) -> dict[str | None, list[int]]:
        found: dict[str | None, list[int]] = {}
        for place in places:
            found.setdefault(self.records[place][column], []).append(place)
        return found

    def _spoken(self, place: int) -> str:
        """Return the start of a row's last question and of its answer."""
        before, _, answer = str(self.records[place]["text"]).rpartition("\nassistant: ")
        question = before.rpartition("user: ")[2]
        return f"{question[:PART_CHARACTERS]} {answer[:PART_CHARACTERS]}"

    def _shares(self, places: Sequence[int]) -> dict[str, float]:
        """Return in what share of rows each word is; of many rows, of a sample spread evenly."""
        if not places:
            return {}
        step = max(len(places) // SAMPLE, 1)
        seen = places[::step]
        counts = Counter(word for place in seen for word in set(self._spoken(place).split()))
        return {word: count / len(seen) for word, count in counts.items()}
