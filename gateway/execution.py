"""Executes GraphQL as graphql-core does, faster where a field is only an attribute.

graphql-core spends 10 to 15 µs on every field: resolve info, path, argument values, checks for awaitables. Fields that read an
attribute of a row need none of it. For a selection, the executor makes a plan and applies it to every row; other fields of the
same row go the ordinary way. A document without directives means the same every time, so its plans are kept with it
(gateway/documents.py) and handed in through the context; with @skip or @include they are made anew for every execution.

Invariant: the result is the ordinary executor's. A plan that raises (a null where none may be, a value that a scalar refuses) is
dropped for that row, which then goes the ordinary way, so errors are located as the specification says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast
from uuid import UUID

from graphql import (
    Executor,
    GraphQLField,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)

PLAIN: Final = "plain"
"""Key in a field's `extensions`: a function from the source object to the field's value, without arguments or side effects."""

Row = Mapping[str, Any]
Complete = Callable[[Any], Any]


class _NullNotAllowed(Exception):
    pass


class _Plan:
    """What to do with every row of one selection: fast fields here, the names of all in order, the rest as they were."""

    __slots__ = ("fast", "names", "slow")

    def __init__(self, selection: Mapping[str, Any]) -> None:
        self.fast: list[tuple[str, Complete]] = []
        self.slow: dict[str, Any] = {}
        self.names = tuple(selection)

    def row(self, source: object) -> dict[str, Any]:
        return {name: complete(source) for name, complete in self.fast}


PlanKey = tuple[str | int, ...]
"""Type and syntax nodes of a selection. Ids of nodes are safe here: the plans live in the document that has the nodes."""
Plans = dict[PlanKey, _Plan]


class FastExecutor(Executor[Any]):
    """An Executor whose plain fields cost an attribute access."""

    _plans: Plans

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = getattr(self.context_value, "plans", None)
        self._plans = {} if known is None else known

    def collect_and_execute_subfields(
        self, return_type: GraphQLObjectType, field_details_list: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        key: PlanKey = (return_type.name, *[id(details.node) for details in field_details_list])
        plan = self._plans.get(key)
        if plan is None:
            selection = self.collect_subfields(return_type, field_details_list).grouped_field_set
            plan = self._plans[key] = self._plan(return_type, selection)
        if not plan.fast:
            return self.execute_fields(return_type, result, path, plan.slow, None)
        try:
            done = plan.row(result)
        except Exception:  # noqa: BLE001 - the ordinary way finds the same error and says where it is
            return super().collect_and_execute_subfields(return_type, field_details_list, path, result, position_context)
        if not plan.slow:
            return done
        rest = self.execute_fields(return_type, result, path, plan.slow, None)
        if self.is_awaitable(rest):
            return _merged_later(plan.names, done, rest)
        return _merged(plan.names, done, cast(Row, rest))

    def _plan(self, parent_type: GraphQLObjectType, selection: Mapping[str, Any]) -> _Plan:
        plan = _Plan(selection)
        for name, details in selection.items():
            complete = self._fast(parent_type, details)
            if complete is None:
                plan.slow[name] = details
            else:
                plan.fast.append((name, complete))
        return plan

    def _fast(self, parent_type: GraphQLObjectType, details: Any) -> Complete | None:
        """A function from the parent's object to the completed field; None where it must go the ordinary way."""
        node = details[0].node
        if node.name.value == "__typename":
            type_name = parent_type.name
            return lambda _: type_name
        field: GraphQLField | None = self.schema.get_field(parent_type, node.name.value)
        get = field.extensions.get(PLAIN) if field is not None else None
        if field is None or get is None or self.middleware_manager is not None:
            return None
        if (fused := _FUSED.get(str(field.type))) is not None:
            return fused(get)
        complete = self._completed(field.type, details)
        return None if complete is None else lambda source: complete(get(source))

    def _completed(self, kind: GraphQLOutputType, details: Any) -> Complete | None:
        """A function that completes a value of this type; None where a part of it must go the ordinary way."""
        if is_non_null_type(kind):
            inner = self._completed(kind.of_type, details)
            return None if inner is None else _not_null(inner)
        if is_leaf_type(kind):
            return _text if isinstance(kind, GraphQLScalarType) and kind.name == "String" else _nullable(kind.coerce_output_value)
        if is_list_type(kind):
            inner = self._completed(kind.of_type, details)
            return None if inner is None else _each(inner)
        if is_object_type(kind) and kind.is_type_of is None:
            plan = self._plan(kind, self.collect_subfields(kind, details).grouped_field_set)
            return None if plan.slow else _nullable(plan.row)
        return None


def _not_null(inner: Complete) -> Complete:
    def complete(value: Any) -> Any:
        done = inner(value)
        if done is None:
            raise _NullNotAllowed
        return done

    return complete


def _nullable(inner: Complete) -> Complete:
    return lambda value: None if value is None else inner(value)


def _each(inner: Complete) -> Complete:
    return lambda values: None if values is None else [inner(value) for value in values]


def _text(value: Any) -> Any:
    """String: by far the most values are one already."""
    if value is None or type(value) is str:
        return value
    raise TypeError


# The most frequent fields in one call each: what is not exactly the expected type goes the ordinary way.


def _text_field(get: Complete) -> Complete:
    def complete(source: Any) -> Any:
        value = get(source)
        if type(value) is str:
            return value
        raise TypeError

    return complete


def _id_field(get: Complete) -> Complete:
    def complete(source: Any) -> Any:
        value = get(source)
        if isinstance(value, UUID):
            return str(value)
        if type(value) is str:
            return value
        raise TypeError

    return complete


def _truth_field(get: Complete) -> Complete:
    def complete(source: Any) -> Any:
        value = get(source)
        if value is True or value is False:
            return value
        raise TypeError

    return complete


_FUSED: Final[Mapping[str, Callable[[Complete], Complete]]] = {
    "String!": _text_field,
    "ID!": _id_field,
    "Boolean!": _truth_field,
}


def _merged(names: tuple[str, ...], done: Row, rest: Row) -> dict[str, Any]:
    """Fields in the order of the selection, as the specification wants them."""
    return {name: done[name] if name in done else rest[name] for name in names}


async def _merged_later(names: tuple[str, ...], done: Row, rest: Awaitable[Row]) -> dict[str, Any]:
    return _merged(names, done, await rest)
