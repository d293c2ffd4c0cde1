/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map: who writes it and how long an entry lives. All are pinned by name, so that each object
 * and each process shares them.
 */
#ifndef AMBRIDGE_MAPS_H
#define AMBRIDGE_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "layout.h"

#define MAX_PODS 16384

/* Enrolled pods, by netns cookie. Plugin and agent; ADD to DEL. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PODS);
	__type(key, __u64);
	__type(value, struct pod);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pods __weak SEC(".maps");

/* Own addresses of enrolled pods. Plugin and agent; ADD to DEL. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8 * MAX_PODS);
	__type(key, struct pod_addr);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pod_addrs __weak SEC(".maps");

/* Include and exclude rules of sidecar pods, by netns cookie. Plugin and agent; ADD to DEL. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PODS);
	__type(key, __u64);
	__type(value, struct rules);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} rules __weak SEC(".maps");

/* Known cgroups, by cgroup id. Plugin and agent; ADD to DEL. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * MAX_PODS);
	__type(key, __u64);
	__type(value, struct cgroup);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cgroups __weak SEC(".maps");

/* What each ADD registered: the record that DEL works from. Plugin; ADD to DEL or GC. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * MAX_PODS);
	__type(key, struct attachment_key);
	__type(value, struct attachment);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} attachments __weak SEC(".maps");

/* Listening sockets of the proxies. sockops at listen(); an entry leaves with its socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 8 * MAX_PODS);
	__type(key, struct listener_key);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} listeners __weak SEC(".maps");

/* The slot that the next listener of a port takes (slot 0 in the key). sockops; first listener to DEL. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8 * MAX_PODS);
	__type(key, struct listener_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} listener_next __weak SEC(".maps");

/* Connections in the middle of their handshake. sockops; one handshake. Not an LRU map: an
 * evicted entry would refuse a connection of a pod that did nothing (docs/adr/0004).
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 64 * PENDING_QUOTA);
	__type(key, struct flow);
	__type(value, struct handshake);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} handshakes __weak SEC(".maps");

/* Number of entries of one pod in handshakes. sockops; ADD to DEL. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PODS + 1);
	__type(key, __u64);
	__type(value, __s64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pending __weak SEC(".maps");

/* Address to present on a socket: what the app dialled, or the client that the proxy speaks
 * for. Lives and dies with the socket: nothing to evict or leak.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sock_addr);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sock_addrs __weak SEC(".maps");

/* Servers that an unconnected DNS socket has asked. dns programs; the socket's own life. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct dns_socket);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} dns_sockets __weak SEC(".maps");

/* The kubelet's own connections to pods, and when each began (bpf_ktime_get_ns). probes program; one
 * connection, of which the first PROBE_HANDSHAKE_NS count.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} probe_flows __weak SEC(".maps");

/* Connections by pod and outcome. Every program; ADD to DEL. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8 * MAX_PODS);
	__type(key, struct counter_key);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters __weak SEC(".maps");

/* The one struct of switches. `ambridge load`, agent. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} settings __weak SEC(".maps");

#endif
