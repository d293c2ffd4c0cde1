/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Istio's sidecar rules (tools/istio-iptables/pkg/capture/run.go), as questions about one connection. */
#ifndef AMBRIDGE_SIDECAR_H
#define AMBRIDGE_SIDECAR_H

#include "common.h"

enum sidecar_verdict {
	SIDECAR_PASS,
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

/* A local destination (-o lo). The proxy that calls its own pod goes in by the inbound listener; what the
 * app says to itself is its own business.
 */
static __always_inline enum sidecar_verdict sidecar_local(const struct rules *r, const struct endpoint *dst,
							  const struct pod *pod, bool by_proxy, bool dns)
{
	if (by_proxy) {
		bool to_itself = !is_localhost(dst->addr) && dst->port != pod->hbone_port && !dns;

		return to_itself ? SIDECAR_TO_INBOUND : SIDECAR_PASS;
	}
	if (dns && !is_localhost(dst->addr))
		return SIDECAR_DNS;
	if (r->flags & RULES_FLAG_LOOPBACK && !is_localhost(dst->addr))
		return ranges_hold(&r->include_ranges, dst) ? SIDECAR_TO_OUTBOUND : SIDECAR_PASS;
	return SIDECAR_PASS;
}

/* The order is that of Istio's chain; a pod without rules captures everything. */
static __always_inline enum sidecar_verdict sidecar_outbound(__u64 netns, const struct pod *pod,
							     const struct endpoint *dst, bool by_proxy)
{
	const struct rules *r = bpf_map_lookup_elem(&rules, &netns);
	bool dns = dst->port == DNS_PORT && pod->flags & POD_FLAG_DNS;

	if (!r)
		return by_proxy ? SIDECAR_PASS : SIDECAR_TO_OUTBOUND;
	if (rule_has_port(&r->exclude_outbound, dst->port))
		return SIDECAR_PASS;
	if (is_local(netns, dst->addr))
		return sidecar_local(r, dst, pod, by_proxy, dns);
	if (by_proxy)
		return SIDECAR_PASS;
	if (dns)
		return SIDECAR_DNS;
	if (ranges_hold(&r->exclude_ranges, dst))
		return SIDECAR_PASS;
	if (rule_has_port(&r->include_outbound, dst->port) || r->flags & RULES_FLAG_ALL_OUTBOUND ||
	    ranges_hold(&r->include_ranges, dst))
		return SIDECAR_TO_OUTBOUND;
	return SIDECAR_PASS;
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
