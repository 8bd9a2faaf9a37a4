#!/usr/bin/env python3
"""Interpreters that have loaded everything answer requests: one for each project, stopped when nobody asks for it."""

from __future__ import annotations

import json
import sys
import time

from daemonize import ChildServer, ChildServerCollection, RemoteError, message_handler


class Interpreter(ChildServer):
    """Evaluates functions of one module, which it has loaded once."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module

    def initialize_server(self) -> None:
        """What takes long is done once, and start() raises an error in it (ModuleNotFoundError, say)."""
        __import__(self.module)

    @message_handler
    def call(self, function: str, arguments: str) -> None:
        """["call", FUNCTION, JSON] is answered with an object, or with the exception."""
        result = getattr(sys.modules[self.module], function)(*json.loads(arguments))
        self.client.write_json({"result": result})


def call(interpreter: Interpreter, function: str, *arguments: object) -> object:
    """The function's result. Raises RemoteError: the exception that it raised there, with its traceback."""
    interpreter.server.write("call", function, json.dumps(arguments))
    answer = interpreter.server.read_json(timeout=10)
    if answer is None:
        raise EOFError("the interpreter has ended")
    return answer["result"]


def main() -> None:
    """Show it."""
    with ChildServerCollection[Interpreter](max_idle_time="5min") as warm:
        statistics = warm.lookup_or_add("statistics", lambda: Interpreter("statistics"))
        print("median:", call(statistics, "median", [3, 1, 2]))
        try:
            call(statistics, "median", [])
        except RemoteError as error:
            print(f"{error.type}: {error.text}")
        again = warm.lookup_or_add("statistics", lambda: Interpreter("statistics"))
        began = time.perf_counter()
        print("mode:", call(again, "mode", [1, 2, 2]))
        print(
            f"the same process: {again is statistics}; in less than 0.1 s: {time.perf_counter() - began < 0.1}"
        )
        try:
            warm.lookup_or_add("nonsense", lambda: Interpreter("no_such_module"))
        except ModuleNotFoundError as error:
            print("not started:", error)
        print("interpreters:", len(warm))


if __name__ == "__main__":
    main()
