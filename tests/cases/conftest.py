from line_files import lines  # noqa: F401
