/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What several programs ask: about addresses, pods and proxies. */
#ifndef AMBRIDGE_COMMON_H
#define AMBRIDGE_COMMON_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include "maps.h"

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define SOL_SOCKET 1
#define SO_REUSEADDR 2
#define SO_BINDTOIFINDEX 62
#define DNS_PORT 53

/* ztunnel's (src/config.rs, src/inpod/config.rs); a pod's entry may say otherwise. */
#define DEFAULT_OUTBOUND_PORT 15001
#define DEFAULT_INBOUND_PORT 15006
#define DEFAULT_HBONE_PORT 15008
#define DEFAULT_PROXY_MARK 0x539
#define DEFAULT_PROXY_MARK_MASK 0xfff

/* Deepest cgroup level at which a proxy may be registered. */
#define MAX_CGROUP_LEVEL 16

#define MAPPED_PREFIX bpf_htonl(0xffff)

/* A 32-bit load that clang may not merge with its neighbour: a merged one becomes arithmetic on the
 * context pointer, which the verifier refuses.
 */
#define load_word(ptr, field)                                                                                \
	({                                                                                                   \
		__u32 value__;                                                                               \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                                        \
			     : "=r"(value__)                                                                 \
			     : "r"(ptr), "i"(offsetof(typeof(*(ptr)), field))                                \
			     : "memory");                                                                    \
		value__;                                                                                     \
	})

/* No hole: Linux 5.15 passes to a global function only what is all initialized. */
struct endpoint {
	__be32 addr[4];
	__u32 port; /* host order */
};

static __always_inline void set_addr(__be32 *to, const __be32 *from)
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

static __always_inline void set_addr4(__be32 *to, __be32 addr4)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = MAPPED_PREFIX;
	to[3] = addr4;
}

static __always_inline bool same_addr(const __be32 *a, const __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline bool is_mapped(const __be32 *addr)
{
	return !addr[0] && !addr[1] && addr[2] == MAPPED_PREFIX;
}

static __always_inline bool is_none(const __be32 *addr)
{
	return !addr[0] && !addr[1] && !addr[2] && !addr[3];
}

static __always_inline void read_local(struct bpf_sock *sk, struct endpoint *local)
{
	local->port = sk->src_port;
	if (sk->family == AF_INET) {
		set_addr4(local->addr, load_word(sk, src_ip4));
		return;
	}
	local->addr[0] = load_word(sk, src_ip6[0]);
	local->addr[1] = load_word(sk, src_ip6[1]);
	local->addr[2] = load_word(sk, src_ip6[2]);
	local->addr[3] = load_word(sk, src_ip6[3]);
}

/* 0.0.0.0 and ::, which the kernel takes for loopback. */
static __always_inline bool is_unspecified(const __be32 *addr)
{
	return is_none(addr) || (is_mapped(addr) && !addr[3]);
}

static __always_inline bool is_loopback6(const __be32 *addr)
{
	return !addr[0] && !addr[1] && !addr[2] && addr[3] == bpf_htonl(1);
}

/* 127.0.0.0/8 and ::1 */
static __always_inline bool is_loopback(const __be32 *addr)
{
	if (is_mapped(addr))
		return (addr[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return is_loopback6(addr);
}

/* fe80::/10 */
static __always_inline bool is_link_local(const __be32 *addr)
{
	return (addr[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* 127.0.0.1 and ::1: Istio's TCP rules exempt no other loopback address. */
static __always_inline bool is_localhost(const __be32 *addr)
{
	if (is_mapped(addr))
		return addr[3] == bpf_htonl(0x7f000001);
	return is_loopback6(addr);
}

/* 127.0.0.6 and ::6: what Envoy binds an inbound passthrough connection to the app to. Istio puts ::6 on lo;
 * here no netns has it.
 */
static __always_inline bool is_passthrough(const __be32 *addr)
{
	if (is_mapped(addr))
		return addr[3] == bpf_htonl(0x7f000006);
	return !addr[0] && !addr[1] && !addr[2] && addr[3] == bpf_htonl(6);
}

/* Where istio-cni's probes come from: 169.254.7.127 and
 * fd16:9254:7127:1337:ffff:ffff:ffff:ffff (cni/pkg/nodeagent/options.go).
 */
static __always_inline bool is_probe_address(const __be32 *addr)
{
	if (is_mapped(addr))
		return addr[3] == bpf_htonl(0xa9fe077f);
	return addr[0] == bpf_htonl(0xfd169254) && addr[1] == bpf_htonl(0x71271337) &&
	       addr[2] == 0xffffffff && addr[3] == 0xffffffff;
}

/* The pod's own address of the destination's family; all zeros if it has none. */
static __always_inline const __be32 *own_addr(const struct pod *pod, const __be32 *like)
{
	return is_mapped(like) ? pod->own4 : pod->own6;
}

static __always_inline bool is_registered(__u64 netns, const __be32 *addr)
{
	struct pod_addr key = { .netns = netns };

	set_addr(key.addr, addr);
	return bpf_map_lookup_elem(&pod_addrs, &key);
}

/* Is it an address of an enrolled pod of this node? */
static __always_inline bool is_in_node(const __be32 *addr)
{
	return is_registered(0, addr);
}

/* Most pods have no secondary address, and do without the map. */
static __always_inline bool is_own(__u64 netns, const struct pod *pod, const __be32 *addr)
{
	if (same_addr(own_addr(pod, addr), addr))
		return true;
	return (pod->flags & POD_FLAG_SECONDARY || is_link_local(addr)) && is_registered(netns, addr);
}

/* An address that leads back into the netns, as far as is known. */
static __always_inline bool is_local(__u64 netns, const struct pod *pod, const __be32 *addr)
{
	return is_loopback(addr) || is_unspecified(addr) || is_own(netns, pod, addr);
}

static __always_inline const struct pod *find_pod(__u64 netns)
{
	return bpf_map_lookup_elem(&pods, &netns);
}

static __always_inline const struct settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* Is it the netns of the proxy that ambient-shared pods share? */
static __always_inline bool is_shared_proxy(__u64 netns)
{
	const struct settings *s = get_settings();

	return s && s->shared_netns == netns;
}

/* Loopback of a family in which the pod has no address: the target of its captured connections there. */
static __always_inline bool is_target_loopback(const struct pod *pod, const __be32 *addr)
{
	return is_loopback(addr) && is_none(own_addr(pod, addr));
}

/* Only in process context: elsewhere "current" is whoever runs the softirq. */
static __always_inline bool is_in_proxy_cgroup(void)
{
	const struct settings *s = get_settings();
	__u32 levels = s ? s->proxy_levels : 0;

	for (int level = 0; level < MAX_CGROUP_LEVEL && levels >> level; level++) {
		if (!(levels & (1U << level)))
			continue;
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);
		const struct cgroup *cgroup = bpf_map_lookup_elem(&cgroups, &id);

		if (cgroup && cgroup->role == CGROUP_ROLE_PROXY)
			return true;
	}
	return false;
}

static __always_inline bool is_owned_by_proxy(const struct pod *pod)
{
	__u64 owner = bpf_get_current_uid_gid();

	return (__u32)owner == pod->proxy_uid || owner >> 32 == pod->proxy_gid;
}

static __always_inline bool is_proxy_mark(const struct pod *pod, __u32 mark)
{
	return (mark & pod->proxy_mark_mask) == pod->proxy_mark;
}

/* Is the current process, with a socket that carries mark, this pod's proxy? */
static __always_inline bool is_proxy(const struct pod *pod, __u32 mark)
{
	switch (pod->identity) {
	case PROXY_IDENTITY_CGROUP:
		return is_in_proxy_cgroup();
	case PROXY_IDENTITY_MARK:
		return is_proxy_mark(pod, mark);
	case PROXY_IDENTITY_OWNER:
		return is_owned_by_proxy(pod);
	}
	return false;
}

static __always_inline bool is_proxy_port(const struct pod *pod, __u32 port)
{
	if (!pod)
		return port == DEFAULT_OUTBOUND_PORT || port == DEFAULT_INBOUND_PORT ||
		       port == DEFAULT_HBONE_PORT;
	return port == pod->outbound_port || port == pod->inbound_port || port == pod->hbone_port;
}

static __always_inline void count(__u64 netns, enum outcome outcome)
{
	struct counter_key key = { .netns = netns, .outcome = outcome };
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);
	__u64 one = 1;

	if (!counter) {
		if (!bpf_map_update_elem(&counters, &key, &one, BPF_NOEXIST))
			return;
		counter = bpf_map_lookup_elem(&counters, &key); /* another CPU was first */
	}
	if (counter)
		*counter += 1; /* per CPU */
}

/* A socket that is bound to eth0 does not get what comes over lo. Returns whether it was bound: the route of
 * a datagram that is being sent is bound then, too, and does not lead to lo.
 */
static __always_inline bool unbind_device(struct bpf_sock_addr *ctx)
{
	int any_device = 0;

	if (!ctx->sk || !ctx->sk->bound_dev_if)
		return false;
	bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTOIFINDEX, &any_device, sizeof(any_device));
	return true;
}

/* UDP port 53: in a sidecar's pod to any server, else to any that is not local to the pod; the proxy's own
 * queries are not captured.
 */
static __always_inline bool is_captured_udp_dns(__u64 netns, const struct pod *pod,
						const struct endpoint *dst, __u32 mark)
{
	return dst->port == DNS_PORT && pod->flags & POD_FLAG_DNS &&
	       (pod->mode == POD_MODE_SIDECAR || !is_local(netns, pod, dst->addr)) && !is_proxy(pod, mark);
}

#endif
