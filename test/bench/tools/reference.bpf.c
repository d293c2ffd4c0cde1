// SPDX-License-Identifier: Apache-2.0
/* What a connect hook costs that does nothing, and one that only creates what ours creates: a storage on the
 * socket.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* As large as struct sock_addr. */
struct value {
	char bytes[24];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct value);
} storage SEC(".maps");

SEC("cgroup/connect4")
int bench_empty(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("cgroup/connect4")
int bench_storage(struct bpf_sock_addr *ctx)
{
	if (ctx->sk)
		bpf_sk_storage_get(&storage, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}
