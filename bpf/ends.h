/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The two ends of a socket in a sockops program. */
#ifndef AMBRIDGE_ENDS_H
#define AMBRIDGE_ENDS_H

#include "common.h"

#define TCP_CLOSE 7

static __always_inline void read_ends(struct bpf_sock_ops *ctx, struct endpoint *local,
				      struct endpoint *remote)
{
	local->port = ctx->local_port;
	remote->port = bpf_ntohl(ctx->remote_port);
	if (ctx->family == AF_INET) {
		set_addr4(local->addr, load_word(ctx, local_ip4));
		set_addr4(remote->addr, load_word(ctx, remote_ip4));
		return;
	}
	local->addr[0] = load_word(ctx, local_ip6[0]);
	local->addr[1] = load_word(ctx, local_ip6[1]);
	local->addr[2] = load_word(ctx, local_ip6[2]);
	local->addr[3] = load_word(ctx, local_ip6[3]);
	remote->addr[0] = load_word(ctx, remote_ip6[0]);
	remote->addr[1] = load_word(ctx, remote_ip6[1]);
	remote->addr[2] = load_word(ctx, remote_ip6[2]);
	remote->addr[3] = load_word(ctx, remote_ip6[3]);
}

static __always_inline void set_flow(struct flow *flow, const struct endpoint *client,
				     const struct endpoint *server)
{
	set_addr(flow->client, client->addr);
	set_addr(flow->server, server->addr);
	flow->client_port = client->port;
	flow->server_port = server->port;
}

#endif
