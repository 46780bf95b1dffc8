/* What the virtual machine's two sides need besides busybox and curl, linked statically:
 *   tool echo ADDRESS PORT          answers each datagram with itself
 *   tool ping ADDRESS PORT WORD     sends a datagram and prints the answer
 *   tool sink ADDRESS PORT          takes one connection and writes what comes to stdout
 *   tool send HOST PORT             sends stdin and exits at once, without waiting for anything
 *   tool vsock CID PORT             0 when a vsock connection can be made, 1 when no socket can
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static char bytes[65536];

/* linux/vm_sockets.h, which a libc of its own does not bring. */
struct vsock_address {
    unsigned short family, reserved;
    unsigned int port, cid;
    unsigned char flags, zero[3];
};

static int vsock(unsigned cid, unsigned port) {
    struct vsock_address peer = {.family = 40, .port = port, .cid = cid};
    int fd = socket(40, SOCK_STREAM, 0);
    if (fd < 0) return 1;
    return connect(fd, (struct sockaddr *)&peer, sizeof peer) < 0 ? 2 : 0;
}

static int copy(int from, int to) {
    ssize_t got;
    while ((got = read(from, bytes, sizeof bytes)) > 0)
        for (ssize_t done = 0, put; done < got; done += put)
            if ((put = write(to, bytes + done, got - done)) < 0) return 3;
    return got < 0 ? 4 : 0;
}

int main(int argc, char **argv) {
    if (argc < 4) return 64;
    if (!strcmp(argv[1], "vsock")) return vsock(atoi(argv[2]), atoi(argv[3]));
    int stream = !strcmp(argv[1], "sink") || !strcmp(argv[1], "send");
    struct addrinfo wanted = {.ai_family = AF_INET, .ai_socktype = stream ? SOCK_STREAM : SOCK_DGRAM}, *found;
    if (getaddrinfo(argv[2], argv[3], &wanted, &found)) return 68;
    int fd = socket(AF_INET, wanted.ai_socktype, 0);
    if (!strcmp(argv[1], "echo") || !strcmp(argv[1], "sink")) {
        if (bind(fd, found->ai_addr, found->ai_addrlen) < 0) return 1;
        if (stream) {
            listen(fd, 1);
            return copy(accept(fd, NULL, NULL), STDOUT_FILENO);
        }
        for (;;) {
            struct sockaddr_in from;
            socklen_t length = sizeof from;
            ssize_t got = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
            if (got >= 0) sendto(fd, bytes, got, 0, (struct sockaddr *)&from, length);
        }
    }
    if (connect(fd, found->ai_addr, found->ai_addrlen) < 0) return 1;
    if (stream) return copy(STDIN_FILENO, fd);
    struct timeval limit = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (send(fd, argv[4], strlen(argv[4]), 0) < 0) return 2;
    ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    if (got < 0) return 3;
    printf("%.*s\n", (int)got, bytes);
    return 0;
}
