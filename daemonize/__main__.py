"""`python -m daemonize`: the command, where it is not on the PATH."""

from daemonize.posix import signals

signals.end_on_interrupt()

from daemonize.cli.main import main  # noqa: E402 (a Ctrl-C while that is loaded must not give a traceback)

main()
