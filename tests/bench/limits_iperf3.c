/* What iperf3 makes of TCP, where it is installed: shows that our own figure of raw TCP is not a lame one. */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/limits.h"

#define PROGRAM "/usr/bin/iperf3"

bool iperf3_is_installed(void) {
  return access(PROGRAM, X_OK) == 0;
}

/* One that is free now: iperf3 can't choose. */
static int free_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof(address);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &len) != 0)
    bench_die("no free port: %s", strerror(errno));
  close(fd);
  return ntohs(address.sin_port);
}

static void start_server(const char *port, struct process *ret) {
  const char *argv[] = {PROGRAM, "--server", "--one-off", "--forceflush", "--port", port, NULL};
  char line[256];
  process_start(ret, argv);
  do
    process_answer(ret, line, sizeof(line));
  while (strstr(line, "listening") == NULL);
}

double iperf3_rate(bool from_server, uint64_t ms) {
  char port[16], seconds[16];
  struct process server, client;
  json_error_t error;
  double bits_s = 0;
  snprintf(port, sizeof(port), "%d", free_port());
  snprintf(seconds, sizeof(seconds), "%d", ms < 1000 ? 1 : (int)(ms / 1000)); /* whole ones, says iperf3 */
  start_server(port, &server);
  const char *argv[] = {
      PROGRAM, "--client", "127.0.0.1", "--port", port, "--time", seconds, "--json", from_server ? "--reverse" : NULL,
      NULL};
  process_start(&client, argv);
  json_t *report = json_loadf(client.from, 0, &error);
  if (report == NULL || json_unpack(report, "{s:{s:{s:F}}}", "end", "sum_received", "bits_per_second", &bits_s) != 0)
    bench_die("iperf3 reports something else");
  json_decref(report);
  process_end(&client, 0);
  process_end(&server, 0);
  return bits_s / 8;
}
