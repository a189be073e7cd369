"""`python -m ktodata` is the command `ktodata`."""

from ktodata.cli import main

if __name__ == "__main__":
    main()
