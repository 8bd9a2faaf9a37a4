"""`python -m daemonize`: the command, where it is not on the PATH."""

from daemonize.cli.main import main

main()
