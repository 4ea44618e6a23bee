/* Connecting a socket.
 *
 * The happy path: an address in figures is resolved at once (a name in a thread of its own, since getaddrinfo knows no
 * deadline), each address is tried in turn with a non-blocking connect and poll, and the first that connects is the
 * answer. It fails with UNAVAILABLE and a sentence that says what to do; a lookup that outlasts the deadline is left to
 * its thread, which frees it. */
#include "client/src/dial.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "client/src/retry.h"

/* How often a wait looks whether it is to stop, which only the closing of a client asks for. */
#define SLICE_MS 50

/* How long a dial may go on. */
struct patience {
  uint64_t deadline_ms;    /* of esp_now_ms */
  const atomic_bool *stop; /* set by another thread */
};

/* The end of the next slice of a wait. */
static uint64_t slice_end(const struct patience *patience) {
  uint64_t end_ms = esp_now_ms() + SLICE_MS;
  return end_ms < patience->deadline_ms ? end_ms : patience->deadline_ms;
}

static bool is_over(const struct patience *patience) {
  return esp_left_ms(patience->deadline_ms) == 0 || atomic_load_explicit(patience->stop, memory_order_relaxed);
}

static enum esp_code fail_dial(const struct esp_address *address, const char *reason, struct esp_status *st) {
  return esp_fail(st, ESP_UNAVAILABLE,
                  "no server at %s (%c%s); start one with espalierd or name it with --server or ESPALIER_SERVER",
                  address->text, tolower((unsigned char)reason[0]), reason + 1);
}

static const char *errno_text(int error) {
  const char *text = strerrordesc_np(error);
  return text == NULL ? "unknown error" : text;
}

/* ---- names ---- */

/* A lookup under way: shared by the thread that does it and the caller that waits, and freed by whichever is last. */
struct lookup {
  pthread_mutex_t mutex;  /* guards what follows */
  pthread_cond_t changed; /* `done` was set */
  unsigned refs;          /* 2 at first */
  bool done;              /* error and list are there */
  int error;              /* of getaddrinfo */
  struct addrinfo *list;  /* owned until the caller takes it */
  char host[256];         /* copied from the address */
  char port[6];           /* likewise */
};

static void lookup_unref(struct lookup *lookup) {
  pthread_mutex_lock(&lookup->mutex);
  bool last = --lookup->refs == 0;
  pthread_mutex_unlock(&lookup->mutex);
  if (!last)
    return;
  if (lookup->list != NULL)
    freeaddrinfo(lookup->list);
  pthread_cond_destroy(&lookup->changed);
  pthread_mutex_destroy(&lookup->mutex);
  esp_free(lookup);
}

static int resolve(const char *host, const char *port, int flags, struct addrinfo **ret) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
  return getaddrinfo(host, port, &hints, ret);
}

static void *lookup_run(void *data) {
  struct lookup *lookup = data;
  struct addrinfo *list = NULL;
  int error = resolve(lookup->host, lookup->port, 0, &list);
  pthread_mutex_lock(&lookup->mutex);
  lookup->error = error;
  lookup->list = error == 0 ? list : NULL;
  lookup->done = true;
  pthread_cond_broadcast(&lookup->changed);
  pthread_mutex_unlock(&lookup->mutex);
  lookup_unref(lookup);
  return NULL;
}

static struct lookup *lookup_start(const struct esp_address *address) {
  struct lookup *lookup = esp_calloc(1, sizeof *lookup);
  if (lookup == NULL)
    return NULL;
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&lookup->changed, &attr);
  pthread_condattr_destroy(&attr);
  pthread_mutex_init(&lookup->mutex, NULL);
  lookup->refs = 2;
  memcpy(lookup->host, address->host, sizeof lookup->host);
  memcpy(lookup->port, address->port, sizeof lookup->port);
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  int error = pthread_create(&thread, &detached, lookup_run, lookup);
  pthread_attr_destroy(&detached);
  if (error != 0) {
    lookup->refs = 1;
    lookup_unref(lookup);
    return NULL;
  }
  return lookup;
}

/* The addresses of a name; NULL with the reason in *ret_reason. */
static struct addrinfo *lookup_name(const struct esp_address *address, const struct patience *patience,
                                    const char **ret_reason) {
  struct lookup *lookup = lookup_start(address);
  if (lookup == NULL) {
    *ret_reason = "out of memory while looking up the name";
    return NULL;
  }
  pthread_mutex_lock(&lookup->mutex);
  while (!lookup->done && !is_over(patience)) {
    uint64_t until_ms = slice_end(patience);
    struct timespec at = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};
    pthread_cond_timedwait(&lookup->changed, &lookup->mutex, &at);
  }
  struct addrinfo *list = lookup->list;
  lookup->list = NULL;
  if (list == NULL)
    *ret_reason = lookup->done ? gai_strerror(lookup->error) : "the lookup of its name timed out";
  pthread_mutex_unlock(&lookup->mutex);
  lookup_unref(lookup);
  return list;
}

/* ---- sockets ---- */

/* A loopback socket whose own port is the one that it dials connects to itself when nobody listens there. */
static bool is_connected_to_itself(int fd) {
  struct sockaddr_storage self = {0}, peer = {0};
  socklen_t self_len = sizeof self, peer_len = sizeof peer;
  return getsockname(fd, (struct sockaddr *)&self, &self_len) == 0 &&
         getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 && self.ss_family != AF_UNIX &&
         self_len == peer_len && memcmp(&self, &peer, self_len) == 0;
}

/* 0, or the errno of the failure. */
static int wait_connected(int fd, const struct patience *patience) {
  for (;;) {
    struct pollfd poller = {.fd = fd, .events = POLLOUT};
    int ready = poll(&poller, 1, (int)esp_left_ms(slice_end(patience)));
    if (ready > 0)
      break;
    if (ready < 0 && errno != EINTR)
      return errno;
    if (is_over(patience))
      return ETIMEDOUT;
  }
  int error = 0;
  socklen_t len = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
    return errno;
  return error;
}

/* A connection on which nothing is sent, as a watch's, learns from the kernel within a minute that its peer's machine
 * is gone. A server that is merely stopped is not: its kernel answers. */
static int set_options(int fd) {
  const struct {
    int level;
    int option;
    int value;
  } options[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                 {IPPROTO_TCP, TCP_KEEPIDLE, 30},
                 {IPPROTO_TCP, TCP_KEEPINTVL, 10},
                 {IPPROTO_TCP, TCP_KEEPCNT, 3},
                 {IPPROTO_TCP, TCP_NODELAY, 1}};
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
    if (setsockopt(fd, options[i].level, options[i].option, &options[i].value, sizeof options[i].value) != 0)
      return errno;
  return 0;
}

/* 0 and *ret_fd, or the errno of the failure. */
static int connect_one(const struct sockaddr *to, socklen_t to_len, const struct patience *patience, int *ret_fd) {
  int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return errno;
  int error = connect(fd, to, to_len) == 0 ? 0 : errno;
  if (error == EINPROGRESS || error == EINTR)
    error = wait_connected(fd, patience);
  if (error == 0 && is_connected_to_itself(fd))
    error = ECONNREFUSED;
  if (error == 0 && to->sa_family != AF_UNIX)
    error = set_options(fd);
  if (error != 0) {
    close(fd);
    return error;
  }
  *ret_fd = fd;
  return 0;
}

static enum esp_code dial_unix(const struct esp_address *address, const struct patience *patience, int *ret_fd,
                               struct esp_status *st) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  memcpy(to.sun_path, address->path, strlen(address->path) + 1);
  int error = connect_one((const struct sockaddr *)&to, sizeof to, patience, ret_fd);
  if (error == EACCES)
    return esp_fail(st, ESP_PERMISSION_DENIED,
                    "%s can't be opened (permission denied); its owner is the user that the server runs as",
                    address->text);
  return error == 0 ? ESP_OK : fail_dial(address, errno_text(error), st);
}

static enum esp_code dial_list(const struct esp_address *address, const struct addrinfo *list,
                               const struct patience *patience, int *ret_fd, struct esp_status *st) {
  int error = EADDRNOTAVAIL;
  unsigned left = 0;
  for (const struct addrinfo *at = list; at != NULL; at = at->ai_next)
    left++;
  for (const struct addrinfo *at = list; at != NULL; at = at->ai_next, left--) {
    struct patience share = {.deadline_ms = esp_now_ms() + esp_left_ms(patience->deadline_ms) / left,
                             .stop = patience->stop};
    error = connect_one(at->ai_addr, at->ai_addrlen, &share, ret_fd);
    if (error == 0)
      return ESP_OK;
  }
  return fail_dial(address, errno_text(error), st);
}

enum esp_code esp_dial(const struct esp_address *address, uint64_t deadline_ms, const atomic_bool *stop, int *ret_fd,
                       struct esp_status *st) {
  struct patience patience = {.deadline_ms = deadline_ms, .stop = stop};
  if (address->path[0] != 0)
    return dial_unix(address, &patience, ret_fd, st);
  struct addrinfo *list = NULL;
  const char *reason = "its name has no address";
  if (resolve(address->host, address->port, AI_NUMERICHOST, &list) != 0)
    list = lookup_name(address, &patience, &reason);
  if (list == NULL)
    return fail_dial(address, reason, st);
  enum esp_code code = dial_list(address, list, &patience, ret_fd, st);
  freeaddrinfo(list);
  return code;
}
