/* Lets keepalived's track_process work in a network namespace: the kernel tells of processes that end only to sockets of the
 * machine's own network, so that one socket is opened there. PROCESS_EVENTS_NETNS names the file of that network.
 * Loaded into keepalived alone, by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int socket(int domain, int type, int protocol)
{
    static int (*real)(int, int, int);
    const char *machine_path = getenv("PROCESS_EVENTS_NETNS");
    int here, machine, fd = -1;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "socket");
    if (domain != AF_NETLINK || protocol != NETLINK_CONNECTOR || !machine_path)
        return real(domain, type, protocol);
    here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (here < 0)
        return -1;
    machine = open(machine_path, O_RDONLY | O_CLOEXEC);
    if (machine >= 0 && setns(machine, CLONE_NEWNET) == 0) {
        fd = real(domain, type, protocol);
        if (setns(here, CLONE_NEWNET) != 0)
            _exit(1);
    }
    if (machine >= 0)
        close(machine);
    close(here);
    return fd;
}
