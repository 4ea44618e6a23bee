/* Accepting connections, one thread for all addresses.
 *
 *   accepted --its first bytes are HTTP/2's preface--> handed on --gRPC closes the socket--> forgotten
 *      |-- other bytes, none for --stall-timeout, or its end --> closed
 *      '-- as many as may be --> closed at once, counted
 *
 * Happy path: a connection waits in this thread's epoll set until its client has said what every HTTP/2 client says
 * first. It is looked at without being read, and the socket is gRPC's from then on. The table of connections is indexed
 * by descriptor. One that was handed on has ended when its descriptor is no longer that socket, which is looked up when
 * it matters: a second descriptor on the same socket, to be told of the end, would keep gRPC's epoll set from letting
 * go of it.
 *
 * How it fails: where the machine has no descriptor or memory for a connection, accepting pauses and tries again; those
 * that wait stay in the kernel's queue. What is refused is logged, in one line for all of a few seconds. */
#include "rpc/accept.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/env.h"
#include "base/log.h"
#include "rpc/listen.h"

#define FILES_BESIDE 256    /* descriptors that the process needs for all but connections */
#define ACCEPTS_AT_ONCE 64  /* from one socket, before others have their turn */
#define EVENTS_AT_ONCE 64   /* of epoll */
#define PAUSE_MS 100        /* after an accept that failed */
#define TICK_MS 250         /* how often silent connections are looked for */
#define REPORT_MS 5000      /* between two lines about what was refused */
#define RECOUNT_MS 10       /* between two looks at all connections, while there are as many as may be */
#define SILENT_MS_MAX 10000 /* a connection says something by then, however long --stall-timeout is */
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PREFACE_LEN (sizeof(PREFACE) - 1)

enum state {
  STATE_NONE,    /* no connection has this descriptor */
  STATE_WAITING, /* for its first bytes */
  STATE_GIVEN,   /* handed on */
};

struct connection {
  enum state state;
  ino_t inode;          /* of the socket */
  uint64_t accepted_ms; /* when */
};

/* What was refused since the last line in the log. By the thread. */
struct report {
  uint64_t beyond;      /* there were as many connections as may be */
  uint64_t other;       /* did not begin with HTTP/2's preface */
  uint64_t silent;      /* said nothing */
  uint64_t failed;      /* accepts that failed */
  int error;            /* the last one's */
  uint64_t reported_ms; /* when the last line was */
};

struct esp_accept {
  struct esp_accept_options options; /* listen is not kept */
  struct esp_listener *listeners;    /* one an address */
  size_t listeners_len;
  const char **addresses; /* of the listeners */
  int epoll;
  int wake; /* eventfd: the thread is to end */
  pthread_t thread;
  bool has_thread;
  _Atomic bool is_ending;
  uint64_t paused_ms; /* by the thread: when accepting was paused, 0 while it goes on */
  uint64_t ticked_ms; /* by the thread: the last look at silent connections */
  struct report report;
  pthread_mutex_t mutex;    /* of what follows */
  struct connection *by_fd; /* the place is the descriptor */
  size_t by_fd_len;         /* places that may be used */
  size_t capacity;          /* of by_fd */
  uint64_t connections;     /* that are not STATE_NONE */
  uint64_t recounted_ms;    /* the last look at all */
  uint64_t refused;         /* of the stat */
};

static uint64_t now_ms(void) {
  const struct esp_env *env = esp_env_system();
  return env->now_ms(env->data);
}

/* ---- the table, under the mutex ---- */

static void forget(struct esp_accept *accept, int fd) {
  accept->by_fd[fd].state = STATE_NONE;
  accept->connections--;
}

static bool inode_of(int fd, ino_t *ret) {
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISSOCK(info.st_mode))
    return false;
  *ret = info.st_ino;
  return true;
}

/* Forgets the connections whose sockets gRPC has closed. */
static void recount(struct esp_accept *accept) {
  for (size_t fd = 0; fd < accept->by_fd_len; fd++) {
    ino_t inode;
    if (accept->by_fd[fd].state == STATE_GIVEN && (!inode_of((int)fd, &inode) || inode != accept->by_fd[fd].inode))
      forget(accept, (int)fd);
  }
}

/* Whether there is room for one more. Many may ask in a row while there is none, and each look costs a system call a
 * connection. */
static bool has_room(struct esp_accept *accept, uint64_t now) {
  if (accept->connections >= accept->options.connections_max && now >= accept->recounted_ms + RECOUNT_MS) {
    accept->recounted_ms = now;
    recount(accept);
  }
  return accept->connections < accept->options.connections_max;
}

/* Makes a place for the descriptor; false without memory. */
static bool make_place(struct esp_accept *accept, int fd) {
  size_t len = (size_t)fd + 1;
  if (len <= accept->by_fd_len)
    return true;
  if (!esp_grow((void **)&accept->by_fd, &accept->capacity, len, sizeof(*accept->by_fd)))
    return false;
  memset(accept->by_fd + accept->by_fd_len, 0, (len - accept->by_fd_len) * sizeof(*accept->by_fd));
  accept->by_fd_len = len;
  return true;
}

/* Adds a connection that was accepted; false, counted, where there is no room. */
static bool remember(struct esp_accept *accept, int fd, uint64_t now) {
  struct connection connection = {.state = STATE_WAITING, .accepted_ms = now};
  pthread_mutex_lock(&accept->mutex);
  bool ok = make_place(accept, fd) && inode_of(fd, &connection.inode);
  if (ok && accept->by_fd[fd].state != STATE_NONE)
    forget(accept, fd); /* gRPC has closed it, or the descriptor would not be free */
  ok = ok && has_room(accept, now);
  if (ok) {
    accept->by_fd[fd] = connection;
    accept->connections++;
  } else {
    accept->refused++;
  }
  pthread_mutex_unlock(&accept->mutex);
  return ok;
}

void esp_accept_stat(struct esp_accept *accept, struct esp_accept_stat *ret) {
  pthread_mutex_lock(&accept->mutex);
  recount(accept);
  *ret = (struct esp_accept_stat){accept->connections, accept->options.connections_max, accept->refused};
  pthread_mutex_unlock(&accept->mutex);
}

/* ---- connections that wait ---- */

/* Closes one that was not handed on. */
static void drop(struct esp_accept *accept, int fd) {
  pthread_mutex_lock(&accept->mutex);
  ESP_CHECK(accept->by_fd[fd].state == STATE_WAITING);
  forget(accept, fd);
  pthread_mutex_unlock(&accept->mutex);
  close(fd); /* which takes it out of the epoll set */
}

static void hand_on(struct esp_accept *accept, int fd) {
  pthread_mutex_lock(&accept->mutex);
  accept->by_fd[fd].state = STATE_GIVEN;
  pthread_mutex_unlock(&accept->mutex);
  ESP_CHECK(epoll_ctl(accept->epoll, EPOLL_CTL_DEL, fd, NULL) == 0);
  accept->options.connected(accept->options.data, fd);
}

/* Looks at the first bytes, without taking them. */
static void look(struct esp_accept *accept, int fd) {
  char bytes[PREFACE_LEN];
  ssize_t len = recv(fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
  if (len < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (len <= 0) {
    drop(accept, fd);
  } else if (memcmp(bytes, PREFACE, (size_t)len) != 0) {
    accept->report.other++;
    drop(accept, fd);
  } else if ((size_t)len == PREFACE_LEN) {
    hand_on(accept, fd);
  }
}

/* Closes those that were accepted before that time and wait still; returns how many. */
static uint64_t drop_waiting(struct esp_accept *accept, uint64_t before_ms) {
  uint64_t dropped = 0;
  pthread_mutex_lock(&accept->mutex);
  for (size_t fd = 0; fd < accept->by_fd_len; fd++)
    if (accept->by_fd[fd].state == STATE_WAITING && accept->by_fd[fd].accepted_ms < before_ms) {
      forget(accept, (int)fd);
      close((int)fd);
      dropped++;
    }
  pthread_mutex_unlock(&accept->mutex);
  return dropped;
}

static void drop_silent(struct esp_accept *accept, uint64_t now) {
  uint64_t most_ms = accept->options.stall_timeout_ms;
  most_ms = most_ms == 0 || most_ms > SILENT_MS_MAX ? SILENT_MS_MAX : most_ms;
  if (now > most_ms)
    accept->report.silent += drop_waiting(accept, now - most_ms);
}

/* ---- accepting ---- */

/* Listens for connections or, while that is paused, does not. */
static void watch_listeners(struct esp_accept *accept, int operation, uint32_t events) {
  for (size_t i = 0; i < accept->listeners_len; i++)
    for (size_t j = 0; j < accept->listeners[i].fds_len; j++) {
      int fd = accept->listeners[i].fds[j];
      ESP_CHECK(epoll_ctl(accept->epoll, operation, fd, &(struct epoll_event){.events = events, .data.fd = fd}) == 0);
    }
}

static void pause_accepting(struct esp_accept *accept, int error) {
  accept->report.failed++;
  accept->report.error = error;
  accept->paused_ms = now_ms();
  watch_listeners(accept, EPOLL_CTL_MOD, 0);
}

/* Takes a connection in. */
static void take(struct esp_accept *accept, int fd) {
  if (!remember(accept, fd, now_ms())) {
    accept->report.beyond++;
    close(fd);
    return;
  }
  /* Edges: one that has sent a part of the preface is not looked at again before it sends more. */
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = fd};
  if (epoll_ctl(accept->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    int error = errno;
    drop(accept, fd);
    pause_accepting(accept, error);
  }
}

static void accept_from(struct esp_accept *accept, int listener) {
  for (unsigned i = 0; i < ACCEPTS_AT_ONCE && accept->paused_ms == 0; i++) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
      take(accept, fd);
    else if (errno == EAGAIN)
      return;
    else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
      pause_accepting(accept, errno);
    /* else the connection has broken while it waited */
  }
}

static bool is_listener(const struct esp_accept *accept, int fd) {
  for (size_t i = 0; i < accept->listeners_len; i++)
    for (size_t j = 0; j < accept->listeners[i].fds_len; j++)
      if (accept->listeners[i].fds[j] == fd)
        return true;
  return false;
}

/* ---- the thread ---- */

/* One line at once, and then one for all of the next seconds. */
static void log_refused(struct esp_accept *accept, uint64_t now) {
  struct report *report = &accept->report;
  bool is_due = report->reported_ms == 0 || now >= report->reported_ms + REPORT_MS;
  if (!is_due || report->beyond + report->other + report->silent + report->failed == 0)
    return;
  if (report->beyond > 0)
    esp_log(ESP_LOG_WARN, "connections refused: %" PRIu64 ", since there are %" PRIu64 ", which is --max-connections",
            report->beyond, accept->options.connections_max);
  if (report->other + report->silent > 0)
    esp_log(ESP_LOG_WARN,
            "connections closed: %" PRIu64 " that speak no HTTP/2 (or TLS), %" PRIu64 " that said nothing in time",
            report->other, report->silent);
  if (report->failed > 0)
    esp_log(ESP_LOG_WARN, "connections can't be accepted just now: %s", strerror(report->error));
  *report = (struct report){.reported_ms = now};
}

static void tick(struct esp_accept *accept) {
  uint64_t now = now_ms();
  if (accept->paused_ms != 0 && now >= accept->paused_ms + PAUSE_MS) {
    accept->paused_ms = 0;
    watch_listeners(accept, EPOLL_CTL_MOD, EPOLLIN);
  }
  if (now >= accept->ticked_ms + TICK_MS) {
    accept->ticked_ms = now;
    drop_silent(accept, now);
  }
  log_refused(accept, now);
}

static void *run(void *data) {
  struct esp_accept *accept = data;
  struct epoll_event events[EVENTS_AT_ONCE];
  while (!atomic_load(&accept->is_ending)) {
    int len = epoll_wait(accept->epoll, events, EVENTS_AT_ONCE, accept->paused_ms != 0 ? PAUSE_MS : TICK_MS);
    for (int i = 0; i < len; i++) {
      int fd = events[i].data.fd;
      if (is_listener(accept, fd))
        accept_from(accept, fd);
      else if (fd != accept->wake)
        look(accept, fd);
    }
    tick(accept);
  }
  return NULL;
}

/* ---- beginning and end ---- */

/* Lets this process open as many files as the connections need, or takes fewer connections. */
static void raise_limit(struct esp_accept *accept) {
  struct rlimit limit;
  ESP_CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  rlim_t needed = accept->options.connections_max + FILES_BESIDE;
  if (limit.rlim_cur >= needed)
    return;
  limit.rlim_cur = needed < limit.rlim_max ? needed : limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
    ESP_CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_cur >= needed)
    return;
  uint64_t possible = limit.rlim_cur > UINT64_C(2) * FILES_BESIDE ? limit.rlim_cur - FILES_BESIDE : limit.rlim_cur / 2;
  esp_log(ESP_LOG_WARN,
          "--max-connections %" PRIu64 " needs %ju open files, and the limit (ulimit -Hn) is %ju: at most %" PRIu64
          " connections are taken",
          accept->options.connections_max, (uintmax_t)needed, (uintmax_t)limit.rlim_cur, possible);
  accept->options.connections_max = possible;
}

static enum esp_code open_listeners(struct esp_accept *accept, const struct esp_accept_options *options,
                                    struct esp_status *st) {
  accept->listeners = esp_calloc(options->listen_len, sizeof(*accept->listeners));
  accept->addresses = esp_calloc(options->listen_len, sizeof(*accept->addresses));
  if (accept->listeners == NULL || accept->addresses == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for addresses");
  for (size_t i = 0; i < options->listen_len; i++) {
    enum esp_code code = esp_listen_open(options->listen[i], options->user_timeout_ms, &accept->listeners[i], st);
    if (code != ESP_OK)
      return code;
    accept->addresses[accept->listeners_len++] = accept->listeners[i].address;
  }
  return ESP_OK;
}

enum esp_code esp_accept_new(const struct esp_accept_options *options, struct esp_accept **ret, struct esp_status *st) {
  struct esp_accept *accept = esp_calloc(1, sizeof(*accept));
  if (accept == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for connections");
  accept->options = *options;
  pthread_mutex_init(&accept->mutex, NULL);
  accept->epoll = epoll_create1(EPOLL_CLOEXEC);
  accept->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  enum esp_code code = accept->epoll < 0 || accept->wake < 0
                           ? esp_fail(st, ESP_RESOURCE_EXHAUSTED, "can't wait for connections: %s", strerror(errno))
                           : open_listeners(accept, options, st);
  if (code != ESP_OK) {
    esp_accept_free(accept);
    return code;
  }
  raise_limit(accept);
  *ret = accept;
  return ESP_OK;
}

size_t esp_accept_addresses(const struct esp_accept *accept, const char *const **ret) {
  *ret = accept->addresses;
  return accept->listeners_len;
}

enum esp_code esp_accept_start(struct esp_accept *accept, struct esp_status *st) {
  watch_listeners(accept, EPOLL_CTL_ADD, EPOLLIN);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = accept->wake};
  ESP_CHECK(epoll_ctl(accept->epoll, EPOLL_CTL_ADD, accept->wake, &event) == 0);
  if (pthread_create(&accept->thread, NULL, run, accept) != 0)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "can't start a thread");
  accept->has_thread = true;
  return ESP_OK;
}

void esp_accept_stop(struct esp_accept *accept) {
  if (accept->has_thread) {
    atomic_store(&accept->is_ending, true);
    ESP_CHECK(eventfd_write(accept->wake, 1) == 0);
    pthread_join(accept->thread, NULL);
    accept->has_thread = false;
  }
  for (size_t i = 0; i < accept->listeners_len; i++)
    esp_listen_close(&accept->listeners[i]);
  (void)drop_waiting(accept, UINT64_MAX);
}

void esp_accept_free(struct esp_accept *accept) {
  if (accept == NULL)
    return;
  esp_accept_stop(accept);
  for (size_t i = 0; i < accept->listeners_len; i++)
    esp_listen_done(&accept->listeners[i]);
  if (accept->epoll >= 0)
    close(accept->epoll);
  if (accept->wake >= 0)
    close(accept->wake);
  esp_free(accept->listeners);
  esp_free(accept->addresses);
  esp_free(accept->by_fd);
  pthread_mutex_destroy(&accept->mutex);
  esp_free(accept);
}
