/* line.c: a long line between two network namespaces, without the kernel's netem: a TUN device in each, and this process,
 * which carries every packet from one to the other and takes half the round trip for it.
 *
 *   line NEAR FAR MILLISECONDS        the files of the namespaces (/proc/PID/ns/net), and the round trip
 *
 * Both devices are called "line"; addresses are the caller's business. Prints "ready" when they are there, and then one
 * line for each TCP packet, as somebody at the near end sees it:
 *
 *   NANOSECONDS DIRECTION NEAR-PORT FAR-PORT FLAGS OCTETS
 *
 * DIRECTION is > for a packet that enters the line at the near end, < for one that leaves it there; FLAGS are letters of
 * SFRA (SYN, FIN, RST, ACK) or -; OCTETS is the length of the payload. Runs until it is killed; the devices go with it. */
#include "../common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PACKET_LIMIT = 2048 };

struct packet {
    struct packet *next;
    int64_t due;
    size_t length;
    char octets[PACKET_LIMIT];
};

/* What is under way in one direction, oldest first: every packet takes equally long, so none overtakes another. */
struct lane {
    int from, to;
    struct packet *first, **end;
};

enum { OUT, BACK };     /* from the near end to the far one, and back */

static struct lane lanes[2];
static int64_t delay;

/* Devices */

static void enter(const char *namespace)
{
    int fd = open(namespace, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
        die("%s", namespace);
    close(fd);
}

static int open_device(const char *namespace)
{
    struct ifreq request = {.ifr_name = "line", .ifr_flags = IFF_TUN | IFF_NO_PI};
    enter(namespace);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
        die("/dev/net/tun");
    return fd;
}

/* What is seen */

static void show(const struct packet *packet, int64_t when, bool out)
{
    const struct iphdr *ip = (const void *)packet->octets;
    size_t ip_length = (size_t)ip->ihl * 4;
    if (packet->length < sizeof *ip || ip->version != 4 || ip->protocol != IPPROTO_TCP ||
        packet->length < ip_length + sizeof(struct tcphdr))
        return;
    const struct tcphdr *tcp = (const void *)(packet->octets + ip_length);
    unsigned source = ntohs(tcp->source), target = ntohs(tcp->dest);
    char flags[] = "-\0\0\0";
    char *flag = flags;
    if (tcp->syn)
        *flag++ = 'S';
    if (tcp->fin)
        *flag++ = 'F';
    if (tcp->rst)
        *flag++ = 'R';
    if (tcp->ack)
        *flag++ = 'A';
    printf("%lld %c %u %u %s %zu\n", (long long)when, out ? '>' : '<', out ? source : target, out ? target : source, flags,
           ntohs(ip->tot_len) - ip_length - (size_t)tcp->doff * 4);
}

/* Packets */

/* Gives false when there is none. */
static bool take(struct lane *lane)
{
    struct packet *packet = allocate(1, sizeof *packet);
    ssize_t length = read(lane->from, packet->octets, sizeof packet->octets);
    if (length <= 0) {
        if (length < 0 && errno != EAGAIN)
            die("reading a packet");
        free(packet);
        return false;
    }
    int64_t now = now_ns();
    packet->due = now + delay;
    packet->length = (size_t)length;
    *lane->end = packet;
    lane->end = &packet->next;
    if (lane == &lanes[OUT])
        show(packet, now, true);
    return true;
}

static void deliver(struct lane *lane)
{
    struct packet *packet;
    while ((packet = lane->first) != NULL && packet->due <= now_ns()) {
        lane->first = packet->next;
        if (lane->first == NULL)
            lane->end = &lane->first;
        if (write(lane->to, packet->octets, packet->length) < 0 && errno != EIO) /* EIO: the device is down */
            die("delivering a packet");
        if (lane == &lanes[BACK])
            show(packet, now_ns(), false);
        free(packet);
    }
}

/* Wait for a packet, or for the moment in which the next one is due. */
static void wait_for_work(void)
{
    struct pollfd ends[] = {{.fd = lanes[OUT].from, .events = POLLIN}, {.fd = lanes[BACK].from, .events = POLLIN}};
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < 2; i++)
        if (lanes[i].first != NULL && lanes[i].first->due < due)
            due = lanes[i].first->due;
    int64_t left = due - now_ns();
    left = left < 0 ? 0 : left;
    struct timespec span = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
    if (ppoll(ends, 2, due == INT64_MAX ? NULL : &span, NULL) < 0 && errno != EINTR)
        die("ppoll");
}

/* A busy machine must not make the line longer; without the right to that, it just may. */
static void come_first(void)
{
    struct sched_param priority = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &priority);
}

int main(int count, char **values)
{
    if (count != 4) {
        fputs("usage: line NEAR-NAMESPACE FAR-NAMESPACE MILLISECONDS\n", stderr);
        return 2;
    }
    delay = (int64_t)parse_number(values[3], "the round trip") * 1000000 / 2;
    int near = open_device(values[1]), far = open_device(values[2]);
    lanes[OUT] = (struct lane){.from = near, .to = far, .end = &lanes[OUT].first};
    lanes[BACK] = (struct lane){.from = far, .to = near, .end = &lanes[BACK].first};
    come_first();
    puts("ready");
    for (;;) {
        fflush(stdout);
        wait_for_work();
        for (size_t i = 0; i < 2; i++) {
            while (take(&lanes[i])) {
            }
            deliver(&lanes[i]);
        }
    }
}
