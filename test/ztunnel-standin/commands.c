// SPDX-License-Identifier: Apache-2.0
/* Commands on stdin, one a line: add NETNS_PATH, del NETNS_PATH, drain, stall, resume, quit.
 * Each is answered on stdout by {"event":"ack","command":...,"error":""}; the end of stdin is quit.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "options.h"
#include "standin.h"
#include "zds.h"

#define DRAIN_TIMEOUT_MS 5000

void say(const char *event, const char *command, const char *error)
{
	struct json json;

	json_open(&json);
	json_str(&json, "event", event);
	json_str(&json, "standin", config.name);
	if (command)
		json_str(&json, "command", command);
	json_str(&json, "error", error);
	json_close(&json);
	json_write(&json, STDOUT_FILENO);
}

static void quit(const char *command)
{
	say("ack", command, "");
	exit(0);
}

void drain(const char *command)
{
	zds_close("drain");
	workload_set_mode(MODE_DRAINING);
	workload_close_listeners();
	say("ack", command, "");
	conns_await_end(DRAIN_TIMEOUT_MS);
	exit(0);
}

/* Gives the error, "" for none. */
static const char *run(const char *command)
{
	if (!strncmp(command, "add /", 5))
		return config.shared ? "shared mode has no workloads" : workload_add(command + 4);
	if (!strncmp(command, "del /", 5))
		return workload_del(command + 4);
	if (!strcmp(command, "drain"))
		drain(command);
	if (!strcmp(command, "quit"))
		quit(command);
	if (strcmp(command, "stall") && strcmp(command, "resume"))
		return "unknown command";
	workload_set_mode(*command == 's' ? MODE_STALLED : MODE_RUNNING);
	return "";
}

bool commands_are_given(void)
{
	struct stat stat;

	return !config.zds || (!fstat(STDIN_FILENO, &stat) && S_ISFIFO(stat.st_mode));
}

void read_commands(void)
{
	static char text[4096];
	static size_t len;
	ssize_t more = read(STDIN_FILENO, text + len, sizeof(text) - 1 - len);
	char *end;

	/* Also when a line is too long. */
	if (more <= 0)
		exit(0);
	len += more;
	text[len] = '\0';
	while ((end = strchr(text, '\n'))) {
		*end++ = '\0';
		say("ack", text, run(text));
		len -= end - text;
		memmove(text, end, len + 1);
	}
}
