/* How a server and children are started: the same way for every benchmark, so that figures are of one server. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define LINE_BYTES 1024

void server_start(const struct bench_options *options, const char *optimizer, struct process *ret,
                  char ret_address[ADDRESS_MAX]) {
  char group[512], line[LINE_BYTES];
  if ((size_t)snprintf(group, sizeof(group), "--group=default=%s", optimizer) >= sizeof(group))
    bench_die("the optimizer's expression is longer than %zu", sizeof(group));
  /* peers/run.py starts its server with the same. */
  const char *argv[] = {
      options->espalierd, "--listen=127.0.0.1:0", "--log-level=warn", "--max-staged=1GiB", group, NULL};
  process_start(ret, argv);
  process_answer(ret, line, sizeof(line));
  if (sscanf(line, "espalierd %*s ready on %255s", ret_address) != 1)
    bench_die("the server says %s", line);
}

unsigned server_threads(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0)
    bench_die("the number of cores can't be read: %s", strerror(errno));
  return (unsigned)CPU_COUNT(&set);
}

void child_start(const char *command, const char *address, const char *option, struct process *ret,
                 char ret_address[ADDRESS_MAX]) {
  char self[4096], server[ADDRESS_MAX + 16], line[LINE_BYTES], unused[ADDRESS_MAX];
  ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
  if (len <= 0)
    bench_die("this program does not find itself");
  self[len] = '\0';
  snprintf(server, sizeof(server), "--server=%s", address == NULL ? "" : address);
  const char *argv[] = {self, command, address == NULL ? NULL : server, option, NULL};
  process_start(ret, argv);
  process_answer(ret, line, sizeof(line));
  int words = sscanf(line, "ready %255s", ret_address == NULL ? unused : ret_address);
  if (ret_address == NULL ? strcmp(line, "ready") != 0 : words != 1)
    bench_die("%s says %s", command, line);
}

void child_ready(const char *address) {
  printf("ready%s%s\n", address == NULL ? "" : " ", address == NULL ? "" : address);
  fflush(stdout);
}
