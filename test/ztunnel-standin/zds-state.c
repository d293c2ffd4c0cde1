// SPDX-License-Identifier: Apache-2.0
/* What requests do: the same as in ztunnel. */
#include <stdlib.h>
#include <unistd.h>

#include "zds-member.h"

static bool is_connected;
static bool has_snapshot;

bool zds_is_ready(void)
{
	const struct member *member = members;

	while (member && !member_is_pending(member))
		member = member->next;
	return is_connected && has_snapshot && !member;
}

void zds_begin(void)
{
	for (struct member *member = members; member; member = member->next) {
		member->is_named = false;
		if (member_is_pending(member))
			member_stop(member);
	}
	members_forget();
	is_connected = true;
	has_snapshot = false;
}

void zds_end(void)
{
	is_connected = false;
}

static const char *add(const struct zds_request *request, int netns)
{
	struct member *member = member_of(request->uid);
	const char *error = "";

	member->is_named = !has_snapshot;
	if (member->proxy && member_has_netns(member, netns)) {
		close(netns);
	} else {
		member_stop(member);
		member->netns = netns;
		member_describe(member, request);
		error = member_start(member);
	}
	member_report("add", member, error);
	return error;
}

static void drop(struct member *member)
{
	member->is_named = false;
	/* Until then, SnapshotSent is what stops it. */
	if (has_snapshot)
		member_stop(member);
	member_report("del", member, "");
	members_forget();
}

static void end_snapshot(void)
{
	for (struct member *member = members; member; member = member->next) {
		if (!member->is_named)
			member_stop(member);
		member->is_named = false;
	}
	members_forget();
	has_snapshot = true;
	zds_report("snapshot", NULL, "");
}

static enum zds_outcome break_protocol(const char *text, const char **error)
{
	*error = text;
	return ZDS_PROTOCOL_ERROR;
}

enum zds_outcome zds_apply(const struct zds_request *request, int netns, const char **error)
{
	*error = "";
	switch (request->kind) {
	case ZDS_ADD:
		if (!request->has_info) {
			close(netns);
			return break_protocol("workload_info is required but not present", error);
		}
		*error = add(request, netns);
		return **error ? ZDS_START_FAILED : ZDS_OK;
	case ZDS_KEEP:
		if (has_snapshot)
			return break_protocol("pod keep received after snapshot", error);
		member_of(request->uid)->is_named = true;
		member_report("keep", member_of(request->uid), "");
		return ZDS_OK;
	case ZDS_SNAPSHOT_SENT:
		if (has_snapshot)
			return break_protocol("pod snapshot received already", error);
		end_snapshot();
		return ZDS_OK;
	case ZDS_DEL:
		drop(member_of(request->uid));
		return ZDS_OK;
	case ZDS_NONE:
		break;
	}
	abort();
}

bool zds_retry(void)
{
	bool is_done = true;

	for (struct member *member = members; member; member = member->next) {
		const char *error;

		if (!member_is_pending(member))
			continue;
		error = member_start(member);
		member_report("add", member, error);
		is_done = is_done && !*error;
	}
	return is_done;
}
