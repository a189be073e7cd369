"""`ktodata mcp FOLDER`: what an assistant may ask of feedback and runs, over the Model Context Protocol.

allowed_folder.py    what may be read: files below one folder, links followed
read_only_tools.py   the tools, as plain functions of that folder
mcp_server.py        the same, offered by the protocol's own SDK
"""
