"""`python -m rootward` is the command `rootward`."""

from rootward.cli import main

if __name__ == "__main__":
    main()
