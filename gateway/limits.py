"""What one request may ask for: depth, aliases, cost, sizes. A query that could hurt is refused before it runs.

Cost: every field 1, fields that ask a store more (COSTS), the selection of a connection times its `first`. `first` may be a
variable, so the cost is a small formula, made once per document and evaluated per request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLError,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_composite_type,
)

from gateway.errors import coded

MAX_BODY_BYTES: Final = 256 << 10
BODY_SECONDS: Final = 15.0
MAX_PARAMETERS: Final = 10
MAX_TEXT_LENGTH: Final = 64 << 10
MAX_TOKENS: Final = 4000
MAX_DEPTH: Final = 12
MAX_ALIASES: Final = 30
MAX_COST: Final = 20_000
MAX_FIRST: Final = 100
DEFAULT_FIRST: Final = 20
MAX_STEPS: Final = 2000
MAX_VARIABLE_TERMS: Final = 64
MAX_SOCKETS_PER_TENANT: Final = 200
MAX_OPERATIONS_PER_SOCKET: Final = 50
MAX_OPERATION_ID_LENGTH: Final = 128  # it goes out with every message of the operation
MAX_MESSAGE_BYTES: Final = MAX_BODY_BYTES
STORE_COST: Final = 20
_OF_STREAM: Final = {
    **dict.fromkeys(("viewers", "health", "sessions", "ingests", "rejections", "pushes", "recordings", "viewersOverTime"), 1),
    **dict.fromkeys(("pushTargets", "recordingRequests"), 1),
    "ingestTotals": 10,  # two queries, and nobody asks for those of many streams at once
}
_OF_QUERY: Final = {
    **dict.fromkeys(("streams", "rejections", "erasures", "signingKeys", "nodes", "node"), 1),
    **dict.fromkeys(("explain", "resolveViewerEndpoint", "resolveIngestEndpoint"), 5),
    **dict.fromkeys(("history", "playbackDecision", "ingestDecision"), 50),
}
COSTS: Final[Mapping[tuple[str, str], int]] = {
    **{("Stream", name): times * STORE_COST for name, times in _OF_STREAM.items()},
    **{("Query", name): times * STORE_COST for name, times in _OF_QUERY.items()},
}
ARGUMENT_COSTS: Final[Mapping[str, int]] = {"asOf": 100 * STORE_COST}
"""What an argument adds to its field: a time of the past is folded from up to 20,000 decisions, as is what `history` tells."""
INTROSPECTION_DEPTH: Final = 20


@dataclass(frozen=True, slots=True)
class Term:
    """`factor x value of the variable x inner`."""

    variable: str
    factor: int
    inner: Cost


@dataclass(frozen=True, slots=True)
class Cost:
    constant: int
    terms: tuple[Term, ...] = ()

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.constant + other.constant, self.terms + other.terms)

    def times(self, factor: int) -> Cost:
        return Cost(self.constant * factor, tuple(Term(t.variable, t.factor * factor, t.inner) for t in self.terms))

    def of(self, first: Mapping[str, int]) -> int:
        """The cost where the variables have these values; an unknown one counts as the greatest."""
        return self.constant + sum(t.factor * first.get(t.variable, MAX_FIRST) * t.inner.of(first) for t in self.terms)


@dataclass(frozen=True, slots=True)
class Measured:
    """One operation: its cost, and the values its variables have when the request gives none."""

    cost: Cost
    defaults: Mapping[str, int]

    def check(self, variables: Mapping[str, object]) -> GraphQLError | None:
        """Too costly with these variables?"""
        total = self.cost.constant
        if self.cost.terms:
            given = {k: v if 0 <= v <= MAX_FIRST else MAX_FIRST for k, v in variables.items() if type(v) is int}
            total = self.cost.of({**self.defaults, **given})
        if total <= MAX_COST:
            return None
        return coded(
            f"The query costs {total:,}, {MAX_COST:,} are allowed: ask for fewer fields or smaller pages.", "QUERY_TOO_COSTLY"
        )


def check_shape(document: DocumentNode) -> GraphQLError | None:
    """Aliases and depth, on the syntax alone: what is checked before validation, whose own time they bound."""
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    shape = _Shape(fragments)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            depth = shape.depth(definition.selection_set, ())
            limit = INTROSPECTION_DEPTH if shape.introspects(definition) else MAX_DEPTH
            if depth > limit:
                return coded(f"The query is {depth} levels deep, {limit} are allowed.", "QUERY_TOO_DEEP")
    aliases = sum(shape.aliases(d.selection_set) for d in document.definitions if isinstance(d, OperationDefinitionNode))
    aliases += sum(shape.aliases(f.selection_set) for f in fragments.values())
    if aliases > MAX_ALIASES:
        return coded(f"The query has {aliases} aliases, {MAX_ALIASES} are allowed.", "TOO_MANY_ALIASES")
    return None


class _Shape:
    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._depths: dict[str, int] = {}

    def introspects(self, operation: OperationDefinitionNode) -> bool:
        """Only introspection at the root."""
        return all(isinstance(s, FieldNode) and s.name.value.startswith("__") for s in operation.selection_set.selections)

    def depth(self, selection_set: SelectionSetNode | None, inside: tuple[str, ...]) -> int:
        deepest = 0
        for selection in selection_set.selections if selection_set else ():
            match selection:
                case FieldNode():
                    deepest = max(deepest, 1 + self.depth(selection.selection_set, inside))
                case InlineFragmentNode():
                    deepest = max(deepest, self.depth(selection.selection_set, inside))
                case FragmentSpreadNode():
                    deepest = max(deepest, self._fragment_depth(selection.name.value, inside))
        return deepest

    def _fragment_depth(self, name: str, inside: tuple[str, ...]) -> int:
        if name in inside or name not in self._fragments:
            return 0  # validation refuses both
        if name not in self._depths:
            self._depths[name] = self.depth(self._fragments[name].selection_set, (*inside, name))
        return self._depths[name]

    def aliases(self, selection_set: SelectionSetNode | None) -> int:
        count = 0
        for selection in selection_set.selections if selection_set else ():
            if isinstance(selection, FieldNode):
                count += (selection.alias is not None) + self.aliases(selection.selection_set)
            elif isinstance(selection, InlineFragmentNode):
                count += self.aliases(selection.selection_set)
        return count


def measure(schema: GraphQLSchema, document: DocumentNode) -> Mapping[str | None, Measured]:
    """Cost of every operation of a valid document, by name. Raises GraphQLError where it has too many variable terms."""
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    meter = _Meter(schema, fragments)
    out: dict[str | None, Measured] = {}
    for definition in document.definitions:
        if not isinstance(definition, OperationDefinitionNode):
            continue
        root = schema.get_root_type(definition.operation)
        assert root is not None, "a valid document"
        defaults = {
            v.variable.name.value: int(v.default_value.value)
            for v in definition.variable_definitions or ()
            if isinstance(v.default_value, IntValueNode)
        }
        out[definition.name.value if definition.name else None] = Measured(meter.cost(definition.selection_set, root), defaults)
    return out


class _Meter:
    def __init__(self, schema: GraphQLSchema, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._schema, self._fragments = schema, fragments
        self._costs: dict[str, Cost] = {}  # of fragments, so that a bomb of nested spreads is measured, not unfolded

    def cost(self, selection_set: SelectionSetNode, parent: GraphQLCompositeType) -> Cost:
        total = Cost(0)
        for selection in selection_set.selections:
            match selection:
                case FieldNode():
                    total += self._field(selection, parent)
                case InlineFragmentNode():
                    condition = selection.type_condition
                    total += self.cost(selection.selection_set, self._type(condition.name.value) if condition else parent)
                case FragmentSpreadNode():
                    total += self._fragment(selection.name.value)
            if len(total.terms) > MAX_VARIABLE_TERMS:
                raise coded("The query has too many pages whose size is a variable.", "QUERY_TOO_COSTLY")
        return total

    def _fragment(self, name: str) -> Cost:
        if name not in self._costs:
            fragment = self._fragments[name]
            self._costs[name] = self.cost(fragment.selection_set, self._type(fragment.type_condition.name.value))
        return self._costs[name]

    def _type(self, name: str) -> GraphQLCompositeType:
        found = self._schema.type_map[name]
        assert is_composite_type(found), "a valid document"
        return found

    def _field(self, node: FieldNode, parent: GraphQLCompositeType) -> Cost:
        extra = sum(ARGUMENT_COSTS.get(argument.name.value, 0) for argument in node.arguments or ())
        own = Cost(COSTS.get((parent.name, node.name.value), 1) + extra)
        if node.selection_set is None or node.name.value.startswith("__"):
            return own
        assert isinstance(parent, GraphQLObjectType | GraphQLInterfaceType), "a valid document"
        field = parent.fields[node.name.value]
        named = get_named_type(field.type)
        assert is_composite_type(named), "a valid document"
        return own + self._repeated(node, field, self.cost(node.selection_set, named))

    @staticmethod
    def _repeated(node: FieldNode, field: GraphQLField, inner: Cost) -> Cost:
        if "first" not in field.args:
            return inner
        given = next((a.value for a in node.arguments or () if a.name.value == "first"), None)
        match given:
            case IntValueNode(value=text):
                return inner.times(min(max(int(text), 1), MAX_FIRST))
            case VariableNode():
                return Cost(0, (Term(given.name.value, 1, inner),))
            case _:
                return inner.times(DEFAULT_FIRST)
