"""``python -m tensorwire.server.cli``: the same as the command ``tensorwire``."""

from . import main

if __name__ == "__main__":
    main()
