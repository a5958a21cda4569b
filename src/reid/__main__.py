"""Run the command line: python -m reid."""

from reid.cli import main

main()
