// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* sockops hook: carries the original destination, or the original source, from the socket that connects
 * to the socket that accepts, and learns the proxies' listeners.
 */
#include "ends.h"

/* Counts one more unanswered connect of the pod; false when it has too many. The bound is of the map: only
 * the pod's own entries count against it.
 */
static __always_inline bool add_pending(__u64 owner)
{
	__s64 *used = bpf_map_lookup_elem(&pending, &owner);
	__s64 one = 1;

	if (!used)
		return !bpf_map_update_elem(&pending, &owner, &one, BPF_NOEXIST);
	if (*used >= PENDING_QUOTA)
		return false;
	__sync_fetch_and_add(used, 1);
	return true;
}

static __always_inline void remove_pending(__u64 owner)
{
	__s64 *used = bpf_map_lookup_elem(&pending, &owner);

	if (used)
		__sync_fetch_and_add(used, -1);
}

static __always_inline void forget(const struct flow *flow)
{
	const struct handshake *known = bpf_map_lookup_elem(&handshakes, flow);
	__u64 owner;

	if (!known)
		return;
	owner = known->owner;
	if (!bpf_map_delete_elem(&handshakes, flow))
		remove_pending(owner);
}

/* Without an entry the flow is refused where it arrives. */
static __always_inline void publish(struct bpf_sock_ops *ctx, const struct flow *flow,
				    const struct handshake *value)
{
	forget(flow); /* a leftover of an earlier socket with the same ends */
	if (!add_pending(value->owner)) {
		count(value->owner, OUTCOME_OUTBOUND_REFUSED_PENDING);
		return;
	}
	if (bpf_map_update_elem(&handshakes, flow, value, BPF_NOEXIST)) {
		remove_pending(value->owner);
		count(value->owner, OUTCOME_ANNOUNCE_FAILED);
		return;
	}
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Does the connection stay in the client's own netns? An address that the pod got after ADD shows
 * itself by being both ends. A foreign source does not count, or a socket that is bound to it would open a
 * way in for the real one.
 */
static __always_inline bool stays_inside(__u64 netns, const struct pod *pod, const struct endpoint *local,
					 const struct endpoint *remote)
{
	if (same_addr(local->addr, remote->addr))
		return !is_loopback(remote->addr) || is_target_loopback(pod, remote->addr);
	if (!is_loopback(local->addr) && !is_own(netns, pod, local->addr))
		return false;
	return is_loopback(remote->addr) ? is_target_loopback(pod, remote->addr)
					 : is_own(netns, pod, remote->addr);
}

/* Returns the kind of the handshake to publish, 0 for none. */
static __always_inline __u8 flow_kind(const struct sock_addr *decided, bool inside)
{
	switch (decided->kind) {
	case SOCK_ADDR_KIND_DIALLED:
		return FLOW_KIND_OUTBOUND;
	case SOCK_ADDR_KIND_LOOPED:
		return FLOW_KIND_INBOUND;
	case SOCK_ADDR_KIND_WANTED:
		return FLOW_KIND_SOURCE;
	case SOCK_ADDR_KIND_DIRECT:
	case SOCK_ADDR_KIND_DNS:
		return inside ? FLOW_KIND_DIRECT : 0;
	}
	return 0;
}

static __always_inline void announce_in_pod(struct bpf_sock_ops *ctx, __u64 netns, const struct pod *pod)
{
	/* What the connect and bind hooks decided for the socket, which is about to send its SYN. */
	struct sock_addr *decided = ctx->sk ? bpf_sk_storage_get(&sock_addrs, ctx->sk, NULL, 0) : NULL;
	struct handshake value = { .owner = netns };
	struct endpoint local, remote;
	struct flow flow = {};

	if (!decided)
		return;
	read_ends(ctx, &local, &remote);
	value.kind = flow_kind(decided, stays_inside(netns, pod, &local, &remote));
	if (!value.kind)
		return;
	set_addr(value.addr, decided->addr);
	value.port = decided->port;
	if (value.kind == FLOW_KIND_SOURCE && !value.port)
		value.port = local.port; /* the proxy asked for any port */
	if (value.kind != FLOW_KIND_OUTBOUND || pod->mode != POD_MODE_SHARED)
		flow.netns = netns;
	set_flow(&flow, &local, &remote);
	publish(ctx, &flow, &value);
}

/* The shared proxy's connection to an enrolled pod of this node. */
static __always_inline void announce_from_shared(struct bpf_sock_ops *ctx, __u64 netns)
{
	struct sock_addr *wanted = ctx->sk ? bpf_sk_storage_get(&sock_addrs, ctx->sk, NULL, 0) : NULL;
	struct handshake value = { .owner = netns, .kind = FLOW_KIND_SOURCE };
	struct endpoint local, remote;
	struct flow flow = {};

	read_ends(ctx, &local, &remote);
	if (!is_in_node(remote.addr))
		return;
	if (wanted && wanted->kind == SOCK_ADDR_KIND_WANTED) {
		set_addr(value.addr, wanted->addr);
		value.port = wanted->port ? wanted->port : local.port;
	}
	set_flow(&flow, &local, &remote);
	publish(ctx, &flow, &value);
}

static __always_inline void announce(struct bpf_sock_ops *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod *pod = find_pod(netns);

	if (pod)
		announce_in_pod(ctx, netns, pod);
	else if (is_shared_proxy(netns))
		announce_from_shared(ctx, netns);
}

/* The accepted socket takes what it has to present or to answer into its storage. */
static __always_inline void take(struct bpf_sock_ops *ctx, const struct flow *flow,
				 const struct handshake *known, __u64 netns)
{
	struct sock_addr value = { .port = known->port };

	set_addr(value.addr, known->addr);
	if (known->kind == FLOW_KIND_OUTBOUND || known->kind == FLOW_KIND_INBOUND)
		value.kind = SOCK_ADDR_KIND_DEST;
	else if (known->kind == FLOW_KIND_SOURCE && !is_none(known->addr))
		value.kind = SOCK_ADDR_KIND_SOURCE;
	if (value.kind && ctx->sk)
		bpf_sk_storage_get(&sock_addrs, ctx->sk, &value, BPF_SK_STORAGE_GET_F_CREATE);
	if (value.kind == SOCK_ADDR_KIND_SOURCE)
		count(netns, OUTCOME_SOURCE_KEPT);
	forget(flow);
}

static __always_inline void hand_over(struct bpf_sock_ops *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod *pod = find_pod(netns);
	const struct handshake *known;
	struct endpoint local, remote;
	struct flow flow = { .netns = netns };

	if (!pod && !is_shared_proxy(netns))
		return;
	read_ends(ctx, &local, &remote);
	set_flow(&flow, &remote, &local);
	known = bpf_map_lookup_elem(&handshakes, &flow);
	if (!known && (!pod || pod->mode == POD_MODE_SHARED)) {
		flow.netns = 0;
		known = bpf_map_lookup_elem(&handshakes, &flow);
	}
	if (known)
		take(ctx, &flow, known, netns);
}

/* The connecting socket is gone before anybody accepted. */
static __always_inline void withdraw(struct bpf_sock_ops *ctx)
{
	struct endpoint local, remote;
	struct flow flow = { .netns = bpf_get_netns_cookie(ctx) };

	read_ends(ctx, &local, &remote);
	set_flow(&flow, &local, &remote);
	forget(&flow);
	flow.netns = 0;
	forget(&flow);
}

static __always_inline __u32 *next_slot(struct listener_key *key)
{
	__u32 *next = bpf_map_lookup_elem(&listener_next, key);
	__u32 zero = 0;

	if (next)
		return next;
	bpf_map_update_elem(&listener_next, key, &zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(&listener_next, key);
}

/* In the next slot that no live listener has: a proxy that stays must outlast a newer one that is started
 * again and again. Where all slots are taken, one of the oldest is forgotten.
 */
static __always_inline void add_listener(struct bpf_sock_ops *ctx, __u64 netns, __u8 family)
{
	struct listener_key key = { .netns = netns, .port = ctx->local_port, .family = family };
	__u32 *next = next_slot(&key);

	if (!next)
		return;
#pragma clang loop unroll(disable)
	for (int i = 0; i < LISTENER_SLOTS; i++) {
		key.slot = __sync_fetch_and_add(next, 1) % LISTENER_SLOTS;
		if (!bpf_sock_hash_update(ctx, &listeners, &key, BPF_NOEXIST))
			return;
	}
	bpf_sock_hash_update(ctx, &listeners, &key, BPF_ANY);
}

/* On Linux 6.1, sockops cannot ask for the current cgroup or user: the bind hook did. A mark may come after
 * bind(2), and listen(2) before the pod is registered.
 */
static __always_inline bool is_proxy_socket(struct bpf_sock *sk, const struct pod *pod)
{
	const struct sock_addr *stored = bpf_sk_storage_get(&sock_addrs, sk, NULL, 0);
	const struct settings *s = get_settings();

	if (stored && stored->kind == SOCK_ADDR_KIND_PROXY)
		return true;
	if (pod)
		return pod->identity == PROXY_IDENTITY_MARK && is_proxy_mark(pod, sk->mark);
	return s && s->default_identity == PROXY_IDENTITY_MARK &&
	       (sk->mark & DEFAULT_PROXY_MARK_MASK) == DEFAULT_PROXY_MARK;
}

/* A connection that was steered here holds, as its local port, the one that the client dialled. Without
 * this, an app that starts again could not bind its own port while the proxy still has a client of it.
 * Accepted sockets inherit it; Linux 6.1, before which the call does nothing.
 */
static __always_inline void share_ports(struct bpf_sock_ops *ctx)
{
	int on = 1;

	bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}

static __always_inline void learn_listener(struct bpf_sock_ops *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod *pod = find_pod(netns);
	struct endpoint local, remote;

	if (!ctx->sk || !is_proxy_port(pod, ctx->local_port) || !is_proxy_socket(ctx->sk, pod))
		return;
	share_ports(ctx);
	read_ends(ctx, &local, &remote);
	if (ctx->family == AF_INET || is_mapped(local.addr) || is_none(local.addr))
		add_listener(ctx, netns, 4);
	if (ctx->family == AF_INET6 && !is_mapped(local.addr))
		add_listener(ctx, netns, 6);
}

SEC("sockops")
int ambridge_sockops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		announce(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		hand_over(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == TCP_CLOSE)
			withdraw(ctx);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		learn_listener(ctx);
		break;
	}
	return 1;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
