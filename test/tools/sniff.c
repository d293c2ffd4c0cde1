// SPDX-License-Identifier: Apache-2.0
/* sock sniff: what arrives at an interface, as hex, until it is ended. */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

#include "sock.h"

/* Of each frame. */
#define SHOWN 256

static void say(const char *key, const char *value)
{
	struct json json;

	json_open(&json);
	json_str(&json, key, value);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

static void show_next(int fd)
{
	unsigned char bytes[SHOWN];
	char text[2 * SHOWN + 1] = "";
	struct sockaddr_ll from;
	socklen_t from_len = sizeof(from);
	ssize_t len = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &from_len);

	if (len < 0 || from.sll_pkttype == PACKET_OUTGOING)
		return;
	for (ssize_t i = 0; i < len; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	say("frame", text);
}

int sniff(int argc, char **argv)
{
	static const struct option_spec none[] = { { 0 } };
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (parse_options(none, argc, argv) != 1)
		misuse("sniff wants an interface");
	at.sll_ifindex = if_nametoindex(argv[1]);
	if (!at.sll_ifindex || bind(fd, (struct sockaddr *)&at, sizeof(at)))
		misuse(argv[1]);
	say("event", "listening");
	for (;;)
		show_next(fd);
}
