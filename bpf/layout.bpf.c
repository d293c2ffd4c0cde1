// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Never loaded: its BTF is what gen-layout.ts reads. A pointer keeps an enum that no map's type names. */
#include "maps.h"

#define EXPORT_ENUM(name) const enum name *export_##name

EXPORT_ENUM(pod_mode);
EXPORT_ENUM(proxy_identity);
EXPORT_ENUM(pod_flag);
EXPORT_ENUM(cgroup_role);
EXPORT_ENUM(flow_kind);
EXPORT_ENUM(sock_addr_kind);
EXPORT_ENUM(outcome);
EXPORT_ENUM(rules_flag);
EXPORT_ENUM(probe_mode);
