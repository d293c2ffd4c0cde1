// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Programs that no kernel takes: each calls a helper that does not exist, as ours do on a kernel that is too old. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static long (*const unknown_helper)(void *ctx) = (void *)99999;

SEC("sockops")
int ambridge_sockops(struct bpf_sock_ops *ctx)
{
	return unknown_helper(ctx);
}

SEC("cgroup/connect4")
int ambridge_connect4(struct bpf_sock_addr *ctx)
{
	return unknown_helper(ctx) & 1;
}

SEC("sk_lookup")
int ambridge_inbound(struct bpf_sk_lookup *ctx)
{
	return unknown_helper(ctx) & 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
