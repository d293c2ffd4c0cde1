// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* bind(2) hook, on proxies only: a proxy that binds its connection to the app to the client's address gets
 * the pod's own address instead, so that the connection needs no routing tricks. The wanted address is kept;
 * the app is shown it. A sidecar's ::6, which Istio would put on lo, is replaced in the same way.
 * A socket that the proxy binds to one of its ports is remembered for sockops, which cannot ask who calls
 * listen(2).
 */
#include "common.h"

/* The own address to bind instead of wanted, or NULL to leave the bind alone. */
static __always_inline const __be32 *replacement(struct bpf_sock_addr *ctx, const __be32 *wanted)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod *pod = find_pod(netns);
	const struct settings *s;

	if (is_loopback(wanted) || is_unspecified(wanted))
		return NULL;
	if (pod) {
		if (!is_proxy(pod, ctx->sk ? ctx->sk->mark : 0) || is_own(netns, pod, wanted))
			return NULL;
		/* A sidecar speaks for no client. */
		if (pod->mode == POD_MODE_SIDECAR && !is_passthrough(wanted))
			return NULL;
		return own_addr(pod, wanted);
	}
	s = get_settings();
	if (!s || s->shared_netns != netns)
		return NULL;
	return is_mapped(wanted) ? s->shared4 : s->shared6;
}

/* Returns whether the bind is to be changed to own. */
static __always_inline bool keep_wanted(struct bpf_sock_addr *ctx, const __be32 *wanted, __be32 *own)
{
	const __be32 *instead = ctx->type == SOCK_STREAM ? replacement(ctx, wanted) : NULL;
	struct sock_addr *stored;

	if (!instead || is_none(instead) || same_addr(instead, wanted) || !ctx->sk)
		return false;
	stored = bpf_sk_storage_get(&sock_addrs, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!stored)
		return false;
	set_addr(stored->addr, wanted);
	stored->port = bpf_ntohs(ctx->user_port);
	stored->kind = SOCK_ADDR_KIND_WANTED;
	set_addr(own, instead);
	return true;
}

/* Before the pod is registered, too: the listener counts for its own netns alone. */
static __always_inline bool is_bound_by_proxy(struct bpf_sock_addr *ctx)
{
	const struct pod *pod = find_pod(bpf_get_netns_cookie(ctx));

	if (!is_proxy_port(pod, bpf_ntohs(ctx->user_port)))
		return false;
	return pod ? is_proxy(pod, ctx->sk ? ctx->sk->mark : 0) : is_in_proxy_cgroup();
}

static __always_inline void remember_proxy(struct bpf_sock_addr *ctx)
{
	struct sock_addr proxy = { .kind = SOCK_ADDR_KIND_PROXY };

	if (ctx->type == SOCK_STREAM && ctx->sk && is_bound_by_proxy(ctx))
		bpf_sk_storage_get(&sock_addrs, ctx->sk, &proxy, BPF_SK_STORAGE_GET_F_CREATE);
}

SEC("cgroup/bind4")
int ambridge_bind4(struct bpf_sock_addr *ctx)
{
	__be32 wanted[4], own[4];

	set_addr4(wanted, ctx->user_ip4);
	remember_proxy(ctx);
	if (!keep_wanted(ctx, wanted, own))
		return 1;
	ctx->user_ip4 = own[3];
	ctx->user_port = 0;
	return 1;
}

SEC("cgroup/bind6")
int ambridge_bind6(struct bpf_sock_addr *ctx)
{
	__be32 wanted[4] = { load_word(ctx, user_ip6[0]), load_word(ctx, user_ip6[1]),
			     load_word(ctx, user_ip6[2]), load_word(ctx, user_ip6[3]) };
	__be32 own[4];

	remember_proxy(ctx);
	if (!keep_wanted(ctx, wanted, own))
		return 1;
	ctx->user_ip6[0] = own[0];
	ctx->user_ip6[1] = own[1];
	ctx->user_ip6[2] = own[2];
	ctx->user_ip6[3] = own[3];
	ctx->user_port = 0;
	return 1;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
