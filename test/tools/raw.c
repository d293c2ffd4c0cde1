// SPDX-License-Identifier: Apache-2.0
/* sock raw: a SYN past the socket layer, by a raw IP socket and by a packet socket (IPv4). */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sock.h"
#include "syn.h"

#define SOURCE_PORT 54321

struct attempt {
	bool opened;
	bool sent;
	int error;
};

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
	addr_set_port(&source, SOURCE_PORT);
	syn = make_syn(&source, &to);
	json_open(&json);
	put_attempt(&json, "raw", try_raw(&syn, &to));
	put_attempt(&json, "packet", try_packet(&syn, find_interface(&source)));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	return 0;
}
