/* probe NAME PORT [NAME PORT]...: connects to each by what its libc knows of names, prints the name with the
 * line that the server says, or with what went wrong, and exits with 7. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *visit(const char *name, const char *port) {
    static char line[256];
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found;
    int code = getaddrinfo(name, port, &wanted, &found);
    if (code) return code == EAI_NONAME ? "unknown" : gai_strerror(code);
    const char *result = "no address";
    for (; found; found = found->ai_next) {
        int fd = socket(found->ai_family, SOCK_STREAM, 0);
        ssize_t got = -1;
        if (!connect(fd, found->ai_addr, found->ai_addrlen)) got = read(fd, line, sizeof line - 1);
        /* A denied connection: refused in the handshake, or reset right after it. */
        int denied = got < 0 && (errno == ECONNREFUSED || errno == ECONNRESET);
        result = got < 0 ? denied ? "denied" : strerror(errno) : line;
        close(fd);
        if (got < 0) continue;
        line[got] = 0;
        line[strcspn(line, "\n")] = 0;
        break;
    }
    return result;
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) printf("%s %s\n", argv[i], visit(argv[i], argv[i + 1]));
    return 7;
}
