"""The `--daemonize` option of a server's own command line."""
