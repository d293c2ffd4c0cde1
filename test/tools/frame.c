// SPDX-License-Identifier: Apache-2.0
/* sock frame: packets as they are given, past the socket layer. Through a packet socket they are
 * Ethernet frames, with --ip they are IP packets through a raw socket.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sock.h"

#define MAX_FRAME 1514

static struct {
	bool ip;
	/* sll_protocol; 0: as the frame says */
	int protocol;
	int repeat;
} wanted = { .repeat = 1 };

static const struct option_spec options[] = {
	FLAG("ip", &wanted.ip),
	NUMBER("protocol", &wanted.protocol),
	NUMBER("repeat", &wanted.repeat),
	{ 0 },
};

static size_t parse_hex(unsigned char *bytes, const char *text)
{
	size_t len = strlen(text) / 2;
	unsigned int byte;

	if (len > MAX_FRAME || strlen(text) % 2)
		misuse(text);
	for (size_t i = 0; i < len; i++) {
		if (sscanf(text + 2 * i, "%2x", &byte) != 1)
			misuse(text);
		bytes[i] = byte;
	}
	return len;
}

static bool send_frame(int fd, int interface, const unsigned char *bytes, size_t len)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_ifindex = interface,
		.sll_halen = 6,
	};

	memcpy(to.sll_addr, bytes, 6);
	memcpy(&to.sll_protocol, bytes + 12, 2);
	if (wanted.protocol)
		to.sll_protocol = htons(wanted.protocol);
	return sendto(fd, bytes, len, 0, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)len;
}

/* To where the header says. IPPROTO_RAW implies that the header is there. */
static bool send_packet(const unsigned char *bytes, size_t len)
{
	bool is_v6 = bytes[0] >> 4 == 6;
	union addr to = { .sa.sa_family = is_v6 ? AF_INET6 : AF_INET };
	int fd = socket(to.sa.sa_family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	bool is_sent;
	int saved;

	if (is_v6)
		memcpy(&to.v6.sin6_addr, bytes + 24, 16);
	else
		memcpy(&to.v4.sin_addr, bytes + 16, 4);
	is_sent = sendto(fd, bytes, len, 0, &to.sa, addr_len(&to)) == (ssize_t)len;
	saved = errno;
	close(fd);
	errno = saved;
	return is_sent;
}

/* Gives the number of those sent; the first that is not ends it. */
static int send_given(int fd, int interface, char **texts, int count)
{
	unsigned char bytes[MAX_FRAME] = { 0 };
	int sent = 0;

	for (int i = 0; i < count * wanted.repeat; i++) {
		size_t len = parse_hex(bytes, texts[i % count]);

		errno = 0;
		if (!(wanted.ip ? send_packet(bytes, len) : send_frame(fd, interface, bytes, len)))
			break;
		sent++;
	}
	return sent;
}

int frame(int argc, char **argv)
{
	int count = parse_options(options, argc, argv);
	int sent, fd = -1;
	struct json json;

	if (count < 2 || !if_nametoindex(argv[1]))
		misuse("frame wants an interface and packets as hex");
	if (!wanted.ip)
		fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	sent = send_given(fd, if_nametoindex(argv[1]), argv + 2, count - 1);
	json_open(&json);
	json_int(&json, "sent", sent);
	json_str(&json, "error", error_name(errno));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	return 0;
}

static const char *try_option(int domain, int level, int option, int value)
{
	int fd = socket(domain, SOCK_RAW | SOCK_CLOEXEC, 0);
	int error = fd < 0 || set_int(fd, level, option, value) ? errno : 0;

	if (fd >= 0)
		close(fd);
	return error_name(error);
}

/* What the kernel says of the options by which packets go round a device's egress hook; "" where
 * they work. */
int shortcuts(int argc, char **argv)
{
	static const struct option_spec none[] = { { 0 } };
	struct json json;

	if (parse_options(none, argc, argv))
		misuse(argv[1]);
	json_open(&json);
	json_str(&json, "qdisc_bypass", try_option(AF_PACKET, SOL_PACKET, PACKET_QDISC_BYPASS, 1));
	json_str(&json, "xdp", try_option(AF_XDP, SOL_XDP, XDP_TX_RING, 64));
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
	return 0;
}
