"""What training needs beyond the base install, said on first use."""

import re
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from ktodata.errors import MissingExtraError


def require(*modules: str, what: str = "training", extra: str = "train") -> None:
    """Raise MissingExtraError with the pip command unless every one of `modules` is installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(f"{what} needs {', '.join(missing)}: pip install 'ktodata[{extra}]'")


def missing_text(error: ModuleNotFoundError) -> str:
    """What to install for a module that is not there; of an extra of this package, the extra."""
    module = (error.name or "").partition(".")[0]
    package = re.escape(module).replace("_", "[-_]")
    try:
        lines = [line for line in requires("ktodata") or () if re.match(rf"{package}\b", line)]
    except PackageNotFoundError:
        lines = []
    extras = [re.search(r"extra == ['\"](.+?)['\"]", line) for line in lines]
    named = next((extra[1] for extra in extras if extra), None)
    return f"{module} is not installed: pip install '{f'ktodata[{named}]' if named else module}'"
