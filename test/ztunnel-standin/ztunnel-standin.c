// SPDX-License-Identifier: Apache-2.0
/* Commands on stdin, one a line: add NETNS_PATH, del NETNS_PATH, drain, stall, resume, quit.
 * Each is answered on stdout by {"event":"ack","command":...,"error":""}; the end of stdin is quit.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "standin.h"

#define DEFAULT_MARK 0x539
#define DRAIN_TIMEOUT_MS 5000

struct config config = { .name = "ztunnel-standin", .mark = DEFAULT_MARK, .log_fd = STDOUT_FILENO };

const char usage[] =
	"usage: ztunnel-standin [--mark N | --no-mark] [--name NAME] [--log FILE] [--ipv4-only]\n"
	"                       [--shared IP4[,IP6]] [--upstream IP:PORT]\n";

static void say(const char *event, const char *command, const char *error)
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

static void drain(const char *command)
{
	workload_set_mode(MODE_DRAINING);
	workload_close_listeners();
	say("ack", command, "");
	workload_await_end(DRAIN_TIMEOUT_MS);
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

static void set_shared(const char *list)
{
	char copy[2 * ADDR_TEXT_SIZE] = "";

	config.shared = true;
	strncpy(copy, list, sizeof(copy) - 1);
	for (char *each = strtok(copy, ","); each; each = strtok(NULL, ",")) {
		if (config.self_count == 2)
			misuse(list);
		config.self[config.self_count++] = parse_endpoint(each, 0);
	}
}

static void set_upstream(const char *text)
{
	config.upstream = parse_endpoint(text, 0);
	config.has_upstream = true;
}

static void set_log(const char *path)
{
	config.log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (config.log_fd < 0)
		misuse(path);
}

static const struct option_spec options[] = {
	NUMBER("mark", &config.mark),
	FLAG("no-mark", &config.no_mark),
	TEXT("name", &config.name),
	CALL("log", set_log),
	CALL("shared", set_shared),
	CALL("upstream", set_upstream),
	FLAG("ipv4-only", &config.ipv4_only),
	{ 0 },
};

static void start(void)
{
	const char *error;

	raise_nofile();
	config.home_netns = own_netns();
	error = config.shared ? workload_add("own") : "";
	say("ready", NULL, error);
	if (*error)
		exit(1);
}

int main(int argc, char **argv)
{
	char line[4096];

	if (parse_options(options, argc, argv))
		misuse(argv[1]);
	start();
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		say("ack", line, run(line));
	}
	return 0;
}
