"""The command `mcp`: a server for assistants, over one folder."""

from pathlib import Path
from typing import Annotated

import typer


def mcp(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="All that is read lies below it.")] = Path(),
) -> None:
    """Let an assistant inspect feedback and runs below FOLDER, over the Model Context Protocol on standard input and output.

    \b
    Reads   files below FOLDER, and nothing else
    Writes  nothing: no label can be changed, no stage is run

    It is started by the assistant's own program, which is given this command.

    \b
    Example:  ktodata mcp feedback/
    """  # noqa: D301
    from ktodata.mcp.mcp_server import mcp_server

    mcp_server(folder).run("stdio")
