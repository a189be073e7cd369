"""What training needs beyond the base install, said on first use."""

from importlib.util import find_spec

from ktodata.errors import MissingExtraError


def require(*modules: str, what: str = "training", extra: str = "train") -> None:
    """Raise MissingExtraError with the pip command unless every one of `modules` is installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(f"{what} needs {', '.join(missing)}: pip install 'ktodata[{extra}]'")
