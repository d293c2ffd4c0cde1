// SPDX-License-Identifier: Apache-2.0
/* sock raw: a SYN past the socket layer, by a raw IP socket and by a packet socket (IPv4). */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sock.h"

#define SOURCE_PORT 54321

struct syn {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct attempt {
	bool opened;
	bool sent;
	int error;
};

static uint32_t sum16(const void *data, size_t len, uint32_t sum)
{
	const uint16_t *words = data;

	for (size_t i = 0; i < len / 2; i++)
		sum += words[i];
	return sum;
}

static uint16_t checksum(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static uint16_t tcp_checksum(const struct syn *syn)
{
	struct {
		uint32_t source, dest;
		uint16_t protocol, len;
	} pseudo = { syn->ip.saddr, syn->ip.daddr, htons(IPPROTO_TCP), htons(sizeof(syn->tcp)) };
	struct tcphdr tcp = syn->tcp;

	return checksum(sum16(&tcp, sizeof(tcp), sum16(&pseudo, sizeof(pseudo), 0)));
}

static struct syn make_syn(const union addr *from, const union addr *to)
{
	struct syn syn = {
		.ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP },
		.tcp = { .doff = 5, .syn = 1 },
	};
	struct iphdr ip;

	syn.ip.tot_len = htons(sizeof(syn));
	syn.ip.saddr = from->v4.sin_addr.s_addr;
	syn.ip.daddr = to->v4.sin_addr.s_addr;
	ip = syn.ip;
	syn.ip.check = checksum(sum16(&ip, sizeof(ip), 0));
	syn.tcp.source = htons(SOURCE_PORT);
	syn.tcp.dest = to->v4.sin_port;
	syn.tcp.seq = htonl(1);
	syn.tcp.window = htons(64240);
	syn.tcp.check = tcp_checksum(&syn);
	return syn;
}

/* The address that the kernel would send from. */
static union addr find_source(const union addr *to)
{
	union addr source = { .sa.sa_family = AF_INET };
	socklen_t len = sizeof(source);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (!connect(fd, &to->sa, addr_len(to)))
		getsockname(fd, &source.sa, &len);
	close(fd);
	return source;
}

static int find_interface(const union addr *source)
{
	struct ifaddrs *all, *each;
	int index = 0;

	if (getifaddrs(&all))
		return 0;
	for (each = all; each && !index; each = each->ifa_next) {
		const union addr *addr = (const union addr *)each->ifa_addr;

		if (addr && addr->sa.sa_family == AF_INET && addr_same_ip(addr, source))
			index = if_nametoindex(each->ifa_name);
	}
	freeifaddrs(all);
	return index;
}

static struct attempt try(int fd, const struct syn *syn, const void *to, socklen_t len)
{
	struct attempt attempt = { .opened = fd >= 0, .error = errno };

	if (fd < 0)
		return attempt;
	attempt.sent = sendto(fd, syn, sizeof(*syn), 0, to, len) == sizeof(*syn);
	attempt.error = attempt.sent ? 0 : errno;
	close(fd);
	return attempt;
}

static struct attempt try_raw(const struct syn *syn, const union addr *to)
{
	/* IPPROTO_RAW implies IP_HDRINCL. */
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);

	return try(fd, syn, to, addr_len(to));
}

static struct attempt try_packet(const struct syn *syn, int interface)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_IP),
		.sll_ifindex = interface,
		.sll_halen = ETH_ALEN,
		.sll_addr = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
	};
	int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));

	return try(fd, syn, &to, sizeof(to));
}

static void put_attempt(struct json *json, const char *key, struct attempt attempt)
{
	struct json inner;

	json_open(&inner);
	json_bool(&inner, "opened", attempt.opened);
	json_bool(&inner, "sent", attempt.sent);
	json_str(&inner, "error", error_name(attempt.error));
	json_close(&inner);
	inner.text[inner.len - 1] = '\0';
	json_raw(json, key, inner.text);
}

int raw(int argc, char **argv)
{
	static const struct option_spec none[] = { { 0 } };
	union addr to, source;
	uint16_t port;
	struct syn syn;
	struct json json;

	if (parse_options(none, argc, argv) != 2 || !port_parse(&port, argv[2]) ||
	    !addr_parse(&to, argv[1], port) || to.sa.sa_family != AF_INET)
		misuse("raw wants an IPv4 address and a port");
	source = find_source(&to);
	syn = make_syn(&source, &to);
	json_open(&json);
	put_attempt(&json, "raw", try_raw(&syn, &to));
	put_attempt(&json, "packet", try_packet(&syn, find_interface(&source)));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	return 0;
}
