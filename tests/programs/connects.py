"""A crowd of clients: connects again and again, so many at a time, and asks `GET /` on each connection.

connects.py PORT AT_ONCE COUNT WANTED

Says `connected` when the first AT_ONCE connections are there, or `refused` when one is refused (it tries again after a
millisecond). Goes on until its stdin is at its end and COUNT connections have been answered, and has said by then in one
line of JSON: `refused`, `failed` (anything else that is no answer: a reset, an end without a word), `answered` (200 and
WANTED in it), `after`: how many of those since the end of stdin. None waits longer than 20 s for an answer.
"""

import _socket
import errno
import json
import select
import sys
from time import monotonic

from _common import limit_lifetime, pause, say

limit_lifetime()
PORT, AT_ONCE, COUNT, WANTED = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
REQUEST = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"
LONGEST = 20.0
BIND_ADDRESS_NO_PORT = 24  # ip(7): the port is chosen by connect(2)


class Client:
    """One connection, from connect(2) to the end of the answer."""

    def __init__(self, poll):
        self.poll, self.began, self.answer = poll, monotonic(), b""
        self.socket = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
        self.fd, self.asked = self.socket.fileno(), False
        # So many ports are not to be in the way of other tests' servers, which have theirs on 127.0.0.1.
        self.socket.setsockopt(_socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind(("127.0.0.2", 0))
        code = self.socket.connect_ex(("127.0.0.1", PORT))
        assert code in {0, errno.EINPROGRESS, errno.ECONNREFUSED}, errno.errorcode[code]
        self.refused = code == errno.ECONNREFUSED
        poll.register(self.fd, select.EPOLLOUT)

    def go_on(self):
        """What has become of it: None as long as it is not at its end."""
        if not self.asked:
            code = (
                errno.ECONNREFUSED if self.refused else self.socket.getsockopt(1, 4)
            )  # SOL_SOCKET, SO_ERROR
            if code:
                return "refused" if code == errno.ECONNREFUSED else "failed"
            self.socket.send(REQUEST)
            self.asked = True
            self.poll.modify(self.fd, select.EPOLLIN)
            return None
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            return "failed"
        self.answer += data
        if data:
            return None
        return "answered" if b" 200 " in self.answer[:20] and WANTED in self.answer else "failed"

    def close(self):
        """Hang up."""
        self.poll.unregister(self.fd)
        self.socket.close()


def main():
    poll, clients = select.epoll(), {}
    poll.register(0, select.EPOLLIN)
    counts = {"refused": 0, "failed": 0, "answered": 0, "after": 0}
    ended = told = False
    while not ended or counts["answered"] < COUNT:
        while len(clients) < AT_ONCE:
            client = Client(poll)
            clients[client.fd] = client
        for fd, _ in poll.poll(1.0):
            if fd == 0:
                ended = True
                poll.unregister(0)
                continue
            outcome = clients[fd].go_on()
            if outcome:
                clients.pop(fd).close()
                counts[outcome] += 1
                counts["after"] += ended and outcome == "answered"
                if outcome == "refused":
                    pause(1)
        if not told and (counts["refused"] or all(client.asked for client in clients.values())):
            told = True
            say("refused" if counts["refused"] else "connected")
        assert all(monotonic() - client.began < LONGEST for client in clients.values()), "no answer"
    # Those that are under way are closed with this process: the server may be heard to complain of it.
    say(json.dumps(counts))


main()
