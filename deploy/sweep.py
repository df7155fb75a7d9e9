"""What `ray submit` and `ray job submit` run on a cluster: the program, on the Ray that is there."""

import sys

from kmemexp.__main__ import main

if __name__ == "__main__":
    sys.argv[1:] = ["cluster=auto", "progress=false", *sys.argv[1:]]
    main()
