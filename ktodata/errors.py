"""Every error that ktodata raises on purpose. `except KtodataError` catches them all.

KtodataError
├── DataError                the feedback is at fault (exit code 1)
│   ├── LabelError           a label is not what the recipe says labels are
│   ├── FormatError          a file is not in the format it is read as
│   ├── MissingColumnError   a stage needs a column that nothing adds
│   ├── EmptyDataError       no rows, or none left
│   └── OneClassError        every label is the same: nothing to learn from
├── RecipeError              the recipe is at fault (exit code 1)
│   └── SettingError         one setting: unknown, of the wrong type, or out of its range
├── RunError                 the run folder is at fault (exit code 1)
├── ServiceError             a service that feedback is pulled from does not answer as it should
│   └── NotThereError        it has no such thing (404), or not any more
├── ModelError               a model or tokenizer cannot be read, or does not fit the work
├── EngineError              a worker process or a cluster does not do its part
├── ShapeError               tensors or tables that must have one length have several
└── MissingExtraError        an optional package is not installed
"""


class KtodataError(Exception):
    """Base of all errors below; its text says what, where, how many, and what to do."""


class DataError(KtodataError):
    """The feedback itself is at fault."""


class LabelError(DataError):
    """A label is not what the recipe says labels are."""


class FormatError(DataError):
    """A file is not in the format it is read as."""


class MissingColumnError(DataError):
    """A stage needs a column that nothing before it adds."""


class EmptyDataError(DataError):
    """There are no rows, or none are left."""


class OneClassError(DataError):
    """Every label is the same, so there is nothing to tell apart."""


class RecipeError(KtodataError):
    """The recipe is at fault."""


class SettingError(RecipeError):
    """One setting is unknown, of the wrong type, or out of its range."""


class RunError(KtodataError):
    """The run folder is not one, is another run's, or cannot be written."""


class ServiceError(KtodataError):
    """A service that feedback is pulled from refuses, fails, or answers something else than it should."""


class NotThereError(ServiceError):
    """The service has no such thing."""


class AlreadyThereError(ServiceError):
    """The service has what it was sent."""


class ModelError(KtodataError):
    """A model or tokenizer cannot be read, or does not fit the work."""


class EngineError(KtodataError):
    """A worker process ends again and again, or a cluster cannot be reached."""


class ShapeError(KtodataError):
    """Tensors or tables that must have one length have several."""


class MissingExtraError(KtodataError):
    """An optional package is not installed; the text gives the pip command."""


OUT_OF_MEMORY = (
    "out of memory: this process may have no more. Lower what is held at once (train: micro_batch_tokens, batch_size, "
    "activation_cache_mb; evaluate: max_rows; embed: a smaller model; POLARS_MAX_THREADS and OMP_NUM_THREADS: fewer threads), or "
    "raise the limit; the same command goes on from there."
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the system refused memory or a thread, in whichever library's words."""
    text = str(error).lower()
    says = ("start new thread", "allocate memory", "out of memory", "memory allocation", "resource temporarily unavailable")
    return isinstance(error, MemoryError) or any(words in text for words in says)
