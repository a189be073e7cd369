"""The one folder of which a server reads: every path is followed to its end, and must end below it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from ktodata.errors import RecipeError, RunError, SettingError
from ktodata.formats.records import clip
from ktodata.formats.remote_files import is_remote
from ktodata.pipeline.recipe import Recipe
from ktodata.pipeline.run_folder import Run

MAX_NAMES = 20


@dataclass(frozen=True)
class AllowedFolder:
    """`root`: an existing folder, its links resolved. Each method raises SettingError for what does not end below it."""

    root: Path

    @classmethod
    def of(cls, folder: Path | str) -> "AllowedFolder":
        """That folder. Raises SettingError where there is none."""
        if not Path(folder).is_dir():
            raise SettingError(f"there is no folder {clip(str(folder))!r}.")
        return cls(Path(folder).resolve())

    def path(self, name: str, start: Path | None = None) -> Path:
        """Where a name leads, which need not be there. start : where a relative name begins, if not at the folder."""
        if is_remote(name) or "\0" in name:
            raise SettingError(f"{clip(name)!r} is not in the allowed folder; nothing else is read.")
        try:
            path = ((start or self.root) / Path(name).expanduser()).resolve()
        except (OSError, RuntimeError) as error:  # a loop of links, a name too long, a home that nobody has
            raise SettingError(f"{clip(name)!r} cannot be followed: {type(error).__name__}.") from None
        if not path.is_relative_to(self.root):
            raise SettingError(f"{clip(name)!r} is outside the allowed folder; nothing there is read.")
        return path

    def file(self, name: str, start: Path | None = None) -> Path:
        """A file. Globs, folders, devices and hub ids are not read."""
        path = self.path(name, start)
        if not path.is_file():
            raise SettingError(f"there is no file {clip(name)!r} in the allowed folder. {self._names()}")
        return path

    def run(self, name: str) -> Run:
        """A run's folder. Raises RunError for one that is none."""
        folder = self.path(name)
        self._check_links(folder)
        run = Run(folder)
        for stage in run.manifest["stages"]:  # a manifest is a file like any other: what it names becomes a path
            if not str(stage["name"]).isidentifier():
                raise RunError(f"{clip(name)!r} is no run: its manifest calls a stage {clip(stage['name'])!r}.")
        return run

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise RecipeError for a recipe that pulls, SettingError where a setting leads out of the folder or to no file."""
        if recipe.pull is not None:
            raise RecipeError("the recipe pulls from a service, which only `ktodata run` does.")
        for text in _texts({key: value for key, value in recipe.as_dict().items() if key != "name"}):
            place = self.path(text, recipe.folder)
            for match in glob(str(place), recursive=True) if has_magic(text) else [str(place)]:  # noqa: PTH207
                self._check_links(self.path(match))
        paths = recipe.ingest.settings["paths"]
        for name in [paths] if isinstance(paths, str) else paths:
            if not has_magic(name):
                self.file(name, recipe.folder)

    def _check_links(self, folder: Path) -> None:
        """Raise SettingError where a link below leads out."""
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                if (Path(place) / name).is_symlink():
                    self.path(str(Path(place) / name))

    def _names(self) -> str:
        names = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
        return f"It holds {', '.join(clip(name, 60) for name in names[:MAX_NAMES])}{', …' if len(names) > MAX_NAMES else ''}."


def _texts(value: Any) -> Iterator[str]:
    """Every text of JSON values that could be a path; a criterion, a step's own too, holds words."""
    if isinstance(value, Mapping):
        value = [inner for name, inner in value.items() if name != "criterion"]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and len(value) <= os.pathconf("/", "PC_PATH_MAX"):
        yield value
