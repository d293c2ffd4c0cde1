// SPDX-License-Identifier: Apache-2.0
/* The workloads that ZDS has told of. */
#ifndef ZDS_MEMBER_H
#define ZDS_MEMBER_H

#include "zds.h"

struct member {
	char *uid;
	char *name;
	char *namespace;
	char *service_account;
	/* -1: only named, by Keep */
	int netns;
	/* NULL, although it has a netns: it could not be started, and is pending. */
	struct workload *proxy;
	bool is_named;
	struct member *next;
};

extern struct member *members;

/* By uid; made when there is none. */
struct member *member_of(const char *uid);
/* Remove those of which nothing is known. */
void members_forget(void);
void member_describe(struct member *member, const struct zds_request *request);
bool member_is_pending(const struct member *member);
bool member_has_netns(const struct member *member, int netns);
/* Gives "" or why it does not run. */
const char *member_start(struct member *member);
/* End its proxy, or its being pending. */
void member_stop(struct member *member);
void member_report(const char *what, const struct member *member, const char *error);

#endif
