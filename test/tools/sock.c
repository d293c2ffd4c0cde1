// SPDX-License-Identifier: Apache-2.0
/* sock: the network client and server of the tests. Reports JSON lines; what the network refuses is
 * reported with exit code 0, misuse ends with exit code 2.
 */
#include "sock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char usage[] =
	"usage: sock serve [--port N]... [--bind ADDR] [--v6only] [--reuseport] [--name NAME]\n"
	"                  [--wait MS] [--tcp-listen-mptcp]\n"
	"       sock connect HOST PORT [--timeout MS] [--http | --silent] [--hbone IP:PORT]\n"
	"                  [--no-read] [--send TEXT] [--hold MS] [--count N] [--bind ADDR[:PORT]]\n"
	"                  [--reuseaddr] [--transparent] [--device IF] [--mark N] [--uid N] [--gid "
	"N]\n"
	"                  [--netns PATH] [--mptcp] [--v6-mapped] [--wait-stdin] [--disconnect]\n"
	"                  [--nonblock | --fastopen | --fastopen-connect | --io-uring |\n"
	"                  --io-uring-async] [--freebind] [--first-hop IP] [--recycled]\n"
	"                  [--passed-from NETNS] [--passed-cgroup DIR] [--expect TEXT]\n"
	"       sock churn HOST PORT [--timeout MS] [--expect TEXT] [--workers N] [--pause MS]\n"
	"       sock redial HOST PORT [--timeout MS] [--pause MS]\n"
	"       sock sink [--port N] [--processes N]\n"
	"       sock udp HOST[:PORT]... [--name NAME] [--aaaa] [--connected] [--disconnect]\n"
	"                  [--mmsg | --io-uring] [--tcp] [--tcp-if-truncated] [--device IF]\n"
	"                  [--bind ADDR[:PORT]] [--timeout MS]\n"
	"       sock raw HOST PORT\n"
	"       sock flood HOST PORT [--count N] [--bind ADDR] [--disconnect]\n"
	"       sock syn-flood HOST PORT --from ADDR [--sources N] [--pause MS] [--count N]\n"
	"       sock frame IF HEX... [--ip] [--protocol N] [--repeat N]\n"
	"       sock shortcuts\n"
	"       sock sniff IF\n"
	"       sock bpf PIN\n";

bool fail(struct failure *failure, const char *at)
{
	failure->at = at;
	failure->error = error_name(errno);
	return false;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "serve", serve },
	{ "connect", connect_command },
	{ "churn", churn },
	{ "redial", redial },
	{ "sink", sink },
	{ "udp", dns },
	{ "dns", dns },
	{ "raw", raw },
	{ "flood", flood },
	{ "syn-flood", syn_flood },
	{ "frame", frame },
	{ "shortcuts", shortcuts },
	{ "sniff", sniff },
	{ "bpf", bpf_calls },
};

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	raise_nofile();
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(*commands); i++) {
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	}
	misuse("no such command");
}
