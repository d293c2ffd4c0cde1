// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* sk_lookup: whom a new TCP connection in the netns of an enrolled pod belongs to.
 * One instance per netns, which it knows by constant: the hook cannot read the cookie. Fails closed: what
 * should go to the proxy and finds no listener, and what should have been announced and was
 * not, is refused.
 */
#include "common.h"
#include "sidecar.h"

/* The mode is a constant, too: the verifier then passes over what the other modes do. */
const volatile struct inbound_config config;

#define netns_cookie (config.netns_cookie)

/* What becomes of a flow. port: of the proxy's listener that it is steered to; 0: it passes, or is dropped.
 */
struct decision {
	enum outcome outcome;
	__u16 port;
	bool drop;
};

static __always_inline struct decision pass(enum outcome outcome)
{
	return (struct decision){ .outcome = outcome };
}

static __always_inline struct decision drop(enum outcome outcome)
{
	return (struct decision){ .outcome = outcome, .drop = true };
}

static __always_inline struct decision to(__u16 port, enum outcome outcome)
{
	return (struct decision){ .outcome = outcome, .port = port };
}

static __always_inline void read_flow(struct bpf_sk_lookup *ctx, struct flow *flow)
{
	flow->client_port = bpf_ntohs((__u16)ctx->remote_port);
	flow->server_port = ctx->local_port;
	if (ctx->family == AF_INET) {
		set_addr4(flow->client, load_word(ctx, remote_ip4));
		set_addr4(flow->server, load_word(ctx, local_ip4));
		return;
	}
	flow->client[0] = load_word(ctx, remote_ip6[0]);
	flow->client[1] = load_word(ctx, remote_ip6[1]);
	flow->client[2] = load_word(ctx, remote_ip6[2]);
	flow->client[3] = load_word(ctx, remote_ip6[3]);
	flow->server[0] = load_word(ctx, local_ip6[0]);
	flow->server[1] = load_word(ctx, local_ip6[1]);
	flow->server[2] = load_word(ctx, local_ip6[2]);
	flow->server[3] = load_word(ctx, local_ip6[3]);
}

static __always_inline struct decision announced(const struct pod *pod, const struct handshake *known)
{
	switch (known->kind) {
	case FLOW_KIND_OUTBOUND:
		return to(pod->outbound_port, OUTCOME_HANDED_TO_PROXY);
	case FLOW_KIND_INBOUND:
		return to(pod->inbound_port, OUTCOME_HANDED_TO_PROXY);
	case FLOW_KIND_SOURCE:
		return pass(OUTCOME_INBOUND_FROM_PROXY);
	case FLOW_KIND_DIRECT:
		return pass(OUTCOME_INBOUND_SELF);
	}
	return drop(OUTCOME_INBOUND_REFUSED_UNANNOUNCED);
}

/* It began in this netns, so the connect hook saw it: without an entry, a captured flow would reach
 * whatever app listens on its via port.
 */
static __always_inline bool must_be_announced(const struct pod *pod, const struct flow *flow)
{
	if (is_loopback(flow->server))
		return is_target_loopback(pod, flow->server);
	return is_own(netns_cookie, pod, flow->client) || same_addr(flow->client, flow->server);
}

/* An entry that outlived its socket must not let in another one that gets the port. */
static __always_inline bool is_probe(struct flow *flow)
{
	const struct settings *s = get_settings();
	const __u64 *published;

	if (!s || s->probes == PROBE_MODE_OFF)
		return false;
	if (is_probe_address(flow->client))
		return true;
	flow->netns = 0;
	published = bpf_map_lookup_elem(&probe_flows, flow);
	return published && bpf_ktime_get_ns() - *published < PROBE_HANDSHAKE_NS;
}

/* From another netns. */
static __always_inline struct decision arrived(const struct pod *pod, struct flow *flow)
{
	if (config.mode == POD_MODE_SIDECAR) {
		if (sidecar_bypasses_inbound(netns_cookie, pod, flow->server_port))
			return pass(OUTCOME_INBOUND_EXCLUDED);
		return to(pod->inbound_port, OUTCOME_INBOUND_CAPTURED);
	}
	if (config.mode == POD_MODE_AMBIENT && flow->server_port == pod->hbone_port)
		return to(pod->hbone_port, OUTCOME_INBOUND_HBONE);
	if (pod->flags & POD_FLAG_BYPASS_INBOUND)
		return pass(OUTCOME_INBOUND_EXCLUDED);
	if (is_probe(flow))
		return pass(OUTCOME_INBOUND_PROBE);
	if (config.mode == POD_MODE_SHARED) /* its proxy is in another netns: nothing to steer to */
		return drop(OUTCOME_INBOUND_REFUSED_NOT_PROXY);
	return to(pod->inbound_port, OUTCOME_INBOUND_CAPTURED);
}

/* With route_localnet, or behind a DNAT rule of the pod's, others reach loopback, too. */
static __always_inline bool is_from_inside(const struct pod *pod, const struct flow *flow)
{
	return is_loopback(flow->client) || is_own(netns_cookie, pod, flow->client);
}

static __always_inline struct decision decide(const struct pod *pod, struct flow *flow)
{
	const struct handshake *known = bpf_map_lookup_elem(&handshakes, flow);

	if (known)
		return announced(pod, known);
	if (must_be_announced(pod, flow))
		return drop(OUTCOME_INBOUND_REFUSED_UNANNOUNCED);
	if (is_loopback(flow->server) && is_from_inside(pod, flow))
		return pass(OUTCOME_INBOUND_SELF);
	if (config.mode == POD_MODE_SHARED) {
		flow->netns = 0;
		known = bpf_map_lookup_elem(&handshakes, flow);
		if (known)
			return announced(pod, known);
	}
	return arrived(pod, flow);
}

/* A listener that cannot take the flow (another family) is as good as none. */
static __always_inline bool assign(struct bpf_sk_lookup *ctx, const struct listener_key *key, __u64 flags)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, key);
	long err;

	if (!sk)
		return false;
	err = bpf_sk_assign(ctx, sk, flags);
	bpf_sk_release(sk);
	return !err;
}

/* To the newest live listener of the port. A ztunnel that replaces another gets all new connections
 * from its listen() on, so that the old one can empty its queue; a sidecar has one SO_REUSEPORT
 * listener per worker, over which the kernel spreads them.
 */
static __always_inline bool steer(struct bpf_sk_lookup *ctx, const struct pod *pod, __u16 port)
{
	struct listener_key key = {
		.netns = netns_cookie,
		.port = port,
		.family = ctx->family == AF_INET ? 4 : 6,
	};
	__u64 flags = config.mode == POD_MODE_SIDECAR ? 0 : BPF_SK_LOOKUP_F_NO_REUSEPORT;
	const __u32 *next = bpf_map_lookup_elem(&listener_next, &key);
	__u32 newest = next ? *next : 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 1; i <= LISTENER_SLOTS; i++) {
		key.slot = (newest - i) % LISTENER_SLOTS;
		if (assign(ctx, &key, flags))
			return true;
	}
	return false;
}

SEC("sk_lookup")
int ambridge_inbound(struct bpf_sk_lookup *ctx)
{
	struct flow flow = { .netns = netns_cookie };
	struct decision decision;
	const struct pod *pod;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	pod = find_pod(netns_cookie);
	if (!pod)
		return SK_PASS;
	read_flow(ctx, &flow);
	decision = decide(pod, &flow);
	if (decision.port && !steer(ctx, pod, decision.port))
		decision = drop(OUTCOME_INBOUND_REFUSED_NO_LISTENER);
	count(netns_cookie, decision.outcome);
	return decision.drop ? SK_DROP : SK_PASS;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
