"""Named extensions: one readable list per kind, which installed packages can add to through entry points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from traceback import walk_tb
from typing import Generic, NamedTuple, TypeVar

from pipeline.core.errors import UsageError, first_line, suggest
from pipeline.core.memory import is_out_of_memory

T = TypeVar("T")

GROUPS = "edge_pipeline"
"""What entry-point groups begin with: `edge_pipeline.pass`, `edge_pipeline.scheme`, ..."""


class _Place(NamedTuple):
    """Where an extension is written: `location` is `"module:attribute"`; `package` and `version` are those of the
    installed distribution that adds it, empty for this project's own."""

    location: str
    package: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.location} of the package {self.package} {self.version}" if self.package else self.location


class Registry(Generic[T]):
    """Maps a name to an extension, written as `"module:attribute"` so that it is imported only when used.

    Packages add theirs under the entry-point group `edge_pipeline.<kind>`. One that cannot be used (its import fails,
    it lacks a part, its name is taken) is an error for whoever asks for that name, and for nobody else.

    Args:
        kind: The last part of the group's name.
        builtin: Name -> location of this project's own extensions.
        words: What messages call an extension, if not by its kind.
        parts: Attributes that every extension has. Those of packages are asked for them, since nothing else has.
        locations: Those of `parts` that are locations themselves, imported much later than the extension.
    """

    def __init__(
        self,
        kind: str,
        builtin: Mapping[str, str],
        words: str = "",
        parts: Sequence[str] = (),
        locations: Sequence[str] = (),
    ) -> None:
        if not kind.isidentifier():
            raise ValueError(f"{kind!r} cannot be part of an entry-point group: letters, digits and underscores can.")
        self.kind, self.words = kind, words or kind
        self._builtin = dict(builtin)
        self.parts, self._locations = parts, locations

    @cached_property
    def _places(self) -> dict[str, list[_Place]]:
        """By name, its place; several where the name was taken already."""
        found = defaultdict(list, {name: [_Place(location)] for name, location in self._builtin.items()})
        for point in entry_points(group=f"{GROUPS}.{self.kind}"):
            found[point.name].append(_place(point))
        return dict(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def get(self, name: str) -> T:
        """The extension called `name`. UsageError if there is none (naming the alternatives) or several, or if a
        package's cannot be imported or lacks a part."""
        place = self._place(name)
        return self._from_package(name, place) if place.package else load_attribute(place.location)

    def require(self, name: str) -> None:
        """The errors of `get`, without the import of an extension of our own: these are known to work."""
        place = self._place(name)
        if place.package:
            self._from_package(name, place)

    def member(self, name: str) -> str:
        """The name of a usable extension, as a config's validator: ValueError for an unknown one."""
        if name not in self:
            raise ValueError(f"unknown {self.words} {name!r}. {suggest(name, self)}")
        self.require(name)
        return name

    def survey(self) -> Iterator[tuple[str, T | UsageError]]:
        """Every name with its extension, or with what is wrong with it."""
        for name in self:
            try:
                yield name, self.get(name)
            except UsageError as error:
                yield name, error

    def usable(self) -> dict[str, T]:
        """The extensions that work, by name."""
        return {name: found for name, found in self.survey() if not isinstance(found, UsageError)}

    def packages(self, *names: str) -> tuple[str, ...]:
        """The distributions that extensions are from, where they are not from this project: their versions may change
        what is made with them."""
        return tuple(dict.fromkeys(place.package for name in names if (place := self._place(name)).package))

    def where(self, name: str) -> str:
        """Where the extension is written, and of which package, for messages."""
        return " and ".join(map(str, self._places[name]))

    def _place(self, name: str) -> _Place:
        if name not in self:
            raise UsageError(f"Unknown {self.words} {name!r}.", suggest(name, self))
        if len(self._places[name]) > 1:
            raise registered_twice(f"{self.words} {name!r}", self.where(name))
        return self._places[name][0]

    def _from_package(self, name: str, place: _Place) -> T:
        who = f"The {self.words} {name!r} of the package {place.package} {place.version}"
        found: T = _load(place.location, who)
        lacking = [part for part in self.parts if not hasattr(found, part)]
        lacking += sorted(set(getattr(found, "__abstractmethods__", ())).difference(lacking))
        if lacking:
            raise UsageError(f"{who} has no {', '.join(lacking)}.", _remedy(place.package))
        for part in self._locations:
            _: object = _load(getattr(found, part), who)
        return found


def registered_twice(what: str, where: str) -> UsageError:
    """Nobody can tell which of two extensions of one name was meant."""
    return UsageError(
        f"{what} is registered twice: {where}.",
        "Uninstall one of the packages, or rename its entry point. All else works as before.",
    )


def load_attribute(location: str) -> T:  # type: ignore[type-var]  # the caller knows what it asks for
    """Import `"package.module:attribute"`."""
    module, _, attribute = location.partition(":")
    return getattr(import_module(module), attribute)


def package_raising(error: BaseException) -> str:
    """The name and version of the installed package that adds extensions and whose code raised the error; empty if it
    was that of none."""
    adding = {
        point.module.partition(".")[0]: _place(point)
        for group in entry_points().groups
        if group.startswith(f"{GROUPS}.")
        for point in entry_points(group=group)
    }
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    having = [place for module in modules if (place := adding.get(module.partition(".")[0])) is not None]
    return f"{having[-1].package} {having[-1].version}" if having else ""


def _place(point: EntryPoint) -> _Place:
    if point.dist is None:  # a finder of the user's own that does not say
        return _Place(point.value, "(unknown)")
    return _Place(point.value, point.dist.name, point.dist.version)


def _load(location: str, who: str) -> T:  # type: ignore[type-var]  # as load_attribute
    """What a package wrote; UsageError that begins with `who` for whatever its code raises."""
    try:
        return load_attribute(location)
    except (Exception, SystemExit) as error:  # other people's code at import: it may raise anything
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"{who} cannot be loaded from {location}: {type(error).__name__}: {first_line(error)}",
            "Repair the package or uninstall it. All that does not ask for this name works as before.",
        ) from error


def _remedy(package: str) -> str:
    return f"docs/extending.md says what it needs. Repair {package} or uninstall it; all else works as before."
