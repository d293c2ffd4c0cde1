// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* sendmsg(2) and recvmsg(2) hooks: DNS over unconnected UDP sockets of enrolled pods. (connect.bpf.c has the
 * connected ones.)
 * One socket may ask several servers, and all replies come from the proxy. So that each can be shown as from
 * the server that was asked, the query to server number n leaves from 127.0.53.n, and the proxy's reply is
 * made to come from the address that it goes to. IPv6 has no loopback range: there ::1 and the pod's own
 * address are the two numbers.
 */
#include "common.h"

#define NUMBERED_NET bpf_htonl(0x7f003500) /* 127.0.53.0/24 */
#define NUMBERED_MASK bpf_htonl(0xffffff00)

static __always_inline __u32 numbered4(__u32 slot)
{
	return NUMBERED_NET | bpf_htonl(slot + 1);
}

static __always_inline struct dns_socket *remember_socket(struct bpf_sock_addr *ctx)
{
	return ctx->sk ? bpf_sk_storage_get(&dns_sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
}

static __always_inline __u32 slot4(struct dns_socket *asked, __be32 server)
{
	__u32 slot;

	for (slot = 0; slot < DNS_SERVERS4; slot++)
		if (asked->server4[slot] == server)
			return slot;
	slot = asked->next4++ & (DNS_SERVERS4 - 1);
	asked->server4[slot] = server;
	return slot;
}

static __always_inline __u32 slot6(struct dns_socket *asked, const __be32 *server)
{
	__u32 slot;

	if (same_addr(asked->server6[0], server))
		return 0;
	if (same_addr(asked->server6[1], server))
		return 1;
	slot = asked->next6++ & (DNS_SERVERS6 - 1);
	set_addr(asked->server6[slot], server);
	return slot;
}

static __always_inline const struct pod *find_dns_pod(struct bpf_sock_addr *ctx, __u64 netns)
{
	return ctx->protocol == IPPROTO_UDP ? find_pod(netns) : NULL;
}

static __always_inline bool is_from_proxy(struct bpf_sock_addr *ctx, const struct pod *pod)
{
	return ctx->sk && ctx->sk->src_port == pod->dns_port;
}

/* Where the query to the server asked last goes to; 0: nowhere. */
static __always_inline __be32 target4(struct bpf_sock_addr *ctx, const struct pod *pod,
				      const struct dns_socket *asked)
{
	if (pod->mode == POD_MODE_SHARED) {
		const struct settings *s = get_settings();

		return s ? s->shared4[3] : 0;
	}
	/* Lost, as a datagram may be: nobody listens there. The resolver asks again. */
	if (unbind_device(ctx))
		return pod->own4[3];
	if (!load_word(ctx->sk, src_ip4))
		ctx->msg_src_ip4 = numbered4(asked->last4);
	return bpf_htonl(0x7f000001);
}

/* Returns false if the datagram must not leave. */
static __always_inline bool send4(struct bpf_sock_addr *ctx, __u64 netns, const struct pod *pod)
{
	struct dns_socket *asked = remember_socket(ctx);
	__be32 to = 0;

	if (asked) {
		asked->last4 = slot4(asked, ctx->user_ip4);
		to = target4(ctx, pod, asked);
	}
	if (!to) {
		count(netns, OUTCOME_OUTBOUND_REFUSED_STORAGE);
		return false;
	}
	ctx->user_ip4 = to;
	ctx->user_port = bpf_htons(pod->dns_port);
	count(netns, OUTCOME_DNS_UDP);
	return true;
}

SEC("cgroup/sendmsg4")
int ambridge_sendmsg4(struct bpf_sock_addr *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod *pod = find_dns_pod(ctx, netns);
	struct endpoint dst = { .port = bpf_ntohs(ctx->user_port) };

	if (!pod)
		return 1;
	if (is_from_proxy(ctx, pod) && (ctx->user_ip4 & NUMBERED_MASK) == NUMBERED_NET) {
		ctx->msg_src_ip4 = ctx->user_ip4;
		return 1;
	}
	set_addr4(dst.addr, ctx->user_ip4);
	if (!is_captured_udp_dns(netns, pod, &dst, ctx->sk ? ctx->sk->mark : 0))
		return 1;
	return send4(ctx, netns, pod);
}

static __always_inline void set_source6(struct bpf_sock_addr *ctx, const __be32 *from)
{
	ctx->msg_src_ip6[0] = from[0];
	ctx->msg_src_ip6[1] = from[1];
	ctx->msg_src_ip6[2] = from[2];
	ctx->msg_src_ip6[3] = from[3];
}

static __always_inline bool is_bound6(struct bpf_sock *sk)
{
	return load_word(sk, src_ip6[0]) | load_word(sk, src_ip6[1]) | load_word(sk, src_ip6[2]) |
	       load_word(sk, src_ip6[3]);
}

/* The same as target4(); all zeros: nowhere. */
static __always_inline void target6(struct bpf_sock_addr *ctx, const struct pod *pod,
				    const struct dns_socket *asked, __be32 *to)
{
	const __be32 localhost[4] = { 0, 0, 0, bpf_htonl(1) };

	if (pod->mode == POD_MODE_SHARED) {
		const struct settings *s = get_settings();

		if (s)
			set_addr(to, s->shared6);
		return;
	}
	if (unbind_device(ctx)) {
		set_addr(to, pod->own6);
		return;
	}
	set_addr(to, localhost);
	if (!is_bound6(ctx->sk))
		set_source6(ctx, asked->last6 && !is_none(pod->own6) ? pod->own6 : localhost);
}

static __always_inline bool send6(struct bpf_sock_addr *ctx, __u64 netns, const struct pod *pod,
				  const struct endpoint *dst)
{
	struct dns_socket *asked = remember_socket(ctx);
	__be32 to[4] = {};

	if (asked) {
		asked->last6 = slot6(asked, dst->addr);
		target6(ctx, pod, asked, to);
	}
	if (is_none(to)) {
		count(netns, OUTCOME_OUTBOUND_REFUSED_STORAGE);
		return false;
	}
	ctx->user_ip6[0] = to[0];
	ctx->user_ip6[1] = to[1];
	ctx->user_ip6[2] = to[2];
	ctx->user_ip6[3] = to[3];
	ctx->user_port = bpf_htons(pod->dns_port);
	count(netns, OUTCOME_DNS_UDP);
	return true;
}

SEC("cgroup/sendmsg6")
int ambridge_sendmsg6(struct bpf_sock_addr *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	const struct pod *pod = find_dns_pod(ctx, netns);
	struct endpoint dst = {
		.addr = { load_word(ctx, user_ip6[0]), load_word(ctx, user_ip6[1]),
			  load_word(ctx, user_ip6[2]), load_word(ctx, user_ip6[3]) },
		.port = bpf_ntohs(ctx->user_port),
	};

	if (!pod)
		return 1;
	if (is_from_proxy(ctx, pod) && same_addr(dst.addr, pod->own6)) {
		set_source6(ctx, dst.addr);
		return 1;
	}
	if (!is_captured_udp_dns(netns, pod, &dst, ctx->sk ? ctx->sk->mark : 0))
		return 1;
	return send6(ctx, netns, pod, &dst);
}

/* Of a socket that is connected: one that was earlier has no peer any more. */
static __always_inline bool find_connected(struct bpf_sock_addr *ctx, __u16 from_port, __be32 *server)
{
	struct sock_addr *stored;

	if (!ctx->sk->dst_port)
		return false;
	stored = bpf_sk_storage_get(&sock_addrs, ctx->sk, NULL, 0);
	if (!stored || stored->kind != SOCK_ADDR_KIND_DNS || stored->via != from_port)
		return false;
	set_addr(server, stored->addr);
	return true;
}

static __always_inline bool find_asked4(const struct dns_socket *asked, __be32 *from)
{
	bool numbered = (from[3] & NUMBERED_MASK) == NUMBERED_NET;
	__u32 slot = numbered ? (bpf_ntohl(from[3]) & 0xff) - 1 : asked->last4;

	if (slot >= DNS_SERVERS4 || !asked->server4[slot])
		return false;
	set_addr4(from, asked->server4[slot]);
	return true;
}

static __always_inline bool find_asked6(struct bpf_sock_addr *ctx, const struct pod *pod,
					const struct dns_socket *asked, __be32 *from)
{
	bool numbered = pod->mode != POD_MODE_SHARED && !is_bound6(ctx->sk);
	__u32 slot = numbered ? same_addr(from, pod->own6) : asked->last6 & (DNS_SERVERS6 - 1);

	if (is_none(asked->server6[slot]))
		return false;
	set_addr(from, asked->server6[slot]);
	return true;
}

/* The server that the reply from `from` answers for; from is replaced. */
static __always_inline bool find_server(struct bpf_sock_addr *ctx, __be32 *from)
{
	const struct pod *pod = find_dns_pod(ctx, bpf_get_netns_cookie(ctx));
	__u16 from_port = bpf_ntohs(ctx->user_port);
	const struct dns_socket *asked;

	if (!pod || from_port != pod->dns_port || !ctx->sk)
		return false;
	if (find_connected(ctx, from_port, from))
		return true;
	asked = bpf_sk_storage_get(&dns_sockets, ctx->sk, NULL, 0);
	if (!asked)
		return false;
	return is_mapped(from) ? find_asked4(asked, from) : find_asked6(ctx, pod, asked, from);
}

SEC("cgroup/recvmsg4")
int ambridge_recvmsg4(struct bpf_sock_addr *ctx)
{
	__be32 from[4];

	set_addr4(from, ctx->user_ip4);
	if (!find_server(ctx, from))
		return 1;
	ctx->user_ip4 = from[3];
	ctx->user_port = bpf_htons(DNS_PORT);
	return 1;
}

SEC("cgroup/recvmsg6")
int ambridge_recvmsg6(struct bpf_sock_addr *ctx)
{
	__be32 from[4] = { load_word(ctx, user_ip6[0]), load_word(ctx, user_ip6[1]),
			   load_word(ctx, user_ip6[2]), load_word(ctx, user_ip6[3]) };

	if (!find_server(ctx, from))
		return 1;
	ctx->user_ip6[0] = from[0];
	ctx->user_ip6[1] = from[1];
	ctx->user_ip6[2] = from[2];
	ctx->user_ip6[3] = from[3];
	ctx->user_port = bpf_htons(DNS_PORT);
	return 1;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
