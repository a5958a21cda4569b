"""Run the command line: python -m reid."""

from reid_done_right.cli import main

main()
