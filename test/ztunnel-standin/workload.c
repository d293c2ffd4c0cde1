// SPDX-License-Identifier: Apache-2.0
/* The workloads. Only the main thread changes their list. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "standin.h"

static struct workload *workloads;

/* Where `path`, or else the end, is in the list. */
static struct workload **find(const char *path)
{
	struct workload **at = &workloads;

	while (*at && strcmp((*at)->path, path))
		at = &(*at)->next;
	return at;
}

struct workload *workload_start(const char *path, const char *uid, int netns, int *error)
{
	struct workload *workload = calloc(1, sizeof(*workload));

	workload->path = strdup(path);
	workload->uid = uid ? strdup(uid) : NULL;
	workload->netns = netns;
	workload->refs = 1;
	workload->next = workloads;
	workloads = workload;
	*error = listeners_start(workload);
	if (!*error)
		return workload;
	workload_stop(workload);
	return NULL;
}

void workload_stop(struct workload *workload)
{
	struct workload **at = &workloads;

	while (*at != workload)
		at = &(*at)->next;
	*at = workload->next;
	listeners_close(workload);
	conns_end(workload);
}

const char *workload_add(const char *path)
{
	int netns, error;

	if (*find(path))
		return "added already";
	netns = config.shared ? own_netns() : open(path, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return error_name(errno);
	workload_start(path, NULL, netns, &error);
	return error_name(error);
}

const char *workload_del(const char *path)
{
	struct workload *workload = *find(path);

	if (!workload)
		return "not added";
	workload_stop(workload);
	return "";
}

void workload_set_mode(enum mode wanted)
{
	listener_mode = wanted;
	for (struct workload *workload = workloads; workload; workload = workload->next)
		listeners_wake(workload);
}

void workload_close_listeners(void)
{
	for (struct workload *workload = workloads; workload; workload = workload->next)
		listeners_close(workload);
}
