// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* getsockopt(2) hook, on proxies only: answers SO_ORIGINAL_DST, for which the kernel has no record, as
 * nothing was translated. An accepted outbound socket without a record gets an answer that every proxy
 * refuses: left alone, the proxy would take its own listener for the destination.
 */
#include "common.h"

#define SOL_IP 0
#define SOL_IPV6 41
#define SO_ORIGINAL_DST 80 /* IP6T_SO_ORIGINAL_DST, too */

struct sockaddr_v4 {
	__u16 family;
	__be16 port;
	__be32 addr;
	__u8 zero[8];
};

struct sockaddr_v6 {
	__u16 family;
	__be16 port;
	__be32 flow;
	__be32 addr[4];
	__u32 scope;
};

/* volatile: clang would merge the two stores into one, which the verifier refuses. */
#define answer(ctx, length)                                                                                  \
	do {                                                                                                 \
		*(volatile __s32 *)&(ctx)->optlen = (length);                                                \
		*(volatile __s32 *)&(ctx)->retval = 0;                                                       \
	} while (0)

static __always_inline void answer4(struct bpf_sockopt *ctx, const struct endpoint *dest)
{
	struct sockaddr_v4 *to = ctx->optval;

	if ((void *)(to + 1) > ctx->optval_end)
		return;
	*to = (struct sockaddr_v4){ .family = AF_INET, .port = bpf_htons(dest->port), .addr = dest->addr[3] };
	answer(ctx, sizeof(*to));
}

static __always_inline void answer6(struct bpf_sockopt *ctx, const struct endpoint *dest)
{
	struct sockaddr_v6 *to = ctx->optval;

	if ((void *)(to + 1) > ctx->optval_end)
		return;
	to->family = AF_INET6;
	to->port = bpf_htons(dest->port);
	to->flow = 0;
	set_addr(to->addr, dest->addr);
	to->scope = 0;
	answer(ctx, sizeof(*to));
}

/* Before Linux 6.1 this hook cannot ask for a cgroup above the current one. Without that: where the cgroup
 * tells a proxy apart, what is accepted on the proxy's port is the proxy's.
 */
static __always_inline bool may_be_proxy(const struct pod *pod, __u32 mark)
{
	switch (pod->identity) {
	case PROXY_IDENTITY_MARK:
		return is_proxy_mark(pod, mark);
	case PROXY_IDENTITY_OWNER:
		return is_owned_by_proxy(pod);
	}
	return true;
}

static __always_inline void read_remote(struct bpf_sock *sk, __be32 *addr)
{
	if (sk->family == AF_INET) {
		set_addr4(addr, load_word(sk, dst_ip4));
		return;
	}
	addr[0] = load_word(sk, dst_ip6[0]);
	addr[1] = load_word(sk, dst_ip6[1]);
	addr[2] = load_word(sk, dst_ip6[2]);
	addr[3] = load_word(sk, dst_ip6[3]);
}

/* Redirected here, by a handshake that went missing before the connection was accepted: what is left is the
 * via port, on which an app may listen.
 */
static __always_inline bool is_lost(__u64 netns, const struct pod *pod, struct bpf_sock *sk,
				    const struct endpoint *local)
{
	__be32 remote[4];

	if (is_proxy_port(pod, local->port))
		return false;
	read_remote(sk, remote);
	return is_loopback(remote) || is_own(netns, pod, remote) || same_addr(remote, local->addr);
}

/* Returns false where the kernel's own answer is to stand. */
static __always_inline bool find_destination(struct bpf_sockopt *ctx, struct bpf_sock *sk,
					     struct endpoint *dest)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct sock_addr *stored = bpf_sk_storage_get(&sock_addrs, sk, NULL, 0);
	const struct pod *pod;
	bool lost;

	if (stored && stored->kind == SOCK_ADDR_KIND_DEST) {
		set_addr(dest->addr, stored->addr);
		dest->port = stored->port;
		return true;
	}
	pod = find_pod(netns);
	if (!pod ? !is_shared_proxy(netns) : !may_be_proxy(pod, sk->mark))
		return false;
	read_local(sk, dest);
	lost = pod && is_lost(netns, pod, sk, dest);
	/* Steered or dialled as it is, not redirected: the local address is the destination. Envoy takes it
	 * only from here.
	 */
	if (pod && pod->mode == POD_MODE_SIDECAR && !lost)
		return true;
	if (!lost && dest->port != (pod ? pod->outbound_port : DEFAULT_OUTBOUND_PORT))
		return false;
	set_addr4(dest->addr, bpf_htonl(0x7f000001));
	dest->port = pod ? pod->outbound_port : DEFAULT_OUTBOUND_PORT;
	return true;
}

SEC("cgroup/getsockopt")
int ambridge_getsockopt(struct bpf_sockopt *ctx)
{
	struct endpoint dest;

	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6))
		return 1;
	if (!ctx->sk || !find_destination(ctx, ctx->sk, &dest))
		return 1;
	if (is_mapped(dest.addr) && ctx->level == SOL_IP)
		answer4(ctx, &dest);
	else if (!is_mapped(dest.addr) && ctx->level == SOL_IPV6)
		answer6(ctx, &dest);
	return 1;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
