/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Istio's sidecar rules (tools/istio-iptables/pkg/capture/run.go), as questions about one connection. */
#ifndef AMBRIDGE_SIDECAR_H
#define AMBRIDGE_SIDECAR_H

#include "common.h"

enum sidecar_verdict {
	SIDECAR_EXCLUDED,
	SIDECAR_SELF,  /* the app's call to its own pod */
	SIDECAR_PROXY, /* the proxy's own */
	SIDECAR_DNS,
	SIDECAR_TO_INBOUND,
	SIDECAR_TO_OUTBOUND,
};

/* The two loops are global functions: the verifier then walks each once, not once per path that calls it. */

int rule_has_port(const struct port_rule *rule, __u16 port);
int ranges_hold(const struct range_rules *rules, const struct endpoint *dst);

__noinline __weak int rule_has_port(const struct port_rule *rule, __u16 port)
{
	if (!rule)
		return 0;
	for (__u32 i = 0; i < MAX_RULE_PORTS && i < rule->count; i++)
		if (rule->port[i] == port)
			return 1;
	return 0;
}

__noinline __weak int ranges_hold(const struct range_rules *rules, const struct endpoint *dst)
{
	if (!rules || !dst)
		return 0;
	for (__u32 i = 0; i < MAX_RULE_RANGES && i < rules->count; i++) {
		const struct range_rule *range = &rules->range[i];

		if (!(((dst->addr[0] ^ range->addr[0]) & range->mask[0]) |
		      ((dst->addr[1] ^ range->addr[1]) & range->mask[1]) |
		      ((dst->addr[2] ^ range->addr[2]) & range->mask[2]) |
		      ((dst->addr[3] ^ range->addr[3]) & range->mask[3])))
			return 1;
	}
	return 0;
}

/* Bound to the address that Envoy's connections to the app come from? Then it is one, which must not go to
 * Envoy again. ::6 is kept by the bind hook.
 */
static __always_inline bool is_bound_to_passthrough(struct bpf_sock *sk)
{
	struct sock_addr *stored = sk ? bpf_sk_storage_get(&sock_addrs, sk, NULL, 0) : NULL;
	struct endpoint bound;

	if (!sk)
		return false;
	if (stored && stored->kind == SOCK_ADDR_KIND_WANTED)
		return true;
	read_local(sk, &bound);
	return is_passthrough(bound.addr);
}

/* The proxy's. When it calls its own pod, at a pod or service address, it goes in by the inbound listener as
 * any client does.
 */
static __always_inline enum sidecar_verdict sidecar_proxy(const struct pod *pod, const struct endpoint *dst,
							  bool local)
{
	if (!local || is_localhost(dst->addr) || is_unspecified(dst->addr) || dst->port == pod->hbone_port)
		return SIDECAR_PROXY;
	return SIDECAR_TO_INBOUND;
}

/* The app's, once it is known to be neither DNS nor a call to its own pod that nobody wants captured. */
static __always_inline enum sidecar_verdict sidecar_app(const struct rules *r, const struct endpoint *dst)
{
	if (is_localhost(dst->addr) || is_unspecified(dst->addr))
		return SIDECAR_SELF;
	if (ranges_hold(&r->exclude_ranges, dst))
		return SIDECAR_EXCLUDED;
	if (rule_has_port(&r->include_outbound, dst->port) || r->flags & RULES_FLAG_ALL_OUTBOUND ||
	    ranges_hold(&r->include_ranges, dst))
		return SIDECAR_TO_OUTBOUND;
	return SIDECAR_EXCLUDED;
}

/* The order is that of Istio's chain. The rules of the user come before those of the group: a process that
 * has only the proxy's group is taken for the app where it calls its own pod.
 */
static __always_inline enum sidecar_verdict sidecar_outbound(__u64 netns, const struct pod *pod,
							     const struct endpoint *dst, struct bpf_sock *sk)
{
	const struct rules *r = bpf_map_lookup_elem(&rules, &netns);
	bool dns = dst->port == DNS_PORT && pod->flags & POD_FLAG_DNS;
	bool local = is_local(netns, pod, dst->addr) || is_passthrough(dst->addr);
	__u64 owner = bpf_get_current_uid_gid();

	if (!r) /* half-registered: nothing but the proxy gets out */
		return is_owned_by_proxy(pod) ? SIDECAR_PROXY : SIDECAR_TO_OUTBOUND;
	if (rule_has_port(&r->exclude_outbound, dst->port))
		return SIDECAR_EXCLUDED;
	if (local && is_bound_to_passthrough(sk))
		return SIDECAR_PROXY;
	if ((__u32)owner == pod->proxy_uid)
		return dns ? SIDECAR_PROXY : sidecar_proxy(pod, dst, local);
	if (local && !dns && !(r->flags & RULES_FLAG_LOOPBACK))
		return SIDECAR_SELF;
	if (owner >> 32 == pod->proxy_gid)
		return sidecar_proxy(pod, dst, local);
	return dns ? SIDECAR_DNS : sidecar_app(r, dst);
}

/* Does inbound traffic to this port reach the app past the sidecar? */
static __always_inline bool sidecar_bypasses_inbound(__u64 netns, const struct pod *pod, __u16 port)
{
	const struct rules *r = bpf_map_lookup_elem(&rules, &netns);

	if (port == pod->hbone_port)
		return true;
	if (!r)
		return false;
	if (r->flags & RULES_FLAG_ALL_INBOUND)
		return rule_has_port(&r->exclude_inbound, port);
	return !rule_has_port(&r->include_inbound, port);
}

#endif
