"""The program: `python -m kmemexp`, or the console script `kmemexp`."""

import os
import sys

from kmemexp.actions import again


def main() -> None:
    """Do what the command line asks for; ends the process with an exit code unless that is 0."""
    try:
        if not again.told(sys.argv[1:]):
            from kmemexp import command_line  # noqa: PLC0415 - with it comes Hydra

            command_line.main()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `action=plan | head`: what was asked for has been read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
