"""Start a server, return when it is ready. Not named `launch`: that is the function, `daemonize.launch()`."""
