/* Parsing the name of a server.
 *
 * The happy path: a prefix "unix:" makes it a path, otherwise the last colon outside of brackets divides host and port,
 * and a missing port is 7433. It fails with INVALID_ARGUMENT where a part is empty, too long or no number. */
#include "client/src/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_DEFAULT "7433"

static enum esp_code fail_address(const char *text, const char *problem, struct esp_status *st) {
  return esp_fail(st, ESP_INVALID_ARGUMENT,
                  "\"%.300s\" is no server address: %s; write host:port, [ipv6]:port or unix:/path", text, problem);
}

static enum esp_code parse_unix(const char *text, struct esp_address *address, struct esp_status *st) {
  const char *path = text + strlen("unix:");
  if (strncmp(path, "//", 2) == 0)
    path += 2;
  if (path[0] == 0)
    return fail_address(text, "the path is empty", st);
  if (strlen(path) >= sizeof address->path)
    return fail_address(text, "the path of a Unix socket has at most 107 bytes", st);
  memcpy(address->path, path, strlen(path) + 1);
  snprintf(address->text, sizeof address->text, "unix:%s", path);
  return ESP_OK;
}

/* Finds host and port in the text; an absent port is the default. */
static const char *split_host(const char *text, const char **ret_host, size_t *ret_host_len, const char **ret_port) {
  const char *end = text + strlen(text);
  *ret_port = PORT_DEFAULT;
  if (text[0] == '[') {
    end = strchr(text, ']');
    if (end == NULL)
      return "the bracket is not closed";
    if (end[1] == ':')
      *ret_port = end + 2;
    else if (end[1] != 0)
      return "after the bracket comes a colon and the port";
    text++;
  } else {
    const char *colon = strchr(text, ':');
    if (colon != NULL && strchr(colon + 1, ':') != NULL)
      return "an IPv6 address needs brackets";
    if (colon != NULL) {
      end = colon;
      *ret_port = colon + 1;
    }
  }
  *ret_host = text;
  *ret_host_len = (size_t)(end - text);
  return NULL;
}

static bool port_is_valid(const char *port) {
  size_t len = strlen(port);
  if (len == 0 || len > 5 || strspn(port, "0123456789") != len)
    return false;
  unsigned long value = strtoul(port, NULL, 10);
  return value >= 1 && value <= 65535;
}

enum esp_code esp_address_parse(const char *text, struct esp_address *ret, struct esp_status *st) {
  struct esp_address address = {0};
  if (strncmp(text, "unix:", 5) == 0) {
    enum esp_code code = parse_unix(text, &address, st);
    if (code == ESP_OK)
      *ret = address;
    return code;
  }
  const char *host, *port;
  size_t host_len;
  const char *problem = split_host(text, &host, &host_len, &port);
  if (problem != NULL)
    return fail_address(text, problem, st);
  if (host_len == 0 || strcspn(host, " \t/") < host_len)
    return fail_address(text, host_len == 0 ? "the host is empty" : "a host has no blanks or slashes", st);
  if (host_len >= sizeof address.host)
    return fail_address(text, "the host has more than 255 bytes", st);
  if (!port_is_valid(port))
    return fail_address(text, "the port is a number from 1 to 65535", st);
  memcpy(address.host, host, host_len);
  memcpy(address.port, port, strlen(port) + 1);
  snprintf(address.text, sizeof address.text, text[0] == '[' ? "[%s]:%s" : "%s:%s", address.host, address.port);
  *ret = address;
  return ESP_OK;
}
