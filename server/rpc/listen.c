/* Which addresses may be listened on, and the sockets that do; keeping two servers off one port or Unix socket.
 *
 * An address is taken apart by hand, so that no name is looked up that was never meant as such, and "unix:" needs
 * something behind it. How it fails: whatever can't be bound is a status that names the address, and what was opened
 * for it is closed. */
#include "rpc/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "rpc/rpc.h"

#define HOST_BYTES_MAX 255

const char *esp_listen_unix_path(const char *address) {
  return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

static enum esp_code check_unix(const char *path, struct esp_status *st) {
  size_t len_max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
  if (path[0] == '\0')
    return esp_fail(st, ESP_INVALID_ARGUMENT, "\"unix:\" needs the path of a socket behind it");
  if (strlen(path) > len_max)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the path of a Unix socket has %zu bytes at most, \"%.*s...\" has %zu",
                    len_max, 32, path, strlen(path));
  return ESP_OK;
}

static bool is_port(const char *text) {
  size_t len = strspn(text, "0123456789");
  if (len == 0 || len > 5 || text[len] != '\0')
    return false;
  unsigned port = 0;
  for (size_t i = 0; i < len; i++)
    port = port * 10 + (unsigned)(text[i] - '0');
  return port <= 65535;
}

static bool is_host_name(const char *host) {
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
  return host[0] != '\0' && host[strspn(host, allowed)] == '\0';
}

/* Copies the host of HOST:PORT or [HOST]:PORT; false for what is neither. */
static bool take_host(const char *address, char host[HOST_BYTES_MAX + 1], bool *ret_bracketed) {
  const char *colon = strrchr(address, ':');
  if (colon == NULL || !is_port(colon + 1))
    return false;
  *ret_bracketed = address[0] == '[';
  const char *first = address + *ret_bracketed;
  const char *end = colon - *ret_bracketed;
  if (end <= first || end - first > HOST_BYTES_MAX || (*ret_bracketed && *end != ']'))
    return false;
  memcpy(host, first, (size_t)(end - first));
  host[end - first] = '\0';
  return true;
}

enum esp_code esp_listen_check(const char *address, bool insecure, struct esp_status *st) {
  const char *path = esp_listen_unix_path(address);
  if (path != NULL)
    return check_unix(path, st);
  char host[HOST_BYTES_MAX + 1];
  bool bracketed = false;
  struct in_addr v4;
  struct in6_addr v6;
  bool is_address = take_host(address, host, &bracketed);
  if (!is_address || (bracketed ? inet_pton(AF_INET6, host, &v6) != 1 : !is_host_name(host)))
    return esp_fail(st, ESP_INVALID_ARGUMENT, "\"%.255s\" is no address: expected HOST:PORT, [IPV6]:PORT or unix:PATH",
                    address);
  bool is_loopback = bracketed ? IN6_IS_ADDR_LOOPBACK(&v6)
                               : strcmp(host, "localhost") == 0 ||
                                     (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
  if (!is_loopback && !insecure)
    return esp_fail(st, ESP_FAILED_PRECONDITION,
                    "listening on %.255s without encryption would open the server to the network: use a loopback "
                    "address or a Unix socket, or pass --insecure",
                    address);
  return ESP_OK;
}

/* Whether somebody listens on the socket. */
static bool is_served(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, path, strlen(path) + 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return true;
  /* A full backlog is a listener, too. */
  bool served = connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 || errno != ECONNREFUSED;
  close(fd);
  return served;
}

enum esp_code esp_listen_clear(const char *path, struct esp_status *st) {
  struct stat info;
  if (lstat(path, &info) != 0)
    return errno == ENOENT ? ESP_OK
                           : esp_fail(st, ESP_UNAVAILABLE, "can't listen on unix:%s: %s", path, strerror(errno));
  if (!S_ISSOCK(info.st_mode))
    return esp_fail(st, ESP_UNAVAILABLE, "can't listen on unix:%s: there is a file of that name which is no socket",
                    path);
  if (is_served(path))
    return esp_fail(st, ESP_UNAVAILABLE, "can't listen on unix:%s: another server listens there", path);
  if (unlink(path) != 0)
    return esp_fail(st, ESP_UNAVAILABLE, "can't remove the stale socket %s: %s", path, strerror(errno));
  return ESP_OK;
}

/* ---- sockets ---- */

static enum esp_code fail(struct esp_status *st, const char *address, const char *why) {
  return esp_fail(st, ESP_UNAVAILABLE, "can't listen on %s: %s", address, why);
}

/* A socket that listens, or -1 with errno. */
static int open_socket(const struct sockaddr *address, socklen_t address_len, uint64_t user_timeout_ms) {
  int on = 1, off = 0;
  unsigned timeout = user_timeout_ms > INT32_MAX ? INT32_MAX : (unsigned)user_timeout_ms;
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -1;
  /* The connections inherit these. Without reuse a server could not come back while old connections fade away. */
  bool ok =
      address->sa_family == AF_UNIX || (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
                                        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0 &&
                                        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout)) == 0);
  if (address->sa_family == AF_INET6) /* [::] takes IPv4, too, whatever the machine's default */
    ok = ok && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) == 0;
  if (ok && bind(fd, address, address_len) == 0 && listen(fd, SOMAXCONN) == 0)
    return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

static in_port_t *port_of(struct sockaddr *address) {
  return address->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port
                                        : &((struct sockaddr_in *)address)->sin_port;
}

/* Of a socket that is bound, in network byte order. */
static in_port_t bound_port(int fd) {
  struct sockaddr_storage bound = {0};
  socklen_t len = sizeof(bound);
  ESP_CHECK(getsockname(fd, (struct sockaddr *)&bound, &len) == 0);
  return *port_of((struct sockaddr *)&bound); /* NOLINT(*.UndefReturn): getsockname wrote it */
}

/* Opens a socket for each address of the list, all with one port. An address that the machine does not have is passed
 * over where another can be had; a port that is taken fails. */
static enum esp_code open_all(const struct addrinfo *found, const char *address, uint64_t user_timeout_ms,
                              struct esp_listener *listener, struct esp_status *st) {
  in_port_t port = 0;
  int error = EADDRNOTAVAIL;
  for (; found != NULL && listener->fds_len < ESP_LISTEN_SOCKETS_MAX; found = found->ai_next) {
    if (port != 0)
      *port_of(found->ai_addr) = port;
    int fd = open_socket(found->ai_addr, found->ai_addrlen, user_timeout_ms);
    if (fd >= 0) {
      port = bound_port(fd);
      listener->fds[listener->fds_len++] = fd;
      continue;
    }
    error = errno;
    if (error != EADDRNOTAVAIL && error != EAFNOSUPPORT)
      return fail(st, address, strerror(error));
  }
  return listener->fds_len > 0 ? ESP_OK : fail(st, address, strerror(error));
}

static enum esp_code open_tcp(const char *address, uint64_t user_timeout_ms, struct esp_listener *listener,
                              struct esp_status *st) {
  char host[HOST_BYTES_MAX + 1];
  bool bracketed;
  ESP_CHECK(take_host(address, host, &bracketed));
  const char *port = strrchr(address, ':') + 1;
  struct addrinfo hints = {.ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found = NULL;
  int error = getaddrinfo(host, port, &hints, &found);
  if (error != 0)
    return fail(st, address, gai_strerror(error));
  enum esp_code code = open_all(found, address, user_timeout_ms, listener, st);
  freeaddrinfo(found);
  if (code != ESP_OK)
    return code;
  size_t host_len = (size_t)(port - address), size = host_len + sizeof("65535");
  listener->address = esp_malloc(size);
  if (listener->address == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an address");
  (void)snprintf(listener->address, size, "%.*s%d", (int)host_len, address, ntohs(bound_port(listener->fds[0])));
  return ESP_OK;
}

static enum esp_code open_unix(const char *address, struct esp_listener *listener, struct esp_status *st) {
  const char *path = esp_listen_unix_path(address);
  enum esp_code code = esp_listen_clear(path, st);
  if (code != ESP_OK)
    return code;
  struct sockaddr_un bound = {.sun_family = AF_UNIX};
  memcpy(bound.sun_path, path, strlen(path) + 1);
  /* The file must never be there with more rights than it is to have. */
  mode_t before = umask(0177);
  int fd = open_socket((const struct sockaddr *)&bound, sizeof(bound), 0);
  umask(before);
  if (fd < 0)
    return fail(st, address, strerror(errno));
  listener->fds[listener->fds_len++] = fd;
  listener->address = esp_strdup(address);
  if (listener->address != NULL)
    return ESP_OK;
  (void)unlink(path);
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an address");
}

enum esp_code esp_listen_open(const char *address, uint64_t user_timeout_ms, struct esp_listener *ret,
                              struct esp_status *st) {
  struct esp_listener listener = {0};
  enum esp_code code = esp_listen_unix_path(address) != NULL ? open_unix(address, &listener, st)
                                                             : open_tcp(address, user_timeout_ms, &listener, st);
  if (code == ESP_OK)
    *ret = listener;
  else
    esp_listen_done(&listener);
  return code;
}

void esp_listen_close(struct esp_listener *listener) {
  const char *path = listener->address == NULL ? NULL : esp_listen_unix_path(listener->address);
  if (path != NULL && listener->fds_len > 0)
    (void)unlink(path); /* before the close: whoever finds it gone afterwards takes over without a race */
  for (size_t i = 0; i < listener->fds_len; i++)
    close(listener->fds[i]);
  listener->fds_len = 0;
}

void esp_listen_done(struct esp_listener *listener) {
  esp_listen_close(listener);
  esp_free(listener->address);
  listener->address = NULL;
}

/* ---- the other end ---- */

static bool name_peer(int connection, char *ret, size_t size) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address = {0};
  socklen_t len = sizeof(address);
  char host[INET6_ADDRSTRLEN];
  if (getpeername(connection, &address.any, &len) != 0)
    return false;
  if (address.any.sa_family == AF_UNIX)
    (void)snprintf(ret, size, "unix");
  else if (address.any.sa_family == AF_INET6 && inet_ntop(AF_INET6, &address.v6.sin6_addr, host, sizeof(host)) != NULL)
    (void)snprintf(ret, size, "[%s]:%u", host, ntohs(address.v6.sin6_port));
  else if (address.any.sa_family == AF_INET && inet_ntop(AF_INET, &address.v4.sin_addr, host, sizeof(host)) != NULL)
    (void)snprintf(ret, size, "%s:%u", host, ntohs(address.v4.sin_port));
  else
    return false;
  return true;
}

void esp_listen_peer(int connection, char *ret, size_t size) {
  if (!name_peer(connection, ret, size))
    (void)snprintf(ret, size, "unknown");
}
