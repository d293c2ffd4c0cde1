// SPDX-License-Identifier: Apache-2.0
#include "syn.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static uint32_t sum16(const void *data, size_t len, uint32_t sum)
{
	uint16_t word;

	for (size_t i = 0; i + sizeof(word) <= len; i += sizeof(word)) {
		memcpy(&word, (const char *)data + i, sizeof(word));
		sum += word;
	}
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

struct syn make_syn(const union addr *from, const union addr *to)
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
	syn.tcp.source = from->v4.sin_port;
	syn.tcp.dest = to->v4.sin_port;
	syn.tcp.seq = random();
	syn.tcp.window = htons(64240);
	syn.tcp.check = tcp_checksum(&syn);
	return syn;
}
