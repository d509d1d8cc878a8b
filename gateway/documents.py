"""Query texts, parsed, validated and measured once.

Invariant: what is remembered hangs on the text and on the schema that this cache was made for, never on an object's id. The
cache is bounded by entries and by characters, and remembers refusals too, so a bad query costs its validation once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    parse,
    validate,
)
from graphql.validation.rules import overlapping_fields_can_be_merged
from graphql.validation.validate import ValidationAbortedError

from gateway.errors import coded, with_code
from gateway.execution import Plans
from gateway.limits import MAX_TEXT_LENGTH, MAX_TOKENS, Measured, check_shape, measure

MAX_ENTRIES: Final = 2000
MAX_CHARACTERS: Final = 8 << 20
MAX_ERRORS: Final = 20
MAX_COMPARISONS: Final = 20_000  # of fields with one name: introspection needs 500; graphql-core's own limit takes a second


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query text, ready to run; or the reasons why it never will."""

    document: DocumentNode | None
    errors: tuple[GraphQLError, ...]
    measured: Mapping[str | None, Measured]
    kinds: Mapping[str | None, OperationType]
    plans: Plans | None = None  # how selections are executed; None where directives make that different every time

    def kind(self, operation_name: str | None) -> OperationType | None:
        """Query, mutation or subscription; None where the name says nothing clear (the executor answers that)."""
        if operation_name is None and len(self.kinds) == 1:
            return next(iter(self.kinds.values()))
        return self.kinds.get(operation_name)

    def too_costly(self, operation_name: str | None, variables: Mapping[str, object]) -> GraphQLError | None:
        if operation_name is None and len(self.measured) == 1:
            return next(iter(self.measured.values())).check(variables)
        found = self.measured.get(operation_name)
        return found.check(variables) if found else None


class Documents:
    """Bounded cache of prepared documents for one schema; the longest unused goes first."""

    def __init__(self, schema: GraphQLSchema, max_entries: int = MAX_ENTRIES, max_characters: int = MAX_CHARACTERS) -> None:
        overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = MAX_COMPARISONS  # read whenever a validation begins
        self._schema = schema
        self._max_entries, self._max_characters = max_entries, max_characters
        self._known: OrderedDict[str, Prepared] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._known)

    def prepared(self, text: str) -> Prepared:
        known = self._known.get(text)
        if known is not None:
            self._known.move_to_end(text)
            return known
        if len(text) > MAX_TEXT_LENGTH:
            return _refused(coded(f"The query has more than {MAX_TEXT_LENGTH:,} characters.", "QUERY_TOO_LONG"))
        fresh = prepare(self._schema, text)
        self._known[text] = fresh
        self._characters += len(text)
        while len(self._known) > self._max_entries or self._characters > self._max_characters:
            forgotten, _ = self._known.popitem(last=False)
            self._characters -= len(forgotten)
        return fresh


def _refused(*errors: GraphQLError) -> Prepared:
    return Prepared(None, errors, {}, {})


def _for_client(error: GraphQLError) -> GraphQLError:
    """The error as clients see it: a number of 5,000 digits, over which a scalar's parser fails, is their mistake, not ours."""
    if isinstance(error, ValidationAbortedError):
        return GraphQLError("The query repeats its fields or fragments too often, or has too many mistakes: make it simpler.")
    if error.original_error is None or isinstance(error.original_error, GraphQLError):
        return error
    return GraphQLError("A value in the query does not fit its type.", error.nodes)


def prepare(schema: GraphQLSchema, text: str) -> Prepared:
    """Parses, checks the shape, validates, measures: in the order of their costs."""
    try:
        document = parse(text, max_lexical_tokens=MAX_TOKENS, max_comments=MAX_TOKENS)
        if (error := check_shape(document)) is not None:
            return _refused(error)
        errors = validate(schema, document, max_errors=MAX_ERRORS)
        if errors:
            return _refused(*(with_code(_for_client(e), "GRAPHQL_VALIDATION_FAILED") for e in errors))
        measured = measure(schema, document)
    except RecursionError:
        return _refused(coded("The query is nested too deeply.", "QUERY_TOO_DEEP"))
    except GraphQLSyntaxError as error:
        return _refused(with_code(error, "GRAPHQL_PARSE_FAILED"))
    except GraphQLError as error:
        return _refused(error)
    kinds = {
        d.name.value if d.name else None: d.operation for d in document.definitions if isinstance(d, OperationDefinitionNode)
    }
    return Prepared(document, (), measured, kinds, None if "@" in text else {})
