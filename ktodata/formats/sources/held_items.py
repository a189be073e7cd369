"""What was pulled so far, read from the pages alone: of each thing its last version, and how many there were before it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from ktodata.formats.times import moment

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Feed:
    """One kind of thing that a service hands out in pages, such as scores.

    items : those in the body of a page; key : what tells one from another
    updated : fields of its last change, the first that is there counts
    content : what of it says something; another value of the rest ("2 minutes ago") is no change
    """

    items: Callable[[Any], Iterable[Item]]
    key: Callable[[Item], Any] = itemgetter("id")
    updated: tuple[str, ...] = ()
    content: Callable[[Item], Any] = dict


# pages that only help to find others: a project's id by its name
LOOK_UP = Feed(lambda body: ())


@dataclass
class HeldItems:
    """The last version of everything, by feed and key; `earlier` are the versions that a later one took the place of."""

    feeds: Mapping[str, Feed]
    current: dict[str, dict[str, Item]] = field(default_factory=dict)
    earlier: list[dict[str, Any]] = field(default_factory=list)
    changed_in: dict[str, dict[str, int]] = field(default_factory=dict)

    def take(self, feed: str, body: Any, pull: int) -> None:
        """Add what a page of pull number `pull` holds."""
        kind = self.feeds[feed]
        items, changed = self.current.setdefault(feed, {}), self.changed_in.setdefault(feed, {})
        for item in kind.items(body):
            key = str(kind.key(item))
            before = items.get(key)
            if before is not None and kind.content(before) == kind.content(item):
                continue
            last, replaced = (before, item) if before and _is_older(item, before, kind.updated) else (item, before)
            if replaced is not None:
                self.earlier.append({"feed": feed, "id": key, "version": replaced})
            if last is item:
                items[key], changed[key] = item, pull

    def of(self, feed: str) -> Mapping[str, Item]:
        """The last versions of a feed's things, by key."""
        return self.current.get(feed, {})

    def changed(self, feed: str, pull: int) -> list[Item]:
        """What is new or changed since pull number `pull` began."""
        return [self.current[feed][key] for key, number in self.changed_in.get(feed, {}).items() if number == pull]


def _is_older(item: Item, other: Item, fields: tuple[str, ...]) -> bool:
    times = [moment(next((thing[name] for name in fields if thing.get(name) is not None), None)) for thing in (item, other)]
    return times[0] is not None and times[1] is not None and times[0] < times[1]
