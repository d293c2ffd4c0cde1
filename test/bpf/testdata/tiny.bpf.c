/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* For native.test.ts: one of everything that the loader handles. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#ifndef HITS_MAX
#define HITS_MAX 16
#endif

const volatile __u32 refused_port; /* host order */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HITS_MAX);
	__type(key, __u32); /* port, host order */
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} calls SEC(".maps");

SEC("cgroup/connect4")
int refuse_one(struct bpf_sock_addr *ctx)
{
	__u32 port = bpf_ntohs(ctx->user_port), zero = 0;
	__u32 *count = bpf_map_lookup_elem(&calls, &zero);
	__u64 one = 1, *hit = bpf_map_lookup_elem(&hits, &port);

	if (count)
		*count += 1;
	if (hit)
		__sync_fetch_and_add(hit, 1);
	else
		bpf_map_update_elem(&hits, &port, &one, BPF_NOEXIST);
	return port != refused_port;
}

SEC("cgroup/connect4")
int refuse_none(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("sk_lookup")
int pass(struct bpf_sk_lookup *ctx)
{
	return SK_PASS;
}

/* The verifier refuses it. */
SEC("?cgroup/connect4")
int unchecked(struct bpf_sock_addr *ctx)
{
	__u32 port = 0;

	return *(__u64 *)bpf_map_lookup_elem(&hits, &port);
}

char _license[] SEC("license") = "Dual BSD/GPL";
