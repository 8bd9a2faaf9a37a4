/* A server that works for some time, listens, and says so: listens PORT MICROSECONDS. SIGTERM ends it. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    if (argc != 3 || listener < 0)
        return 2;
    alarm(120); /* nobody is left behind if the benchmark itself is killed */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(atoi(argv[1]));
    if (bind(listener, (struct sockaddr *)&address, sizeof address))
        return 1;
    usleep(atoi(argv[2]));
    if (listen(listener, 8) || write(1, "listening\n", 10) != 10)
        return 1;
    for (;;)
        pause();
}
