"""Sums in one order: results that do not change in the last bit with the number of cores."""

from contextlib import AbstractContextManager


def one_thread() -> AbstractContextManager[object]:
    """Inside it, BLAS and OpenMP (numpy products, scikit-learn) use one thread."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits
