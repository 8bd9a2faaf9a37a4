"""Start a server, return when it is ready."""
