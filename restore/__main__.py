"""`python -m restore` is the `restore` command."""

from restore.cli.commands import main

if __name__ == "__main__":
    main()
