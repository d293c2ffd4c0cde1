// SPDX-License-Identifier: Apache-2.0
/* sock syn-flood: SYNs from addresses that never answer, until stdin says something (IPv4). */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sock.h"
#include "syn.h"

#define BURST 20
#define MIN_PORT 1024

static struct {
	union addr from;
	int sources;
	int pause_ms;
	int count;
} wanted = { .sources = 1, .pause_ms = 20, .count = 100000 };

static void set_from(const char *text)
{
	wanted.from = parse_endpoint(text, 0);
}

static const struct option_spec options[] = {
	CALL("from", set_from),
	NUMBER("sources", &wanted.sources),
	NUMBER("pause", &wanted.pause_ms),
	NUMBER("count", &wanted.count),
	{ 0 },
};

/* One of the consecutive addresses, and any port. */
static union addr pick_source(void)
{
	union addr source = wanted.from;
	uint32_t first = ntohl(source.v4.sin_addr.s_addr);

	source.v4.sin_addr.s_addr = htonl(first + random() % wanted.sources);
	addr_set_port(&source, MIN_PORT + random() % (UINT16_MAX - MIN_PORT));
	return source;
}

static bool send_syn(int fd, const union addr *to)
{
	union addr source = pick_source();
	struct syn syn = make_syn(&source, to);

	return sendto(fd, &syn, sizeof(syn), 0, &to->sa, addr_len(to)) == sizeof(syn);
}

/* Gives the number of SYNs; error: errno of the one that was not sent. */
static int send_all_syns(int fd, const union addr *to, int *error)
{
	int sent = 0;

	for (*error = 0; sent < wanted.count; sent++) {
		if (sent % BURST == 0 && wait_for(STDIN_FILENO, POLLIN, wanted.pause_ms))
			break;
		if (!send_syn(fd, to)) {
			*error = errno;
			break;
		}
	}
	return sent;
}

int syn_flood(int argc, char **argv)
{
	int sent, error, fd;
	struct json json;
	union addr to;
	uint16_t port;

	if (parse_options(options, argc, argv) != 2 || !port_parse(&port, argv[2]) ||
	    !addr_parse(&to, argv[1], port) || to.sa.sa_family != AF_INET ||
	    wanted.from.sa.sa_family != AF_INET || wanted.sources < 1)
		misuse("syn-flood wants an IPv4 address, a port and --from");
	/* IPPROTO_RAW implies IP_HDRINCL. */
	fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (fd < 0)
		misuse(error_name(errno));
	sent = send_all_syns(fd, &to, &error);
	json_open(&json);
	json_int(&json, "sent", sent);
	json_str(&json, "error", error_name(error));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	return 0;
}
