// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* tcx egress, opt-in, one instance per netns: TCP that raw and packet sockets make by hand never passes a
 * socket hook, so it is dropped where it would leave the pod. The kernel's own resets and acknowledgements
 * come from raw sockets, too: they carry no SYN and no data.
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
};

struct ipv6_header {
	__be32 flow;
	__be16 length;
	__u8 next;
	__u8 hops;
	__be32 addrs[8];
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

/* No SYN and no data: cannot open a connection, and says nothing. length: of the IP payload. */
static __always_inline bool is_bare_reply(struct __sk_buff *skb, __u32 at, __u32 length)
{
	struct tcp_header tcp;

	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return false;
	return !(tcp.flags & TCP_SYN) && length == (__u32)(tcp.offset >> 4) * 4;
}

static __always_inline bool is_allowed4(struct __sk_buff *skb)
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
		       is_bare_reply(skb, IP_AT + header, bpf_ntohs(ip.length) - header);
	}
	return false;
}

static __always_inline bool is_allowed6(struct __sk_buff *skb)
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
		return is_bare_reply(skb, IP_AT + sizeof(ip), bpf_ntohs(ip.length));
	case IPPROTO_HOPOPTS: /* multicast listener reports */
		return !bpf_skb_load_bytes(skb, IP_AT + sizeof(ip), &next, 1) && next == IPPROTO_ICMPV6;
	}
	return false;
}

static __always_inline bool is_allowed(struct __sk_buff *skb)
{
	__be16 ethertype = 0;

	if (bpf_skb_load_bytes(skb, ETHERTYPE_AT, &ethertype, sizeof(ethertype)))
		return false;
	switch (bpf_ntohs(ethertype)) {
	case ETH_P_IP:
		return is_allowed4(skb);
	case ETH_P_IPV6:
		return is_allowed6(skb);
	case ETH_P_ARP:
		return true;
	}
	return false;
}

SEC("tc")
int ambridge_guard(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return TCX_NEXT;
	sk = bpf_sk_fullsock(sk);
	if (!sk || (sk->family != AF_PACKET && sk->type != SOCK_RAW))
		return TCX_NEXT;
	if (is_allowed(skb))
		return TCX_NEXT;
	count(netns_cookie, OUTCOME_RAW_REFUSED);
	return TCX_DROP;
}

char _license[] __weak SEC("license") = "Dual BSD/GPL";
