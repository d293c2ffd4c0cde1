// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* sockops hook on the kubelet: its connections to enrolled pods of this node reach the app directly. The
 * exact 4-tuple is published before the SYN leaves, and withdrawn when that socket closes: another socket
 * that gets the same port later is captured.
 */
#include "ends.h"

static __always_inline void read_flow(struct bpf_sock_ops *ctx, struct flow *flow)
{
	struct endpoint local, remote;

	read_ends(ctx, &local, &remote);
	set_flow(flow, &local, &remote);
}

/* In mode kubelet, the cgroup that this program is attached to has decided already. */
static __always_inline bool is_kubelet(const struct settings *s, struct bpf_sock *sk)
{
	const struct sock_addr *stored;

	switch (s->probes) {
	case PROBE_MODE_KUBELET:
	case PROBE_MODE_ANY_HOST_SOCKET:
		return true;
	case PROBE_MODE_UID:
		stored = sk ? bpf_sk_storage_get(&sock_addrs, sk, NULL, 0) : NULL;
		return stored && stored->kind == SOCK_ADDR_KIND_KUBELET;
	}
	return false;
}

static __always_inline void publish(struct bpf_sock_ops *ctx, const struct settings *s)
{
	struct flow flow = {};
	__u64 now = bpf_ktime_get_ns();

	if (!is_kubelet(s, ctx->sk))
		return;
	read_flow(ctx, &flow);
	if (!is_in_node(flow.server))
		return;
	bpf_map_update_elem(&probe_flows, &flow, &now, BPF_ANY);
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void withdraw(struct bpf_sock_ops *ctx)
{
	struct flow flow = {};

	read_flow(ctx, &flow);
	bpf_map_delete_elem(&probe_flows, &flow);
}

SEC("sockops")
int ambridge_probes(struct bpf_sock_ops *ctx)
{
	const struct settings *s = get_settings();

	if (!s || bpf_get_netns_cookie(ctx) != s->host_netns)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		publish(ctx, s);
	else if (ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == TCP_CLOSE)
		withdraw(ctx);
	return 1;
}

/* Attached in mode uid only: on Linux 6.1, sockops cannot ask for the user. */
static __always_inline void remember_user(struct bpf_sock_addr *ctx)
{
	struct sock_addr kubelet = { .kind = SOCK_ADDR_KIND_KUBELET };
	const struct settings *s = get_settings();

	if (!s || !ctx->sk || ctx->type != SOCK_STREAM || bpf_get_netns_cookie(ctx) != s->host_netns)
		return;
	if ((__u32)bpf_get_current_uid_gid() == s->kubelet_uid)
		bpf_sk_storage_get(&sock_addrs, ctx->sk, &kubelet, BPF_SK_STORAGE_GET_F_CREATE);
}

SEC("cgroup/connect4")
int ambridge_user4(struct bpf_sock_addr *ctx)
{
	remember_user(ctx);
	return 1;
}

SEC("cgroup/connect6")
int ambridge_user6(struct bpf_sock_addr *ctx)
{
	remember_user(ctx);
	return 1;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
