/* Which addresses may be listened on, and keeping two servers off one Unix socket.
 *
 * An address is taken apart by hand, since gRPC's own parser would take "unix:" with nothing behind it, resolve names
 * that were never meant as such, and bind whatever it finds. */
#include "rpc/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

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
