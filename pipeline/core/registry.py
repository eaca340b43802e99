"""Named extensions: one readable list per kind, which installed packages can add to through entry points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from pipeline.core.errors import UsageError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps a name to an extension, written as `"module:attribute"` so that it is imported only when used.

    Packages add theirs under the entry-point group `edge_pipeline.<kind>`; a name can be taken only once.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self._builtin = dict(builtin)

    @cached_property
    def _locations(self) -> dict[str, str]:
        found = dict(self._builtin)
        for point in entry_points(group=f"edge_pipeline.{self.kind}"):
            if point.name in found:
                raise UsageError(
                    f"{self.kind} {point.name!r} is registered twice: {found[point.name]} and {point.value}.",
                    "Uninstall one of the two packages, or rename one of the entry points.",
                )
            found[point.name] = point.value
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __contains__(self, name: str) -> bool:
        return name in self._locations

    def get(self, name: str) -> T:
        """The extension called `name`; UsageError naming the alternatives if there is none."""
        if name not in self._locations:
            raise UsageError(f"Unknown {self.kind} {name!r}.", suggest(name, self._locations))
        return load_attribute(self._locations[name])


def load_attribute(location: str) -> T:  # type: ignore[type-var]  # the caller knows what it asks for
    """Import `"package.module:attribute"`."""
    module, _, attribute = location.partition(":")
    return getattr(import_module(module), attribute)
