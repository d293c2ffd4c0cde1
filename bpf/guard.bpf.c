// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* tcx egress, opt-in, one instance per netns: drops what the socket hooks could not see, where it would leave
 * the pod. TCP that raw and packet sockets make by hand; connections that others open through this netns; and
 * a connection that leads elsewhere than its socket asked for, by NAT rules, routes or tunnels of the pod's.
 * The kernel's own resets and acknowledgements come from raw sockets, too: they carry no SYN and no data.
 */
#include "common.h"

#define AF_PACKET 17
#define SOCK_RAW 3
#define SOCK_DGRAM 2
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_IPV6 0x86dd
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ICMP 1
#define IPPROTO_IGMP 2
#define IPPROTO_ICMPV6 58
#define FRAGMENT bpf_htons(0x3fff) /* more fragments, or an offset */
#define TCP_SYN 2
#define TCP_ACK 16
#define STATE_SYN_SENT 2
#define TCX_NEXT -1
#define TCX_DROP 2

struct ipv4_header {
	__u8 version_length;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 dest;
};

struct ipv6_header {
	__be32 flow;
	__be16 length;
	__u8 next;
	__u8 hops;
	__be32 source[4];
	__be32 dest[4];
};

struct tcp_header {
	__be32 ports;
	__be32 sequence[2];
	__u8 offset; /* upper half: words of the header */
	__u8 flags;
};

const volatile __u64 netns_cookie;

/* Offsets count from the Ethernet header: skb->protocol is whatever the sender of a packet socket says. */
#define ETHERTYPE_AT 12
#define IP_AT 14

/* Who made a packet: that decides which TCP is allowed. */
enum origin {
	ORIGIN_RAW,	  /* a raw or packet socket, or the kernel */
	ORIGIN_FORWARDED, /* no socket of this netns */
};

/* By hand: no SYN and no data, so it cannot open a connection and says nothing. Forwarded: no first SYN; an
 * answer with a SYN cookie has no socket either. length: of the IP payload.
 */
static __always_inline bool is_allowed_tcp(struct __sk_buff *skb, __u32 at, __u32 length, enum origin origin)
{
	struct tcp_header tcp;

	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return false;
	if (origin == ORIGIN_FORWARDED)
		return (tcp.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN;
	return !(tcp.flags & TCP_SYN) && length == (__u32)(tcp.offset >> 4) * 4;
}

static __always_inline bool is_allowed4(struct __sk_buff *skb, enum origin origin)
{
	struct ipv4_header ip;
	__u32 header;

	if (bpf_skb_load_bytes(skb, IP_AT, &ip, sizeof(ip)))
		return false;
	header = (ip.version_length & 15) * 4;
	switch (ip.protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_IGMP:
	case IPPROTO_UDP:
		return true;
	case IPPROTO_TCP:
		return !(ip.fragment & FRAGMENT) &&
		       is_allowed_tcp(skb, IP_AT + header, bpf_ntohs(ip.length) - header, origin);
	}
	return false;
}

static __always_inline bool is_allowed6(struct __sk_buff *skb, enum origin origin)
{
	struct ipv6_header ip;
	__u8 next = 0;

	if (bpf_skb_load_bytes(skb, IP_AT, &ip, sizeof(ip)))
		return false;
	switch (ip.next) {
	case IPPROTO_ICMPV6:
	case IPPROTO_UDP:
		return true;
	case IPPROTO_TCP:
		return is_allowed_tcp(skb, IP_AT + sizeof(ip), bpf_ntohs(ip.length), origin);
	case IPPROTO_HOPOPTS: /* multicast listener reports */
		return !bpf_skb_load_bytes(skb, IP_AT + sizeof(ip), &next, 1) && next == IPPROTO_ICMPV6;
	}
	return false;
}

/* 0: too short */
static __always_inline __u16 ethertype(struct __sk_buff *skb)
{
	__be16 type = 0;

	bpf_skb_load_bytes(skb, ETHERTYPE_AT, &type, sizeof(type));
	return bpf_ntohs(type);
}

static __always_inline bool is_allowed(struct __sk_buff *skb, enum origin origin)
{
	switch (ethertype(skb)) {
	case ETH_P_IP:
		return is_allowed4(skb, origin);
	case ETH_P_IPV6:
		return is_allowed6(skb, origin);
	case ETH_P_ARP:
		return true;
	}
	return false;
}

/* Where a TCP packet goes to. Returns false if it is something else: in a tunnel, or with a detour. */
static __always_inline bool read_destination(struct __sk_buff *skb, struct endpoint *dst)
{
	struct ipv4_header ip4;
	struct ipv6_header ip6;
	__u32 at = IP_AT;
	__be16 port;

	if (ethertype(skb) == ETH_P_IP) {
		if (bpf_skb_load_bytes(skb, IP_AT, &ip4, sizeof(ip4)) || ip4.protocol != IPPROTO_TCP)
			return false;
		set_addr4(dst->addr, ip4.dest);
		at += (ip4.version_length & 15) * 4;
	} else {
		if (ethertype(skb) != ETH_P_IPV6 || bpf_skb_load_bytes(skb, IP_AT, &ip6, sizeof(ip6)) ||
		    ip6.next != IPPROTO_TCP)
			return false;
		set_addr(dst->addr, ip6.dest);
		at += sizeof(ip6);
	}
	if (bpf_skb_load_bytes(skb, at + 2, &port, sizeof(port)))
		return false;
	dst->port = bpf_ntohs(port);
	return true;
}

static __always_inline bool is_shared_proxy_at(const struct endpoint *dst)
{
	const struct settings *s = get_settings();

	return s && same_addr(dst->addr, is_mapped(dst->addr) ? s->shared4 : s->shared6);
}

/* Does the SYN go where the connect hook let its socket go? What it sent to the proxy in this netns, and
 * calls to an own address, have no business outside.
 */
static __always_inline bool is_as_decided(struct __sk_buff *skb, struct bpf_sock *sk, const struct pod *pod)
{
	const struct sock_addr *decided = bpf_sk_storage_get(&sock_addrs, sk, NULL, 0);
	struct endpoint dst;

	if (!decided || !read_destination(skb, &dst) || is_own(netns_cookie, pod, dst.addr))
		return false;
	switch (decided->kind) {
	case SOCK_ADDR_KIND_DIRECT:
		return same_addr(decided->addr, dst.addr) && decided->port == dst.port;
	case SOCK_ADDR_KIND_WANTED:
		return true;
	case SOCK_ADDR_KIND_DIALLED:
		return pod->mode == POD_MODE_SHARED && is_shared_proxy_at(&dst);
	}
	return false;
}

static __always_inline int verdict(bool is_good, enum outcome outcome)
{
	if (is_good)
		return TCX_NEXT;
	count(netns_cookie, outcome);
	return TCX_DROP;
}

SEC("tc")
int ambridge_guard(struct __sk_buff *skb)
{
	const struct pod *pod = find_pod(netns_cookie);
	struct bpf_sock *sk = skb->sk;

	if (!pod)
		return TCX_NEXT;
	if (!sk)
		return verdict(is_allowed(skb, ORIGIN_FORWARDED), OUTCOME_EGRESS_REFUSED);
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return TCX_NEXT;
	if (sk->family == AF_PACKET || sk->type == SOCK_RAW)
		return verdict(is_allowed(skb, ORIGIN_RAW), OUTCOME_RAW_REFUSED);
	if (sk->protocol == IPPROTO_TCP && sk->state == STATE_SYN_SENT)
		return verdict(is_as_decided(skb, sk, pod), OUTCOME_EGRESS_REFUSED);
	return TCX_NEXT;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
