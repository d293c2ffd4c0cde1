/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the programs and user space share. TypeScript reads it from BTF (gen-layout.ts).
 *
 * An address is 16 bytes in network order; IPv4 is ::ffff:a.b.c.d. All zeros: none.
 * A port is in host order. A hole is a named pad, because keys are compared as bytes.
 */
#ifndef AMBRIDGE_LAYOUT_H
#define AMBRIDGE_LAYOUT_H

#include <linux/types.h>
#include <stddef.h>

#define ASSERT_SIZE(type, n) _Static_assert(sizeof(type) == (n), #type " size")
#define ASSERT_OFFSET(type, m, n) _Static_assert(offsetof(type, m) == (n), #type "." #m)

#define MAX_CONTAINER_ID 128
#define MAX_RULE_PORTS 64
#define MAX_RULE_RANGES 32
/* SO_REUSEPORT members of one port that are remembered; the newest is preferred. */
#define LISTENER_SLOTS 8
/* Own addresses of one attachment. */
#define MAX_POD_ADDRS 32
/* Unanswered connects to its own netns or proxy that one pod may have; see struct handshake. */
#define PENDING_QUOTA 8192
/* How long a connection to a pod may take to come about: Linux gives up after 6 repeated SYNs, or 127 s. */
#define PROBE_HANDSHAKE_NS (130 * 1000000000ULL)
/* Servers of each family that one unconnected DNS socket can tell apart. */
#define DNS_SERVERS4 8 /* a power of two */
#define DNS_SERVERS6 2

enum pod_mode {
	POD_MODE_AMBIENT = 1,
	POD_MODE_SHARED = 2,
	POD_MODE_SIDECAR = 3,
};

enum proxy_identity {
	PROXY_IDENTITY_CGROUP = 1, /* its process is in a cgroup with role proxy */
	PROXY_IDENTITY_MARK = 2,   /* its socket carries proxy_mark */
	PROXY_IDENTITY_OWNER = 3,  /* its process has proxy_uid or proxy_gid */
};

enum pod_flag {
	POD_FLAG_DNS = 1,	     /* DNS capture */
	POD_FLAG_BYPASS_INBOUND = 2, /* inbound plaintext is not captured */
	POD_FLAG_GUARD = 4,	     /* hand-made TCP is dropped */
	POD_FLAG_SECONDARY = 8,	     /* has addresses besides own4, own6 and link-local ones */
	POD_FLAG_SEVERAL = 16,	     /* may have more than one attachment */
};

/* An enrolled pod, by netns cookie. */
struct pod {
	__be32 own4[4]; /* primary address of each family */
	__be32 own6[4];
	__u32 proxy_mark;
	__u32 proxy_mark_mask;
	__u32 proxy_uid;
	__u32 proxy_gid;
	__u16 outbound_port;
	__u16 inbound_port;
	__u16 hbone_port;
	__u16 dns_port;
	__u8 mode;     /* enum pod_mode */
	__u8 identity; /* enum proxy_identity */
	__u8 flags;    /* enum pod_flag */
	__u8 pad[5];
};
ASSERT_OFFSET(struct pod, outbound_port, 48);
ASSERT_SIZE(struct pod, 64);

/* The constants of a pod's own sk_lookup program. */
struct inbound_config {
	__u64 netns_cookie;
	__u64 mode; /* enum pod_mode */
};
ASSERT_SIZE(struct inbound_config, 16);

/* An address of an enrolled pod. netns 0: the same address, asked for by its node; the value
 * is the netns cookie of the pod that owns it.
 */
struct pod_addr {
	__u64 netns;
	__be32 addr[4];
};
ASSERT_SIZE(struct pod_addr, 24);

enum cgroup_role {
	CGROUP_ROLE_POD = 1,
	CGROUP_ROLE_PROXY = 2,
	CGROUP_ROLE_KUBELET = 3,
};

struct cgroup {
	__u64 netns; /* of the pod; 0 for other roles */
	__u32 role;  /* enum cgroup_role */
	__u32 level; /* depth below the cgroup v2 root */
};
ASSERT_SIZE(struct cgroup, 16);

struct attachment_key {
	char container_id[MAX_CONTAINER_ID]; /* zero padded */
	char ifname[16];
};
ASSERT_SIZE(struct attachment_key, 144);

struct attachment {
	__u64 netns;	 /* cookie */
	__u64 netns_dev; /* netns identity */
	__u64 netns_ino;
	__u64 cgroup_id;		/* 0: not known */
	__be32 addrs[MAX_POD_ADDRS][4]; /* what it put into pod_addrs */
	char pod_uid[64];
	char pod_namespace[64];
	char pod_name[256];
};
ASSERT_SIZE(struct attachment, 928);

struct listener_key {
	__u64 netns;
	__u16 port;
	__u8 family; /* 4 or 6: what the listener accepts */
	__u8 slot;
	__u8 pad[4];
};
ASSERT_SIZE(struct listener_key, 16);

/* One TCP connection. netns is the cookie when both ends are in it, 0 when it crosses the wire. */
struct flow {
	__u64 netns;
	__be32 client[4];
	__be32 server[4];
	__u16 client_port;
	__u16 server_port;
	__u8 pad[4];
};
ASSERT_SIZE(struct flow, 48);

enum flow_kind {
	FLOW_KIND_OUTBOUND = 1, /* captured: addr is the original destination */
	FLOW_KIND_INBOUND = 2,	/* a sidecar's call to its own pod: the same, to the inbound listener */
	FLOW_KIND_DIRECT = 3,	/* a pod's call to itself, or its proxy's to the app */
	FLOW_KIND_SOURCE = 4,	/* the proxy's connection to the app: addr is the original source */
};

/* A connection in the middle of its handshake. Written before the SYN leaves, deleted when the
 * connection is accepted or the client's socket closes. owner's share is bounded by PENDING_QUOTA, so no
 * pod takes another's room.
 */
struct handshake {
	__be32 addr[4];
	__u64 owner; /* netns cookie of the client */
	__u16 port;
	__u8 kind; /* enum flow_kind */
	__u8 pad[5];
};
ASSERT_SIZE(struct handshake, 32);

enum sock_addr_kind {
	SOCK_ADDR_KIND_NONE = 0,
	SOCK_ADDR_KIND_DIALLED = 1, /* client: the original destination, redirected to port via */
	SOCK_ADDR_KIND_LOOPED = 2,  /* the same, of a sidecar's call to its own pod */
	SOCK_ADDR_KIND_DNS = 3,	    /* client: the DNS server that it asked, redirected to the proxy's */
	SOCK_ADDR_KIND_DIRECT = 4,  /* client: let past the proxy; no address */
	SOCK_ADDR_KIND_WANTED = 5,  /* proxy's client socket: the source that it asked for */
	SOCK_ADDR_KIND_DEST = 6,    /* proxy's accepted socket: the original destination */
	SOCK_ADDR_KIND_SOURCE = 7,  /* app's accepted socket: the source to present */
	SOCK_ADDR_KIND_PROXY = 8,   /* bound by the proxy to one of its ports; no address */
	SOCK_ADDR_KIND_KUBELET = 9, /* host's client socket of the kubelet's user; no address */
};

struct sock_addr {
	__be32 addr[4];
	__u16 port;
	__u16 via;
	__u8 kind; /* enum sock_addr_kind */
	__u8 pad[3];
};
ASSERT_SIZE(struct sock_addr, 24);

/* The servers that an unconnected DNS socket has asked; the next new one takes the slot that was taken
 * longest ago. */
struct dns_socket {
	__be32 server4[DNS_SERVERS4];
	__be32 server6[DNS_SERVERS6][4];
	__u32 last4; /* slots, of the server asked last */
	__u32 last6;
	__u32 next4; /* modulo the number of slots: the one that the next new server takes */
	__u32 next6;
};
ASSERT_SIZE(struct dns_socket, 80);

/* What became of a connection; counted per pod. The values are part of the map layout: append only. */
enum outcome {
	OUTCOME_OUTBOUND_CAPTURED = 1,
	OUTCOME_OUTBOUND_PROXY = 2,
	OUTCOME_OUTBOUND_SELF = 3,
	OUTCOME_OUTBOUND_EXCLUDED = 4,
	OUTCOME_OUTBOUND_REFUSED_STORAGE = 5,
	OUTCOME_OUTBOUND_REFUSED_PENDING = 6,
	OUTCOME_OUTBOUND_REFUSED_NO_PROXY = 7,
	OUTCOME_DNS_TCP = 8,
	OUTCOME_DNS_UDP = 9,
	OUTCOME_HANDED_TO_PROXY = 10,
	OUTCOME_INBOUND_CAPTURED = 11,
	OUTCOME_INBOUND_HBONE = 12,
	OUTCOME_INBOUND_SELF = 13,
	OUTCOME_INBOUND_FROM_PROXY = 14,
	OUTCOME_INBOUND_PROBE = 15,
	OUTCOME_INBOUND_EXCLUDED = 16,
	OUTCOME_INBOUND_REFUSED_NO_LISTENER = 17,
	OUTCOME_INBOUND_REFUSED_UNANNOUNCED = 18,
	OUTCOME_INBOUND_REFUSED_NOT_PROXY = 19,
	OUTCOME_SOURCE_KEPT = 20,
	OUTCOME_RAW_REFUSED = 21,
	OUTCOME_ANNOUNCE_FAILED = 22,
	OUTCOME_EGRESS_REFUSED = 23,
};

struct counter_key {
	__u64 netns;
	__u32 outcome; /* enum outcome */
	__u32 pad;
};
ASSERT_SIZE(struct counter_key, 16);

/* A port list is in use up to its count; "all" flags stand for "*". */
struct port_rule {
	__u32 count;
	__u16 port[MAX_RULE_PORTS];
};

struct range_rule {
	__be32 addr[4];
	__be32 mask[4]; /* of the 16 bytes: an IPv4 prefix is 96 longer */
};

struct range_rules {
	__u32 count;
	struct range_rule range[MAX_RULE_RANGES];
};

enum rules_flag {
	RULES_FLAG_ALL_INBOUND = 1,
	RULES_FLAG_ALL_OUTBOUND = 2,
	RULES_FLAG_LOOPBACK = 4, /* the included ranges name a loopback range */
};

/* A sidecar's include and exclude rules, by netns cookie. */
struct rules {
	struct port_rule include_inbound;
	struct port_rule exclude_inbound;
	struct port_rule include_outbound;
	struct port_rule exclude_outbound;
	struct range_rules include_ranges;
	struct range_rules exclude_ranges;
	__u32 flags; /* enum rules_flag */
};
ASSERT_SIZE(struct rules, 4 * 132 + 2 * 1028 + 4);

enum probe_mode {
	PROBE_MODE_OFF = 0,
	PROBE_MODE_KUBELET = 1, /* attached to a cgroup that holds nothing else */
	PROBE_MODE_UID = 2,	/* any host socket of kubelet_uid */
	PROBE_MODE_ANY_HOST_SOCKET = 3,
};

/* Changeable while the programs run. */
struct settings {
	__u64 host_netns;
	__u64 shared_netns;   /* of the ambient-shared proxy; 0: none */
	__u64 capture_cgroup; /* cgroup id */
	__be32 shared4[4];
	__be32 shared6[4];
	__u32 proxy_levels; /* bit n: a proxy's cgroup lies at depth n */
	__u32 kubelet_uid;
	__u32 objects;	       /* CRC-32 of the object files that are loaded */
	__u8 probes;	       /* enum probe_mode */
	__u8 default_identity; /* enum proxy_identity */
	__u8 sidecar;	       /* the proxies' hooks are attached for sidecars too */
	__u8 guard;	       /* the setsockopt hook of guarded pods is attached */
};
ASSERT_SIZE(struct settings, 72);

#endif
