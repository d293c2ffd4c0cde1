// SPDX-License-Identifier: Apache-2.0
#ifndef SYN_H
#define SYN_H

#include <netinet/ip.h>
#include <netinet/tcp.h>

#include "net.h"

struct syn {
	struct iphdr ip;
	struct tcphdr tcp;
};

/* A packet with a SYN, checksums included, from one IPv4 address and port to another. */
struct syn make_syn(const union addr *from, const union addr *to);

#endif
