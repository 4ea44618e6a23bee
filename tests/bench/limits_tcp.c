/* What TCP allows: blocking sockets between processes, no framing, no work. A pass moves as many bytes as the workload
 * has one way, in calls of PIECE_BYTES, and ends with one byte the other way when all of them have arrived.
 *
 *   push MS, pull MS  ->  NS PASSES P50 P99
 *   ping MS           ->  likewise, of PING_BYTES there and back
 *
 * The pieces are always the same memory, as iperf3's are: in cache, so that nothing but TCP is measured. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/limits.h"

#define PIECE_BYTES ((size_t)1 << 20) /* as the library's messages */

#define PING_BYTES 1024

enum { PUSH = 1, PULL, PING };

struct link {
  int fd;
  size_t bytes; /* of a pass */
  unsigned char piece[PIECE_BYTES];
};

/* ---- bytes ---- */

/* False at the end of the connection. */
static bool take(struct link *link, size_t bytes) {
  while (bytes > 0) {
    ssize_t got = recv(link->fd, link->piece, bytes < PIECE_BYTES ? bytes : PIECE_BYTES, 0);
    if (got == 0)
      return false;
    if (got < 0)
      bench_die("recv: %s", strerror(errno));
    bytes -= (size_t)got;
  }
  return true;
}

static void give(const struct link *link, size_t bytes) {
  while (bytes > 0) {
    ssize_t sent = send(link->fd, link->piece, bytes < PIECE_BYTES ? bytes : PIECE_BYTES, MSG_NOSIGNAL);
    if (sent < 0)
      bench_die("send: %s", strerror(errno));
    bytes -= (size_t)sent;
  }
}

/* A command, or the end of a pass. */
static void say(int fd, unsigned char byte) {
  if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
    bench_die("send: %s", strerror(errno));
}

/* ---- the server ---- */

static void *serve(void *data) {
  struct link *link = data;
  unsigned char command;
  while (recv(link->fd, &command, 1, 0) == 1) {
    if (command == PULL)
      give(link, link->bytes);
    else if (command == PING && take(link, PING_BYTES - 1))
      give(link, PING_BYTES);
    else if (command == PUSH && take(link, link->bytes))
      say(link->fd, PUSH);
  }
  close(link->fd);
  free(link);
  return NULL;
}

static void *serve_all(void *data) {
  const struct link *listener = data;
  for (;;) {
    struct link *link = calloc(1, sizeof(*link));
    pthread_t thread;
    if (link == NULL)
      bench_die("no memory for a connection");
    link->fd = accept(listener->fd, NULL, NULL);
    link->bytes = listener->bytes;
    if (link->fd < 0 || pthread_create(&thread, NULL, serve, link) != 0)
      bench_die("accept: %s", strerror(errno));
    pthread_detach(thread);
  }
}

static int open_socket(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    bench_die("socket: %s", strerror(errno));
  return fd;
}

int limits_tcp_server(const struct bench_options *options) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof(address);
  static struct link listener; /* large */
  pthread_t thread;
  char text[ADDRESS_MAX];
  (void)options;
  listener.fd = open_socket();
  listener.bytes = workload_bytes();
  if (bind(listener.fd, (struct sockaddr *)&address, len) != 0 || listen(listener.fd, WORKERS_MAX) != 0 ||
      getsockname(listener.fd, (struct sockaddr *)&address, &len) != 0)
    bench_die("listen: %s", strerror(errno));
  if (pthread_create(&thread, NULL, serve_all, &listener) != 0)
    bench_die("no thread");
  snprintf(text, sizeof(text), "127.0.0.1:%d", ntohs(address.sin_port));
  child_ready(text);
  while (getchar() != EOF)
    continue;
  _Exit(EXIT_SUCCESS); /* the threads wait for what never comes */
}

/* ---- a worker ---- */

static void push(void *data) {
  struct link *link = data;
  say(link->fd, PUSH);
  give(link, link->bytes);
  if (!take(link, 1))
    bench_die("the server has ended");
}

static void pull(void *data) {
  struct link *link = data;
  say(link->fd, PULL);
  if (!take(link, link->bytes))
    bench_die("the server has ended");
}

static void ping(void *data) {
  struct link *link = data;
  link->piece[0] = PING;
  give(link, PING_BYTES);
  if (!take(link, PING_BYTES))
    bench_die("the server has ended");
}

int limits_tcp_worker(const struct bench_options *options) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  static struct link link; /* large */
  char line[256];
  uint64_t ms;
  link.fd = open_socket();
  link.bytes = workload_bytes();
  address.sin_port = htons((uint16_t)strtoul(strrchr(options->server, ':') + 1, NULL, 10));
  if (connect(link.fd, (struct sockaddr *)&address, sizeof(address)) != 0)
    bench_die("connect: %s", strerror(errno));
  child_ready(NULL);
  while (fgets(line, sizeof(line), stdin) != NULL) {
    if (sscanf(line, "push %" SCNu64, &ms) == 1)
      passes_answer(push, &link, ms, NULL);
    else if (sscanf(line, "pull %" SCNu64, &ms) == 1)
      passes_answer(pull, &link, ms, NULL);
    else if (sscanf(line, "ping %" SCNu64, &ms) == 1)
      passes_answer(ping, &link, ms, NULL);
    else
      bench_die("a worker is asked for %s", line);
  }
  close(link.fd);
  return 0;
}
