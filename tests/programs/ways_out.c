// Tries each way to a vsock socket, or into another process, that a compromised app may
// know, and prints for each whether it worked. Every try runs in a child of its own: some kill.
//
//   ways_out vsock          sockets by every ABI, by io_uring, by tracing a child
//   ways_out parent         memory, descriptors and control of the parent process
//   ways_out child          the same against a willing child: shows that the tries work
//   ways_out kernel         the kernel's settings, which belong to root
//   ways_out id             the effective user
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif
#define X32 0x40000000

// 0 or more: it worked; else -errno, as from the kernel.
static long ret(long value) { return value < 0 ? -errno : value; }

static long plain(void) { return ret(syscall(SYS_socket, AF_VSOCK, SOCK_STREAM, 0)); }
static long datagram(void) { return ret(syscall(SYS_socket, AF_VSOCK, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }
// The kernel takes an int: what stands above it is cut off, and must not fool the filter.
static long high_bits(void) {
    return ret(syscall(SYS_socket, 0x100000000UL | AF_VSOCK, SOCK_STREAM, 0));
}
static long sign_bits(void) {
    return ret(syscall(SYS_socket, 0xffffffff00000000UL | AF_VSOCK, SOCK_STREAM, 0));
}
static long pair(void) {
    int fds[2];
    return ret(syscall(SYS_socketpair, AF_VSOCK, SOCK_STREAM, 0, fds));
}
static long in_a_thread_of_execution_by_clone(void) {
    pid_t child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(plain() >= 0 ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EAFNOSUPPORT;
}

#ifdef __x86_64__
// Pointers in 32-bit calls have 32 bits.
static uint32_t *low(void) {
    static uint32_t *page;
    if (!page)
        page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    return page;
}
static long int80(long number, long a, long b, long c) {
    long value;
    __asm__ volatile("int $0x80"
                     : "=a"(value)
                     : "a"(number), "b"(a), "c"(b), "d"(c)
                     : "memory", "r8", "r9", "r10", "r11");
    return value;
}
static long int80_socket(void) { return int80(359, AF_VSOCK, SOCK_STREAM, 0); }
static long int80_socketcall(void) {
    uint32_t *args = low();
    args[0] = AF_VSOCK, args[1] = SOCK_STREAM, args[2] = 0;
    return int80(102, 1, (long)args, 0);
}
static long int80_io_uring(void) {
    uint32_t *params = low();
    memset(params, 0, 512);
    return int80(425, 4, (long)params, 0);
}
static long x32_socket(void) { return ret(syscall(SYS_socket | X32, AF_VSOCK, SOCK_STREAM, 0)); }
static long x32_io_uring(void) {
    struct io_uring_params params = {0};
    return ret(syscall(SYS_io_uring_setup | X32, 4, &params));
}
#endif

// A ring, and a socket made by it.
static long io_uring(void) {
    struct io_uring_params params = {0};
    long ring = syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0) return -errno;
    size_t size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    size_t sq = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    char *rings = mmap(0, size > sq ? size : sq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *sqe = mmap(0, params.sq_entries * sizeof *sqe, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (rings == MAP_FAILED || sqe == MAP_FAILED) return -errno;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = 45; // IORING_OP_SOCKET
    sqe->fd = AF_VSOCK;
    sqe->off = SOCK_STREAM;
    *(uint32_t *)(rings + params.sq_off.array) = 0;
    __atomic_store_n((uint32_t *)(rings + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0) return -errno;
    return ((struct io_uring_cqe *)(rings + params.cq_off.cqes))->res;
}

#ifdef __x86_64__
// A traced child asks for its process id, and the tracer makes that a vsock socket: once at the
// entry of the syscall, and once when a filter of the program's own calls the tracer.
static long by_tracer(int by_filter) {
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        if (by_filter) {
            struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            };
            struct sock_fprog program = {4, code};
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            raise(SIGSTOP);
            if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) _exit(99);
        } else {
            raise(SIGSTOP);
        }
        long value = syscall(SYS_getpid, SOCK_STREAM, SOCK_STREAM, 0);
        if (value < 0) _exit(errno);
        int domain = 0;
        socklen_t size = sizeof domain;
        getsockopt(value, SOL_SOCKET, SO_DOMAIN, &domain, &size);
        _exit(domain == AF_VSOCK ? 0 : EINVAL);
    }
    int status;
    waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return -EPERM;
    ptrace(PTRACE_SETOPTIONS, child, 0,
           PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP);
    for (;;) {
        ptrace(by_filter ? PTRACE_CONT : PTRACE_SYSCALL, child, 0, 0);
        waitpid(child, &status, 0);
        if (WIFEXITED(status)) return WEXITSTATUS(status) ? -WEXITSTATUS(status) : 0;
        if (WIFSIGNALED(status)) return -WTERMSIG(status);
        struct user_regs_struct regs;
        ptrace(PTRACE_GETREGS, child, 0, &regs);
        if (regs.orig_rax == SYS_getpid) {
            regs.orig_rax = SYS_socket;
            regs.rdi = AF_VSOCK;
            ptrace(PTRACE_SETREGS, child, 0, &regs);
        }
    }
}
static long traced_at_entry(void) { return by_tracer(0); }
static long traced_by_a_filter(void) { return by_tracer(1); }
#endif

// A filter of the program's own that has a supervisor say "go on" to every socket.
static long by_a_supervisor(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0) return -errno;
    pid_t child = fork();
    if (child == 0) {
        long value = plain();
        _exit(value >= 0 ? 0 : (int)-value);
    }
    pid_t supervisor = fork();
    if (supervisor == 0) {
        struct seccomp_notif request = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) _exit(0);
        struct seccomp_notif_resp answer = {.id = request.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    kill(supervisor, SIGKILL);
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

// In a user and network namespace of its own, where it has every capability.
static long in_namespaces(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET)) return -errno;
    return plain();
}

static const char *pattern = "/proc/sys/kernel/core_pattern";
static long writable(const char *path) { return ret(open(path, O_WRONLY)); }
static long in_place(void) { return writable(pattern); }
static long remount(void) {
    if (mount(0, "/proc/sys", 0, MS_REMOUNT | MS_BIND, 0)) return -errno;
    return writable(pattern);
}
static long unmount(void) {
    if (umount2("/proc/sys", MNT_DETACH)) return -errno;
    return writable(pattern);
}
static long odyns_root(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/root/%s", getppid(), pattern);
    return writable(path);
}
// As who has every capability in a user namespace.
static long own(int more, long (*way)(void)) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | more)) return -errno;
    pid_t child = fork();
    if (child == 0) {
        long value = way();
        _exit(value < 0 ? (int)-value : 0);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}
static long fresh_proc(void) {
    if (mount("p", "/mnt", "proc", 0, 0)) return -errno;
    return writable("/mnt/sys/kernel/core_pattern");
}
static long bound_proc(void) {
    if (mount("/proc", "/mnt", 0, MS_BIND, 0)) return -errno;
    return writable("/mnt/sys/kernel/core_pattern");
}
static long bound_all(void) {
    if (mount("/proc", "/mnt", 0, MS_BIND | MS_REC, 0)) return -errno;
    umount2("/mnt/sys", MNT_DETACH);
    return writable("/mnt/sys/kernel/core_pattern");
}
static long fresh_sysfs(void) { return ret(mount("s", "/mnt", "sysfs", 0, 0)); }
static long own_remount(void) { return own(0, remount); }
static long own_unmount(void) { return own(0, unmount); }
static long own_proc(void) { return own(CLONE_NEWPID, fresh_proc); }
static long own_bind(void) { return own(0, bound_proc); }
static long own_rbind(void) { return own(0, bound_all); }
static long own_sysfs(void) { return own(CLONE_NEWNET, fresh_sysfs); }
// clone3, whose flags no filter sees.
static long own_clone3(void) {
    uint64_t words[8] = {CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID, 0, 0, 0, SIGCHLD};
    pid_t child = syscall(SYS_clone3, words, sizeof words);
    if (child < 0) return -errno;
    if (child == 0) {
        long value = fresh_proc();
        _exit(value < 0 ? (int)-value : 0);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}
// The kernel would run /sbin/request-key, as root and without any filter.
static long request_key(void) { return ret(syscall(SYS_request_key, "user", "odyn-test", "x", 0)); }

static pid_t target;
static long attach(void) { return ret(ptrace(PTRACE_ATTACH, target, 0, 0)); }
static long seize(void) { return ret(ptrace(PTRACE_SEIZE, target, 0, 0)); }
static uintptr_t somewhere;
static long read_memory(void) {
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)somewhere, 1};
    return ret(process_vm_readv(target, &here, 1, &there, 1, 0));
}
static long write_memory(void) {
    char byte = 0;
    struct iovec here = {&byte, 1}, there = {(void *)somewhere, 1};
    return ret(process_vm_writev(target, &here, 1, &there, 1, 0));
}
static long open_in(const char *what, int flags) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", target, what);
    return ret(open(path, flags));
}
static long mem_read(void) { return open_in("mem", O_RDONLY); }
static long mem_write(void) { return open_in("mem", O_WRONLY); }
static long descriptor(void) { return open_in("fd/0", O_RDONLY); }
static long environment(void) { return open_in("environ", O_RDONLY); }
static long maps(void) { return open_in("maps", O_RDONLY); }
static long root(void) { return open_in("root/", O_RDONLY); }
static long network(void) { return open_in("ns/net", O_RDONLY); }
static long take_descriptor(void) {
    int pidfd = syscall(SYS_pidfd_open, target, 0);
    if (pidfd < 0) return -errno;
    return ret(syscall(SYS_pidfd_getfd, pidfd, 0, 0));
}
static long enter(void) {
    int pidfd = syscall(SYS_pidfd_open, target, 0);
    if (pidfd < 0) return -errno;
    return ret(syscall(SYS_setns, pidfd, CLONE_NEWNET));
}
static long compare(void) { return ret(syscall(SYS_kcmp, target, getpid(), KCMP_FILE, 0, 0)); }

static void try(const char *name, long (*way)(void)) {
    int pipes[2];
    if (pipe(pipes)) exit(2);
    pid_t child = fork();
    if (child == 0) {
        long value = way();
        if (write(pipes[1], &value, sizeof value) != sizeof value) _exit(2);
        _exit(0);
    }
    close(pipes[1]);
    long value;
    ssize_t got = read(pipes[0], &value, sizeof value);
    close(pipes[0]);
    int status;
    waitpid(child, &status, 0);
    if (got != sizeof value) printf("%s killed %d\n", name, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    else if (value >= 0) printf("%s worked\n", name);
    else printf("%s failed %s\n", name, strerrorname_np(-value));
    fflush(stdout);
}
#define TRY(way) try(#way, way)

static void into(pid_t pid) {
    target = pid;
    TRY(read_memory); TRY(write_memory); TRY(mem_read); TRY(mem_write); TRY(descriptor);
    TRY(environment); TRY(maps); TRY(root); TRY(network); TRY(take_descriptor); TRY(compare);
    TRY(enter); TRY(seize); TRY(attach);
}

int main(int count, char **words) {
    somewhere = (uintptr_t)&target;
    if (count > 1 && !strcmp(words[1], "vsock")) {
        TRY(plain); TRY(datagram); TRY(high_bits); TRY(sign_bits); TRY(pair);
        TRY(in_a_thread_of_execution_by_clone); TRY(io_uring); TRY(by_a_supervisor);
        TRY(in_namespaces);
#ifdef __x86_64__
        TRY(int80_socket); TRY(int80_socketcall); TRY(int80_io_uring);
        TRY(x32_socket); TRY(x32_io_uring); TRY(traced_at_entry); TRY(traced_by_a_filter);
#endif
        return 0;
    }
    if (count > 1 && !strcmp(words[1], "kernel")) {
        TRY(in_place); TRY(remount); TRY(unmount); TRY(odyns_root); TRY(own_remount);
        TRY(own_unmount); TRY(own_proc); TRY(own_bind); TRY(own_rbind); TRY(own_sysfs);
        TRY(own_clone3); TRY(request_key);
        return 0;
    }
    if (count > 1 && !strcmp(words[1], "id")) return printf("%d\n", geteuid()), 0;
    if (count > 1 && !strcmp(words[1], "parent")) return into(getppid()), 0;
    if (count > 1 && !strcmp(words[1], "child")) {
        pid_t child = fork();
        if (child == 0) for (;;) pause();
        into(child);
        kill(child, SIGKILL);
        return 0;
    }
    return 2;
}
