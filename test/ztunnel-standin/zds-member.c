// SPDX-License-Identifier: Apache-2.0
#include "zds-member.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "standin.h"

struct member *members;

struct member *member_of(const char *uid)
{
	struct member *member = members;

	while (member && strcmp(member->uid, uid))
		member = member->next;
	if (member)
		return member;
	member = calloc(1, sizeof(*member));
	member->uid = strdup(uid);
	member->name = strdup("");
	member->namespace = strdup("");
	member->service_account = strdup("");
	member->netns = -1;
	member->next = members;
	members = member;
	return member;
}

void members_forget(void)
{
	struct member **at = &members;

	while (*at) {
		struct member *member = *at;

		if (member->is_named || member->netns >= 0) {
			at = &member->next;
			continue;
		}
		*at = member->next;
		free(member->uid);
		free(member->name);
		free(member->namespace);
		free(member->service_account);
		free(member);
	}
}

static void set_text(char **text, const char *value)
{
	free(*text);
	*text = strdup(value);
}

void member_describe(struct member *member, const struct zds_request *request)
{
	set_text(&member->name, request->name);
	set_text(&member->namespace, request->namespace);
	set_text(&member->service_account, request->service_account);
}

bool member_is_pending(const struct member *member)
{
	return member->netns >= 0 && !member->proxy;
}

bool member_has_netns(const struct member *member, int netns)
{
	struct stat own, other;

	return !fstat(member->netns, &own) && !fstat(netns, &other) && own.st_dev == other.st_dev &&
	       own.st_ino == other.st_ino;
}

static ino_t inode_of(int netns)
{
	struct stat stat = { 0 };

	if (netns >= 0)
		fstat(netns, &stat);
	return stat.st_ino;
}

void member_report(const char *what, const struct member *member, const char *error)
{
	struct zds_subject subject = { member->uid, member->name, member->namespace,
				       member->service_account, inode_of(member->netns) };

	zds_report(what, &subject, error);
}

const char *member_start(struct member *member)
{
	char path[64];
	int error;

	if (config.zds_nack)
		return config.zds_nack;
	snprintf(path, sizeof(path), "net:[%ju]", (uintmax_t)inode_of(member->netns));
	member->proxy =
		workload_start(path, member->uid, fcntl(member->netns, F_DUPFD_CLOEXEC, 0), &error);
	return error_name(error);
}

void member_stop(struct member *member)
{
	if (member->proxy) {
		workload_stop(member->proxy);
		member_report("stopped", member, "");
	}
	member->proxy = NULL;
	if (member->netns >= 0)
		close(member->netns);
	member->netns = -1;
}
