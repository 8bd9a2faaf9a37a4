"""Writes N pseudo-random bytes to each of its streams, in turns, then points them at /dev/null and stays.

writes_much.py N [STATUS] [until=TRIGGER]     STATUS: exits with it instead

The bytes depend on the stream and the position only; `content(fd)` yields them again for the test to compare.
"""

import _random
import os

CHUNK = 65536


def content(fd, size):
    """The `size` bytes that go to descriptor `fd` (1 or 2), in chunks of at most 64 KiB."""
    generator = _random.Random(fd)
    for begin in range(0, size, CHUNK):
        yield generator.getrandbits(8 * CHUNK).to_bytes(CHUNK, "little")[: size - begin]


def main():
    from _common import arguments, repoint, serve, write_all

    size, *status = map(int, arguments())
    for out, err in zip(content(1, size), content(2, size), strict=True):
        write_all(1, out)
        write_all(2, err)
    if status:
        os._exit(status[0])
    repoint()
    serve()


if __name__ == "__main__":
    main()
