"""The command lines: parse, call, translate; no logic."""
