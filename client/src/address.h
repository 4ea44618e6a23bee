/* The names of servers: "host:port", "host", "[::1]:port", "unix:/path". Pure functions. */
#ifndef ESP_CLIENT_ADDRESS_H
#define ESP_CLIENT_ADDRESS_H

#include <espalier/status.h>

#include <stdbool.h>

#define ESP_ADDRESS_DEFAULT "127.0.0.1:7433"
#define ESP_ADDRESS_TEXT_MAX 300 /* a host name has at most 253 bytes */
#define ESP_UNIX_PATH_MAX 108    /* sun_path, its NUL included */

struct esp_address {
  char text[ESP_ADDRESS_TEXT_MAX]; /* as it is shown to people, with the port */
  char host[256];                  /* "" for a Unix socket; without brackets */
  char port[6];                    /* decimal */
  char path[ESP_UNIX_PATH_MAX];    /* "" for TCP */
};

/* INVALID_ARGUMENT says what is wrong with the text. */
enum esp_code esp_address_parse(const char *text, struct esp_address *ret, struct esp_status *st) ESP_WARN_UNUSED;

#endif
