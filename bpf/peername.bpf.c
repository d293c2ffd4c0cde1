// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* getpeername(2) hook, which accept(2) runs as well: a client sees the address that it dialled, not where
 * it was redirected to; a server sees the client that its proxy speaks for.
 */
#include "common.h"

static __always_inline bool find_presented(struct bpf_sock_addr *ctx, struct endpoint *peer)
{
	struct sock_addr *stored = ctx->sk ? bpf_sk_storage_get(&sock_addrs, ctx->sk, NULL, 0) : NULL;

	if (!stored)
		return false;
	switch (stored->kind) {
	case SOCK_ADDR_KIND_DIALLED:
	case SOCK_ADDR_KIND_LOOPED:
	case SOCK_ADDR_KIND_DNS:
		/* Another peer: the redirected connect did not come about. */
		if (bpf_ntohs(ctx->user_port) != stored->via)
			return false;
		break;
	case SOCK_ADDR_KIND_SOURCE:
		break;
	default:
		return false;
	}
	set_addr(peer->addr, stored->addr);
	peer->port = stored->port;
	return true;
}

SEC("cgroup/getpeername4")
int ambridge_getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint peer;

	if (!find_presented(ctx, &peer))
		return 1;
	ctx->user_ip4 = peer.addr[3];
	ctx->user_port = bpf_htons(peer.port);
	return 1;
}

SEC("cgroup/getpeername6")
int ambridge_getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint peer;

	if (!find_presented(ctx, &peer))
		return 1;
	ctx->user_ip6[0] = peer.addr[0];
	ctx->user_ip6[1] = peer.addr[1];
	ctx->user_ip6[2] = peer.addr[2];
	ctx->user_ip6[3] = peer.addr[3];
	ctx->user_port = bpf_htons(peer.port);
	return 1;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
