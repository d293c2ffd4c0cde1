// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* connect(2) hook: outbound TCP of enrolled pods goes to their proxy, and DNS to its DNS server.
 * Other pods are untouched. An enrolled pod fails closed: a destination that cannot be
 * remembered is refused (EPERM), never let through.
 */
#include "common.h"
#include "sidecar.h"

enum verdict {
	REFUSE = 0,
	PASS = 1,
	REDIRECT = 2,
};

/* Below the ephemeral ports: a client whose own port were the via port would connect to itself. */
#define MIN_VIA_PORT 1024
#define MAX_VIA_PORT 32767

/* Each original destination gets a port, and so a 4-tuple space, of its own: with one port for all,
 * a pod would have one ephemeral port range for everything that it dials.
 */
static __always_inline __u16 via_port(struct bpf_sock_addr *ctx, const struct endpoint *dst)
{
	__u32 hash = dst->port;
	__u16 via;

	for (int i = 0; i < 4; i++) {
		hash = (hash ^ dst->addr[i]) * 0x9e3779b1;
		hash ^= hash >> 15;
	}
	via = MIN_VIA_PORT + ((__u64)hash * (MAX_VIA_PORT + 1 - MIN_VIA_PORT) >> 32);
	return ctx->sk && ctx->sk->src_port == via ? via ^ 1 : via;
}

static __always_inline bool remember(struct bpf_sock_addr *ctx, const struct endpoint *dst, __u16 via,
				     __u8 kind)
{
	struct sock_addr *stored;

	if (!ctx->sk)
		return false;
	stored = bpf_sk_storage_get(&sock_addrs, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!stored)
		return false;
	/* A proxy that bound to the client's address keeps that. */
	if (kind == SOCK_ADDR_KIND_DIRECT && stored->kind == SOCK_ADDR_KIND_WANTED)
		return true;
	set_addr(stored->addr, dst->addr);
	stored->port = dst->port;
	stored->via = via;
	stored->kind = kind;
	return true;
}

static __always_inline enum verdict pass(__u64 netns, enum outcome outcome)
{
	count(netns, outcome);
	return PASS;
}

/* Past the proxy. It may end in this netns, where an unannounced flow is refused. */
static __always_inline enum verdict direct(struct bpf_sock_addr *ctx, __u64 netns, const struct endpoint *dst,
					   enum outcome outcome)
{
	if (!remember(ctx, dst, 0, SOCK_ADDR_KIND_DIRECT)) {
		count(netns, OUTCOME_OUTBOUND_REFUSED_STORAGE);
		return REFUSE;
	}
	return pass(netns, outcome);
}

static __always_inline enum verdict refuse(__u64 netns, enum outcome outcome)
{
	count(netns, outcome);
	return REFUSE;
}

static __always_inline void set_localhost(__be32 *to, const __be32 *like)
{
	if (is_mapped(like))
		set_addr4(to, bpf_htonl(0x7f000001));
	else
		to[0] = to[1] = to[2] = 0, to[3] = bpf_htonl(1);
}

/* Sends the connection to the proxy inside this netns: at the pod's own address, so that the kernel
 * picks the pod's address as source, or at loopback where the pod has none of that family.
 */
static __always_inline enum verdict capture_here(struct bpf_sock_addr *ctx, __u64 netns,
						 const struct pod *pod, struct endpoint *dst, __u8 kind)
{
	const __be32 *own = own_addr(pod, dst->addr);
	__u16 via = via_port(ctx, dst);

	if (!remember(ctx, dst, via, kind))
		return refuse(netns, OUTCOME_OUTBOUND_REFUSED_STORAGE);
	if (is_none(own))
		set_localhost(dst->addr, dst->addr);
	else
		set_addr(dst->addr, own);
	dst->port = via;
	count(netns, OUTCOME_OUTBOUND_CAPTURED);
	return REDIRECT;
}

static __always_inline enum verdict capture_shared(struct bpf_sock_addr *ctx, __u64 netns,
						   struct endpoint *dst, __u16 port)
{
	const struct settings *s = get_settings();
	const __be32 *proxy = !s ? NULL : is_mapped(dst->addr) ? s->shared4 : s->shared6;

	if (!proxy || is_none(proxy))
		return refuse(netns, OUTCOME_OUTBOUND_REFUSED_NO_PROXY);
	if (!remember(ctx, dst, port, SOCK_ADDR_KIND_DIALLED))
		return refuse(netns, OUTCOME_OUTBOUND_REFUSED_STORAGE);
	set_addr(dst->addr, proxy);
	dst->port = port;
	count(netns, OUTCOME_OUTBOUND_CAPTURED);
	return REDIRECT;
}

static __always_inline enum verdict capture_dns(struct bpf_sock_addr *ctx, __u64 netns, const struct pod *pod,
						struct endpoint *dst, enum outcome outcome)
{
	if (pod->mode == POD_MODE_SHARED)
		return capture_shared(ctx, netns, dst, pod->dns_port);
	if (!remember(ctx, dst, pod->dns_port, SOCK_ADDR_KIND_DNS))
		return refuse(netns, OUTCOME_OUTBOUND_REFUSED_STORAGE);
	unbind_device(ctx);
	set_localhost(dst->addr, dst->addr);
	dst->port = pod->dns_port;
	count(netns, outcome);
	return REDIRECT;
}

static __always_inline enum verdict connect_sidecar(struct bpf_sock_addr *ctx, __u64 netns,
						    const struct pod *pod, struct endpoint *dst)
{
	switch (sidecar_outbound(netns, pod, dst, ctx->sk)) {
	case SIDECAR_DNS:
		return capture_dns(ctx, netns, pod, dst, OUTCOME_DNS_TCP);
	case SIDECAR_TO_INBOUND:
		return capture_here(ctx, netns, pod, dst, SOCK_ADDR_KIND_LOOPED);
	case SIDECAR_TO_OUTBOUND:
		return capture_here(ctx, netns, pod, dst, SOCK_ADDR_KIND_DIALLED);
	case SIDECAR_PROXY:
		return direct(ctx, netns, dst, OUTCOME_OUTBOUND_PROXY);
	case SIDECAR_SELF:
		return direct(ctx, netns, dst, OUTCOME_OUTBOUND_SELF);
	case SIDECAR_EXCLUDED:
		break;
	}
	return direct(ctx, netns, dst, OUTCOME_OUTBOUND_EXCLUDED);
}

static __always_inline enum verdict connect_tcp(struct bpf_sock_addr *ctx, __u64 netns, const struct pod *pod,
						struct endpoint *dst)
{
	if (pod->mode == POD_MODE_SIDECAR)
		return connect_sidecar(ctx, netns, pod, dst);
	if (is_proxy(pod, ctx->sk ? ctx->sk->mark : 0))
		return direct(ctx, netns, dst, OUTCOME_OUTBOUND_PROXY);
	if (is_probe_address(dst->addr))
		return pass(netns, OUTCOME_OUTBOUND_EXCLUDED);
	if (dst->port == DNS_PORT && pod->flags & POD_FLAG_DNS && !is_localhost(dst->addr) &&
	    !is_unspecified(dst->addr))
		return capture_dns(ctx, netns, pod, dst, OUTCOME_DNS_TCP);
	if (is_local(netns, pod, dst->addr))
		return direct(ctx, netns, dst, OUTCOME_OUTBOUND_SELF);
	if (pod->mode == POD_MODE_SHARED)
		return capture_shared(ctx, netns, dst, pod->outbound_port);
	return capture_here(ctx, netns, pod, dst, SOCK_ADDR_KIND_DIALLED);
}

/* UDP: only DNS is captured, and by another rule than TCP's: no local destination is. */
static __always_inline enum verdict connect_udp(struct bpf_sock_addr *ctx, __u64 netns, const struct pod *pod,
						struct endpoint *dst)
{
	struct sock_addr *stored;

	if (is_captured_udp_dns(netns, pod, dst, ctx->sk ? ctx->sk->mark : 0))
		return capture_dns(ctx, netns, pod, dst, OUTCOME_DNS_UDP);
	/* Connected to another peer now. */
	stored = ctx->sk ? bpf_sk_storage_get(&sock_addrs, ctx->sk, NULL, 0) : NULL;
	if (stored)
		stored->kind = SOCK_ADDR_KIND_NONE;
	return PASS;
}

static __always_inline enum verdict decide(struct bpf_sock_addr *ctx, struct endpoint *dst)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod *pod = find_pod(netns);

	if (!pod)
		return PASS;
	dst->port = bpf_ntohs(ctx->user_port);
	/* Linux 6.18 runs the hook for the subflow of an MPTCP socket, which is TCP. */
	if (ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_MPTCP)
		return connect_tcp(ctx, netns, pod, dst);
	if (ctx->protocol == IPPROTO_UDP)
		return connect_udp(ctx, netns, pod, dst);
	return PASS;
}

SEC("cgroup/connect4")
int ambridge_connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint dst;
	enum verdict verdict;

	set_addr4(dst.addr, ctx->user_ip4);
	verdict = decide(ctx, &dst);
	if (verdict != REDIRECT)
		return verdict;
	ctx->user_ip4 = dst.addr[3];
	ctx->user_port = bpf_htons(dst.port);
	return PASS;
}

SEC("cgroup/connect6")
int ambridge_connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint dst = {
		.addr = { load_word(ctx, user_ip6[0]), load_word(ctx, user_ip6[1]),
			  load_word(ctx, user_ip6[2]), load_word(ctx, user_ip6[3]) },
	};
	enum verdict verdict = decide(ctx, &dst);

	if (verdict != REDIRECT)
		return verdict;
	ctx->user_ip6[0] = dst.addr[0];
	ctx->user_ip6[1] = dst.addr[1];
	ctx->user_ip6[2] = dst.addr[2];
	ctx->user_ip6[3] = dst.addr[3];
	ctx->user_port = bpf_htons(dst.port);
	return PASS;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
