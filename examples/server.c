/* A minimal server in C that says by itself that it serves, by every protocol that is present. It sends back what it
 * receives, to one client after the other, on a loopback port.
 *
 *     cc -o server examples/server.c && daemonize ./server [PORT]
 *
 * ready() is what there is to copy: it needs nothing but the C library.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A descriptor to go on with in the file that a variable names; /dev/null if it names none, or one that cannot be opened. */
static int open_log(const char *variable)
{
    const char *path = getenv(variable);
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0600) : -1;
    if (path && fd < 0)
        warn("%s", path);
    if (fd < 0)
        return open("/dev/null", O_WRONLY | O_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* it was for a fifo that nobody reads */
    return fd;
}

/* Whether a descriptor is the pipe that the wrapper knows as DEV:INO. */
static int is_pipe(int fd, const char *id, size_t length)
{
    struct stat status;
    char ours[64];
    if (fstat(fd, &status) < 0)
        return 0;
    snprintf(ours, sizeof ours, "%llu:%llu", (unsigned long long)status.st_dev, (unsigned long long)status.st_ino);
    return strlen(ours) == length && memcmp(ours, id, length) == 0;
}

/* DAEMONIZE_STREAMS=DEV:INO,DEV:INO: stdout and stderr go on in the log, if they still are these pipes. */
static void let_go_of_streams(void)
{
    const char *ids = getenv("DAEMONIZE_STREAMS"), *comma = ids ? strchr(ids, ',') : NULL;
    if (!comma)
        return;
    int ours[] = {is_pipe(1, ids, comma - ids), is_pipe(2, comma + 1, strlen(comma + 1))};
    const char *variables[] = {"DAEMONIZE_STDOUT", "DAEMONIZE_STDERR"};
    int logs[] = {-1, -1};
    fflush(stdout);
    for (int i = 0; i < 2; i++) /* both before either is let go: a complaint has to be heard */
        logs[i] = ours[i] ? open_log(variables[i]) : -1;
    for (int i = 0; i < 2; i++)
        if (logs[i] >= 0) {
            dup2(logs[i], i + 1); /* pointed elsewhere and not closed: else the next client would be stdout */
            close(logs[i]);
        }
}

/* NOTIFY_SOCKET: sd_notify(3). */
static void tell_manager(const char *status)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char message[512];
    if (!name || !strchr("/@", *name) || strlen(name) >= sizeof address.sun_path)
        return;
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(name);
    memcpy(address.sun_path, name, strlen(name));
    if (*name == '@')
        address.sun_path[0] = 0; /* an abstract address */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(message, sizeof message, "READY=1\nSTATUS=%s\nMAINPID=%ld", status, (long)getpid());
    sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
    close(fd);
}

/* NOTIFY_FD: the descriptor of s6 or dinit wants a newline. */
static void tell_descriptor(void)
{
    const char *value = getenv("NOTIFY_FD");
    struct stat status;
    int fd = value && isdigit((unsigned char)*value) ? atoi(value) : -1;
    if (fstat(fd, &status) < 0 || !(S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode)))
        return;
    if (write(fd, "\n", 1) == 1 && fd > 2)
        close(fd);
}

static void ready(const char *status)
{
    let_go_of_streams();
    tell_manager(status);
    tell_descriptor();
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setvbuf(stdout, NULL, _IOLBF, 0); /* a line is for people, also where no terminal says so */
    signal(SIGPIPE, SIG_IGN);
    address.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, SOMAXCONN) < 0)
        err(1, "port %d", ntohs(address.sin_port));
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("listening on port %d\n", ntohs(address.sin_port));
    ready("serving");

    for (;;) {
        char data[65536];
        ssize_t size;
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        while ((size = read(client, data, sizeof data)) > 0)
            for (ssize_t done = 0, part = 0; done < size && part >= 0; done += part)
                part = write(client, data + done, size - done);
        close(client);
        fprintf(stderr, "a client has left\n"); /* in the log */
    }
}
