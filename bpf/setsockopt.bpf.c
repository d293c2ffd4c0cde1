// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* setsockopt(2) hook, opt-in with the guard: a guarded pod may not make its packets pass the device's egress
 * hook by.
 */
#include "common.h"

#define SOL_PACKET 263
#define PACKET_QDISC_BYPASS 20
#define SOL_XDP 283

SEC("cgroup/setsockopt")
int ambridge_setsockopt(struct bpf_sockopt *ctx)
{
	const struct pod *pod;

	if (ctx->level != SOL_XDP && (ctx->level != SOL_PACKET || ctx->optname != PACKET_QDISC_BYPASS))
		return 1;
	pod = find_pod(bpf_get_netns_cookie(ctx));
	return !pod || !(pod->flags & POD_FLAG_GUARD);
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
