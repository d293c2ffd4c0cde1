// SPDX-License-Identifier: Apache-2.0
/* Options, and the main loop: commands on stdin, ZDS, SIGTERM. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "options.h"
#include "standin.h"
#include "zds.h"

#define DEFAULT_MARK 0x539

struct config config = { .name = "ztunnel-standin", .mark = DEFAULT_MARK, .log_fd = STDOUT_FILENO };

const char usage[] =
	"usage: ztunnel-standin [--mark N | --no-mark] [--name NAME] [--log FILE] [--ipv4-only]\n"
	"                       [--shared IP4[,IP6]] [--upstream IP:PORT]\n"
	"                       [--zds PATH [--zds-delay-ack MS] [--zds-mute] [--zds-nack TEXT]]\n";

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

static void set_zds(const char *path)
{
	if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		misuse(path);
	config.zds = path;
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
	CALL("zds", set_zds),
	NUMBER("zds-delay-ack", &config.zds_delay_ms),
	FLAG("zds-mute", &config.zds_mute),
	TEXT("zds-nack", &config.zds_nack),
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

/* For ztunnel's way to end. Before there are threads, which would take the signal. -1: it is not to
 * be read. */
static int open_sigterm(void)
{
	sigset_t signals;

	if (!config.zds)
		return -1;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC);
}

static void loop(int sigterm)
{
	int commands = commands_are_given() ? STDIN_FILENO : -1;

	for (;;) {
		struct pollfd waited[] = {
			{ .fd = sigterm, .events = POLLIN },
			{ .fd = commands, .events = POLLIN },
			{ .fd = zds_fd(), .events = POLLIN },
		};

		if (poll(waited, 3, zds_timeout_ms()) < 0)
			continue;
		if (waited[0].revents)
			drain("SIGTERM");
		if (waited[1].revents)
			read_commands();
		if (config.zds)
			zds_run(waited[2].revents);
	}
}

int main(int argc, char **argv)
{
	int sigterm;

	if (parse_options(options, argc, argv))
		misuse(argv[1]);
	if (config.zds && config.shared)
		misuse("--zds with --shared");
	sigterm = open_sigterm();
	start();
	loop(sigterm);
}
