"""``python -m privfl.cli``: the ``privfl`` command."""

from privfl.cli import main

main()
