"""`python -m isinglass`."""

from isinglass.cli import main

if __name__ == "__main__":
    main()
